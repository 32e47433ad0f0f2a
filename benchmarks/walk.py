"""A walk of many strategies over a year: in one process, in two, and on two Dask workers.

`python -m benchmarks.walk [STRATEGIES] [FILE.parquet]`. Without a file, a year of the seeded random
market is written first. The reports must be equal byte for byte; seconds compare only within a run.
"""

import asyncio
import hashlib
import itertools
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import backtest_kit as bk

BEGIN, END = datetime(2023, 1, 2, tzinfo=UTC), datetime(2023, 12, 30, 23, 59, tzinfo=UTC)


def crossover(fast, slow):
    """A crossover of means, asked every five minutes."""

    def get_signal(symbol, when):
        closes = bk.candles(symbol, "5m", slow + 1).close
        if not (
            closes[-fast:].mean() > closes[1:].mean()
            and closes[-fast - 1 : -1].mean() <= closes[:-1].mean()
        ):
            return None
        price = bk.average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=price * 1.02,
            price_stop_loss=price * 0.99,
            minute_estimated_time=720,
        )

    return {"interval": "5m", "get_signal": get_signal}


def pairs(count):
    every = [(f, s) for f, s in itertools.product(range(5, 60, 2), range(20, 240, 4)) if f < s]
    return every[:: max(1, len(every) // count)][:count]


def walk(path, count, executor, store=None):
    with bk.Engine():
        bk.add_exchange(bk.exchanges.ParquetExchange(path, exchange_name="file"))
        bk.add_frame(frame_name="year", interval="1m", start_date=BEGIN, end_date=END)
        names = []
        for fast, slow in pairs(count):
            names += bk.grid(crossover, fast=[fast], slow=[slow])
        bk.add_walker(walker_name="w", exchange_name="file", frame_name="year", strategies=names)
        began = time.perf_counter()
        bk.Walker.run_sync("BTCUSDT", walker_name="w", executor=executor, store=store)
        walked = time.perf_counter() - began
        report = bk.Walker.get_report("BTCUSDT", walker_name="w")
        return walked, time.perf_counter() - began - walked, report


@contextmanager
def cluster_of(workers):
    import dask
    from distributed import Client, LocalCluster

    with (
        # by default Dask's workers sample their own stacks every 10 ms and their load every 500 ms
        dask.config.set(
            {
                "distributed.worker.profile.enabled": False,
                "distributed.admin.system-monitor.interval": "10s",
                "distributed.admin.tick.interval": "1s",
            }
        ),
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


async def write_year(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    exchange = bk.exchanges.SyntheticExchange(seed=1)
    since = round(BEGIN.timestamp() * 1000) - 86_400_000
    candles = await exchange.get_candles("BTCUSDT", "1m", since, 366 * 1440)
    names = ("timestamp", "open", "high", "low", "close", "volume")
    pq.write_table(pa.table(dict(zip(names, candles.columns(), strict=True))), path)


def print_row(name, first, report, done):
    took, _, same = done
    equal = "the same report" if same == report else "ANOTHER REPORT"
    print(f"{name:16}{took:7.1f} s, {first / took:.2f} times as fast, {equal}")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder, "year.parquet")
        if len(sys.argv) <= 2:
            asyncio.run(write_year(path))
        print(f"{count} strategies over {path.name}")
        first, ranked, report = walk(path, count, None)
        print(f"sequential      {first:7.1f} s, and {ranked:.1f} s for the report")
        print_row("two processes", first, report, walk(path, count, "processes"))
        with cluster_of(2) as executor:
            print_row("two Dask workers", first, report, walk(path, count, executor))
        walk(path, count, "processes", Path(folder, "store"))
        print_row("resumed", first, report, walk(path, count, None, Path(folder, "store")))
        print("report", hashlib.blake2b(report.encode(), digest_size=8).hexdigest())


if __name__ == "__main__":
    main()

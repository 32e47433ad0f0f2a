"""What it takes to rank and report a walk of many strategies, each part in a process of its own.

`python -m benchmarks.ranking [STRATEGIES]`: the trades are random (50 to 700 a strategy over a
year), so nothing is walked. "walking forward" (9 windows) and "15 splits" (6 groups) are
`get_data` of a walk with windows. The page has the curves of all strategies. Seconds are of one
core, memory is the peak of the process above that with the trades alone.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta

import numpy as np

import backtest_kit as bk
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._walker.trial import TrialSetup
from backtest_kit._walker.walk import Walk

BEGIN = datetime(2023, 1, 1, tzinfo=UTC)
MINUTE = 60_000
PARTS = (
    *("trades alone", "get_data", "walking forward", "15 splits", "get_report", "dump", "page"),
    *("all together", "all intervals"),
)
WINDOWS = {
    "walking forward": bk.Windows(train=timedelta(days=90), test=timedelta(days=30)),
    "15 splits": bk.Windows(combinatorial=(6, 2), purge=timedelta(days=1)),
}


class Known:
    """A runner of trials whose results are known."""

    already_known = 0

    def __init__(self, results):
        self.results = results

    async def open(self):
        pass

    async def run(self, index):
        return self.results[index]

    async def close(self):
        pass

    def variants_tried(self):
        return None

    def others_tried(self):
        return ()


def trial(index, span, rng):
    count = int(rng.integers(50, 700))
    opened = np.sort(rng.integers(*span, count)) // MINUTE * MINUTE
    closed = opened + rng.integers(1, 12, count) * 60 * MINUTE
    r, symbol = rng.normal(0.02, 1.0, count), np.zeros(count, np.int64)
    order = np.argsort(closed, kind="stable")
    opened, closed = opened[order], closed[order]
    statistics = summarize(r, opened, closed, span)
    return TrialResult(
        strategy_name=f"crossover(fast={index // 40}, slow={index % 40})",
        symbols=("BTCUSDT",),
        since=span[0],
        until=span[1],
        statistics=statistics,
        by_symbol=(statistics,),
        trades=TradeColumns(r.tobytes(), opened.tobytes(), closed.tobytes(), symbol.tobytes()),
        calls=count,
        complete=True,
    )


def register(engine, count, windows=None):
    """Put a walk into an engine as if it had just ended."""
    bk.add_exchange(bk.exchanges.SyntheticExchange(seed=1))
    bk.add_frame(
        frame_name="f", interval="1m", start_date=BEGIN, end_date=BEGIN + timedelta(days=365)
    )
    frame = engine.frames.get("f")
    rng, span = np.random.default_rng(1), (frame.timeline[0], frame.timeline[-1])
    trials = [trial(index, span, rng) for index in range(count)]
    exchange = engine.exchanges.list()[0]
    schema = bk.WalkerSchema(
        walker_name="w",
        exchange_name=exchange.name,
        frame_name="f",
        strategies=[each.strategy_name for each in trials],
        windows=windows,
    )
    setup = TrialSetup(engine, ("BTCUSDT",), exchange, frame)
    walk = engine.walks["w", ("BTCUSDT",)] = Walk(setup, schema, Known(trials))
    walk.results += trials


def part(name, count, folder):
    """Do one part, and print its seconds and the peak of memory in MB."""
    get = {"symbol": "BTCUSDT", "walker_name": "w"}
    with bk.Engine() as engine:
        register(engine, count, WINDOWS.get(name))
        began = time.process_time()
        if name in ("get_data", *WINDOWS, "page", "all together", "all intervals"):
            data = bk.Walker.get_data(**get)
        if name in ("get_report", "all together"):
            bk.Walker.get_report(**get)
        if name in ("dump", "all together"):
            bk.Walker.dump(**get, path=folder)
        if name in ("page", "all together"):
            data.report(os.path.join(folder, "page.html"))  # noqa: PTH118
        if name == "all intervals":
            data.with_intervals()
        took = time.process_time() - began
    print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    if len(sys.argv) > 2:
        part(sys.argv[2], int(sys.argv[1]), sys.argv[3])
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    print(f"{count:,} strategies, one core")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in PARTS:
            command = [sys.executable, "-m", "benchmarks.ranking", str(count), name, folder]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=os.environ | threads
            )
            found[name] = tuple(map(float, done.stdout.split()))
    for name, (took, peak) in found.items():
        ratio = took / found["all intervals"][0]
        more = peak - found["trades alone"][1]
        print(f"{name:16}{took:7.2f} s ({ratio:.2f} of all intervals){more:8.0f} MB more")


if __name__ == "__main__":
    main()

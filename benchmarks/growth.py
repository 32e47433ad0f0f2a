"""How the time of array strategies grows with bars and with sets of parameters.

`python -m benchmarks.growth [PICTURE.svg]` (the picture needs matplotlib). A trial from a month to
ten years of minutes (the best of five), and walks of 10 to 1,000 sets over a year, in one process.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._arrays.simulation import compile_kernel
from backtest_kit._walker.trial import TrialSetup, run_trial
from benchmarks.arrays import SLOW, strategy
from benchmarks.peers.rules import peak

BEGIN = datetime(2014, 1, 1, tzinfo=UTC)
DAYS = {"a month": 30, "three months": 91, "a year": 365, "three years": 1096, "ten years": 3650}
SETS = (10, 30, 100, 300, 1000)


def market(days):
    source = bk.exchanges.SyntheticExchange(seed=1)
    since = int(BEGIN.timestamp() * 1000) - 86_400_000
    parts = []
    for day in range(0, days + 3, 64):
        count = min(64, days + 3 - day) * 1440
        parts.append(asyncio.run(source.get_candles("X", "1m", since + day * 86_400_000, count)))
    columns = zip(*(part.columns() for part in parts), strict=True)
    return bk.Candles(*(np.concatenate(column) for column in columns))


def frame(days):
    end = BEGIN + timedelta(days=days, minutes=-1)
    return {"frame_name": "f", "interval": "1m", "start_date": BEGIN, "end_date": end}


def bars(repeats):
    """Yield name, number of bars and seconds of a trial."""
    for name, days in DAYS.items():
        with bk.Engine() as engine:
            bk.add_exchange(bk.exchanges.FrameExchange(market(days)))
            schema = bk.StrategySchema(
                strategy_name="s", interval="1m", get_signals=strategy(), warmup=SLOW + 1
            )
            exchange = engine.exchanges.get("frame")
            setup = TrialSetup(engine, ("X",), exchange, bk.FrameSchema(**frame(days)))
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                asyncio.run(run_trial(setup, schema))
                times.append(time.perf_counter() - began)
        yield name, days * 1440, min(times)


def sets():
    """Yield the number of sets and the seconds of a walk over them, over a year."""

    def make(fast, slow):
        if fast >= slow:
            return None
        return {"interval": "1m", "get_signals": strategy(fast, slow), "warmup": slow + 1}

    with bk.Engine():
        bk.add_exchange(bk.exchanges.FrameExchange(market(365)))
        bk.add_frame(**frame(365))
        names = bk.grid(make, fast=range(2, 42), slow=range(45, 145, 4))
        for count in SETS:
            bk.add_walker(
                walker_name=str(count),
                exchange_name="frame",
                frame_name="f",
                strategies=names[:: len(names) // count][:count],
            )
            began = time.perf_counter()
            bk.Walker.run_sync("X", walker_name=str(count))
            yield count, time.perf_counter() - began


def picture(path, by_bars, by_sets):
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, rows, label in zip(
        axes, (by_bars, by_sets), ("minutes", "sets of parameters, over a year"), strict=True
    ):
        x, y = np.array([row[-2:] for row in rows], dtype=float).T
        axis.loglog(x, y, "o-", label="measured")
        middle = len(x) // 2
        axis.loglog(x, y[middle] * x / x[middle], "--", color="grey", label="linear")
        axis.set(xlabel=label, ylabel="seconds")
        axis.legend()
    figure.savefig(path, metadata={"Date": None})


def main():
    compile_kernel()
    by_bars, by_sets = [*bars(5)], [*sets()]
    table = Table(title="array strategies: cost", title_justify="left")
    for name in ("Measured", "Seconds", "Each"):
        table.add_column(name, justify="left" if name == "Measured" else "right")
    for name, count, seconds in by_bars:
        table.add_row(
            f"a trial over {name}", f"{seconds:.4f}", f"{seconds / count * 1e9:.0f} ns a bar"
        )
    for count, seconds in by_sets:
        table.add_row(
            f"a walk over {count:,} sets", f"{seconds:.2f}", f"{seconds / count * 1e3:.1f} ms a set"
        )
    table.add_row("peak memory of the process", f"{peak():,.0f} MB", "")
    Console(width=100).print(table)
    if len(sys.argv) > 1:
        picture(sys.argv[1], by_bars, by_sets)


if __name__ == "__main__":
    main()

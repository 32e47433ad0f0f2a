"""Walks over many sets of parameters of one array strategy, in this process and by workers.

`python -m benchmarks.sweep`. The strategy is that of `benchmarks.arrays`, over a synthetic year of
minutes. Each walk is repeated, in turns with the others, and the shortest time is shown.
"""

import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from benchmarks.arrays import SLOW, START, YEAR, market, strategy
from benchmarks.peers.rules import peak


def make(fast, slow, goal):
    return {"interval": "1m", "get_signals": strategy(fast, slow, goal), "warmup": SLOW + 1}


def register(sets):
    """Register walks over 4 sets, which warms up, and over `sets`, a multiple of 20."""
    bk.add_exchange(bk.exchanges.FrameExchange(market()))
    bk.add_frame(
        frame_name="year",
        interval="1m",
        start_date=START,
        end_date=START + timedelta(minutes=YEAR - 1),
    )
    goals = tuple(np.linspace(0.6, 1.4, sets // 20).tolist())
    names = bk.grid(make, fast=(5, 10, 15, 20, 25), slow=(40, 60, 80, 100), goal=goals)
    for name, members in (("few", names[:4]), ("all", names)):
        bk.add_walker(
            walker_name=name, exchange_name="frame", frame_name="year", strategies=members
        )


def walk(name, executor=None):
    """Return how long a walk took in seconds, and how many trades it found."""
    began = time.perf_counter()
    contracts = bk.Walker.run_sync("X", walker_name=name, executor=executor)
    took = time.perf_counter() - began
    return took, sum(contract.statistics.total_signals for contract in contracts)


def here(sets, repeats):
    """Print trades, shortest time and peak memory of walks in this process."""
    register(sets)
    walk("few")
    times, trades = zip(*(walk("all") for _ in range(repeats)), strict=True)
    print(trades[0], min(times), peak())


def by_workers(sets, repeats):
    """Return the shortest times here, by one worker and by two that are there already."""
    register(sets)
    pools = [ProcessPoolExecutor(n, mp_context=get_context("spawn")) for n in (1, 2)]
    for executor in (None, *pools):
        walk("few" if executor is None else "all", executor)
    times = [[walk("all", executor)[0] for executor in (None, *pools)] for _ in range(repeats)]
    return [min(own) for own in zip(*times, strict=True)]


def main():
    table = Table(title="a crossover over a year of minutes", title_justify="left")
    for column in ("Measured", "Seconds", "Million bars a second", "", "Goal"):
        table.add_column(column, justify="left" if column == "Measured" else "right")

    def row(name, sets, seconds, more="", goal=""):
        rate = sets * YEAR / seconds / 1e6
        table.add_row(f"{sets:,} sets {name}", f"{seconds:.2f}", f"{rate:.0f}", more, goal)

    for sets, repeats in ((100, 5), (1000, 2)):
        code = f"from benchmarks.sweep import here; here({sets}, {repeats})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        trades, seconds, memory = map(float, done.stdout.split())
        row(f"in one process, {trades:,.0f} trades", sets, seconds, f"{memory:.0f} MB", "400 MB")
    sets = 400
    alone, one, two = by_workers(sets, 5)
    row("in this process", sets, alone)
    row("by one worker", sets, one)
    row("by two workers", sets, two, f"{one / two:.2f} times as fast as one", "1.8")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

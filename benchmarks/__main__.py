"""Speed and memory, each as a ratio against a baseline measured in the same run.

`make bench`, or `python -m benchmarks`. Nothing here is asserted: figures depend on the machine.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.fast_forward import first_touch

YEAR = 525_600
START = datetime(2023, 1, 1, tzinfo=UTC)
REPEATS = 3


def best(function, repeats=REPEATS):
    """Return the shortest of some times in seconds, and the last result."""
    times = []
    result = None
    for _ in range(repeats):
        began = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - began)
    return min(times), result


def bare_calls():
    def get_signal(symbol, when):
        return None

    for _ in range(YEAR):
        get_signal("X", START)


async def bare_awaits():
    async def get_signal(symbol, when):
        return None

    for _ in range(YEAR):
        await get_signal("X", START)


def averages(closes):
    """What a crossover computes: four means."""
    return closes[-20:].mean() > closes[1:].mean() and closes[-21:-1].mean() <= closes[:-1].mean()


def register():
    """A year of minutes in memory and the strategies to time."""
    source = bk.exchanges.SyntheticExchange(seed=1)
    since = int((START - timedelta(days=1)).timestamp() * 1000)
    candles = asyncio.run(source.get_candles("X", "1m", since, YEAR + 2 * 1440))
    bk.add_exchange(bk.exchanges.FrameExchange(candles))
    bk.add_frame(
        frame_name="year",
        interval="1m",
        start_date=START,
        end_date=START + timedelta(minutes=YEAR - 1),
    )

    def nothing(symbol, when):
        return None

    async def nothing_async(symbol, when):
        return None

    async def window(symbol, when):
        await bk.get_candles(symbol, "1m", 101)

    def window_sync(symbol, when):
        bk.candles(symbol, "1m", 101)

    async def crossover(symbol, when):
        closes = (await bk.get_candles(symbol, "1m", 101)).close
        if not averages(closes):
            return None
        price = await bk.get_average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=price * 1.01,
            price_stop_loss=price * 0.99,
            minute_estimated_time=240,
        )

    for name, function, interval in (
        ("none", nothing, "1m"),
        ("none async", nothing_async, "1m"),
        ("none 1h", nothing, "1h"),
        ("window", window, "1m"),
        ("window sync", window_sync, "1m"),
        ("crossover", crossover, "1m"),
    ):
        bk.add_strategy(strategy_name=name, interval=interval, get_signal=function)
    return candles


def year(name):
    return lambda: bk.Backtest.run_sync(
        "X", strategy_name=name, exchange_name="frame", frame_name="year"
    )


def calls_of(name):
    return bk.Backtest.get_data("X", strategy_name=name).calls


def fast_forward_nanoseconds():
    """The slope of `first_touch` over the length of a life, and its constant."""
    n = 200_000
    flat = np.full(n, 100.0)
    bars = Bars(0, flat, flat, flat, flat, flat)

    def life(minutes):
        def touches():
            for _ in range(20):
                first_touch(bars, 0, minutes * 60_000, bars.low, bars.high, 90.0, 110.0)

        return best(touches)[0] / 20

    short, long = life(1_000), life(150_000)
    slope = (long - short) / 149_000
    return slope * 1e9, (short - 1_000 * slope) * 1e6


MEMORY = """
import resource, sys
import numpy
def peak():
    if sys.platform == "linux":  # ru_maxrss is inherited from the parent process there
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)
before = peak()
from datetime import datetime, timedelta, UTC
import backtest_kit as bk
start = datetime(2013, 1, 1, tzinfo=UTC)
bk.add_exchange(bk.exchanges.SyntheticExchange(seed=1))
bk.add_frame(frame_name="f", interval="1m", start_date=start,
             end_date=start + timedelta(days={days}))
@bk.strategy("s", interval="1m")
def s(symbol, when):
    bk.candles(symbol, "1m", 101)
bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
print(peak() - before, bk.Backtest.get_data("X", strategy_name="s").calls)
"""


def memory(days):
    code = MEMORY.replace("{days}", str(days))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def import_seconds():
    """Import time beyond NumPy, the median of several fresh interpreters."""
    code = (
        "import time, numpy; t = time.perf_counter(); import backtest_kit; "
        "print(time.perf_counter() - t)"
    )
    runs = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(7)
    ]
    return statistics.median(runs)


def main():
    table = Table(title="backtest-kit: a year of minutes (525,600)", title_justify="left")
    for column in ("Measured", "Value", "Ratio to its baseline", "Goal"):
        table.add_column(column, justify="left" if column == "Measured" else "right")
    closes = register().close
    best(year("none"), 1)  # fills the caches and warms up
    call, _ = best(bare_calls)
    bare, _ = best(lambda: asyncio.run(bare_awaits()))
    table.add_row("bare calls a second", f"{YEAR / call:,.0f}", "1 (baseline)", "")
    table.add_row("bare awaits a second", f"{YEAR / bare:,.0f}", "1 (baseline)", "")
    none, _ = best(year("none"))
    table.add_row(
        "get_signal calls a second, sync",
        f"{calls_of('none') / none:,.0f}",
        f"{call / none:.2f} of bare calls",
        "400,000",
    )
    none_async, _ = best(year("none async"))
    table.add_row(
        "get_signal calls a second, async",
        f"{calls_of('none async') / none_async:,.0f}",
        f"{bare / none_async:.2f} of bare awaits",
        "300,000",
    )
    hourly, _ = best(year("none 1h"))
    table.add_row(
        "interval 1h: time of the year",
        f"{hourly * 1e3:,.1f} ms",
        f"{hourly / none:.3f} of interval 1m",
        "0.1",
    )
    for name in ("window", "window sync"):
        seconds, _ = best(year(name))
        base = none if name.endswith("sync") else none_async
        table.add_row(
            f"get_candles of 101 ({'sync' if name.endswith('sync') else 'async'})",
            f"{(seconds - base) / YEAR * 1e6:.2f} us a call",
            f"{seconds / base:.1f} of the same without",
            "3 us",
        )
    crossover, trades = best(year("crossover"))
    asked = calls_of("crossover")
    own, _ = best(lambda: [averages(closes[i : i + 101]) for i in range(asked)])
    table.add_row(
        f"crossover: {asked:,} calls, {len(trades)} trades",
        f"{asked / crossover:,.0f} a second",
        f"{crossover / own:.2f} of its means alone",
        "",
    )
    slope, constant = fast_forward_nanoseconds()
    table.add_row(
        "fast-forward", f"{slope:.2f} ns a candle", f"+ {constant:.1f} us a signal", "20 ns"
    )
    one, ten = memory(365), memory(3652)
    table.add_row("peak memory of a year above NumPy", f"{one:,.0f} MB", "", "250 MB")
    table.add_row(
        "peak memory of ten years", f"{ten:,.0f} MB", f"{ten / one:.2f} of one year", "bounded"
    )
    table.add_row("import beyond NumPy", f"{import_seconds() * 1e3:.0f} ms", "", "300 ms")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

"""What it costs to ask `manage`: each hour and each minute, beside nothing and beside signals.

`python -m benchmarks.manage`. A year of minutes in memory. Positions live for a day, so that there
is one nearly all the time; `manage` looks at its profit and does nothing.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._arrays.simulation import compile_kernel

YEAR = 525_600
START = datetime(2023, 1, 1, tzinfo=UTC)
REPEATS = 5
FREE = {"price_take_profit": None, "price_stop_loss": None}


def register():
    bk.set_config(require_stop_loss=False)
    source = bk.exchanges.SyntheticExchange(seed=1)
    since = int((START - timedelta(days=1)).timestamp() * 1000)
    candles = asyncio.run(source.get_candles("X", "1m", since, YEAR + 3 * 1440))
    bk.add_exchange(bk.exchanges.FrameExchange(candles))
    end = START + timedelta(minutes=YEAR - 1)
    bk.add_frame(frame_name="year", interval="1m", start_date=START, end_date=end)

    def open_for(minutes):
        signal = bk.Signal(position="long", minute_estimated_time=minutes, **FREE)
        return lambda symbol, when: signal

    def manage(position, when):
        return bk.Close() if position.revenue_percent > 1e6 else None

    def arrays(candles):
        n = len(candles)
        none = np.full(n, np.nan)
        return bk.Signals(np.ones(n, dtype=np.int8), none, none, np.full(n, 1440.0))

    day, hour = open_for(1440), open_for(60)
    for name, fields in {
        "none": {"get_signal": day},
        "each hour": {"get_signal": day, "manage": manage, "manage_interval": "1h"},
        "each minute": {"get_signal": day, "manage": manage},
        "signals": {"get_signal": hour},
        "kernel": {"get_signals": arrays, "warmup": 1},
        "arrays": {"get_signals": arrays, "warmup": 1, "manage": manage, "manage_interval": "1h"},
    }.items():
        bk.add_strategy(strategy_name=name, interval="1h", **fields)


def run(name):
    began = time.perf_counter()
    names = {"strategy_name": name, "exchange_name": "frame", "frame_name": "year"}
    trades = len(bk.Backtest.run_sync("X", **names))
    return time.perf_counter() - began, trades


def main():
    register()
    compile_kernel()
    names = ("none", "each hour", "each minute", "signals", "kernel", "arrays")
    best = dict.fromkeys(names, (float("inf"), 0))
    for _ in range(REPEATS):  # in turn, so that a busy machine slows all of them
        for name in names:
            best[name] = min(best[name], run(name))
    none, hours, minutes, signals, kernel, arrays = (best[name][0] for name in names)
    asked, often, opened = YEAR // 60, YEAR, best["signals"][1]
    a_signal = (signals - none) / opened
    table = Table(title="manage: a year of minutes, one position a day", title_justify="left")
    for column in ("Measured", "Time", "A call", "Ratio"):
        table.add_column(column, justify="left" if column == "Measured" else "right")
    rows = (
        ("without manage", none, "", "1 (baseline)"),
        ("manage each hour", hours, (hours - none) / asked, f"{hours / none:.1f}"),
        ("manage each minute", minutes, (minutes - none) / often, f"{minutes / none:.1f}"),
        ("a signal each hour, without", signals, a_signal, f"{signals / none:.1f}"),
        ("arrays, in the kernel", kernel, "", f"{kernel / none:.2f}"),
        ("arrays with manage each hour, by steps", arrays, "", f"{arrays / kernel:.1f} of kernel"),
    )
    for text, seconds, call, ratio in rows:
        each = call if isinstance(call, str) else f"{call * 1e6:.0f} us"
        table.add_row(text, f"{seconds * 1e3:,.0f} ms", each, ratio)
    one = (hours - none) / asked / a_signal
    Console(width=110).print(table, f"one ask costs {one:.2f} of one signal")


if __name__ == "__main__":
    main()

"""Array strategies against a loop written by hand with Numba, both measured in the same run.

`python -m benchmarks.arrays`. The strategy is the crossover of two means, 20 and 100, with a take
profit, a stop loss and a lifetime, over a synthetic year of minutes. Both find the same trades, to
the last bit, before anything is timed. Nothing about the figures is asserted: they depend on the
machine.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._arrays.job import SignalRows
from backtest_kit._arrays.simulation import compile_kernel, run_kernel
from backtest_kit._data.series import average_prices
from backtest_kit._rules.bars import Bars
from backtest_kit._values.config import Config
from backtest_kit._walker.trial import TrialSetup, run_trial

YEAR = 525_600
START = datetime(2023, 1, 1, tzinfo=UTC)
FAST, SLOW, GOAL, STOP, LIFE = 20, 100, 1.0, 0.8, 240
REPEATS = 15


def best(*functions, repeats=REPEATS):
    """Return the shortest time of each function in seconds; they take turns."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, own in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            own.append(time.perf_counter() - began)
    return [min(own) for own in times]


@numba.njit(error_model="numpy")
def loop_by_hand(price, fill, side, goal, stop, life, fee, slip, opened, closed, profit):
    """The plainest loop that makes these trades: long, decided by the average, at the close."""
    n, k, steps = 0, 0, len(price)
    while k < steps:
        if side[k] != 1:
            k += 1
            continue
        entry = fill[k]
        upper, lower = entry * (1 + goal / 100), entry * (1 - stop / 100)
        if not lower < price[k] < upper:
            k += 1
            continue
        j, close = k + 1, fill[steps - 1]
        while j < steps:
            p = price[j]
            if j - k >= life:
                close = fill[j]
                break
            if p >= upper:
                close = min(fill[j], upper)
                break
            if p <= lower:
                close = min(fill[j], lower)
                break
            j += 1
        paid, got = entry * (1 + slip / 100), close * (1 - slip / 100)
        opened[n], closed[n], profit[n] = k, min(j, steps - 1), (got - paid) / paid * 100 - 2 * fee
        n += 1
        k = j
    return n


@numba.njit(error_model="numpy")
def running_mean(values, count):
    """A sum that a row is added to and one taken from: fast, and not of its window alone."""
    out = np.full(len(values), np.nan)
    total = 0.0
    for i in range(len(values)):
        total += values[i]
        if i >= count:
            total -= values[i - count]
        if i >= count - 1:
            out[i] = total / count
    return out


def crossing(mean, close, fast=FAST, slow=SLOW):
    above = mean(close, fast) > mean(close, slow)
    side = np.zeros(len(close), dtype=np.int8)
    side[1:] = above[1:] & ~above[:-1]
    side[:slow] = 0
    return side


def strategy(fast=FAST, slow=SLOW, goal=GOAL, stop=STOP):
    def get_signals(candles):
        return bk.Signals.bracket(
            crossing(bk.trailing_mean, candles.close, fast, slow), goal, stop, LIFE
        )

    return get_signals


def by_hand(bars, side, config):
    room = len(side) // 2 + 1
    opened, closed, profit = np.empty(room, int), np.empty(room, int), np.empty(room)
    costs = config.percent_fee, config.percent_slippage
    n = loop_by_hand(bars.price, bars.fill, side, GOAL, STOP, LIFE, *costs, opened, closed, profit)
    return opened[:n], closed[:n], profit[:n]


def market():
    source = bk.exchanges.SyntheticExchange(seed=1)
    since = int((START - timedelta(days=1)).timestamp() * 1000)
    return asyncio.run(source.get_candles("X", "1m", since, YEAR + 3 * 1440))


def bars_of(candles):
    t, o, h, low, c, v = candles.columns()
    return Bars(int(t[0]) + 60_000, average_prices(h, low, c, v, 5), c, o, h, low)


def play_of(candles, signals, timeline):
    return SignalRows(signals, int(candles.timestamp[0]), "1m", timeline, Config())


def kernel_rows(table, candles, bars):
    """The kernel alone, and a whole run, against the loop by hand."""
    config = Config()
    timeline = range(bars.first + SLOW * 60_000, bars.stop, 60_000)
    signals = strategy()(candles)
    play = play_of(candles, signals, timeline)
    found = run_kernel(bars, play)
    opened, closed, profit = by_hand(bars, signals.side, config)
    assert (found.pending_at == bars.first + opened * 60_000).all()
    assert (found.closed_at == bars.first + closed * 60_000).all()
    assert (found.pnl == profit).all()
    own, hand = best(lambda: run_kernel(bars, play), lambda: by_hand(bars, signals.side, config))
    name = f"kernel alone, {len(found):,} trades"
    table.add_row(name, f"{own * 1e3:.2f} ms", f"{hand / own:.2f} of the loop by hand", "0.3")

    engine = bk.Engine()
    with engine:
        bk.add_exchange(bk.exchanges.FrameExchange(candles))
        begin = datetime.fromtimestamp((bars.first + 2 * SLOW * 60_000) / 1000, UTC)
        frame = bk.FrameSchema(
            frame_name="year",
            interval="1m",
            start_date=begin,
            end_date=begin + timedelta(minutes=YEAR - 1),
        )
        schema = bk.StrategySchema(
            strategy_name="crossover", interval="1m", get_signals=strategy(), warmup=SLOW + 1
        )
        exchange = engine.exchanges.get("frame")

    runner = asyncio.Runner()
    with engine:
        bk.add_frame(frame)
        bk.add_strategy(schema)

    def forget_averages():
        for _, segment in engine.store._segments.values():
            segment._average = None  # computed by each run, as by the loop

    def trial():
        forget_averages()
        return runner.run(run_trial(TrialSetup(engine, ("X",), exchange, frame), schema))

    def backtest():
        forget_averages()
        with engine:
            return bk.Backtest.run_sync(
                "X", strategy_name="crossover", exchange_name="frame", frame_name="year"
            )

    def whole(mean):
        fresh = bars_of(candles)
        return by_hand(fresh, crossing(mean, candles.close), config)

    began = time.perf_counter()
    backtest()
    first = time.perf_counter() - began
    assert trial().trades.count == len(backtest()) > 500
    whole(running_mean)
    run, results, objects, same, running = best(
        trial,
        backtest,
        lambda: [*backtest()],
        lambda: whole(bk.trailing_mean),
        lambda: whole(running_mean),
    )
    runner.close()
    shown = f"{run * 1e3:.1f} ms"
    hand = "of the loop by hand with the same indicators"
    for what, took, goal in (
        ("a trial: indicators, checks, kernel, statistics", run, "0.6"),
        ("Backtest.run_sync", results, "0.6"),
        ("the same, and each result looked at", objects, ""),
        ("the first Backtest.run_sync", first, ""),
    ):
        table.add_row(what, f"{took * 1e3:.1f} ms", f"{same / took:.2f} {hand}", goal)
    ratio = f"{running / run:.2f} of the loop by hand with running sums"
    table.add_row("the trial", shown, ratio, "")


#: How positions may be managed, and what is measured against the same signals without.
MANAGED = {
    "a trailing stop": {"trailing_stop": 0.5},
    "breakeven": {"breakeven_percent": 0.5},
    "a ladder each way": {
        "take_profits": ((0.5, 50), (0.8, 25)),
        "stop_losses": ((0.5, 50),),
    },
    "two further entries": {"entries": ((0.3, 1.0), (0.6, 1.0))},
    "all of them": {
        "trailing_stop": 0.5,
        "breakeven_percent": 0.5,
        "take_profits": ((0.5, 50),),
        "stop_losses": ((0.5, 50),),
        "entries": ((0.3, 1.0),),
    },
}


def managed_rows(table, candles, bars):
    """The kernel with managed positions against the kernel without, per trade."""
    timeline = range(bars.first + SLOW * 60_000, bars.stop, 60_000)
    side = strategy()(candles).side
    plays = [
        play_of(candles, bk.Signals.bracket(side, GOAL, STOP, LIFE, **how), timeline)
        for how in ({}, *MANAGED.values())
    ]
    trades = [len(run_kernel(bars, play)) for play in plays]
    plain, *times = best(*(lambda play=play: run_kernel(bars, play) for play in plays))
    for name, took, count in zip(MANAGED, times, trades[1:], strict=True):
        each = took / count / (plain / trades[0])
        shown = f"{each:.2f} times a plain trade"
        table.add_row(f"kernel, {name}, {count:,} trades", f"{took * 1e3:.2f} ms", shown, "2")


def main():
    table = Table(title="array strategies: a year of minutes", title_justify="left")
    for column in ("Measured", "Value", "Ratio to its baseline", "Goal"):
        table.add_column(column, justify="left" if column == "Measured" else "right")
    compile_kernel()
    candles = market()
    kernel_rows(table, candles, bars_of(candles))
    managed_rows(table, candles, bars_of(candles))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

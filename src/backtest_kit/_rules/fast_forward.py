"""A signal's life found over arrays: where it turns, without visiting each step.

The arrays only find the first step at which anything can happen; what happens there is then asked
of the rules, so that the two can't drift apart.
"""

from __future__ import annotations

import math

import numpy as np

from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import MILESTONES, crossed, revenue_percent
from backtest_kit._rules.steps import (
    Activation,
    Cancel,
    scheduled_step,
    timeout_at,
)
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.signal import SignalRow

_FIRST_WINDOW = 128


def scheduled_until(
    row: SignalRow, bars: Bars, after: int, config: Config
) -> tuple[int, Activation | Cancel] | None:
    """Return the first step later than `after` at which a scheduled signal turns, and how.

    `None` where the bars ends first.
    """
    # a candle that opens beyond the stop also reaches the entry, which lies before it
    lower, upper = (row.price_open, math.inf) if row.side > 0 else (-math.inf, row.price_open)
    low, high = compared(bars, config)
    when = first_touch(bars, after, timeout_at(row, config), low, high, lower, upper)
    if when is None:
        return None
    turn = scheduled_step(row, bars.bar(when), config)
    assert turn is not None
    return when, turn


def compared(bars: Bars, config: Config) -> tuple[Floats, Floats]:
    """Return the lows and highs that are compared with levels: of candles, or average prices."""
    wick = config.exit_trigger == "wick"
    return (bars.low, bars.high) if wick else (bars.price, bars.price)


def first_touch(
    bars: Bars, after: int, expiry: int, low: Floats, high: Floats, lower: float, upper: float
) -> int | None:
    """Return the first step with `low <= lower` or `high >= upper`, or the one of the expiry.

    Instants in milliseconds; the step is later than `after`, `None` where the bars end first.
    """
    begin = bars.row(after) + 1
    last = bars.open_row(max(-((bars.first - expiry) // bars.step), begin))
    end = min(last + 1, len(bars.price))
    window = _FIRST_WINDOW
    while begin < end:
        stop = min(begin + window, end)
        hit = low[begin:stop] <= lower
        hit |= high[begin:stop] >= upper
        if bars.next_open is not None:
            hit &= bars.next_open[begin:stop] == np.arange(begin, stop)
        i = int(hit.argmax())
        if hit[i]:
            return bars.first + (begin + i) * bars.step
        begin, window = stop, window * 4
    return bars.first + last * bars.step if last < len(bars.price) else None


def trailing_touch(
    low: Floats,
    high: Floats,
    since: int,
    last: int,
    lower: float,
    upper: float,
    side: float,
    best: float,
    factor: float,
) -> tuple[int, float]:
    """Return the first row after `since` that reaches a level, else `last`, and the best before it.

    The stop is `factor` times the best price of the rows before, on the side of `lower` for a long
    and `upper` for a short, if that is tighter. Row -1: the data end.
    """
    if side < 0:  # mirrored: negating a float never rounds
        at, best = trailing_touch(-high, -low, since, last, -upper, -lower, 1.0, -best, factor)
        return at, -best
    begin, end, window = since + 1, min(last + 1, len(low)), _FIRST_WINDOW
    while begin < end:
        stop = min(begin + window, end)
        bests = np.maximum.accumulate(np.concatenate(([best], high[begin:stop])))
        hits = low[begin:stop] <= np.maximum(lower, bests[:-1] * factor)
        hits |= high[begin:stop] >= upper
        i = int(hits.argmax())
        if hits[i]:
            return begin + i, float(bests[i])
        best, begin, window = float(bests[-1]), stop, window * 4
        if begin > last:
            return last, float(bests[-2])
    return -1, best


def milestones_until(
    position: str, entry: float, bars: Bars, after: int, before: int, fired: int
) -> tuple[list[tuple[int, int]], int]:
    """Return (instant, level) of each milestone at the steps in (`after`, `before`), and the mask.

    Of a position whose effective entry is `entry`. `fired` and the mask returned are bit masks as
    in `_profit.crossed`.
    """
    begin, end = bars.row(after) + 1, min(bars.row(before), len(bars.price))
    if begin >= end:
        return [], fired
    prices, open_ = bars.price[begin:end], None
    if bars.next_open is not None:
        open_ = np.flatnonzero(bars.next_open[begin:end] == np.arange(begin, end))
        prices = prices[open_]
        if not len(prices):
            return [], fired
    revenue = revenue_percent(position, entry, prices)
    found: list[tuple[int, int]] = []
    if revenue.max() < MILESTONES[0] and revenue.min() > -MILESTONES[0]:
        return found, fired
    # only steps that set a new extreme can cross a milestone
    highs, lows = np.maximum.accumulate(revenue), np.minimum.accumulate(revenue)
    news = (np.diff(highs, prepend=-np.inf) > 0) | (np.diff(lows, prepend=np.inf) < 0)
    for i in np.flatnonzero(news & (np.abs(revenue) >= MILESTONES[0])):
        levels, fired = crossed(float(revenue[i]), fired)
        place = begin + int(i if open_ is None else open_[i])
        found += [(bars.first + place * bars.step, level) for level in levels]
    return found, fired

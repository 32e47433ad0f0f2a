"""A signal's life found over arrays: where it turns, without visiting each step.

The arrays only find the first step at which anything can happen; what happens there is then asked
of the rules, so that the two can't drift apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import MILESTONES, crossed, revenue_percent
from backtest_kit._rules.steps import (
    Activation,
    Cancel,
    Close,
    pending_step,
    scheduled_step,
    side,
    timeout_at,
)
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.signal import SignalRow, expires_at

_FIRST_WINDOW = 128


def scheduled_until(
    row: SignalRow, bars: Bars, after: int, config: Config
) -> tuple[int, Activation | Cancel] | None:
    """Return the first step later than `after` at which a scheduled signal turns, and how.

    `None` where the bars ends first.
    """
    s = side(row)
    if config.exit_trigger == "vwap":
        touched = bars.price
    else:
        # a candle that opens beyond the stop also reaches the entry, which lies before it
        touched = bars.low if s > 0 else bars.high
    when = _first(bars, after, timeout_at(row, config), touched, s, s * row.price_open, None)
    if when is None:
        return None
    turn = scheduled_step(row, bars.bar(when), config)
    assert turn is not None
    return when, turn


def pending_until(
    row: SignalRow, bars: Bars, after: int, config: Config
) -> tuple[int, Close] | None:
    """Return the first step later than `after` at which a filled signal closes, and how.

    `None` where the bars ends first.
    """
    s = side(row)
    stop, goal = s * row.price_stop_loss, s * row.price_take_profit
    if config.exit_trigger == "vwap":
        worst, best = bars.price, bars.price
    else:
        worst, best = (bars.low, bars.high) if s > 0 else (bars.high, bars.low)
    when = _first(bars, after, expires_at(row), worst, s, stop, (best, goal))
    if when is None:
        return None
    close = pending_step(row, bars.bar(when), config)
    assert close is not None
    return when, close


def _first(
    bars: Bars,
    after: int,
    expiry: int,
    low: Floats,
    s: int,
    floor: float,
    ceiling: tuple[Floats, float] | None,
) -> int | None:
    """Return the first step with `s * low <= floor` or `s * high >= ceiling`, or the expiry."""
    begin = bars.row(after) + 1
    last = bars.open_row(max(-((bars.first - expiry) // bars.step), begin))
    end = min(last + 1, len(bars.price))
    window = _FIRST_WINDOW
    while begin < end:
        stop = min(begin + window, end)
        hit = _at_most(low[begin:stop], s, floor)
        if ceiling is not None:
            hit |= _at_most(ceiling[0][begin:stop], -s, -ceiling[1])
        if bars.next_open is not None:
            hit &= bars.next_open[begin:stop] == np.arange(begin, stop)
        i = int(hit.argmax())
        if hit[i]:
            return bars.first + (begin + i) * bars.step
        begin, window = stop, window * 4
    return bars.first + last * bars.step if last < len(bars.price) else None


def _at_most(values: Floats, s: int, limit: float) -> npt.NDArray[np.bool_]:
    return values <= limit if s > 0 else values >= -limit


def milestones_until(
    row: SignalRow, bars: Bars, after: int, before: int, fired: int
) -> tuple[list[tuple[int, int]], int]:
    """Return (instant, level) of each milestone at the steps in (`after`, `before`), and the mask.

    `fired` and the mask returned are bit masks as in `_profit.crossed`.
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
    revenue = revenue_percent(row.position, row.price_open, prices)
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

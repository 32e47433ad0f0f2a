"""A signal's life found over arrays: where it turns, without visiting each step.

The arrays only find the first step at which anything can happen; what happens there is then asked
of the rules, so that the two can't drift apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
from backtest_kit._rules.tape import Tape
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.signal import SignalRow, expires_at

_FIRST_WINDOW = 128


def scheduled_until(
    row: SignalRow, tape: Tape, after: int, config: Config
) -> tuple[int, Activation | Cancel] | None:
    """Return the first step later than `after` at which a scheduled signal turns, and how.

    `None` where the tape ends first.
    """
    s = side(row)
    if config.exit_trigger == "vwap":
        touched = tape.price
    else:
        # a candle that opens beyond the stop also reaches the entry, which lies before it
        touched = tape.low if s > 0 else tape.high
    when = _first(tape, after, timeout_at(row, config), touched, s, s * row.price_open, None)
    if when is None:
        return None
    turn = scheduled_step(row, tape.bar(when), config)
    assert turn is not None
    return when, turn


def pending_until(
    row: SignalRow, tape: Tape, after: int, config: Config
) -> tuple[int, Close] | None:
    """Return the first step later than `after` at which a filled signal closes, and how.

    `None` where the tape ends first.
    """
    s = side(row)
    stop, goal = s * row.price_stop_loss, s * row.price_take_profit
    if config.exit_trigger == "vwap":
        worst, best = tape.price, tape.price
    else:
        worst, best = (tape.low, tape.high) if s > 0 else (tape.high, tape.low)
    when = _first(tape, after, expires_at(row), worst, s, stop, (best, goal))
    if when is None:
        return None
    close = pending_step(row, tape.bar(when), config)
    assert close is not None
    return when, close


def _first(
    tape: Tape,
    after: int,
    expiry: int,
    low: Floats,
    s: int,
    floor: float,
    ceiling: tuple[Floats, float] | None,
) -> int | None:
    """Return the first step with `s * low <= floor` or `s * high >= ceiling`, or the expiry."""
    begin = tape.row(after) + 1
    last = tape.open_row(max(-((tape.first - expiry) // tape.step), begin))
    end = min(last + 1, len(tape.price))
    window = _FIRST_WINDOW
    while begin < end:
        stop = min(begin + window, end)
        hit = _at_most(low[begin:stop], s, floor)
        if ceiling is not None:
            hit |= _at_most(ceiling[0][begin:stop], -s, -ceiling[1])
        if tape.next_open is not None:
            hit &= tape.next_open[begin:stop] == np.arange(begin, stop)
        i = int(hit.argmax())
        if hit[i]:
            return tape.first + (begin + i) * tape.step
        begin, window = stop, window * 4
    return tape.first + last * tape.step if last < len(tape.price) else None


def _at_most(values: Floats, s: int, limit: float) -> npt.NDArray[np.bool_]:
    return values <= limit if s > 0 else values >= -limit


def milestones_until(
    row: SignalRow, tape: Tape, after: int, before: int, fired: int
) -> tuple[list[tuple[int, int]], int]:
    """Return (instant, level) of each milestone at the steps in (`after`, `before`), and the mask.

    `fired` and the mask returned are bit masks as in `_profit.crossed`.
    """
    begin, end = tape.row(after) + 1, min(tape.row(before), len(tape.price))
    if begin >= end:
        return [], fired
    prices, open_ = tape.price[begin:end], None
    if tape.next_open is not None:
        open_ = np.flatnonzero(tape.next_open[begin:end] == np.arange(begin, end))
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
        found += [(tape.first + place * tape.step, level) for level in levels]
    return found, fired

"""The same life as `_life`, found over arrays: where it turns, without visiting each minute.

The arrays only find the first step at which anything happens; what happens there is then asked of
`_life` itself, so that the two can't drift apart.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._rules import life
from backtest_kit._rules.life import Bar, Close, Verdict, side
from backtest_kit._rules.profit import MILESTONES, crossed, revenue_percent
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.signal import SignalRow, expires_at
from backtest_kit._values.time import MINUTE

_FIRST_WINDOW = 128


class Tape(msgspec.Struct, frozen=True, eq=False):
    """The 1m market as arrays: row i is the step at `first + i * MINUTE`.

    `price` is the average price at the step (NaN before there are enough candles), the others are
    the candle that closed at it. All float64 of one length.
    """

    first: int
    price: Floats
    open: Floats
    high: Floats
    low: Floats

    @property
    def stop(self) -> int:
        """The instant after the last step, in milliseconds."""
        return self.first + len(self.price) * MINUTE

    def row(self, when: int) -> int:
        """Return the row of the step at `when`; it may lie outside."""
        return (when - self.first) // MINUTE

    def bar(self, when: int) -> Bar:
        """Return the market at the step `when`."""
        i = (when - self.first) // MINUTE
        return Bar(
            when, float(self.price[i]), float(self.open[i]), float(self.high[i]), float(self.low[i])
        )


def scheduled_until(
    row: SignalRow, tape: Tape, after: int, config: Config
) -> tuple[int, Verdict] | None:
    """Return the first step later than `after` at which a waiting signal turns, and how.

    `None` where the tape ends first.
    """
    s = side(row)
    expiry = row.scheduled_at + config.schedule_await_minutes * MINUTE
    entry = s * row.price_open
    if config.exit_trigger == "vwap":
        touched, limit = tape.price, entry
    else:
        # a candle that opens beyond the stop also reaches the entry, which lies before it
        touched, limit = (tape.low if s > 0 else tape.high), entry
    when = _first(tape, after, expiry, touched, s, limit, None)
    if when is None:
        return None
    return when, life.scheduled_step(row, tape.bar(when), config)


def pending_until(
    row: SignalRow, tape: Tape, after: int, config: Config
) -> tuple[int, Close] | None:
    """Return the first step later than `after` at which a filled signal closes, and how.

    `None` where the tape ends first.
    """
    s = side(row)
    stop, goal = s * row.price_stop_loss, s * row.price_take_profit
    expiry = expires_at(row)
    if config.exit_trigger == "vwap":
        worst, best = tape.price, tape.price
    else:
        worst, best = (tape.low, tape.high) if s > 0 else (tape.high, tape.low)
    when = _first(tape, after, expiry, worst, s, stop, (best, goal))
    if when is None:
        return None
    close = life.pending_step(row, tape.bar(when), config)
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
    last = tape.row(max(expiry, after + MINUTE))
    end = min(last + 1, len(tape.price))
    window = _FIRST_WINDOW
    while begin < end:
        stop = min(begin + window, end)
        hit = _at_most(low[begin:stop], s, floor)
        if ceiling is not None:
            hit |= _at_most(ceiling[0][begin:stop], -s, -ceiling[1])
        i = int(hit.argmax())
        if hit[i]:
            return tape.first + (begin + i) * MINUTE
        begin, window = stop, window * 4
    return tape.first + last * MINUTE if last < len(tape.price) else None


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
    revenue = revenue_percent(row.position, row.price_open, tape.price[begin:end])
    found: list[tuple[int, int]] = []
    if revenue.max() < MILESTONES[0] and revenue.min() > -MILESTONES[0]:
        return found, fired
    # only steps that set a new extreme can cross a milestone
    highs, lows = np.maximum.accumulate(revenue), np.minimum.accumulate(revenue)
    news = (np.diff(highs, prepend=-np.inf) > 0) | (np.diff(lows, prepend=np.inf) < 0)
    for i in np.flatnonzero(news & (np.abs(revenue) >= MILESTONES[0])):
        levels, fired = crossed(float(revenue[i]), fired)
        found += [(tape.first + (begin + int(i)) * MINUTE, level) for level in levels]
    return found, fired

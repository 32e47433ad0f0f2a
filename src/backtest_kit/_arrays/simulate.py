"""From arrays of signals to closed trades: one signal after another, without visiting each step.

What becomes of a signal is asked of the rules (`_rules`); `next_signal` and `first_touch` find
where they have to be asked. Bit for bit the same as the engine's steps. Not here: risk profiles,
milestones, events.

This is plain Python over NumPy's searches; the kernel is the same function, compiled by Numba
together with the rules and with searches of its own (`kernel`).

Time is counted in steps: step k of the bars is the instant at which its base candle k closes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._rules.asking import next_due
from backtest_kit._rules.life import (
    ACTIVATED,
    ACTIVATED_AND_STOPPED,
    CANCELLED_END_OF_DATA,
    END_OF_DATA,
    STOP_LOSS,
    UNCHANGED,
    opens_now,
    pending_step,
    scheduled_step,
)
from backtest_kit._rules.management import Limits
from backtest_kit._rules.proposal import problems_of
from backtest_kit._values.candles import Floats, Ints

_FIRST_WINDOW = 128
#: Of `state`: where to go on (frame, first frame that may be asked), and what was counted: calls,
#: those without a row, the invalid signals and the step of the first, the frames held.
FRAME, ASKS_FROM, CALLS, UNANSWERED, INVALID, FIRST_INVALID, HELD = range(7)
#: Of the whole numbers of a trade; instants in steps since the epoch, `ASKED` the calls so far.
ROW, SCHEDULED, FILLED, CLOSED, REASON, AMBIGUOUS, ASKED = range(7)
#: Of its prices; `LIMIT` is what the signal asked for, NaN without.
ENTRY, GOAL, STOP, CLOSE, LIMIT = range(5)


class Rules(NamedTuple):
    """When to ask, and the settings; lengths in steps, lifetimes of signals in minutes.

    Frame i is step `start + i * step`; `until` bounds the frames to play. Asked at every `hop`-th
    (see `Stride`), the row moves on by `rows` and `rest` steps. The row at step k is
    `(epoch + k) // interval - base`, `epoch` being the step that step 0 is since the epoch.
    `free` is 1 where the step of a close is not asked, else 0. `last` is the last step at which the
    market is open.
    """

    relative: bool
    start: int
    step: int
    frames: int
    until: int
    hop: int
    phase: int
    rows: int
    rest: int
    epoch: int
    interval: int
    base: int
    first_row: int
    free: int
    wick: bool
    stop_first: bool
    wait: int
    minutes: int
    limits: Limits
    last: int


class Columns(NamedTuple):
    """The market and the signals; a column of length 1 holds for all rows.

    Trigger "vwap" sees flat candles at the average price. `touch_low` and `touch_high` are what a
    search compares with levels: lows and highs, beyond every level where the market is closed.
    `next_open` is as in `Bars`, empty where the market never closes.
    """

    price: Floats
    fill: Floats
    open: Floats
    high: Floats
    low: Floats
    side: npt.NDArray[np.int8]
    goal: Floats
    stop: Floats
    minutes: Floats
    entry: Floats
    touch_low: Floats
    touch_high: Floats
    next_open: Ints


def first_open_frame(rules: Rules, next_open: Ints, frame: int) -> int:
    """Return the first frame from `frame` on at whose step the market is open."""
    while frame < rules.until:
        k = rules.start + frame * rules.step
        if k < 0 or k >= len(next_open) or next_open[k] == k:
            break
        frame = -((rules.start - next_open[k]) // rules.step)
    return frame


def next_signal(
    rules: Rules, side: npt.NDArray[np.int8], k: int, steps: int, next_open: Ints
) -> tuple[int, int, int]:
    """Ask from step k on; return how often, how often in vain, and the row found (or -1).

    It ends before the first step at which the market is closed; it is open at step k.
    """
    end = min(rules.start + rules.until * rules.step, steps)
    hop, asked, missing, window = rules.hop * rules.step, 0, 0, _FIRST_WINDOW
    while k < end:
        at = np.arange(k, min(end, k + window * hop), hop)
        if len(next_open):
            closed = next_open[at] != at
            at, end = (at[: closed.argmax()], 0) if closed.any() else (at, end)
            if not len(at):
                break
        rows = (rules.epoch + at) // rules.interval - rules.base
        known = (rows >= rules.first_row) & (rows < len(side))
        hits = np.zeros(len(at), dtype=np.bool_)
        hits[known] = side[rows[known]] != 0
        i = int(hits.argmax())
        if hits[i]:
            return asked + i + 1, missing + int((~known[:i]).sum()), int(rows[i])
        asked, missing = asked + len(at), missing + int((~known).sum())
        k, window = k + len(at) * hop, window * 4
    return asked, missing, -1


def first_touch(
    low: Floats, high: Floats, since: int, last: int, lower: float, upper: float
) -> int:
    """Return the first step after `since` that reaches a level, else `last`; -1: the data end."""
    steps, window = len(low), _FIRST_WINDOW
    k, end = since + 1, min(last, len(low))
    while k < end:
        stop = min(k + window, end)
        hits = (low[k:stop] <= lower) | (high[k:stop] >= upper)
        i = int(hits.argmax())
        if hits[i]:
            return k + i
        k, window = stop, window * 4
    return last if last < steps else -1


def simulate(columns: Columns, rules: Rules, state: Ints, whole: Ints, real: Floats) -> int:
    """Write trades until the columns are full or the frames are played; return how many.

    `state`, `whole` and `real` are laid out as the constants above say.
    """
    averages, fills, opens = columns.price, columns.fill, columns.open
    highs, lows = columns.high, columns.low
    sides, goals, stops = columns.side, columns.goal, columns.stop
    lives, entries, next_open = columns.minutes, columns.entry, columns.next_open
    touch_low, touch_high = columns.touch_low, columns.touch_high
    closes = len(next_open) > 0
    written, frame, asks_from, steps = 0, state[FRAME], state[ASKS_FROM], len(fills)
    wick, limits = rules.wick, rules.limits
    while frame < rules.until and written < whole.shape[1]:
        if rules.start + frame * rules.step >= steps:
            break
        due = next_due(max(frame, asks_from), rules.hop, rules.phase)
        if closes:
            due = max(due, first_open_frame(rules, next_open, due))
        if frame < due:
            frame = min(due, rules.frames)
            continue
        k = rules.start + frame * rules.step
        asked, missing, row = next_signal(rules, sides, k, steps, next_open)
        last = frame + (asked - 1) * rules.hop
        frame, asks_from, k = last + 1, last + rules.hop, rules.start + last * rules.step
        state[CALLS] += asked
        state[UNANSWERED] += missing
        if row < 0:
            continue
        side, average, fill = float(sides[row]), averages[k], fills[k]
        goal, stop = goals[min(row, len(goals) - 1)], stops[min(row, len(stops) - 1)]
        minutes, limit = lives[min(row, len(lives) - 1)], entries[min(row, len(entries) - 1)]
        if rules.relative:
            goal, stop = fill * (1 + side * goal / 100), fill * (1 - side * stop / 100)
        if problems_of(side, limit, goal, stop, minutes, average, fill, wick, limits) != 0:
            state[FIRST_INVALID] = rules.epoch + k if state[INVALID] == 0 else state[FIRST_INVALID]
            state[INVALID] += 1
            continue
        at, filled, entry, close, ambiguous, reason = k, k, fill, stop, False, UNCHANGED
        if not opens_now(side, limit, fill):
            lower, upper = (limit, np.inf) if side > 0 else (-np.inf, limit)
            last = k + rules.wait
            if closes and last < steps:
                last = next_open[last]
            at = first_touch(touch_low, touch_high, k, last, lower, upper)
            if at < 0:
                at, reason, entry = max(rules.last, k), CANCELLED_END_OF_DATA, limit
            else:
                expired = at - k >= rules.wait
                reason, entry = scheduled_step(
                    side,
                    limit,
                    goal,
                    stop,
                    expired,
                    averages[at],
                    fills[at],
                    opens[at],
                    highs[at],
                    lows[at],
                    wick,
                )
            filled = at
            if reason == ACTIVATED:
                reason = UNCHANGED
            elif reason == ACTIVATED_AND_STOPPED:
                reason = STOP_LOSS
        if reason == UNCHANGED:
            lower, upper = (stop, goal) if side > 0 else (goal, stop)
            lasts = -(-int(minutes) // rules.minutes)
            last = filled + lasts
            if closes and last < steps:
                last = next_open[last]
            at = first_touch(touch_low, touch_high, filled, last, lower, upper)
            if at < 0:
                at, reason = max(rules.last, filled), END_OF_DATA
                close = fills[at]
            else:
                expired = at - filled >= lasts
                reason, close, ambiguous = pending_step(
                    side,
                    goal,
                    stop,
                    expired,
                    averages[at],
                    fills[at],
                    opens[at],
                    highs[at],
                    lows[at],
                    wick,
                    rules.stop_first,
                )
        whole[ROW, written], whole[SCHEDULED, written] = row, rules.epoch + k
        whole[FILLED, written], whole[CLOSED, written] = rules.epoch + filled, rules.epoch + at
        whole[REASON, written], whole[AMBIGUOUS, written] = reason, ambiguous
        whole[ASKED, written] = state[CALLS]
        real[ENTRY, written], real[GOAL, written] = entry, goal
        real[STOP, written], real[CLOSE, written] = stop, close
        real[LIMIT, written] = limit
        written += 1
        ended = reason in (END_OF_DATA, CANCELLED_END_OF_DATA)
        after = -((rules.start - at - max(rules.free, int(ended))) // rules.step)
        after = min(max(after, frame), rules.frames)
        state[HELD] += after - frame
        frame = after
    state[FRAME], state[ASKS_FROM] = min(frame, rules.frames), asks_from
    return written

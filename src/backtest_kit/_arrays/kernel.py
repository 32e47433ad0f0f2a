"""The compiled kernel: from arrays of signals to closed trades, in one pass over the candles.

The rules of `_signal.complete`, `_life` and the throttle of `_frames` once more, as plain loops
that Numba compiles (extra `numba`; without it they stay plain Python). Bit for bit the same as the
engine's steps: each float comes from the same operations in the same order, without fast-math. Not
here: risk profiles, milestones, events.

Time is counted in steps: step k of a tape is the instant at which its 1m candle k closes.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.results import REASONS

F = TypeVar("F", bound=Callable[..., Any])

_TAKE_PROFIT, _STOP_LOSS, _TIME_EXPIRED, _END_OF_DATA, _, _, _PRICE_REJECT = range(len(REASONS))
_LANE: Final = 32
_BLOCK: Final = 2048


def available() -> bool:
    """Say whether Numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


def _compiled(function: F) -> F:
    """Return `function`, to be compiled at its first call; as it is where Numba is missing."""
    if not available():
        return function
    numba: Any = importlib.import_module("numba")
    options = {"nogil": True, "error_model": "numpy", "fastmath": False, "forceinline": True}
    try:
        return numba.njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder can be written to
        return numba.njit(**options)(function)  # type: ignore[no-any-return]


class Rules(NamedTuple):
    """When to ask, and the settings; lengths in minutes.

    Frames begin at step `start`; `until` bounds those to play. Asked every `hop` of them, the row
    moves on by `rows` and `rest` minutes. The row at step k is `(minute + k) // interval - base`.
    """

    relative: bool
    start: int
    step: int
    frames: int
    until: int
    hop: int
    rows: int
    rest: int
    minute: int
    interval: int
    base: int
    first_row: int
    wick: bool
    stop_first: bool
    wait: int
    longest: int
    least_profit: float
    least_loss: float
    most_loss: float


class Columns(NamedTuple):
    """The market and the signals; a column of length 1 holds for all rows.

    Trigger "vwap" sees flat candles at the average price.
    """

    price: Floats
    open: Floats
    high: Floats
    low: Floats
    side: npt.NDArray[np.int8]
    goal: Floats
    stop: Floats
    minutes: Floats
    entry: Floats


@_compiled
def _next_answer(
    rules: Rules, side: npt.NDArray[np.int8], k: int, steps: int
) -> tuple[int, int, int]:
    """Ask from step k on; return how often, how often in vain, and the row found (or -1)."""
    end = min(rules.start + rules.until * rules.step, steps)
    row = (rules.minute + k) // rules.interval - rules.base
    rest = (rules.minute + k) % rules.interval
    asked = missing = 0
    while k < end:
        asked += 1
        if row < rules.first_row or row >= len(side):
            missing += 1
        elif side[np.uint64(row)] != 0:
            return asked, missing, row
        k, row, rest = k + rules.hop * rules.step, row + rules.rows, rest + rules.rest
        if rest >= rules.interval:
            row, rest = row + 1, rest - rules.interval
    return asked, missing, -1


@_compiled
def _between(s: float, entry: float, goal: float, stop: float) -> bool:
    return (goal - entry) * s > 0 and (entry - stop) * s > 0


@_compiled
def _valid(
    rules: Rules, s: float, price: float, wanted: float, goal: float, stop: float, minutes: float
) -> bool:
    """Say whether `_signal.complete` would accept the signal; `wanted` is NaN to enter now."""
    if not (0 < goal < np.inf and 0 < stop < np.inf):
        return False
    if not (1 <= minutes <= rules.longest and np.floor(minutes) == minutes):
        return False
    if not np.isnan(wanted) and not (0 < wanted < np.inf and _between(s, wanted, goal, stop)):
        return False
    entry = wanted if s * price > s * wanted else price
    gain, loss = abs(goal - entry) / entry * 100, abs(stop - entry) / entry * 100
    return (
        _between(s, entry, goal, stop)
        and not (rules.least_profit > 0 and gain < rules.least_profit)
        and not (rules.least_loss > 0 and loss < rules.least_loss)
        and not (rules.most_loss > 0 and loss > rules.most_loss)
    )


@_compiled
def _touch(
    low: Floats, high: Floats, wick: bool, since: int, minutes: int, lower: float, upper: float
) -> tuple[int, int]:
    """Return when a life from `since` on turns, and if it ran out: a reason, or -1 at a level."""
    steps, last = len(low), since + minutes
    k, end = since + 1, min(last + 1, steps)
    while k + _LANE <= end:  # counted without branches, so that it becomes wide instructions
        hits = 0
        for j in range(_LANE):
            i = np.uint64(k + j)  # unsigned: no index from the end
            hits += int(low[i] <= lower) + int(high[i] >= upper)
        if hits:
            break
        k += _LANE
    while k < end and low[np.uint64(k)] > lower and high[np.uint64(k)] < upper:
        k += 1
    if k > last or (k == last and k < steps and not wick):
        return last, _TIME_EXPIRED
    return (k, -1) if k < steps else (max(steps - 1, since), _END_OF_DATA)


@_compiled
def _filled(s: float, open_: float, high: float, low: float, stop: float) -> int:
    """Return how a candle that reaches the entry ends the wait: a reason, or -1.

    `_STOP_LOSS`: filled and stopped out at once.
    """
    if s * open_ <= s * stop:
        return _PRICE_REJECT
    return _STOP_LOSS if (low <= stop if s > 0 else high >= stop) else -1


@_compiled
def _closed(
    s: float, open_: float, high: float, low: float, goal: float, stop: float, stop_first: bool
) -> tuple[int, float, bool]:
    """Return why a candle that reaches a level closes, at which price, and if ambiguously."""
    if s * open_ <= s * stop:
        return _STOP_LOSS, open_, False
    if s * open_ >= s * goal:
        return _TAKE_PROFIT, goal, False
    stopped = low <= stop if s > 0 else high >= stop
    both = stopped and (high >= goal if s > 0 else low <= goal)
    if stopped and (stop_first or not both):
        return _STOP_LOSS, stop, both
    return _TAKE_PROFIT, goal, both


@_compiled
def play(columns: Columns, rules: Rules, state: Ints, whole: Ints, real: Floats) -> int:
    """Write trades until the columns are full or the frames are played; return how many.

    `whole` gets row, scheduled, filled, closed (in minutes), reason, ambiguous and the calls so
    far; `real` the entry, goal, stop and close. `state` is where to go on: frame, frame of the next
    ask; then the calls, those without a row, the invalid ones and the minute of the first, the
    frames held.
    """
    prices, opens, highs, lows, sides, goals, stops, lives, entries = columns
    written, frame, next_ask, steps = 0, state[0], state[1], len(prices)
    while frame < rules.until and written < whole.shape[1]:
        if rules.start + frame * rules.step >= steps:
            break
        if frame < next_ask:
            frame = min(next_ask, rules.frames)
            continue
        asked, missing, row = _next_answer(rules, sides, rules.start + frame * rules.step, steps)
        last = frame + (asked - 1) * rules.hop
        frame, next_ask, k = last + 1, last + rules.hop, rules.start + last * rules.step
        state[2] += asked
        state[3] += missing
        if row < 0:
            continue
        s, price = float(sides[row]), prices[k]
        goal, stop = goals[min(row, len(goals) - 1)], stops[min(row, len(stops) - 1)]
        minutes, wanted = lives[min(row, len(lives) - 1)], entries[min(row, len(entries) - 1)]
        if rules.relative:
            goal, stop = price * (1 + s * goal / 100), price * (1 - s * stop / 100)
        if not _valid(rules, s, price, wanted, goal, stop, minutes):
            state[5] = rules.minute + k if state[4] == 0 else state[5]
            state[4] += 1
            continue
        at, filled, entry, close, ambiguous, reason = k, k, price, stop, False, -1
        if s * price > s * wanted:
            entry = wanted
            lower, upper = (entry, np.inf) if s > 0 else (-np.inf, entry)
            at, reason = _touch(lows, highs, rules.wick, k, rules.wait, lower, upper)
            if reason >= 0:
                reason += 2  # the same, of a signal that was never filled
            else:
                reason = _filled(s, opens[at], highs[at], lows[at], stop)
            filled = at
        if reason < 0:
            lower, upper = (stop, goal) if s > 0 else (goal, stop)
            at, reason = _touch(lows, highs, rules.wick, at, int(minutes), lower, upper)
            close = prices[at]
            if reason < 0:
                reason, close, ambiguous = _closed(
                    s, opens[at], highs[at], lows[at], goal, stop, rules.stop_first
                )
        whole[0, written], whole[1, written] = row, rules.minute + k
        whole[2, written], whole[3, written] = rules.minute + filled, rules.minute + at
        whole[4, written], whole[5, written], whole[6, written] = reason, ambiguous, state[2]
        real[0, written], real[1, written] = entry, goal
        real[2, written], real[3, written] = stop, close
        written += 1
        free = min(max(-((rules.start - at - 1) // rules.step), frame), rules.frames)
        state[6] += free - frame
        frame = free
    state[0], state[1] = min(frame, rules.frames), next_ask
    return written


@_compiled
def moved(
    price: Floats, since: Ints, until: Ints, entry: Floats, percent: float
) -> npt.NDArray[np.bool_]:
    """Say of each life (steps `since` to `until`, excluded) if a price is `percent` off its entry.

    As a milestone is reached, up or down: by the magnitude of `_profit.revenue_percent`.
    """
    found = np.zeros(len(entry), dtype=np.bool_)
    for i in range(len(entry)):
        hits = 0
        for k in range(since[i], until[i]):
            hits += int(abs(price[k] - entry[i]) / entry[i] * 100 >= percent)
        found[i] = hits > 0
    return found


@_compiled
def _doubled(source: Floats, target: Floats, size: int, width: int) -> None:
    w = np.uint64(width)  # unsigned: no index from the end, so that it becomes wide instructions
    for i in range(np.uint64(size)):
        target[i] = source[i] + source[i + w]


@_compiled
def _quadrupled(source: Floats, target: Floats, size: int, width: int) -> None:
    one, two, three = np.uint64(width), np.uint64(2 * width), np.uint64(3 * width)
    for i in range(np.uint64(size)):
        target[i] = (source[i] + source[i + one]) + (source[i + two] + source[i + three])


@_compiled
def window_means(values: Floats, count: int) -> Floats:
    """Do what `_array_strategy.trailing_mean` does, a block at a time, in the same order."""
    n = len(values)
    mean = np.empty(n)
    here, there, total = np.empty(_BLOCK + count), np.empty(_BLOCK + count), np.empty(_BLOCK)
    mean[: count - 1] = np.nan
    for start in range(0, n - count + 1, _BLOCK):
        rows = min(_BLOCK, n - count + 1 - start)
        size, begin, width = rows + count - 1, np.uint64(0), 1
        sums = values[start : start + size]  # sums[i] is the sum of `width` values from i on
        total[:rows] = 0.0
        while True:
            if count & width:
                for i in range(np.uint64(rows)):
                    total[i] += sums[begin + i]
                begin += np.uint64(width)
            if 2 * width > count:
                break
            if count & (2 * width) or 4 * width > count:
                size -= width
                _doubled(sums, here, size, width)
                width *= 2
            else:
                size -= 3 * width
                _quadrupled(sums, here, size, width)
                width *= 4
            sums = here
            here, there = there, here
        out = mean[start + count - 1 : start + count - 1 + rows]
        for i in range(np.uint64(rows)):
            out[i] = total[i] / count
    return mean

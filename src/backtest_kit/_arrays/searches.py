"""Where a simulation has to ask the rules: searches over arrays, in NumPy.

The kernel has its own for some of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.layout import NO_STEP, Columns, Rules
from backtest_kit._values.candles import Floats, Ints

_FIRST_WINDOW = 128


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


def open_step(next_open: Ints, k: int) -> int:
    """Return the first step from `k` on at which the market is open, as far as that is known."""
    return int(next_open[k]) if k < len(next_open) else k


def exit_after(columns: Columns, side: float, k: int) -> int:
    """Return the first step after `k` at which a row says that nothing should be on `side`.

    `NO_STEP` if there is none.
    """
    exits = columns.exit_long if side > 0 else columns.exit_short
    if len(exits) == 0:
        return NO_STEP
    i = np.searchsorted(exits, k + 1)
    return int(exits[i]) if i < len(exits) else NO_STEP

"""Every row of an array strategy: does it look ahead, and how much does it remember?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from backtest_kit._arrays import peeking
from backtest_kit._arrays.peeking import GetSignals
from backtest_kit._arrays.signals import Signals, evaluate
from backtest_kit._values.candles import Candles

#: Candles at which all later ones are left out, and scrambled, with every earlier row compared.
_CUTS = 16


class Memory(msgspec.Struct, frozen=True):
    """Rows that say something else over windows of `length` candles than over the longest ones.

    `first` is the open time of the first such row's candle, in milliseconds.
    """

    length: int
    rows: int
    with_other_side: int
    first: int | None


class Found(NamedTuple):
    """What `check_rows` knows so far: rows checked, by length of the window, rows with a side."""

    rows: int
    memory: tuple[Memory, ...]
    signals: int


class ArrayCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about `rows` rows, `signals` of which have a side; times are open times.

    `peeking` says where the strategy looks into the future. `memory` is by length of the window,
    the longest last.
    """

    strategy_name: str
    symbol: str
    interval: str
    warmup: int
    since: int
    until: int
    rows: int
    signals: int
    peeking: str | None
    memory: tuple[Memory, ...]


def check_rows(
    function: GetSignals, candles: Candles, first: int, warmup: int, name: str
) -> Iterator[Found]:
    """Check the rows from `first` on; yield after each what was found so far.

    Raises:
        PeekingError: a row depends on later candles; the first such row is named.
    """
    lengths = sorted({max(warmup // 2, 1), warmup, 2 * warmup, 4 * warmup})
    memory = [Memory(length, 0, 0, None) for length in lengths]
    signals = 0
    for row in range(first, len(candles)):
        said = [peeking.window_answer(function, candles, row, length) for length in lengths]
        longest = said[-1]
        beyond = peeking.future_answer(function, candles, row, lengths[-1], warmup)
        if peeking.beyond_rounding(longest, beyond):
            raise peeking.peeking(name, candles, row, beyond, longest)
        signals += longest[0] != 0
        for i, one in enumerate(said):
            if one != longest:
                old = memory[i]
                memory[i] = Memory(
                    old.length,
                    old.rows + 1,
                    old.with_other_side + (one[0] != longest[0]),
                    int(candles.timestamp[row]) if old.first is None else old.first,
                )
        yield Found(row - first + 1, tuple(memory), signals)


def check_cuts(function: GetSignals, candles: Candles, name: str) -> None:
    """Leave out, and scramble, all candles after some; compare every row before.

    This finds a look further ahead than a window's length.

    Raises:
        PeekingError: a row depends on later candles.
    """
    whole = evaluate(function, candles)
    for row in np.linspace(0, len(candles) - 1, _CUTS + 2).astype(np.int64)[1:-1].tolist():
        for other in (candles[: row + 1], peeking.scrambled(candles, row)):
            signals = evaluate(function, other)
            found = _first_difference(whole, signals, row + 1)
            if found is not None:
                said = peeking.answer(whole, found), peeking.answer(signals, found)
                raise peeking.peeking(name, candles, found, *said)


def _first_difference(one: Signals, other: Signals, rows: int) -> int | None:
    """Return the first of `rows` rows that differ by more than rounding."""
    sides = one.side[:rows] != other.side[:rows]
    busy = np.flatnonzero(sides | (one.side[:rows] != 0))
    for row in busy.tolist():
        if peeking.beyond_rounding(peeking.answer(one, row), peeking.answer(other, row)):
            return int(row)
    return None

"""Prices that are hard to believe: bad prints, and splits that were not adjusted for."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import numpy as np

from backtest_kit._values.candles import Candles, concatenate

#: A price this many times off its neighbourhood for a few candles is a bad print.
_PRINT: Final = 10.0
#: Candles on either side that make the neighbourhood.
_NEIGHBOURS: Final = 15
#: Ratios of splits, old shares to new or the other way round, and how exactly they are met.
_SPLITS: Final = (1.5, *map(float, range(2, 21)), 25.0, 50.0, 100.0)
_EXACT: Final = 0.04
_SHOWN: Final = 20
#: With fewer candles than this on one side of a jump, that side is not conclusive.
_FEW: Final = 3
_NONE: Final = Candles([], [], [], [], [], [])


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A candle whose price is hard to believe; `ratio` to the prices around it."""

    timestamp: int
    kind: Literal["bad print", "split"]
    ratio: float


class Suspicions:
    """Looks for them in candles that come a piece at a time; `found` are the first ones of many."""

    def __init__(self) -> None:
        self.found: list[Suspicion] = []
        self._held = _NONE  # what is not judged yet, and the neighbourhood before it
        self._offset = 0  # the number of the first of them
        self._judged = 0  # numbers below it are
        self._place = 0  # of the newest that was found

    def look(self, candles: Candles, *, last: bool) -> None:
        """Judge candles with a neighbourhood on both sides; at the end of the data, all."""
        if len(self.found) >= _SHOWN:
            return
        held, offset = concatenate([self._held, candles]), self._offset
        n = offset + len(held)
        end = n if last else n - _NEIGHBOURS - 1
        if end <= self._judged or n < _FEW:
            self._held = held
            return
        for i in self._candidates(held, end):
            self._judge(held, i, n)
            if len(self.found) >= _SHOWN:
                break
        self._judged = end
        keep = max(0, end - offset - _NEIGHBOURS - 1)
        self._held, self._offset = held[keep:], offset + keep

    def _candidates(self, held: Candles, end: int) -> list[int]:
        """Return the numbers of candles across which the price changes 1.4-fold."""
        begin = self._judged - self._offset
        _, _, high, low, close, _ = held.columns()
        with np.errstate(all="ignore"):
            first = close[begin - 1] if begin else np.median(close[1 : 1 + _NEIGHBOURS])
            rows = slice(begin, end - self._offset)
            previous = np.concatenate(((first,), close[begin : end - self._offset - 1]))
            extreme = np.maximum(high[rows] / previous, previous / low[rows])
        found: list[int] = (np.flatnonzero(extreme > 1.4) + self._judged).tolist()
        return found

    def _judge(self, held: Candles, number: int, n: int) -> None:
        i = number - self._offset
        _, opening, high, low, close, _ = held.columns()
        before = np.median(close[max(0, i - _NEIGHBOURS) : i]) if number else opening[0]
        after = np.median(close[i + 1 : i + 1 + _NEIGHBOURS]) if number + 1 < n else close[i]
        moved = float(after / before)
        prices = np.array([opening[i], high[i], low[i], close[i]])
        # at either end of the data only the other side shows what is usual
        at_end = number < _FEW or n - 1 - number < _FEW
        level = after if number < _FEW else before if at_end else np.sqrt(before * after)
        off = prices / level
        worst = float(off[np.argmax(np.abs(np.log(np.maximum(off, 1e-300))))])
        stays = max(moved, 1 / moved)
        ratio = min(_SPLITS, key=lambda s: abs(s / stays - 1))
        when = int(held.timestamp[i])
        found = self.found
        near = bool(found) and number - self._place < _FEW
        if (at_end or stays < 1.4) and max(worst, 1 / max(worst, 1e-300)) >= _PRINT:
            # the few candles of one bad print are reported once
            if not (near and found[-1].kind == "bad print"):
                self._place = number
                found.append(Suspicion(timestamp=when, kind="bad print", ratio=worst))
        elif number and stays >= 1.4 and abs(ratio / stays - 1) <= _EXACT:
            # a split is between two
            jump = float(close[i] / close[i - 1])
            crossed = max(jump, 1 / jump) >= 1.4
            reported = bool(found) and found[-1].kind == "split"
            if crossed and not near and not (reported and number - self._place < _NEIGHBOURS):
                self._place = number
                found.append(Suspicion(timestamp=when, kind="split", ratio=moved))

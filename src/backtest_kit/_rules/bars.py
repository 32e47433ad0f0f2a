"""Base candles as the rules see them: as arrays, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from backtest_kit._rules.proposal import Quote
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.time import MINUTE

_COLUMNS: Final = ("price", "fill", "open", "high", "low")


class Bar(msgspec.Struct, frozen=True):
    """The market at a step: instant (ms), average price, and the base candle that just closed.

    `fill` is the price at which a fill can be had: the candle's close, or the average price.
    """

    when: int
    price: float
    fill: float
    open: float
    high: float
    low: float
    close: float

    @property
    def quote(self) -> Quote:
        """The prices that a proposal is measured against."""
        return Quote(self.price, self.fill)


class Bars(msgspec.Struct, frozen=True, eq=False):
    """The base candles as arrays: row i is the step at `first + i * step` milliseconds.

    `price` is the average price at the step (NaN before there are enough candles), `fill` the price
    at which a fill can be had, the others are the candle that closed at it. All float64 of one
    length. `next_open` is, for each row, the first row from there on at which the market is open,
    or the number of rows if there is none; `None`: the market never closes. `close` is that of the
    candle; `None`: it is `fill`.
    """

    first: int
    price: Floats
    fill: Floats
    open: Floats
    high: Floats
    low: Floats
    step: int = MINUTE
    next_open: Ints | None = None
    close: Floats | None = None

    @property
    def stop(self) -> int:
        """The instant after the last step, in milliseconds."""
        return self.first + len(self.price) * self.step

    def priced_from(self, count: int) -> int:
        """Return the first step (ms) that has an average price of `count` candles."""
        return self.first + (count - 1) * self.step

    @property
    def last_row(self) -> int:
        """The last row at which the market is open; the last one where none is."""
        rows = len(self.price)
        if self.next_open is None:
            return rows - 1
        # rows from which on there is none come last
        ended = int(np.searchsorted(self.next_open, rows))
        return ended - 1 if ended else rows - 1

    @property
    def last(self) -> int:
        """The instant of the last step at which the market is open, in milliseconds."""
        return self.first + self.last_row * self.step

    @property
    def longest_rest(self) -> int:
        """How long the market is closed at a time, at most, in milliseconds."""
        if self.next_open is None or not len(self.next_open):
            return 0
        return int((self.next_open - np.arange(len(self.next_open))).max()) * self.step

    def until(self, last: int) -> Bars:
        """Return these up to the step `last` (ms), as if the data ended there."""
        rows = self.row(last) + 1
        if rows >= len(self.price):
            return self
        cut = {name: getattr(self, name)[:rows] for name in _COLUMNS}
        if self.close is not None:
            cut["close"] = self.close[:rows]
        if self.next_open is not None:
            cut["next_open"] = np.minimum(self.next_open[:rows], rows)
        return msgspec.structs.replace(self, **cut)

    def open_row(self, row: int) -> int:
        """Return the first row from `row` on at which the market is open; it may lie outside."""
        if self.next_open is None or row >= len(self.next_open):
            return row
        return int(self.next_open[row])

    def trades_at(self, when: int) -> bool:
        """Say whether the market is open at the step `when`, which must be one of these."""
        row = self.row(when)
        return self.next_open is None or int(self.next_open[row]) == row

    def opens(self, when: int) -> int:
        """Return the first step from `when` on at which the market is open, else `stop`."""
        return self.first + self.open_row(self.row(when)) * self.step

    def row(self, when: int) -> int:
        """Return the row of the step at `when`; it may lie outside."""
        return (when - self.first) // self.step

    def closes(self, when: int, stop: int, hop: int) -> int:
        """Return the first of `when`, `when + hop`, ... at which the market is closed.

        `stop` if there is none before it.
        """
        if self.next_open is None:
            return stop
        rows = np.arange(self.row(when), self.row(stop - 1) + 1, hop // self.step)
        closed = self.next_open[rows] != rows
        return self.first + int(rows[closed.argmax()]) * self.step if closed.any() else stop

    def open_steps(self, steps: range) -> int:
        """Return at how many steps the market is open; it counts as open outside the bars."""
        if self.next_open is None:
            return len(steps)
        rows = np.arange(self.row(steps.start), self.row(steps.stop))
        there = rows[(rows >= 0) & (rows < len(self.next_open))]
        return len(rows) - int((self.next_open[there] != there).sum())

    def steps_after(self, when: int) -> Iterator[int]:
        """Yield the steps later than `when` at which the market is open."""
        first = max(when + self.step, self.first)
        return (t for t in range(first, self.stop, self.step) if self.trades_at(t))

    def bar(self, when: int) -> Bar:
        """Return the bar of the step `when`."""
        i = (when - self.first) // self.step
        return Bar(
            when,
            float(self.price[i]),
            float(self.fill[i]),
            float(self.open[i]),
            float(self.high[i]),
            float(self.low[i]),
            float((self.fill if self.close is None else self.close)[i]),
        )

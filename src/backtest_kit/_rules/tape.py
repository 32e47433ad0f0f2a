"""The market that decides a signal's life: base candles as arrays, and one step of them."""

from __future__ import annotations

import msgspec

from backtest_kit._rules.proposal import Quote
from backtest_kit._values.candles import Floats
from backtest_kit._values.time import MINUTE


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

    @property
    def quote(self) -> Quote:
        """The prices that a proposal is measured against."""
        return Quote(self.price, self.fill)


class Tape(msgspec.Struct, frozen=True, eq=False):
    """The base candles as arrays: row i is the step at `first + i * step` milliseconds.

    `price` is the average price at the step (NaN before there are enough candles), `fill` the price
    at which a fill can be had, the others are the candle that closed at it. All float64 of one
    length.
    """

    first: int
    price: Floats
    fill: Floats
    open: Floats
    high: Floats
    low: Floats
    step: int = MINUTE

    @property
    def stop(self) -> int:
        """The instant after the last step, in milliseconds."""
        return self.first + len(self.price) * self.step

    @property
    def last(self) -> int:
        """The instant of the last step, in milliseconds."""
        return self.stop - self.step

    def row(self, when: int) -> int:
        """Return the row of the step at `when`; it may lie outside."""
        return (when - self.first) // self.step

    def bar(self, when: int) -> Bar:
        """Return the market at the step `when`."""
        i = (when - self.first) // self.step
        return Bar(
            when,
            float(self.price[i]),
            float(self.fill[i]),
            float(self.open[i]),
            float(self.high[i]),
            float(self.low[i]),
        )

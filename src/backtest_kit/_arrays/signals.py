"""Strategies over whole arrays: entry signals as columns, asked like any other strategy."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._values.candles import Candles, Floats, Ints
from backtest_kit._values.errors import ArgumentError, SignalError
from backtest_kit._values.numbers import is_whole
from backtest_kit._values.signal import Signal


class Signals:
    """Entry signals, one row per candle; row i is the answer when candle i has closed.

    `side` is int8 of shape (n,): 1 long, -1 short, 0 none. The others broadcast to it: prices
    float64 (`price_open` NaN: enter now), the lifetime in whole minutes.

    Raises:
        SignalError: a column has another length, or `side` another value; all problems at once.
    """

    __slots__ = (
        "_busy",
        "minute_estimated_time",
        "price_open",
        "price_stop_loss",
        "price_take_profit",
        "relative",
        "side",
    )

    def __init__(
        self,
        side: npt.ArrayLike,
        price_take_profit: npt.ArrayLike,
        price_stop_loss: npt.ArrayLike,
        minute_estimated_time: npt.ArrayLike,
        price_open: npt.ArrayLike | None = None,
    ) -> None:
        problems: list[str] = []
        sides = np.asarray(side)
        if sides.ndim != 1 or not _are_sides(sides):
            problems.append("side must be one-dimensional, of 1 (long), -1 (short) and 0 (none)")
            sides = np.zeros(sides.size)
        self.side: npt.NDArray[np.int8] = sides.astype(np.int8)
        entry = np.nan if price_open is None else price_open
        self.price_take_profit = self._column("price_take_profit", price_take_profit, problems)
        self.price_stop_loss = self._column("price_stop_loss", price_stop_loss, problems)
        self.minute_estimated_time = self._column(
            "minute_estimated_time", minute_estimated_time, problems
        )
        self.price_open = self._column("price_open", entry, problems)
        self.relative = False
        self._busy: Ints | None = None
        if problems:
            raise SignalError(problems)

    @classmethod
    def bracket(
        cls,
        side: npt.ArrayLike,
        take_profit_percent: npt.ArrayLike = 1.0,
        stop_loss_percent: npt.ArrayLike = 0.5,
        minute_estimated_time: npt.ArrayLike = 240,
    ) -> Signals:
        """Return signals that enter now, with distances in percent of the actual entry price."""
        signals = cls(side, take_profit_percent, stop_loss_percent, minute_estimated_time)
        signals.relative = True
        return signals

    @classmethod
    def atr_bracket(
        cls,
        side: npt.ArrayLike,
        candles: Candles,
        take_profit_atr: float | Floats = 2.0,
        stop_loss_atr: float | Floats = 1.0,
        minute_estimated_time: npt.ArrayLike = 240,
        period: int = 14,
    ) -> Signals:
        """Return signals that enter now, with distances in multiples of the average true range.

        The true range is Wilder's (New Concepts in Technical Trading Systems, 1978); its average
        is the plain mean of the last `period` rows, as his first value is, so that row i depends
        on candles `i - period` to i alone (his smoothing would depend on all before). The multiple,
        in percent of the row's close, is measured from the actual entry price. Rows before
        `period` have no signal.

        Raises:
            ArgumentError: `period` is no whole number of 1 or more.
        """
        if not is_whole(period):
            raise ArgumentError(f"period={period!r} must be a whole number, 1 or more")
        _, _, high, low, close, _ = candles.columns()
        before = np.concatenate((close[:1] * np.nan, close[:-1]))
        reach = np.maximum(high, before) - np.minimum(low, before)
        percent = trailing_mean(reach, period) / close * 100
        known = np.isfinite(percent)
        return cls.bracket(
            np.where(known, side, 0),
            percent * take_profit_atr,
            percent * stop_loss_atr,
            minute_estimated_time,
        )

    def __len__(self) -> int:
        return len(self.side)

    def busy(self) -> Ints:
        """Return the rows with a side, ascending."""
        if self._busy is None:
            self._busy = np.flatnonzero(self.side != 0)
        return self._busy

    def row(self, index: int, price: float) -> Signal | None:
        """Return row `index` as a proposal, `price` being that at which a fill can be had."""
        side = int(self.side[index])
        if side == 0:
            return None
        goal, stop = float(self.price_take_profit[index]), float(self.price_stop_loss[index])
        if self.relative:
            goal, stop = price * (1 + side * goal / 100), price * (1 - side * stop / 100)
        entry = float(self.price_open[index])
        return Signal(
            position="long" if side > 0 else "short",
            price_take_profit=goal,
            price_stop_loss=stop,
            minute_estimated_time=float(self.minute_estimated_time[index]),  # type: ignore[arg-type]
            price_open=None if entry != entry else entry,
        )

    def _column(self, name: str, values: npt.ArrayLike, problems: list[str]) -> Floats:
        column = np.asarray(values, dtype=np.float64)
        if column.shape not in ((), self.side.shape):
            problems.append(f"{name} has shape {column.shape}; expected () or {self.side.shape}")
            return np.zeros(self.side.shape)
        if column.shape:
            view = column.view()
        else:  # as np.broadcast_to, in a tenth of its time
            view = np.ndarray(self.side.shape, np.float64, column, strides=(0,))
        view.flags.writeable = False
        return view


def _are_sides(sides: npt.NDArray[Any]) -> bool:
    if sides.dtype == np.bool_:
        return True
    if sides.dtype == np.int8:
        return bool((sides.view(np.uint8) + np.uint8(1) <= 2).all())
    return bool(((sides == 0) | (sides == 1) | (sides == -1)).all())


def trailing_mean(values: npt.ArrayLike, count: int) -> Floats:
    """Return the mean of the last `count` values at each row, float64; NaN where there are fewer.

    Each row adds up its own window in the same order (pairs, then pairs of pairs), so that it
    depends on that window alone, to the last bit: a difference of cumulative sums does not, since
    what came before leaves its rounding.

    Raises:
        ArgumentError: `count` is no whole number of 1 or more, or `values` are not one-dimensional.
    """
    if not is_whole(count):
        raise ArgumentError(f"count={count!r} must be a whole number, 1 or more")
    count = operator.index(count)
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ArgumentError(f"values have shape {column.shape}; expected one dimension")
    rows = len(column) - count + 1
    if rows < 1:
        return np.full(column.shape, np.nan)
    if kernel_ready.is_set():  # the kernel is there: a quarter of the time
        from backtest_kit._arrays.kernel import window_means

        return window_means(read_only(column), count)
    mean = np.full(column.shape, np.nan)
    total, spare = mean[count - 1 :], [np.empty_like(column) for _ in range(2)]
    total[:] = 0.0
    begin, width = 0, 1
    while True:  # column[i] is the sum of `width` values from i on
        if count & width:
            total += column[begin : begin + rows]
            begin += width
        if 2 * width > count:
            break
        column = np.add(column[:-width], column[width:], out=spare[0][: len(column) - width])
        spare.reverse()
        width *= 2
    total /= count
    return mean


def read_only(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a contiguous view of one kind, so that the kernel is compiled once."""
    view = np.ascontiguousarray(column).view()
    view.flags.writeable = False
    return view


def evaluate(function: Callable[[Candles], Any], window: Candles) -> Signals:
    """Return a strategy's signals over `window`.

    Raises:
        SignalError: the answer is no `Signals`, or not one row per candle.
    """
    signals = function(window)
    if not isinstance(signals, Signals) or len(signals) != len(window):
        raise SignalError(
            [f"get_signals returned {signals!r}; return Signals with {len(window)} rows"]
        )
    return signals

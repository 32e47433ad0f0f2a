"""Strategies over whole arrays: entry signals as columns, asked like any other strategy."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._rules.management import pairs
from backtest_kit._values.candles import Candles, Floats, Ints
from backtest_kit._values.errors import ArgumentError, SignalError
from backtest_kit._values.numbers import is_whole
from backtest_kit._values.signal import Levels, Signal, TrailingStop

Mask = npt.NDArray[np.bool_]


class ManagementColumns(TypedDict, total=False):
    """What `Signals` may say beside its levels; see there."""

    trailing_stop: TrailingStop | npt.ArrayLike | None
    trailing_activate_percent: npt.ArrayLike | None
    breakeven_percent: npt.ArrayLike | None
    take_profits: Sequence[Sequence[float]]
    stop_losses: Sequence[Sequence[float]]
    entries: Sequence[Sequence[float]]
    exit_long: npt.ArrayLike | None
    exit_short: npt.ArrayLike | None


class Signals:
    """Entry signals, one row per candle; row i is the answer when candle i has closed.

    `side` is int8 of shape (n,): 1 long, -1 short, 0 none. The others broadcast to it: prices
    float64 (`price_open` NaN: enter now), the lifetime in whole minutes. `None` or NaN for a
    target, a stop, or a lifetime: as `None` on `Signal`.

    What else there is on a `Signal` is the same here. `trailing_stop` may be a column of percents,
    with `trailing_activate_percent`, and `breakeven_percent` one (NaN: not used); `take_profits`,
    `stop_losses` and `entries` are pairs that hold for all rows.

    `exit_long` and `exit_short` are masks of shape (n,): where row i says so, a long (short) is
    closed at the market, one that waits is cancelled, and one that the row itself proposes counts
    as none.

    Raises:
        SignalError: a column has another length, `side` another value, or levels are no pairs of
            numbers; all problems at once.
    """

    __slots__ = (
        "_busy",
        "_exits",
        "breakeven_percent",
        "entries",
        "exit_long",
        "exit_short",
        "minute_estimated_time",
        "price_open",
        "price_stop_loss",
        "price_take_profit",
        "relative",
        "side",
        "stop_losses",
        "take_profits",
        "trailing_activate_percent",
        "trailing_stop",
    )

    def __init__(
        self,
        side: npt.ArrayLike,
        price_take_profit: npt.ArrayLike | None,
        price_stop_loss: npt.ArrayLike | None,
        minute_estimated_time: npt.ArrayLike | None,
        price_open: npt.ArrayLike | None = None,
        **management: Unpack[ManagementColumns],
    ) -> None:
        problems: list[str] = []
        sides = np.asarray(side)
        if sides.ndim != 1 or not _are_sides(sides):
            problems.append("side must be one-dimensional, of 1 (long), -1 (short) and 0 (none)")
            sides = np.zeros(sides.size)
        self.side: npt.NDArray[np.int8] = sides.astype(np.int8)
        self.price_take_profit = self._column("price_take_profit", price_take_profit, problems)
        self.price_stop_loss = self._column("price_stop_loss", price_stop_loss, problems)
        self.minute_estimated_time = self._column(
            "minute_estimated_time", minute_estimated_time, problems
        )
        self.price_open = self._column("price_open", price_open, problems)
        self.relative = False
        self._busy: Ints | None = None
        self._exits: tuple[Ints, Ints] | None = None
        self.trailing_stop: Floats | None = None
        self.trailing_activate_percent: Floats | None = None
        self.breakeven_percent: Floats | None = None
        self.take_profits: Levels = ()
        self.stop_losses: Levels = ()
        self.entries: Levels = ()
        self.exit_long: Mask | None = None
        self.exit_short: Mask | None = None
        if management:
            self._manage(management, problems)
        if problems:
            raise SignalError(problems)

    def _manage(self, how: ManagementColumns, problems: list[str]) -> None:
        """Take what says how positions are managed, and when they are to end."""
        for name in how:
            if name not in ManagementColumns.__annotations__:
                known = ", ".join(ManagementColumns.__annotations__)
                raise TypeError(f"Signals has no argument {name!r} (there are: {known})")
        trailing, activate = how.get("trailing_stop"), how.get("trailing_activate_percent")
        if isinstance(trailing, TrailingStop):
            if activate is not None:
                problems.append("trailing_activate_percent is in the TrailingStop already")
            activate, trailing = trailing.activate_percent, trailing.percent
        if trailing is not None:
            self.trailing_stop = self._column("trailing_stop", trailing, problems)
            from_ = 0.0 if activate is None else activate
            column = self._column("trailing_activate_percent", from_, problems)
            self.trailing_activate_percent = column
        elif activate is not None:
            problems.append("trailing_activate_percent is given without trailing_stop")
        if (breakeven := how.get("breakeven_percent")) is not None:
            self.breakeven_percent = self._column("breakeven_percent", breakeven, problems)
        for name in ("take_profits", "stop_losses", "entries"):
            given: Any = how.get(name)
            if given is None:
                continue
            try:
                setattr(self, name, pairs(given))
            except (TypeError, ValueError, OverflowError):
                problems.append(f"{name}={given!r} must be pairs of finite numbers")
        for name, side in (("exit_long", 1), ("exit_short", -1)):
            if (mask := how.get(name)) is None:
                continue
            column = np.array(mask)
            if column.shape != self.side.shape or column.dtype != np.bool_:
                problems.append(
                    f"{name} has shape {column.shape} and type {column.dtype}; expected "
                    f"{self.side.shape} and bool"
                )
                continue
            column.flags.writeable = False
            setattr(self, name, column)
            # no row opens what it closes
            self.side[column & (self.side == side)] = 0

    @property
    def has_exits(self) -> bool:
        """Whether there is a column that says when positions are to end."""
        return self.exit_long is not None or self.exit_short is not None

    @property
    def is_managed(self) -> bool:
        """Whether a row may say more than its target, its stop and its end."""
        return (
            self.trailing_stop is not None
            or self.breakeven_percent is not None
            or bool(self.take_profits or self.stop_losses or self.entries)
        )

    def exits(self, side: int) -> Ints:
        """Return the rows that say that nothing should be on `side`, ascending."""
        if self._exits is None:
            self._exits = _rows(self.exit_long), _rows(self.exit_short)
        return self._exits[side < 0]

    @classmethod
    def bracket(
        cls,
        side: npt.ArrayLike,
        take_profit_percent: npt.ArrayLike | None = 1.0,
        stop_loss_percent: npt.ArrayLike | None = 0.5,
        minute_estimated_time: npt.ArrayLike | None = 240,
        **management: Unpack[ManagementColumns],
    ) -> Signals:
        """Return signals that enter now, with distances in percent of the actual entry price.

        The others are as on `Signals`.
        """
        signals = cls(
            side, take_profit_percent, stop_loss_percent, minute_estimated_time, **management
        )
        signals.relative = True
        return signals

    @classmethod
    def atr_bracket(
        cls,
        side: npt.ArrayLike,
        candles: Candles,
        take_profit_atr: float | Floats = 2.0,
        stop_loss_atr: float | Floats = 1.0,
        minute_estimated_time: npt.ArrayLike | None = 240,
        period: int = 14,
        **management: Unpack[ManagementColumns],
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
            **management,
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
        how: dict[str, Any] = {}
        if self.is_managed:
            how = {name: getattr(self, name) for name in ("take_profits", "stop_losses", "entries")}
            trailing = _at(self.trailing_stop, index)
            if trailing is not None:
                activate = _at(self.trailing_activate_percent, index)
                how["trailing_stop"] = TrailingStop(trailing, activate or 0.0)
            how["breakeven_percent"] = _at(self.breakeven_percent, index)
        return Signal(
            position="long" if side > 0 else "short",
            price_take_profit=None if goal != goal else goal,
            price_stop_loss=None if stop != stop else stop,
            minute_estimated_time=_at(self.minute_estimated_time, index),  # type: ignore[arg-type]
            price_open=_at(self.price_open, index),
            **how,
        )

    def _column(self, name: str, values: npt.ArrayLike | None, problems: list[str]) -> Floats:
        column = np.asarray(np.nan if values is None else values, dtype=np.float64)
        if column.shape not in ((), self.side.shape):
            problems.append(f"{name} has shape {column.shape}; expected () or {self.side.shape}")
            return np.zeros(self.side.shape)
        if column.shape:
            view = column.view()
        else:  # as np.broadcast_to, in a tenth of its time
            view = np.ndarray(self.side.shape, np.float64, column, strides=(0,))
        view.flags.writeable = False
        return view


def _at(column: Floats | None, index: int) -> float | None:
    """Return a value of a column; `None` where there is none, or NaN."""
    value = math.nan if column is None else float(column[index])
    return None if value != value else value


def _rows(mask: Mask | None) -> Ints:
    return np.flatnonzero(mask) if mask is not None else np.empty(0, dtype=np.int64)


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

"""What is to be simulated, as columns and numbers: from bars, signals and settings."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._arrays import layout
from backtest_kit._arrays.hold import PLAIN
from backtest_kit._arrays.signals import Signals, read_only
from backtest_kit._rules.asking import Stride, askable, data_end, stride
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.holding import SIZE, WIDTH
from backtest_kit._rules.management import flat as flattened
from backtest_kit._rules.management import limits_of
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.signal import Levels
from backtest_kit._values.time import INTERVALS, MINUTE, interval_ms

#: Trades after which `simulate` comes back with them.
ROOM: Final = 8192
_FOREVER: Final = 2**53
_NEVER_CLOSED: Final = np.empty(0, dtype=np.int64)
_UNUSED: Final = np.full(1, np.nan)
_MANAGED: Final = ("trailing_stop", "trailing_activate_percent", "breakeven_percent")


class SignalRows(msgspec.Struct, frozen=True, eq=False):
    """Signals, when they are asked for (`timeline`, milliseconds), and the settings.

    Row i is the answer once the candle that opens at `opens + i * interval` (milliseconds, on the
    grid) has closed. There is no answer before `first_row` (warmup - 1) and after the last row.
    """

    signals: Signals
    opens: int
    interval: str
    timeline: range
    config: Config
    first_row: int = 0

    @property
    def stride(self) -> Stride | None:
        """The frames of `timeline` at which the strategy is asked; `None`: at none."""
        base = INTERVALS.get(self.config.base_interval, MINUTE)
        asks = askable(self.timeline, base, self.config)
        at_close = self.config.ask_at == "close"
        return stride(self.timeline, interval_ms(self.interval), at_close, asks)


def job(bars: Bars, rows: SignalRows, until: int) -> tuple[layout.Columns, layout.Rules]:
    """Return what is to be simulated, up to frame `until`.

    Raises:
        ArgumentError: an instant is off its grid, or the interval is unknown.
    """
    config, signals, interval = rows.config, rows.signals, interval_ms(rows.interval)
    base = bars.step
    bars = bars.until(data_end(rows.timeline, base, config))
    start, step = rows.timeline.start - bars.first, rows.timeline.step
    if start % base or step % base or interval % base or rows.opens % interval:
        raise ArgumentError(f"{rows.timeline} and opens={rows.opens} must be on their grids")
    asked, wick = rows.stride, config.exit_trigger == "wick"
    hop, phase = (0, 0) if asked is None else (asked.hop, asked.phase)
    flat = bars.price, bars.price, bars.price
    low, high = (bars.low, bars.high) if wick else (bars.price, bars.price)
    next_open = _NEVER_CLOSED if bars.next_open is None else bars.next_open
    if bars.next_open is not None:
        closed = next_open != np.arange(len(next_open))
        low, high = np.where(closed, np.inf, low), np.where(closed, -np.inf, high)
    columns: tuple[npt.NDArray[Any], ...] = (
        *(bars.price, bars.fill, *((bars.open, bars.high, bars.low) if wick else flat)),
        *(signals.side, _take_profit(signals), signals.price_stop_loss),
        *(signals.minute_estimated_time, signals.price_open, low, high, next_open),
        *(_UNUSED if c is None else c for c in (getattr(signals, name) for name in _MANAGED)),
        *(np.array(flattened(levels)) for levels in levels_of(signals)),
        *_exit_steps(bars, rows),
    )
    rules = layout.Rules(
        relative=signals.relative,
        start=start // base,
        step=step // base,
        frames=len(rows.timeline),
        until=until,
        hop=hop,
        phase=phase,
        rows=hop * step // interval,
        rest=hop * step % interval // base,
        epoch=bars.first // base,
        interval=interval // base,
        base=rows.opens // interval + 1,
        first_row=max(rows.first_row, 0),
        free=int(config.ask_at == "elapsed"),
        wick=wick,
        stop_first=config.ambiguous_candle == "stop_loss_first",
        wait=-(-min(config.schedule_await_minutes, _FOREVER) * MINUTE // base),
        minutes=base // MINUTE,
        limits=limits_of(config),
        last=bars.last_row,
        managed=signals.is_managed,
    )
    return layout.Columns(*map(column_of, columns)), rules


def _take_profit(signals: Signals) -> Floats:
    """Return the take profits; infinite, which is invalid, where a size is."""
    if not signals.is_sized or not (bad := signals.bad_sizes()).any():
        return signals.price_take_profit
    infinite = np.where(signals.side > 0, -np.inf, np.inf)
    return np.where(bad, infinite, signals.price_take_profit)


def levels_of(signals: Signals) -> tuple[Levels, Levels, Levels]:
    """Return the levels that hold for all rows: take profits, stop losses, entries."""
    return signals.take_profits, signals.stop_losses, signals.entries


def _exit_steps(bars: Bars, rows: SignalRows) -> list[Ints]:
    """Return the steps at which a row says exit, by side; not those in closed times."""
    signals, interval = rows.signals, interval_ms(rows.interval)
    found = []
    for side in (1, -1):
        at = signals.exits(side) if signals.has_exits else _NEVER_CLOSED
        at = at[at >= rows.first_row]
        steps = (rows.opens + (at + 1) * interval - bars.first) // bars.step
        if bars.next_open is not None:
            steps = steps[(steps >= 0) & (steps < len(bars.next_open))]
            steps = steps[bars.next_open[steps] == steps]
        found.append(steps)
    return found


def work_of(columns: layout.Columns, *, compiled: bool) -> layout.Work:
    """Return room for managed positions: arrays for the kernel, lists for Python, for their speed.

    There is room for the legs of as many positions as of trades, if they have few each.
    """
    levels = len(columns.profits), len(columns.losses), len(columns.entries)
    most = sum(levels) // 2 + PLAIN

    def room(size: int) -> Any:
        return np.zeros(size) if compiled else [0.0] * size

    def whole(size: int) -> Any:
        return np.zeros(size, dtype=np.int64) if compiled else [0] * size

    legs = (2 * ROOM if sum(levels) else 0) + most
    state, profits, losses, entries, own = (room(size) for size in (SIZE, *levels, most * WIDTH))
    return layout.Work(
        *(whole(layout.TRADE), room(layout.PRICES), state, profits, losses, entries, own),
        *(whole(most), np.empty(legs * WIDTH), np.empty(legs, dtype=np.int64)),
    )


def column_of(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column as the kernel takes them: not to be written, of length 1 if all are one."""
    return read_only(column[:1] if column.strides == (0,) else column)

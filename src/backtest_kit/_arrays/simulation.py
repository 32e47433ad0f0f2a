"""Runs of `simulate`: signals and candles in, a columnar table of trades out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._arrays import simulate as plain
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.signals import Signals, read_only
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._rules.asking import Stride, askable, stride
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.management import limits_of
from backtest_kit._rules.profit import profit
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.results import CANCELLED, REASONS
from backtest_kit._values.time import INTERVALS, MINUTE, interval_ms

#: Trades after which `simulate` comes back with them.
_ROOM: Final = 8192
_FOREVER: Final = 2**53
_NEVER_CLOSED: Final = np.empty(0, dtype=np.int64)
_lock = threading.Lock()
Simulate = Callable[[plain.Columns, plain.Rules, Ints, Ints, Floats], int]


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


class Simulation:
    """Frames played with one set of signals after another, each over a part of the frames.

    It begins at `frame`, and asks from frame `asks_from` on.
    """

    def __init__(self, frame: int = 0, asks_from: int = 0) -> None:
        self._state = np.array([frame, asks_from, 0, 0, 0, 0, 0])
        self._begin = frame
        self._unpriced = 0
        self._pieces: list[dict[str, npt.NDArray[Any]]] = []
        self._config = Config()
        self._step = MINUTE

    @property
    def place(self) -> tuple[int, int]:
        """The index of the next frame, and of the first at which the strategy may be asked."""
        return int(self._state[plain.FRAME]), int(self._state[plain.ASKS_FROM])

    def run(self, bars: Bars, rows: SignalRows, until: int | None = None) -> None:
        """Go on up to frame `until` (all of them); the bars reach to the end of the last trade.

        The first bars reach back to the start of the frame, with the candles of the average
        price before it.
        """
        frames, state = len(rows.timeline), self._state
        columns, rules = _job(bars, rows, frames if until is None else min(until, frames))
        self._config, self._step = rows.config, bars.step
        if not state[plain.CALLS]:  # no calls before there is an average price
            known = min(rows.config.avg_price_candles_count - 1, len(bars.price))
            priced = min(max(-((rules.start - known) // rules.step), self._begin), frames)
            self._unpriced, state[plain.FRAME] = priced - self._begin, priced
        if not rules.hop:
            state[plain.FRAME] = rules.until
            return
        simulate = simulator()
        whole, real = np.empty((7, _ROOM), dtype=np.int64), np.empty((5, _ROOM))
        written = _ROOM
        while written == _ROOM:
            written = simulate(columns, rules, state, whole, real)
            row = whole[plain.ROW, :written]
            lives = columns.minutes[row if len(columns.minutes) > 1 else row * 0]
            self._pieces.append(
                {
                    "whole": whole[:, :written].copy(),
                    "real": real[:, :written].copy(),
                    "side": columns.side[row],
                    "minutes": lives.astype(np.int64),
                    "average": bars.price[whole[plain.CLOSED, :written] - rules.epoch],
                }
            )

    def table(self) -> TradeTable:
        """Return what was found."""
        if not self._pieces:
            self._pieces.append(_nothing())
        first, *more = self._pieces
        together = {
            name: np.concatenate([first[name], *(piece[name] for piece in more)], axis=-1)
            for name in first
        }
        whole, real, side = together["whole"], together["real"], together["side"]
        reason, config = whole[plain.REASON].astype(np.int8), self._config
        never = reason >= CANCELLED
        close = np.where(never, np.nan, real[plain.CLOSE])
        costs = config.percent_fee, config.percent_slippage
        long, short = (profit(n, real[plain.ENTRY], close, *costs) for n in ("long", "short"))
        frame, _, calls, unanswered, invalid, first_invalid, held = map(int, self._state)
        frames = frame - self._begin
        return TradeTable(
            side=side,
            scheduled_at=whole[plain.SCHEDULED] * self._step,
            pending_at=np.where(never, -1, whole[plain.FILLED] * self._step),
            closed_at=whole[plain.CLOSED] * self._step,
            minutes=together["minutes"],
            reason=reason,
            ambiguous=whole[plain.AMBIGUOUS].astype(np.bool_),
            asked=whole[plain.ASKED],
            price_open=real[plain.ENTRY],
            price_limit=real[plain.LIMIT],
            price_take_profit=real[plain.GOAL],
            price_stop_loss=real[plain.STOP],
            price_close=close,
            average_price=together["average"],
            pnl=np.where(side > 0, long, short),
            frames=frames,
            calls=calls,
            unanswered=unanswered,
            invalid=invalid,
            first_invalid=first_invalid * self._step if invalid else -1,
            unpriced=self._unpriced,
            held=held,
            throttled=frames - calls - self._unpriced - held,
        )


def run_kernel(bars: Bars, rows: SignalRows) -> TradeTable:
    """Return every signal that came to an end, as the engine would without risk profiles.

    The bars reach from the start of the frame (with the candles of the average price before it)
    to the end of the last trade, or to the end of the data.

    Raises:
        BacktestKitError: Numba is missing.
        ValueError: an instant is off its grid, or the interval is unknown.
    """
    compile_kernel()
    return _run(bars, rows)


def reached(bars: Bars, table: TradeTable, percent: float) -> npt.NDArray[np.bool_]:
    """Say of each trade, shape (N,), if a price was ever `percent` off its entry before its end.

    As a milestone is reached: by the average price, after the step of the entry and before that of
    the close (the end of the data closes a trade after its last step).
    """
    since = (table.pending_at - bars.first) // bars.step + 1
    until = (table.closed_at - bars.first) // bars.step
    until += table.reason == REASONS.index("end_of_data")
    found = np.zeros(len(table), dtype=np.bool_)
    if len(table) and until[-1] == len(bars.price):  # no index for it below
        span = bars.price[since[-1] : until[-1]]
        away = np.abs(span - table.price_open[-1]) / table.price_open[-1] * 100
        found[-1] = table.pending_at[-1] >= 0 and bool((away >= percent).any())
        until[-1] = since[-1]
    which = np.flatnonzero((table.pending_at >= 0) & (since < until))
    if len(which):
        bounds = np.column_stack((since[which], until[which])).ravel()
        entry = table.price_open[which]
        for furthest in (np.maximum.reduceat, np.minimum.reduceat):
            away = np.abs(furthest(bars.price, bounds)[::2] - entry) / entry * 100
            found[which] |= away >= percent
    return found


def simulator() -> Simulate:
    """Return `simulate`: compiled, if the kernel is loaded."""
    if not kernel_ready.is_set():
        return plain.simulate
    from backtest_kit._arrays import kernel

    return kernel.simulate


def compile_kernel(logger: logging.Logger | None = None) -> None:
    """Make the kernel ready, once a process; what takes long is logged.

    Raises:
        BacktestKitError: Numba is missing.
        ImportError: Numba is there, and can't be loaded.
    """
    if kernel_ready.is_set():
        return
    from backtest_kit._arrays import kernel

    if not kernel.available():
        raise BacktestKitError("the kernel needs Numba: pip install 'backtest-kit[numba]'")
    with _lock:
        if kernel_ready.is_set():
            return
        logger = logger or logging.getLogger("backtest_kit")
        folder = kernel.simulate.stats.cache_path  # type: ignore[attr-defined]
        name = kernel.simulate.__name__
        if folder is not None and any(Path(folder).glob(f"simulate.{name}-*.nbi")):
            logger.info("loading the compiled kernel from %s", folder)
        else:  # so long that a person should see why, without having set up a log
            kept = "not kept, as no folder can be written to" if folder is None else f"in {folder}"
            logger.warning("compiling the kernel of array strategies, some seconds (%s)", kept)
        flat = read_only(np.ones(1))
        signals, bars = Signals(np.zeros(1), 1, 1, 1), Bars(0, flat, flat, flat, flat, flat)
        columns, rules = _job(bars, SignalRows(signals, 0, "1m", range(0, 1, MINUTE), Config()), 1)
        whole, real = np.empty((7, _ROOM), dtype=np.int64), np.empty((5, _ROOM))
        kernel.simulate(columns, rules, np.zeros(7, dtype=np.int64), whole, real)
        kernel.window_means(flat, 1)
        kernel_ready.set()


def _run(bars: Bars, rows: SignalRows) -> TradeTable:
    simulation = Simulation()
    simulation.run(bars, rows)
    return simulation.table()


def _job(bars: Bars, rows: SignalRows, until: int) -> tuple[plain.Columns, plain.Rules]:
    config, signals, interval = rows.config, rows.signals, interval_ms(rows.interval)
    base = bars.step
    start, step = rows.timeline.start - bars.first, rows.timeline.step
    if start % base or step % base or interval % base or rows.opens % interval:
        raise ValueError(f"{rows.timeline} and opens={rows.opens} must be on their grids")
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
        *(signals.side, signals.price_take_profit, signals.price_stop_loss),
        *(signals.minute_estimated_time, signals.price_open, low, high, next_open),
    )
    rules = plain.Rules(
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
    )
    return plain.Columns(*map(_column, columns)), rules


def _column(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return read_only(column[:1] if column.strides == (0,) else column)


def _nothing() -> dict[str, npt.NDArray[Any]]:
    none = np.empty(0)
    whole = np.empty((7, 0), dtype=np.int64)
    return {
        "whole": whole,
        "real": np.empty((5, 0)),
        "side": none.astype(np.int8),
        "minutes": whole[0],
        "average": none,
    }

"""Runs of the compiled kernel: signals and candles in, a columnar table of trades out."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._arrays import kernel
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.signals import Signals, read_only
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._rules.fast_forward import Tape
from backtest_kit._rules.profit import profit
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.results import CANCELLED, REASONS
from backtest_kit._values.signal import distance_limits
from backtest_kit._values.time import MINUTE, interval_ms

#: Trades after which the kernel comes back with them.
_ROOM: Final = 8192
_lock = threading.Lock()


class Play(msgspec.Struct, frozen=True, eq=False):
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


class Stage:
    """One run of the kernel: plays pass one after another, each over a part of the frames.

    It begins at `frame`, and asks from frame `next_ask` on.
    """

    def __init__(self, frame: int = 0, next_ask: int = 0) -> None:
        self._state = np.array([frame, next_ask, 0, 0, 0, 0, 0])
        self._unpriced = 0
        self._pieces: list[tuple[Ints, Floats, npt.NDArray[np.int8], Ints]] = []
        self._config = Config()

    @property
    def due(self) -> int:
        """The index of the next frame at which the strategy may be asked."""
        return max(self.place)

    @property
    def place(self) -> tuple[int, int]:
        """The index of the next frame, and of the first at which the strategy may be asked."""
        return int(self._state[0]), int(self._state[1])

    @property
    def invalid(self) -> int:
        """How many signals were invalid so far."""
        return int(self._state[4])

    @property
    def first_invalid(self) -> int:
        """When the first of them was, in milliseconds; -1 without any."""
        return int(self._state[5]) * MINUTE if self._state[4] else -1

    def play(self, tape: Tape, play: Play, until: int | None = None) -> None:
        """Go on up to frame `until` (all of them); the tape reaches to the end of the last life.

        The first tape reaches back to the start of the frame, with the candles of the average
        price before it.
        """
        frames = len(play.timeline)
        columns, rules = _job(tape, play, frames if until is None else min(until, frames))
        self._config = play.config
        if not self._state[2]:  # before there is an average price, nobody is asked
            known = min(play.config.avg_price_candles_count - 1, len(tape.price))
            self._unpriced = min(max(-((rules.start - known) // rules.step), 0), frames)
            self._state[0] = max(self._state[0], self._unpriced)
        whole, real = np.empty((7, _ROOM), dtype=np.int64), np.empty((4, _ROOM))
        written = _ROOM
        while written == _ROOM:
            written = kernel.play(columns, rules, self._state, whole, real)
            row = whole[0, :written]
            minutes = columns.minutes[row if len(columns.minutes) > 1 else row * 0]
            self._pieces.append(
                (
                    whole[1:, :written].copy(),
                    real[:, :written].copy(),
                    columns.side[row],
                    minutes.astype(np.int64),
                )
            )

    def table(self) -> TradeTable:
        """Return what was found."""
        parts = [*zip(*self._pieces, strict=True)]
        whole, real = np.concatenate(parts[0], axis=1), np.concatenate(parts[1], axis=1)
        side, minutes = np.concatenate(parts[2]), np.concatenate(parts[3])
        reason, config = whole[3].astype(np.int8), self._config
        never = reason >= CANCELLED
        close = np.where(never, np.nan, real[3])
        costs = config.percent_fee, config.percent_slippage
        long, short = (profit(name, real[0], close, *costs) for name in ("long", "short"))
        frames, _, calls, unanswered, invalid, _, held = map(int, self._state)
        return TradeTable(
            side=side,
            scheduled_at=whole[0] * MINUTE,
            pending_at=np.where(never, -1, whole[1] * MINUTE),
            closed_at=whole[2] * MINUTE,
            minutes=minutes,
            reason=reason,
            ambiguous=whole[4].astype(np.bool_),
            asked=whole[5],
            price_open=real[0],
            price_take_profit=real[1],
            price_stop_loss=real[2],
            price_close=close,
            pnl=np.where(side > 0, long, short),
            frames=frames,
            calls=calls,
            unanswered=unanswered,
            invalid=invalid,
            first_invalid=self.first_invalid,
            unpriced=self._unpriced,
            held=held,
            throttled=frames - calls - self._unpriced - held,
        )


def run_kernel(tape: Tape, play: Play) -> TradeTable:
    """Return every signal that came to an end, as the engine would without risk profiles.

    The tape reaches from the start of the frame (with the candles of the average price before it)
    to the end of the last life, or to the end of the data.

    Raises:
        BacktestKitError: Numba is missing.
        ValueError: an instant is off its grid, or the interval is unknown.
    """
    compile_kernel()
    return _run(tape, play)


def moved(tape: Tape, table: TradeTable, percent: float) -> npt.NDArray[np.bool_]:
    """Say of each life, shape (N,), if the price was ever `percent` off its entry before its end.

    The end of the data ends a life after its last step, everything else at it.
    """
    filled = table.pending_at >= 0
    since = np.where(filled, (table.pending_at - tape.first) // MINUTE + 1, 0)
    until = np.where(filled, (table.closed_at - tape.first) // MINUTE, 0)
    until += filled & (table.reason == REASONS.index("end_of_data"))
    return kernel.moved(read_only(tape.price), since, until, table.price_open, percent)


def compile_kernel(logger: logging.Logger | None = None) -> None:
    """Make the kernel ready, once a process; the log is told what takes so long.

    Raises:
        BacktestKitError: Numba is missing.
    """
    if kernel_ready.is_set():
        return
    if not kernel.available():
        raise BacktestKitError("the kernel needs Numba: pip install 'backtest-kit[numba]'")
    with _lock:
        if kernel_ready.is_set():
            return
        logger = logger or logging.getLogger("backtest_kit")
        folder = kernel.play.stats.cache_path  # type: ignore[attr-defined]
        if folder is not None and any(Path(folder).glob("kernel.play-*.nbi")):
            logger.info("loading the compiled kernel from %s", folder)
        else:  # so long that a person should see why, without having set up a log
            kept = "not kept, as no folder can be written to" if folder is None else f"in {folder}"
            logger.warning("compiling the kernel of array strategies, some seconds (%s)", kept)
        flat = np.ones(1)
        signals, tape = Signals(np.zeros(1), 1, 1, 1), Tape(0, flat, flat, flat, flat)
        kernel.window_means(read_only(flat), 1)
        moved(tape, _run(tape, Play(signals, 0, "1m", range(0, 1, MINUTE), Config())), 1.0)
        kernel_ready.set()


def _run(tape: Tape, play: Play) -> TradeTable:
    stage = Stage()
    stage.play(tape, play)
    return stage.table()


def _job(tape: Tape, play: Play, until: int) -> tuple[kernel.Columns, kernel.Rules]:
    config, signals, interval = play.config, play.signals, interval_ms(play.interval)
    start, step = play.timeline.start - tape.first, play.timeline.step
    if start % MINUTE or step % MINUTE or play.opens % interval:
        raise ValueError(f"{play.timeline} and opens={play.opens} must be on their grids")
    hop, wick = -(-interval // step), config.exit_trigger == "wick"
    lowest, least, most = distance_limits(config)
    flat = tape.price, tape.price, tape.price
    columns: tuple[npt.NDArray[Any], ...] = (
        *(tape.price, *((tape.open, tape.high, tape.low) if wick else flat), signals.side),
        *(signals.price_take_profit, signals.price_stop_loss),
        *(signals.minute_estimated_time, signals.price_open),
    )
    rules = kernel.Rules(
        relative=signals.relative,
        start=start // MINUTE,
        step=step // MINUTE,
        frames=len(play.timeline),
        until=until,
        hop=hop,
        rows=hop * step // interval,
        rest=hop * step % interval // MINUTE,
        minute=tape.first // MINUTE,
        interval=interval // MINUTE,
        base=play.opens // interval + 1,
        first_row=max(play.first_row, 0),
        wick=wick,
        stop_first=config.ambiguous_candle == "stop_loss_first",
        wait=min(config.schedule_await_minutes, 2**53),
        longest=min(config.max_signal_lifetime_minutes, 2**53),
        least_profit=lowest,
        least_loss=least,
        most_loss=most,
    )
    return kernel.Columns(*map(_column, columns)), rules


def _column(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return read_only(column[:1] if column.strides == (0,) else column)

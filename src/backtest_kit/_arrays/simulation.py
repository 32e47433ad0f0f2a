"""Runs of `simulate`: signals and candles in, a columnar table of trades out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays import layout
from backtest_kit._arrays import simulate as plain
from backtest_kit._arrays.job import ROOM, SignalRows, job, levels_of, work_of
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.paid_account import PaidAccount, nobody
from backtest_kit._arrays.paying import Account
from backtest_kit._arrays.signals import Signals, read_only
from backtest_kit._arrays.trade_table import (
    ManagedTrades,
    TradeTable,
    joined_managed,
    unmanaged,
)
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.holding import WIDTH
from backtest_kit._rules.profit import ZERO_PROFIT, profit
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.results import CANCELLED, REASONS
from backtest_kit._values.time import MINUTE

_lock = threading.Lock()
Simulate = Callable[[layout.Columns, layout.Rules, Ints, Ints, Floats, layout.Work, Account], int]


class Simulation:
    """Frames played with one set of signals after another, each over a part of the frames.

    It begins at `frame`, and asks from frame `asks_from` on. An `account` pays the trades, or
    refuses them, if there is one.
    """

    def __init__(
        self, frame: int = 0, asks_from: int = 0, account: PaidAccount | None = None
    ) -> None:
        self._account = account
        self._state = np.array([frame, asks_from, 0, 0, 0, 0, 0, 0])
        self._begin = frame
        self._unpriced = 0
        self._pieces: list[dict[str, npt.NDArray[Any]]] = []
        self._managed: list[ManagedTrades | None] = []
        self._config = Config()
        self._step = MINUTE

    @property
    def place(self) -> tuple[int, int]:
        """The index of the next frame, and of the first at which the strategy may be asked."""
        return int(self._state[layout.FRAME]), int(self._state[layout.ASKS_FROM])

    @property
    def state(self) -> Ints:
        """Where to go on, and what was counted; see `layout`."""
        return self._state

    def run(self, bars: Bars, rows: SignalRows, until: int | None = None) -> None:
        """Go on up to frame `until` (all of them); the bars reach to the end of the last trade.

        The first bars reach back to the start of the frame, with the candles of the average
        price before it.
        """
        columns, rules = self.prepare(bars, rows, until)
        if rules.hop:
            account, lone = self._account, nobody()
            simulate, state = simulator(), self._state
            whole, real = np.empty((8, ROOM), dtype=np.int64), np.empty((7, ROOM))
            work = work_of(columns, compiled=kernel_ready.is_set())
            if account is not None:
                lone = account.paying([rows.signals], 3 * ROOM + len(work.all_steps))
            before = -1
            while state[layout.FRAME] != before and state[layout.FRAME] < rules.until:
                before = int(state[layout.FRAME])
                written = simulate(columns, rules, state, whole, real, work, lone)
                if account is not None:
                    account.take(lone, bars.step)
                found = whole[:, :written], real[:, :written]
                self.take(bars, rows, columns, rules, *found, work.all_steps, work.all_legs)
        self.finish(rows, until)

    def prepare(
        self, bars: Bars, rows: SignalRows, until: int | None = None
    ) -> tuple[layout.Columns, layout.Rules]:
        """Return what is to be simulated up to frame `until`, having passed what has no price."""
        frames, state, asked = len(rows.timeline), self._state, rows.stride
        until = frames if until is None else min(until, frames)
        columns, rules = job(bars, rows, min(until, 0 if asked is None else asked.stop))
        self._config, self._step = rows.config, bars.step
        if not state[layout.CALLS]:  # no calls before there is an average price
            known = min(rows.config.avg_price_candles_count - 1, len(bars.price))
            priced = min(max(-((rules.start - known) // rules.step), self._begin), frames)
            self._unpriced, state[layout.FRAME] = priced - self._begin, priced
        return columns, rules

    def take(
        self,
        bars: Bars,
        rows: SignalRows,
        columns: layout.Columns,
        rules: layout.Rules,
        whole: Ints,
        real: Floats,
        leg_steps: Ints,
        legs: Floats,
    ) -> None:
        """Take trades that were written, (8, N) and (7, N), and their legs behind each other."""
        row = whole[layout.ROW]
        lives = columns.minutes[row if len(columns.minutes) > 1 else row * 0]
        self._pieces.append(
            {
                "whole": whole.copy(),
                "real": real.copy(),
                "side": columns.side[row],
                "minutes": _minutes(lives, rules.limits.lifetime),
                **_sizes(rows.signals, row),
                "average": bars.price[whole[layout.ENDED] - rules.epoch],
            }
        )
        found = _managed(
            rows.signals, columns, whole, real, leg_steps, legs, rules.epoch, bars.step
        )
        self._managed.append(found)

    def finish(self, rows: SignalRows, until: int | None = None) -> None:
        """Pass the frames up to `until` at which nothing is asked, at the end of the frame."""
        frames, asked = len(rows.timeline), rows.stride
        until = frames if until is None else min(until, frames)
        stop = 0 if asked is None else asked.stop
        if stop <= self._state[layout.FRAME] < until:
            self._state[layout.FRAME] = until

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
        reason, config = whole[layout.REASON].astype(np.int8), self._config
        never = reason >= CANCELLED
        close = np.where(never, np.nan, real[layout.CLOSE])
        costs = config.percent_fee, config.percent_slippage
        long, short = (profit(n, real[layout.PAID], close, *costs) for n in ("long", "short"))
        pnl, managed = np.where(side > 0, long, short), self._joined(real)
        if managed is not None:
            pnl[(managed.breakeven > 0) & (np.abs(pnl) <= ZERO_PROFIT)] = 0.0
        frame, _, calls, unanswered, invalid, first_invalid, held, _ = map(int, self._state)
        frames = frame - self._begin
        return TradeTable(
            side=side,
            scheduled_at=whole[layout.SCHEDULED] * self._step,
            pending_at=np.where(never, -1, whole[layout.FILLED] * self._step),
            closed_at=whole[layout.ENDED] * self._step,
            minutes=together["minutes"],
            reason=reason,
            ambiguous=whole[layout.AMBIGUOUS].astype(np.bool_),
            asked=whole[layout.ASKED],
            price_open=real[layout.ENTRY],
            price_limit=real[layout.LIMIT],
            price_take_profit=_or_nan(real[layout.GOAL]),
            price_stop_loss=_or_nan(real[layout.STOP]),
            price_close=close,
            average_price=together["average"],
            order_cost=together["cost"],
            order_quantity=together["quantity"],
            pnl=pnl,
            frames=frames,
            calls=calls,
            unanswered=unanswered,
            invalid=invalid,
            first_invalid=first_invalid * self._step if invalid else -1,
            unpriced=self._unpriced,
            held=held,
            throttled=frames - calls - self._unpriced - held,
            managed=managed,
        )

    def _joined(self, real: Floats) -> ManagedTrades | None:
        """Return how the trades of all pieces were managed; `None` where none was."""
        if all(part is None for part in self._managed):
            return None
        entries = np.split(real[layout.ENTRY], np.cumsum([len(p["minutes"]) for p in self._pieces]))
        return joined_managed(
            [part or unmanaged(entry) for part, entry in zip(self._managed, entries, strict=False)]
        )


def run_kernel(bars: Bars, rows: SignalRows) -> TradeTable:
    """Return every signal that came to an end, as the engine would without risk profiles.

    The bars reach from the start of the frame (with the candles of the average price before it)
    to the end of the last trade, or to the end of the data.

    Raises:
        BacktestKitError: Numba is missing.
        ArgumentError: an instant is off its grid, or the interval is unknown.
    """
    compile_kernel()
    return _run(bars, rows)


def reached(bars: Bars, table: TradeTable, percent: float) -> npt.NDArray[np.bool_]:
    """Say of each trade, shape (N,), if a price was ever `percent` off its entry before its end.

    As a milestone is reached: by the average price, after the step of the entry and before that of
    the close (the end of the data, and a row that says exit, close a trade after its last step).
    Of a trade with several entries, which move the price it is measured from: if its prices lie so
    far apart.
    """
    since = (table.pending_at - bars.first) // bars.step + 1
    until = (table.closed_at - bars.first) // bars.step
    for reason in ("end_of_data", "closed"):
        until += table.reason == REASONS.index(reason)
    found = np.zeros(len(table), dtype=np.bool_)
    moves = np.zeros(len(table), dtype=np.bool_)
    if table.managed is not None:
        moves = table.managed.cost != 1.0
    if len(table) and until[-1] == len(bars.price):  # no index for it below
        span = bars.price[since[-1] : until[-1]]
        away = np.abs(span - table.price_open[-1]) / table.price_open[-1] * 100
        away_at_end = moves[-1] or bool((away >= percent).any())
        found[-1] |= table.pending_at[-1] >= 0 and away_at_end
        until[-1] = since[-1]
    which = np.flatnonzero((table.pending_at >= 0) & (since < until))
    if len(which):
        bounds = np.column_stack((since[which], until[which])).ravel()
        entry = table.price_open[which]
        for furthest in (np.maximum.reduceat, np.minimum.reduceat):
            away = np.abs(furthest(bars.price, bounds)[::2] - entry) / entry * 100
            found[which] |= away >= percent
        # the effective entry lies between the first one and the candles since
        high, low = entry, entry
        for column in (bars.price, bars.high, bars.low):
            high = np.maximum(high, np.maximum.reduceat(column, bounds)[::2])
            low = np.minimum(low, np.minimum.reduceat(column, bounds)[::2])
        found[which] |= moves[which] & ((high - low) / low * 100 >= percent)
    return found


def worst_prices(bars: Bars, table: TradeTable) -> Floats:
    """Return the worst price that each trade without a stop saw, shape (N,); NaN for the others.

    Of the candles after the one that it was filled in, the one of its close included.
    """
    found = np.full(len(table), np.nan)
    since = (table.pending_at - bars.first) // bars.step + 1
    until = np.minimum((table.closed_at - bars.first) // bars.step + 1, len(bars.price))
    filled = (table.pending_at >= 0) & np.isnan(table.price_stop_loss)
    which = np.flatnonzero(filled & (since < until))
    if len(which):
        bounds = np.column_stack((since[which], until[which])).ravel()
        # one more of each, since the end of the last trade may be that of the bars
        low = np.minimum.reduceat(np.append(bars.low, np.inf), bounds)[::2]
        high = np.maximum.reduceat(np.append(bars.high, -np.inf), bounds)[::2]
        found[which] = np.where(table.side[which] > 0, low, high)
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
        announce(kernel.simulate, logger)
        flat = read_only(np.ones(1))
        signals, bars = Signals(np.zeros(1), 1, 1, 1), Bars(0, flat, flat, flat, flat, flat)
        columns, rules = job(bars, SignalRows(signals, 0, "1m", range(0, 1, MINUTE), Config()), 1)
        whole, real = np.empty((8, ROOM), dtype=np.int64), np.empty((7, ROOM))
        work = work_of(columns, compiled=True)
        kernel.simulate(columns, rules, np.zeros(8, dtype=np.int64), whole, real, work, nobody())
        kernel.window_means(flat, 1)
        kernel_ready.set()


def announce(function: Any, logger: logging.Logger) -> None:
    """Log that a compiled function is about to be loaded, or compiled, which takes seconds."""
    folder, name = function.stats.cache_path, function.__name__
    if folder is not None and any(Path(folder).glob(f"*.{name}-*.nbi")):
        logger.info("loading the compiled kernel from %s", folder)
    else:  # so long that a person should see why, without having set up a log
        kept = "not kept, as no folder can be written to" if folder is None else f"in {folder}"
        logger.warning("compiling the kernel of array strategies, some seconds (%s)", kept)


def _run(bars: Bars, rows: SignalRows) -> TradeTable:
    simulation = Simulation()
    simulation.run(bars, rows)
    return simulation.table()


def _managed(
    signals: Signals,
    columns: layout.Columns,
    whole: Ints,
    real: Floats,
    leg_steps: Ints,
    leg: Floats,
    epoch: int,
    base: int,
) -> ManagedTrades | None:
    """Return how trades are managed, and their legs; `None` where the signals don't say."""
    if not signals.is_managed:
        return None
    row = whole[layout.ROW]
    percents = (
        column[row if len(column) > 1 else row * 0]
        for column in (columns.trailing, columns.activation, columns.breakeven)
    )
    levels = np.empty(len(row), dtype=object)
    levels[:] = [levels_of(signals)] * len(row)
    legs = whole[layout.LEGS].copy()
    count = int(legs.sum())
    return ManagedTrades(
        **dict(zip(("trailing", "activation", "breakeven"), percents, strict=True)),
        levels=levels,
        price_paid=real[layout.PAID].copy(),
        cost=real[layout.WHOLE_COST].copy(),
        legs=legs,
        leg_at=(leg_steps[:count] + epoch) * base,
        leg=leg[: count * WIDTH].reshape(count, WIDTH).copy(),
    )


def _sizes(signals: Signals, row: Ints) -> dict[str, Floats]:
    """Return how much the signals of `row` are to enter, NaN where they don't say."""
    return {
        name: np.full(len(row), np.nan) if column is None else column[row]
        for name, column in (("cost", signals.cost), ("quantity", signals.quantity))
    }


def _minutes(lives: Floats, lifetime: int) -> Ints:
    """Return lifetimes in whole minutes, 0 for none; that of the settings where NaN."""
    return np.where(np.isnan(lives), lifetime, lives).astype(np.int64)


def _or_nan(levels: Floats) -> Floats:
    return np.where(np.isinf(levels), np.nan, levels)


def _nothing() -> dict[str, npt.NDArray[Any]]:
    none = np.empty(0)
    whole = np.empty((8, 0), dtype=np.int64)
    return {
        "whole": whole,
        "real": np.empty((7, 0)),
        "side": none.astype(np.int8),
        "minutes": whole[0],
        "average": none,
        "cost": none,
        "quantity": none,
    }

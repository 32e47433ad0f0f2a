"""A backtest from arrays for those who want its results: what the kernel has found, one by one."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._backtest.answers import Answers
from backtest_kit._backtest.array_reach import kernel_loaded, next_stretch, playable, watched
from backtest_kit._engine.run import Run
from backtest_kit._rules import life
from backtest_kit._rules import transitions as step
from backtest_kit._rules.fast_forward import Tape
from backtest_kit._rules.life import Close
from backtest_kit._rules.profit import MILESTONES
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.errors import DataError
from backtest_kit._values.results import REASONS, TickCancelled, TickClosed
from backtest_kit._values.signal import SignalRow, signal_id
from backtest_kit._values.time import INTERVALS, MINUTE, frames_before

#: Calls in all backtests of an engine from which on it pays to load Numba (which takes as long as
#: stepping through this many does).
_WORTHWHILE: Final = 2_000_000


class Taken(NamedTuple):
    """What came next: the calls made for it, the end of a signal, and where a driver goes on.

    `tick` is `None` after the last signal of a stretch. `frame` is the index of the next frame, and
    `next_ask` the instant from which the strategy may be asked.
    """

    calls: int
    tick: TickClosed | TickCancelled | None
    frame: int
    next_ask: int


class Ahead:
    """What the kernel has found ahead of a driver, as far as is loaded.

    A stretch in which anything is refused or raises is left to the driver, which tells of each.
    """

    def __init__(self, run: Run, timeline: range, answers: Answers) -> None:
        self._run = run
        self._timeline = timeline
        self._answers = answers
        self._interval = INTERVALS[run.strategy.interval]
        self._found: _Found | None = None
        self._stepped_until = 0 if playable(run.strategy) else len(timeline)
        self._counted = False

    async def ready(self, frame: int, next_ask: int) -> bool:
        """Say whether there is something to take at `frame`, `next_ask` being as in `Taken`.

        Raises:
            PeekingError: signals over arrays look into the future.
        """
        if frame < self._stepped_until:
            return False
        if watched(self._run.engine):
            self._found = None
            return False
        if self._found is None:
            found = await self._look(frame, next_ask)
            self._found = None if watched(self._run.engine) else found  # by now, perhaps
        return self._found is not None

    def take(self) -> Taken:
        """Return what comes next, and put it into the record of the run."""
        found = self._found
        assert found is not None
        taken = found.take(self._run, self._timeline, self._interval)
        if taken.tick is None:
            self._found = None
        return taken

    async def _look(self, frame: int, next_ask: int) -> _Found | None:
        """Play as far as is loaded."""
        if not self._pays() or not kernel_loaded(self._run.engine):
            self._stepped_until = len(self._timeline)
            return None
        from backtest_kit._arrays.kernel_run import Play, Stage, moved  # which import Numba

        run, timeline, config = self._run, self._timeline, self._run.config
        interval, warmup = run.strategy.interval, run.strategy.warmup
        began = stopwatch()
        try:
            tape = await run.view.tape(run.symbol, timeline[frame], timeline[frame])
            if timeline[frame] < tape.first + (config.avg_price_candles_count - 1) * MINUTE:
                self._stepped_until = frame + 1  # there is no average price yet
                return None
            stretch = await next_stretch(run, timeline, self._answers, frame)
        except DataError:  # step by step, this may be an error of some steps
            stretch = None
        if stretch is None:
            self._stepped_until = len(timeline)
            return None
        chunk, tape, until, late = stretch
        stage = Stage(frame, frames_before(timeline, next_ask))
        play = Play(chunk.signals, chunk.opens, interval, timeline, config, warmup - 1)
        stage.play(tape, play, until)
        table = stage.table()
        if late is not None or table.invalid or table.unanswered:
            self._stepped_until = until
            return None
        run.timed("backtest_timeframe", stopwatch() - began, max(table.calls, 1))
        return _Found(tape, table, moved(tape, table, MILESTONES[0]), stage.place)

    def _pays(self) -> bool:
        """Say whether to play with the kernel: it is loaded, or there is much to play."""
        engine, timeline = self._run.engine, self._timeline
        if not self._counted:
            engine.array_calls += len(timeline) // -(-self._interval // timeline.step)
            self._counted = True
        return engine.array_calls >= _WORTHWHILE or kernel_ready.is_set()


class _Found:
    """The trades of one stretch, of which some `moved` as far as to a milestone.

    `place` is where the kernel stands after them.
    """

    def __init__(
        self,
        tape: Tape,
        table: TradeTable,
        moved: npt.NDArray[np.bool_],
        place: tuple[int, int],
    ) -> None:
        self._tape = tape
        self._place = place
        self._calls = table.calls
        self._next = self._asked = 0
        columns = (
            *(table.asked, table.side, table.scheduled_at, table.pending_at, table.closed_at),
            *(table.minutes, table.reason, table.ambiguous, table.price_open),
            *(table.price_take_profit, table.price_stop_loss, table.price_close),
            *(tape.price[(table.closed_at - tape.first) // MINUTE], moved),
        )
        self._rows = [*zip(*(column.tolist() for column in columns), strict=True)]

    def take(self, run: Run, timeline: range, interval: int) -> Taken:
        """See `Ahead.take`."""
        i = self._next
        if i == len(self._rows):
            frame, next_ask = self._place
            asks_from = timeline.start + next_ask * timeline.step
            return Taken(self._calls - self._asked, None, frame, asks_from)
        self._next += 1
        asked, side, scheduled, filled, ended, minutes, code, ambiguous, *prices = self._rows[i]
        entry, goal, stop, close, price, moved = prices
        reason: Any = REASONS[code]
        calls, self._asked = asked - self._asked, asked
        row = SignalRow(
            id=signal_id(run.exchange_name, run.strategy_name, run.symbol, scheduled),
            symbol=run.symbol,
            strategy_name=run.strategy_name,
            exchange_name=run.exchange_name,
            position="long" if side > 0 else "short",
            price_open=entry,
            price_take_profit=goal,
            price_stop_loss=stop,
            minute_estimated_time=minutes,
            scheduled_at=scheduled,
            pending_at=scheduled if filled == scheduled else None,
        )
        tick: TickClosed | TickCancelled
        if filled < 0:
            tick = step.cancelled(row, ended, price, reason)
        else:
            if filled != scheduled:
                row = life.activated(row, filled)
                opened_at = float(self._tape.price[self._tape.row(filled)])
                run.record.add(step.opened(row, filled, opened_at))
            if moved:
                before = ended + (reason == "end_of_data") * MINUTE
                for event in step.milestones(row, run.mode, self._tape, before):
                    run.record.add(event)
            tick = step.closed(row, ended, price, Close(reason, close, ambiguous), run.config)
        run.record.add(tick)
        return Taken(calls, tick, frames_before(timeline, ended + 1), scheduled + interval)

"""The driver of a backtest: a step per timestamp of the frame, fast-forward through each signal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, NamedTuple

from backtest_kit._arrays.paid_account import PaidAccount
from backtest_kit._arrays.simulation import Simulation
from backtest_kit._backtest.array_results import ArrayResults, load_kernel_where_it_pays
from backtest_kit._backtest.array_session import (
    ArraySession,
    Loaded,
    Span,
    can_be_simulated,
    load_kernel,
)
from backtest_kit._backtest.array_table import Findings, can_be_tabulated, tabulate
from backtest_kit._backtest.lives import Ended, Lives
from backtest_kit._backtest.paid_trades import on_account
from backtest_kit._backtest.strategy_caller import StrategyCaller
from backtest_kit._engine.ambient import current_moment
from backtest_kit._engine.asking import never_asked
from backtest_kit._engine.engine import describe
from backtest_kit._engine.pacer import YIELD_AFTER_MS, Pacer
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import OPENS
from backtest_kit._rules.asking import Stride, free_from
from backtest_kit._rules.bars import Bars
from backtest_kit._values.clock import stopwatch, yield_to_others
from backtest_kit._values.errors import DataError
from backtest_kit._values.results import TickClosed, TickIdle
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import frames_before

_MOST_FRAMES: Final = 4096


class _Next(NamedTuple):
    """What was taken of what arrays have found: a closed result, and if `more` follow it.

    `follows`: a filled signal has to be followed, which arrays thought would end before `frame`.
    """

    closed: TickClosed | None = None
    follows: SignalRow | None = None
    frame: int = 0
    more: bool = False


class FrameDriver:
    """The driver of one backtest, `run`; `results` may be iterated once."""

    def __init__(
        self,
        run: Run,
        timeline: range,
        stride: Stride,
        on_timeframe: Callable[..., Any] | None = None,
    ) -> None:
        self.run = self._run = run
        self.timeline = self._timeline = timeline
        self._on_timeframe = on_timeframe
        self._stride = stride
        self._caller = StrategyCaller(run)
        self._session = ArraySession(run, timeline, stride, self._caller)
        self._results = ArrayResults(run, timeline, stride, self._session)
        self._index = self._asks_from = 0
        self._ended_at = -1
        self._bars: Bars | None = None
        self._block = 16
        self._pacer = Pacer(run.engine.bus)
        self._next = _Next()
        #: Is told what closes on an account, where results need not come one at a time.
        self.on_paid: Callable[[TickClosed], None] | None = None
        self._lives = Lives(run, timeline, self._caller, self._pace)

    def stop(self) -> None:
        """Take no new signals; an open position is followed to its close."""
        self._run.stopping = True

    def enter(self) -> None:
        """Let `Backtest.stop` find the run, until its results have ended."""
        self._run.engine.backtests[id(self)] = (self._run.record, self.stop)

    def leave(self) -> None:
        """Let nobody find it any more."""
        self._run.engine.backtests.pop(id(self), None)

    async def tabulate(self, *, milestones: bool, account: PaidAccount | None = None) -> bool:
        """Do what `results` does in one pass over arrays; `False` if that can't be done.

        `milestones`: enter them into the record too, as for any run that is not a trial. A run that
        has an account can only be alone on it, and that is given.
        """
        run = self._run
        if not self._can_be_tabulated or (run.account is not None and account is None):
            return False
        self._session.account = account
        if milestones:
            self.load_kernel()
        else:
            load_kernel(run.engine)
        with self._at_once():
            return await tabulate(
                run, self._timeline, self._stride, self._session, milestones=milestones
            )

    @property
    def _can_be_tabulated(self) -> bool:
        return self._on_timeframe is None and can_be_tabulated(self._run)

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        """Begin and end the run around what does all of it."""
        run, began, outside = self._run, stopwatch(), current_moment.set(None)
        run.begin()
        try:
            yield
        except Exception as error:
            run.record.ended_by = describe(error)
            raise
        finally:
            run.end()
            current_moment.reset(outside)
        took = stopwatch() - began
        if run.record.complete:
            run.timed("backtest_timeframe", took, max(run.record.calls, 1))
            run.timed("backtest_total", took)

    async def load(self) -> Loaded | None:
        """Return what is to be simulated of a run of several on an account; `None`: step it.

        Raises:
            PeekingError: signals over arrays look into the future.
        """
        if not self._can_be_tabulated:
            return None
        load_kernel(self._run.engine)
        with self._at_once():
            try:
                return await self._session.load()
            except DataError:  # step by step, this may be an error of some steps
                return None

    async def take(self, simulation: Simulation, loaded: Loaded) -> bool:
        """Enter what was found in what was loaded into the record; false: it is not all.

        Raises:
            DataError: candles can't be had.
        """
        given = self._run, self._timeline, self._stride, self._session
        found = Findings(*given, loaded.first, milestones=False)
        place = loaded.bars, loaded.chunk, *simulation.place
        with self._at_once():
            found.add(Span(simulation.table(), *place, loaded.late))
            if not await found.reach_the_end():
                return False
            found.enter()
        return True

    async def results(self) -> AsyncGenerator[TickClosed, None]:
        """Yield the closed results in order; the other results go to listeners and callbacks."""
        run = self._run
        began = stopwatch()
        cancelled = False
        run.risk_gate.join(self._timeline.start)
        self.enter()
        run.begin()
        try:
            if self._on_timeframe is not None:
                await run.guarded("callback on_timeframe", self._on_timeframe, self._timeline)
            await yield_to_others()  # runs started together all enter before any goes on
            while (closed := await self._until_closed()) is not None:
                run.risk_gate.pause()
                yield closed
                run.risk_gate.resume()
            run.record.complete = self._index >= len(self._timeline)
            over = run.record.complete or run.record.data_ended_at is not None
            if over and run.exchange.calendar and not (run.record.calls or run.record.warming):
                run.error("frame", never_asked(run))
        except asyncio.CancelledError:
            cancelled = True
            raise
        except Exception as error:
            run.record.ended_by = describe(error)
            raise
        finally:
            self.leave()
            run.end()
            run.risk_gate.leave()
            if run.account is not None:
                run.account.leave()
            if self._index:
                run.record.until = max(run.record.until, self._timeline[self._index - 1])
            run.look_at_candles()
            run.timed("backtest_total", stopwatch() - began)
            run.progress(self._index)
            if not cancelled:
                await run.engine.bus.drain()
            run.done()
            if not cancelled:
                await run.engine.bus.drain()

    async def _until_closed(self) -> TickClosed | None:
        """Go on to the next closed signal, or to the end of the frame."""
        outside = current_moment.set(None)
        try:
            while self._index < len(self._timeline) and not self._run.stopping:
                if await self._results.ready(self._index, self._asks_from):
                    closed = await self._from_arrays()
                    await self._pace()
                    if closed is not None:
                        return closed
                    continue
                bars = await self._reach(self._timeline[self._index])
                if bars is None:
                    return None
                closed = await self._block_of_frames(bars)
                if closed is not None:
                    return closed
                await self._pace()
            if not self._run.stopping:
                await self._reach(self._timeline[-1])  # the last frames may have been jumped over
            return None
        finally:
            current_moment.reset(outside)

    async def _from_arrays(self) -> TickClosed | None:
        """Do what `_block_of_frames` does, with the results found over arrays."""
        began, account, tell = stopwatch(), self._run.account, self.on_paid
        if account is not None and tell is not None and account.pays_at_once:
            await account.play(self._pay(tell))
        else:
            self._next = await self._take_next()
        found = self._next
        if found.follows is not None:
            row = found.follows
            ended = await self._lives.resume(row)
            self._after(ended, frames_before(self._timeline, row.scheduled_at) + 1)
            if self._index != min(found.frame, len(self._timeline)):
                self._results.part(self._index)
            found = _Next(ended.closed)
        if found.closed is not None:
            self._run.timed("backtest_signal", stopwatch() - began)
        return found.closed

    async def _pay(self, tell: Callable[[TickClosed], None]) -> None:
        """Take one result after another, and `tell` those that are closed, as long as they come."""
        while True:
            self._next = await self._take_next()
            if not self._next.more or self._run.stopping:
                return
            if self._next.closed is not None:
                tell(self._next.closed)

    async def _take_next(self) -> _Next:
        record = self._run.record
        due = self._results.first_call(self._index, self._asks_from)
        calls, tick, frame, self._asks_from = self._results.take()
        record.calls += calls
        if calls:
            self._run.warm(self._timeline[due])
        if tick is not None and self._run.account is not None:
            outcome = await on_account(self._run, self._run.account, tick, self._results)
            if outcome.refused_at is not None:
                called = frames_before(self._timeline, tick.signal.scheduled_at)
                free = frames_before(self._timeline, outcome.refused_at)
                self._go_to(max(called + 1, free))
                self._results.part(self._index)
                return _Next()
            if outcome.follows:
                return _Next(follows=tick.signal, frame=frame)
            tick = outcome.tick
        self._go_to(frame)
        if tick is None:
            return _Next()
        self._results.note(tick)
        self._ended_at = tick.close_timestamp
        record.until = max(record.until, tick.close_timestamp)
        return _Next(tick if isinstance(tick, TickClosed) else None, more=True)

    def load_kernel(self) -> None:
        """Load the compiled kernel, where it pays."""
        if can_be_simulated(self._run.strategy):
            load_kernel_where_it_pays(self._run, len(self._timeline) // self._stride.hop)

    async def _reach(self, when: int) -> Bars | None:
        """Return bars that reach the step `when`; `None`: the data end before it."""
        bars = self._bars
        if bars is None or when >= bars.stop:
            bars = self._bars = await self._lives.bars(when, when)
            if when >= bars.stop:
                self._run.record.data_ended_at = bars.last
                # frames that were jumped over lie behind the data, too
                self._index = min(self._index, frames_before(self._timeline, bars.stop))
                return None
        return bars

    async def _pace(self) -> None:
        """Emit the progress and yield to other tasks, if that is due."""
        if self._pacer.due:
            self._run.progress(self._index)
            await self._pacer.yield_now()

    async def _block_of_frames(self, bars: Bars) -> TickClosed | None:
        """Step through some frames, up to the first signal and the end of its life."""
        run, timeline = self._run, self._timeline
        when = timeline[self._index]
        run.risk_gate.advance_to(when)
        if when >= bars.first and (opens := bars.opens(when)) > when:
            self._go_to(frames_before(timeline, opens))
            return None
        idle = run.wants("on_tick", "on_idle")
        price = bars.price[bars.row(when)] if when >= bars.first else float("nan")
        if price != price:
            known = bars.priced_from(run.config.avg_price_candles_count)
            priced = min(frames_before(timeline, known), len(timeline))
            skipped = max(priced - self._index, 1)
            run.warming(skipped, asked=False)
            self._go_to(self._index + skipped)
            return None
        if idle or run.engine.bus.wanted("performance"):
            frames = 1
        else:
            frames = self._block
        due = self._stride.first(self._index, self._asks_from)
        if self._index < due:
            if idle:
                if when != self._ended_at:
                    await run.publish(self._idle(bars, when))
                self._go_to(self._index + 1)
            else:
                self._go_to(due)
            return None
        began, hop = stopwatch(), self._stride.hop
        last = min(due + (frames - 1) * hop + 1, self._stride.stop)
        stop = bars.closes(when, min(timeline[last - 1] + 1, bars.stop), hop * timeline.step)
        at, answer = await self._caller.ask(when, stop, hop * timeline.step, bars)
        asked = (at - when) // (hop * timeline.step) + 1
        run.record.calls += asked
        took = stopwatch() - began
        run.timed("backtest_timeframe", took, asked)
        self._block = max(
            1, min(_MOST_FRAMES, self._block * 2, int(asked * YIELD_AFTER_MS / (took + 1e-9)))
        )
        called = due + (asked - 1) * hop
        self._asks_from = called + hop
        self._go_to(called + 1)
        run.record.until = max(run.record.until, at)
        if answer is not None:
            signal_began = stopwatch()
            closed = await self._take(answer, bars, at)
            run.timed("backtest_signal", stopwatch() - signal_began + took / asked)
            return closed
        if idle:
            await run.publish(self._idle(bars, at))
        return None

    async def _take(self, answer: Any, bars: Bars, when: int) -> TickClosed | None:
        """Validate, ask the risk profiles, then open or schedule, and follow the signal's life."""
        run = self._run
        quote = bars.bar(when).quote
        try:
            row = run.accept(answer, quote, when)
        except Exception as error:  # noqa: BLE001 - an invalid signal never ends a run
            run.error("get_signal", error)
            return None
        if run.account is not None:
            await run.account.wait(when, OPENS)
        if not await run.risk_allows(row, quote.fill, when, reserve=row.pending_at is not None):
            return None
        if run.account is not None and await run.account.admit(row, when) is not None:
            run.risk_gate.cancel_reservation()
            return None
        ended = await self._lives.follow(row, when)
        self._after(ended, self._index)
        return ended.closed

    def _after(self, ended: Ended, index: int) -> None:
        """Go on after a life, with frame `index` at the earliest."""
        self._bars = None
        self._ended_at = ended.when
        free = free_from(ended.when, ended.reason, self._run.config, reverses=ended.reverses)
        self._go_to(max(index, frames_before(self._timeline, free)))

    def _go_to(self, index: int) -> None:
        self._index = min(index, len(self._timeline))

    def _idle(self, bars: Bars, when: int) -> TickIdle:
        return TickIdle(
            symbol=self._run.symbol,
            strategy_name=self._run.strategy_name,
            exchange_name=self._run.exchange_name,
            timestamp=when,
            current_price=float(bars.price[bars.row(when)]),
        )

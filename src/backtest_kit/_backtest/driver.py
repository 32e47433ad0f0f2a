"""The driver of a backtest: a step per timestamp of the frame, fast-forward through each life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from backtest_kit._backtest.answers import Answers
from backtest_kit._backtest.array_results import Ahead
from backtest_kit._backtest.array_table import play_arrays
from backtest_kit._data.market import MarketView
from backtest_kit._engine.ambient import moment
from backtest_kit._engine.bus import HIGH_WATER
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.fresh import begin
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import Books, Desk
from backtest_kit._engine.run import Run
from backtest_kit._rules import life
from backtest_kit._rules import transitions as step
from backtest_kit._rules.fast_forward import (
    Tape,
    pending_until,
    scheduled_until,
)
from backtest_kit._rules.life import Close
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.results import CancelReason, TickClosed, TickIdle
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, RiskSchema, StrategySchema
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS, MINUTE, frames_before

#: The run lets others work after about this many milliseconds.
BREATH: Final = 10.0
_MOST_FRAMES: Final = 4096


def prepare(
    engine: Engine,
    symbol: str,
    strategy: StrategySchema,
    exchange: ExchangeSchema,
    frame: FrameSchema,
    books: Books,
    risks: Registry[RiskSchema] | None = None,
) -> FrameDriver:
    """Return the driver of a backtest; its record is in no registry yet.

    `risks`: the risk profiles there are, where they are not those that are registered now.

    Raises:
        UnknownNameError: the strategy names a risk profile that is not registered.
        StrategyFailedError, RegistrationError: its factory raised, or made what can't be asked.
    """
    profiles = [(risks or engine.risks).get(name) for name in strategy.risk_names]
    timeline = frame.timeline
    record = RunRecord(
        symbol=symbol,
        strategy_name=strategy.name,
        exchange_name=exchange.name,
        frame_name=frame.name,
        mode="backtest",
        config=engine.config,
        since=timeline[0],
        until=timeline[0],
        total_frames=len(timeline),
    )
    run = Run(
        engine,
        mode="backtest",
        symbol=symbol,
        begun=begin(strategy),
        exchange=exchange,
        frame_name=frame.name,
        view=MarketView(engine.store, exchange, engine.config, timeline[-1]),
        record=record,
        desk=Desk(books, profiles),
    )
    return FrameDriver(run, timeline, frame.callback("on_timeframe"))


class FrameDriver:
    """The driver of one backtest, `run`; `play` may be iterated once."""

    def __init__(
        self, run: Run, timeline: range, on_timeframe: Callable[..., Any] | None = None
    ) -> None:
        self.run = self._run = run
        self._timeline = timeline
        self._on_timeframe = on_timeframe
        self._interval = INTERVALS[run.strategy.interval]
        self._answers = Answers(run)
        self._ahead = Ahead(run, timeline, self._answers)
        self._index = 0
        self._next_ask = timeline.start
        self._tape: Tape | None = None
        self._block = 16
        self._breath = stopwatch()

    async def play_arrays(self) -> bool:
        """Do what `play` does, for nobody, from arrays; false where `play` has to."""
        if self._on_timeframe is not None:
            return False
        outside = moment.set(None)
        self._run.begin()
        try:
            return await play_arrays(self._run, self._timeline, self._answers)
        finally:
            self._run.end()
            moment.reset(outside)

    async def play(self) -> AsyncGenerator[TickClosed, None]:
        """Yield the closed results in order; listeners and callbacks are told of the rest."""
        run = self._run
        began = stopwatch()
        cancelled = False
        run.desk.enter(self._timeline.start)
        run.begin()
        try:
            if self._on_timeframe is not None:
                await run.guarded("callback on_timeframe", self._on_timeframe, self._timeline)
            await asyncio.sleep(0)  # runs started together all enter before any goes on
            while (closed := await self._until_closed()) is not None:
                run.desk.park(True)
                yield closed
                run.desk.park(False)
            run.record.complete = self._index >= len(self._timeline)
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            run.end()
            run.desk.leave()
            if self._index:
                run.record.until = max(run.record.until, self._timeline[self._index - 1])
            run.record.gaps = run.view.gaps(run.record.until)
            run.timed("backtest_total", stopwatch() - began)
            run.progress(self._index)
            if not cancelled:
                await run.engine.bus.drain()
            run.done()
            if not cancelled:
                await run.engine.bus.drain()

    async def _until_closed(self) -> TickClosed | None:
        """Go on to the next closed signal, or to the end of the frame."""
        outside = moment.set(None)
        try:
            while self._index < len(self._timeline) and not self._run.stopping:
                if await self._ahead.ready(self._index, self._next_ask):
                    closed = self._from_ahead()
                    await self._breathe()
                    if closed is not None:
                        return closed
                    continue
                tape = await self._reach(self._timeline[self._index])
                if tape is None:
                    return None
                closed = await self._block_of_frames(tape)
                if closed is not None:
                    return closed
                await self._breathe()
            return None
        finally:
            moment.reset(outside)

    def _from_ahead(self) -> TickClosed | None:
        """Do what `_block_of_frames` does, with what the kernel has found."""
        record, began = self._run.record, stopwatch()
        due = max(self._index, frames_before(self._timeline, self._next_ask))
        calls, tick, frame, self._next_ask = self._ahead.take()
        record.calls += calls
        if calls:
            self._run.warm(self._timeline[due])
        self._go_to(frame)
        if tick is None:
            return None
        record.until = max(record.until, tick.close_timestamp)
        self._run.timed("backtest_signal", stopwatch() - began)
        return tick if isinstance(tick, TickClosed) else None

    async def _reach(self, when: int) -> Tape | None:
        """Return a tape that reaches the step `when`; `None`: the data end before it."""
        tape = self._tape
        if tape is None or when >= tape.stop:
            tape = self._tape = await self._run.view.tape(self._run.symbol, when, when)
            if when >= tape.stop:
                self._run.record.data_ended_at = tape.stop - MINUTE
                return None
        return tape

    async def _breathe(self) -> None:
        """Let other tasks run, and wait for listeners that are far behind."""
        if stopwatch() - self._breath < BREATH:
            return
        self._run.progress(self._index)
        await asyncio.sleep(0)
        await self._run.engine.bus.drain(HIGH_WATER)
        self._breath = stopwatch()

    async def _block_of_frames(self, tape: Tape) -> TickClosed | None:
        """Step through some frames, up to the first signal and the end of its life."""
        run, timeline = self._run, self._timeline
        when = timeline[self._index]
        run.desk.at(when)
        idle = run.wants("on_tick", "on_idle")
        price = tape.price[tape.row(when)] if when >= tape.first else float("nan")
        if price != price:
            run.warming(asked=False)
            self._go_to(self._index + 1)
            return None
        if idle or run.engine.bus.wanted("performance"):
            frames = 1
        else:
            frames = self._block
        if when < self._next_ask:
            if idle:
                await run.tell(self._idle(tape, when))
                self._go_to(self._index + 1)
            else:
                self._go_to(frames_before(self._timeline, self._next_ask))
            return None
        began = stopwatch()
        hop = -(-self._interval // timeline.step)
        first_asked = self._index
        last = min(first_asked + (frames - 1) * hop + 1, len(timeline))
        stop = min(timeline[last - 1] + 1, tape.stop)
        at, answer = await self._answers.ask(when, stop, hop * timeline.step, tape)
        asked = (at - when) // (hop * timeline.step) + 1
        run.record.calls += asked
        took = stopwatch() - began
        run.timed("backtest_timeframe", took, asked)
        self._block = max(
            1, min(_MOST_FRAMES, self._block * 2, int(asked * BREATH / (took + 1e-9)))
        )
        self._next_ask = at + self._interval
        self._go_to(frames_before(self._timeline, at) + 1)
        run.record.until = max(run.record.until, at)
        if answer is not None:
            signal_began = stopwatch()
            closed = await self._take(answer, tape, at)
            run.timed("backtest_signal", stopwatch() - signal_began + took / asked)
            return closed
        if idle:
            await run.tell(self._idle(tape, at))
        return None

    async def _take(self, answer: Any, tape: Tape, when: int) -> TickClosed | None:
        """Validate, ask the risk profiles, then open or schedule, and follow the signal's life."""
        run = self._run
        price = float(tape.price[tape.row(when)])
        try:
            row = run.accept(answer, price, when)
        except Exception as error:  # noqa: BLE001 - an invalid signal never ends a run
            run.error("get_signal", error)
            return None
        waits = row.pending_at is None
        if not await run.risk_allows(row, price, when, reserve=not waits):
            return None
        minutes = row.minute_estimated_time + waits * run.config.schedule_await_minutes
        self._tape = tape = await run.view.tape(run.symbol, when, when + minutes * MINUTE)
        if waits:
            await run.tell(step.scheduled(row, when, price))
            return await self._scheduled(row, tape)
        await run.tell(step.opened(row, when, price))
        return await self._pending(row, tape)

    async def _scheduled(self, row: SignalRow, tape: Tape) -> TickClosed | None:
        """Follow a waiting signal to its cancellation, or to the close after its activation."""
        run = self._run
        if run.wants("on_tick"):
            turn = await self._walk_scheduled(row, tape)
        else:
            turn = scheduled_until(row, tape, row.scheduled_at, run.config)
        if turn is None:
            await self._cancel(row, tape, tape.stop - MINUTE, "end_of_data")
            return None
        when, verdict = turn
        if verdict == "timeout" or verdict == "price_reject":
            await self._cancel(row, tape, when, verdict)
            return None
        filled = life.activated(row, when)
        if not await run.risk_allows(filled, row.price_open, when, reserve=True):
            await self._cancel(row, tape, when, "risk")
            return None
        opened = step.opened(filled, when, float(tape.price[tape.row(when)]))
        run.record.add(opened)
        await run.tell(opened)
        if verdict == "activate_and_stop":
            return await self._close(filled, tape, when, Close("stop_loss", row.price_stop_loss))
        return await self._pending(filled, tape)

    async def _walk_scheduled(self, row: SignalRow, tape: Tape) -> tuple[int, Any] | None:
        """Do what `scheduled_until` does step by step, for those who want every result."""
        for when in range(row.scheduled_at + MINUTE, tape.stop, MINUTE):
            bar = tape.bar(when)
            verdict = life.scheduled_step(row, bar, self._run.config)
            if verdict != "wait":
                return when, verdict
            await self._run.tell(step.waiting(row, when, bar.price))
            await self._breathe()
        return None

    async def _pending(self, row: SignalRow, tape: Tape) -> TickClosed:
        """Follow a filled signal to its close."""
        run = self._run
        assert row.pending_at is not None
        if run.wants("on_tick", "on_active"):
            turn = await self._walk_pending(row, tape)
        else:
            turn = pending_until(row, tape, row.pending_at, run.config)
            until = tape.stop if turn is None else turn[0]
            for event in step.milestones(row, run.mode, tape, until):
                await self._milestone(event)
        if turn is not None:
            return await self._close(row, tape, *turn)
        last = max(row.pending_at, tape.stop - MINUTE)
        return await self._close(row, tape, last, Close("end_of_data", tape.bar(last).price))

    async def _walk_pending(self, row: SignalRow, tape: Tape) -> tuple[int, Close] | None:
        """Do what `pending_until` does step by step, for those who want every result."""
        assert row.pending_at is not None
        run, fired = self._run, 0
        for when in range(row.pending_at + MINUTE, tape.stop, MINUTE):
            bar = tape.bar(when)
            close = life.pending_step(row, bar, run.config)
            if close is not None:
                return when, close
            revenue = revenue_percent(row.position, row.price_open, bar.price)
            await run.tell(step.active(row, when, bar.price, revenue))
            levels, fired = crossed(revenue, fired)
            for level in levels:
                event = step.milestone(row, run.mode, when, bar.price, level, revenue)
                await self._milestone(event)
            await self._breathe()
        return None

    async def _milestone(self, event: PartialEvent) -> None:
        self._run.record.add(event)
        await self._run.tell_milestone(event)

    async def _close(self, row: SignalRow, tape: Tape, when: int, close: Close) -> TickClosed:
        run = self._run
        tick = step.closed(row, when, float(tape.price[tape.row(when)]), close, run.config)
        run.record.add(tick)
        run.desk.release(when)
        self._after(when)
        await run.tell(tick)
        return tick

    async def _cancel(self, row: SignalRow, tape: Tape, when: int, reason: CancelReason) -> None:
        run = self._run
        when = max(when, row.scheduled_at)
        tick = step.cancelled(row, when, float(tape.price[tape.row(when)]), reason)
        run.record.add(tick)
        self._after(when)
        await run.tell(tick)

    def _after(self, when: int) -> None:
        """Skip the frames up to `when`: the next signal can come at the first one after it."""
        self._run.record.until = max(self._run.record.until, when)
        self._go_to(max(self._index, frames_before(self._timeline, when + 1)))

    def _go_to(self, index: int) -> None:
        self._index = min(index, len(self._timeline))

    def _idle(self, tape: Tape, when: int) -> TickIdle:
        return TickIdle(
            symbol=self._run.symbol,
            strategy_name=self._run.strategy_name,
            exchange_name=self._run.exchange_name,
            timestamp=when,
            current_price=float(tape.price[tape.row(when)]),
        )

"""The driver of a live run: a step per minute of a clock, each durable before anyone is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from backtest_kit._engine.ambient import Moment, ask, moment
from backtest_kit._engine.asking import has_warmup, question
from backtest_kit._engine.bus import HIGH_WATER
from backtest_kit._engine.run import Run
from backtest_kit._live.clocks import WOKEN, Ticker
from backtest_kit._live.ledger import Event, Ledger, LiveTick
from backtest_kit._rules import life
from backtest_kit._rules import transitions as step
from backtest_kit._rules.fast_forward import Tape
from backtest_kit._rules.life import Bar, Close
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._state.states import LiveStates
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.errors import (
    BeforeDataError,
    DataError,
    DataRangeError,
    ExchangeRefusedError,
    MissedStepsError,
    StateError,
)
from backtest_kit._values.results import CancelReason, TickIdle
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS, MINUTE, iso, to_datetime

#: The run lets others work after about this many milliseconds.
BREATH: Final = 10.0


class _Missed:
    """Steps that were missed in a row: the first and the last (ms), and how many."""

    __slots__ = ("count", "first", "last")

    def __init__(self) -> None:
        self.count = self.first = self.last = 0


class MinuteDriver:
    """The driver of one live run; `play` may be iterated once.

    `recorded`: the candles are all there already (a virtual clock), so that one which is missing is
    not late, and the data may end.
    """

    def __init__(self, run: Run, ticker: Ticker, states: LiveStates, *, recorded: bool) -> None:
        self._run = run
        self._ticker = ticker
        self._states = states
        self._recorded = recorded
        self._ask_strategy = question(run.strategy)
        self._interval = INTERVALS[run.strategy.interval]
        self._ledger = Ledger(run, states)
        self._wake = asyncio.Event()
        self._at: int | None = None
        self._tried: int | None = None
        self._breath = stopwatch()

    def stop(self) -> None:
        """Take no new signals; a waiting one is dropped, a filled one runs to its close."""
        self._run.stopping = True
        self._wake.set()

    async def play(self) -> AsyncGenerator[LiveTick, None]:
        """Yield what is opened, closed and cancelled; listeners are told of the rest."""
        run, ledger = self._run, self._ledger
        entered = cancelled = False
        run.desk.enter(0)
        try:
            await asyncio.sleep(0)  # runs started together all enter before any goes on
            ledger.state = await self._states.enter(ledger.key, self.stop)
            entered = True
            run.engine.records.add(run.record)
            run.begin()
            self._at = await ledger.resume()
            while (batch := await self._advance()) is not None:
                run.desk.park(True)
                for number, tick in batch:
                    ledger.heard = number + 1
                    yield tick
                run.desk.park(False)
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            run.end()
            run.record.gaps = run.view.gaps(run.record.until)
            if entered:
                await ledger.leave(self._at, cancelled=cancelled)
            else:
                run.desk.leave()
            if not cancelled:
                await run.engine.bus.drain()
            run.done()
            if not cancelled:
                await run.engine.bus.drain()

    async def _advance(self) -> Sequence[tuple[int, LiveTick]] | None:
        """Step until there is something to yield, or the end (`None`)."""
        outside = moment.set(None)
        run, ledger = self._run, self._ledger
        try:
            while True:
                if ledger.batch:
                    batch, ledger.batch = ledger.batch, []
                    return batch
                ledger.settle_soon()
                if run.stopping:
                    self._wake.clear()
                    row = ledger.signal
                    if row is None:
                        return None
                    if row.pending_at is None and await self._drop(row):
                        continue
                when = await self._ticker.next(self._at, self._tried, self._wake)
                if when is None:
                    return None
                if when != WOKEN:
                    await self._minute(when)
                    await self._breathe()
        finally:
            moment.reset(outside)

    async def _breathe(self) -> None:
        """Let other tasks run, and wait for listeners that are far behind."""
        if stopwatch() - self._breath < BREATH:
            return
        await asyncio.sleep(0)
        await self._run.engine.bus.drain(HIGH_WATER)
        self._breath = stopwatch()

    async def _minute(self, when: int) -> None:
        """Do the step `when` and, for what lives, those that were missed before it."""
        run, began = self._run, stopwatch()
        self._tried = when
        if self._at is None:
            self._at = when - MINUTE
            self._ledger.begin(when)
        since = self._at + MINUTE if self._ledger.signal is not None else when
        moment.set(Moment(run, when))
        try:
            if not self._recorded:
                run.view.horizon = when
            tape = await run.view.tape(run.symbol, since, when)
            reached = min(when, tape.stop - MINUTE)
            if reached < when:
                late = DataRangeError(
                    f"the candle of {run.symbol} that closed at {iso(when)} is not there; the "
                    f"newest closed at {iso(tape.stop)}"
                )
                if self._recorded:
                    raise late
                run.error("feed", late)
            await self._steps(tape, reached, when)
            run.desk.park(reached < when)  # nobody waits for one that has no candles
        except ExchangeRefusedError:
            raise
        except DataError as error:
            if self._recorded:
                raise
            run.desk.park(True)  # cut off: the others don't wait for it
            run.error("feed", error)
        except StateError as error:
            if self._ledger.filled is None:
                run.desk.give_back()  # what the step would have opened
            self._ledger.undo()
            run.error("state", error)
        run.timed("live_tick", stopwatch() - began)
        if not self._recorded:
            self._states.beat(self._ledger.key, self._at)

    async def _steps(self, tape: Tape, reached: int, when: int) -> None:
        """Do the steps up to `reached`; of them, only `when` is on time."""
        missed = _Missed()
        try:
            await self._steps_noting(tape, reached, when, missed)
        finally:
            self._run.record.until = self._at or 0
            if missed.count:
                self._tell_missed(missed)
        if missed.count:
            await self._ledger.note(self._at)

    async def _steps_noting(self, tape: Tape, reached: int, when: int, missed: _Missed) -> None:
        assert self._at is not None
        while self._at < reached:
            t = self._at + MINUTE
            on_time = t == when and not self._ticker.over(when)
            if self._ledger.signal is None and not on_time:
                # nothing lives: the rest of the past has nothing to say
                stop = reached if reached < when or self._ticker.over(when) else when - MINUTE
                self._miss(missed, t, stop)
                self._at = stop
                self._run.desk.at(stop + 1)
                continue
            price = tape.price[tape.row(t)] if t >= tape.first else float("nan")
            moment.set(Moment(self._run, t))
            if not on_time:  # before the step, whose outcome is stored with the count
                self._miss(missed, t, t)
            try:
                if price == price:
                    await self._step(tape.bar(t), on_time=on_time)
                else:
                    self._run.warming(asked=False)
            except BaseException:
                if not on_time:  # it will be done again
                    self._miss(missed, t, t - MINUTE, -1)
                raise
            self._at = t
            self._run.record.frames += on_time
            await self._breathe()

    def _miss(self, missed: _Missed, first: int, last: int, count: int | None = None) -> None:
        """Count the steps from `first` to `last` as missed; `count`: so many instead."""
        count = (last - first) // MINUTE + 1 if count is None else count
        missed.first = missed.first or first
        missed.last = last
        missed.count += count
        self._run.record.missed += count

    def _tell_missed(self, missed: _Missed) -> None:
        steps = "1 step was" if missed.count == 1 else f"{missed.count} steps were"
        self._run.error(
            "missed steps",
            MissedStepsError(
                f"{steps} missed, {iso(missed.first)} to {iso(missed.last)}: what lived was "
                "followed through them, the strategy was not asked"
            ),
        )

    async def _step(self, bar: Bar, *, on_time: bool) -> None:
        """Do one step: closes first, then what asks the risk profiles, in every run's order."""
        run, state = self._run, self._ledger.state
        row = state.signal
        if row is not None and row.pending_at is not None:
            await self._pending(row, bar)
        else:
            run.desk.at(bar.when)
            if row is not None:
                await self._scheduled(row, bar)
            elif (
                on_time
                and not run.stopping
                and (state.asked_at is None or bar.when - state.asked_at >= self._interval)
            ):
                await self._ask(bar)
            elif run.wants("on_tick", "on_idle"):
                await run.tell(self._idle(bar))
        run.desk.at(bar.when + 1)

    async def _ask(self, bar: Bar) -> None:
        """Ask the strategy; validate, ask the risk profiles, then open or schedule."""
        run, when = self._run, bar.when
        row = answer = None
        try:
            if not self._recorded:
                await run.view.prefetch(when)
            if await has_warmup(run, when):
                answer = await ask(self._ask_strategy, run.symbol, to_datetime(when))
                run.warm(when)
            else:
                run.warming()
            if answer is not None:
                row = self._accept(answer, bar)
        except BeforeDataError as error:
            run.call_failed(error)
        except Exception as error:  # noqa: BLE001 - an error of one step never ends a run
            run.error("get_signal", error)
        run.record.calls += 1
        if row is not None:
            filled = row.pending_at is not None
            allowed = await run.risk_allows(row, bar.price, when, reserve=filled)
            if allowed and (run.stopping or self._ticker.over(when)):
                run.desk.give_back()  # the checks took so long that the chance has gone
                if not run.stopping:
                    run.error("risk", _too_late(when))
            elif allowed:
                told = (step.opened if filled else step.scheduled)(row, when, bar.price)
                await self._ledger.commit(
                    when, bar.price, [told], asked_at=when, signal=row, fired=0
                )
                return
        await self._ledger.commit(when, bar.price, asked_at=when)
        if answer is None and run.wants("on_tick", "on_idle"):
            await run.tell(self._idle(bar))

    def _accept(self, answer: Any, bar: Bar) -> SignalRow | None:
        """Return the row of a valid answer that came in time."""
        run = self._run
        row = run.accept(answer, bar.price, bar.when)
        if self._ticker.over(bar.when):
            raise _too_late(bar.when)
        return None if run.stopping else row

    async def _scheduled(self, row: SignalRow, bar: Bar) -> None:
        run, when, price = self._run, bar.when, bar.price
        commit = self._ledger.commit
        verdict = life.scheduled_step(row, bar, run.config)
        if verdict == "wait":
            if run.wants("on_tick"):
                await run.tell(step.waiting(row, when, price))
            return
        if verdict == "timeout" or verdict == "price_reject":
            await commit(when, price, [step.cancelled(row, when, price, verdict)], signal=None)
            return
        filled = life.activated(row, when)
        allowed = await run.risk_allows(filled, row.price_open, when, reserve=True)
        if not allowed or run.stopping:
            run.desk.give_back()
            reason: CancelReason = "user" if allowed else "risk"
            await commit(when, price, [step.cancelled(row, when, price, reason)], signal=None)
            return
        opened = step.opened(filled, when, price)
        if verdict == "activate":
            await commit(when, price, [opened], signal=filled, fired=0)
            return
        stopped = Close("stop_loss", row.price_stop_loss)
        closed = step.closed(filled, when, price, stopped, run.config)
        await commit(when, price, [opened, closed], signal=None, fired=0)

    async def _pending(self, row: SignalRow, bar: Bar) -> None:
        run, when = self._run, bar.when
        close = life.pending_step(row, bar, run.config)
        if close is not None:
            tick = step.closed(row, when, bar.price, close, run.config)
            await self._ledger.commit(when, bar.price, [tick], signal=None, fired=0)
            return
        revenue = revenue_percent(row.position, row.price_open, bar.price)
        levels, fired = crossed(revenue, self._ledger.state.fired)
        events: list[Event] = [
            step.milestone(row, run.mode, when, bar.price, level, revenue) for level in levels
        ]
        if run.wants("on_tick", "on_active"):
            active = step.active(row, when, bar.price, revenue)
            if not events:
                await run.tell(active)
                return
            await self._ledger.commit(when, bar.price, events, fired=fired, first=active)
        elif events:
            await self._ledger.commit(when, bar.price, events, fired=fired)

    async def _drop(self, row: SignalRow) -> bool:
        """Cancel a waiting signal because the user stops the run; say whether that was stored."""
        when = max(self._at or 0, row.scheduled_at)
        price = self._ledger.state.price
        price = row.price_open if price is None else price
        dropped = step.cancelled(row, when, price, "user")
        try:
            await self._ledger.commit(when, price, [dropped], signal=None)
        except StateError as error:  # the next minute tries again
            self._run.error("state", error)
            return False
        return True

    def _idle(self, bar: Bar) -> TickIdle:
        return TickIdle(
            symbol=self._run.symbol,
            strategy_name=self._run.strategy_name,
            exchange_name=self._run.exchange_name,
            timestamp=bar.when,
            current_price=bar.price,
        )


def _too_late(when: int) -> MissedStepsError:
    return MissedStepsError(
        f"the answer for {iso(when)} came after its minute was over; the chance has gone, and "
        "nothing was opened"
    )

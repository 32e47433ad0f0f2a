"""The driver of a live run: a step per minute of a clock, each durable before anyone is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from backtest_kit._engine.ambient import Moment, ask, moment
from backtest_kit._engine.asking import question
from backtest_kit._engine.bus import HIGH_WATER
from backtest_kit._engine.run import Run
from backtest_kit._live.clocks import WOKEN, Ticker
from backtest_kit._live.ledger import Event, Ledger, LiveTick
from backtest_kit._rules import transitions as step
from backtest_kit._rules.asking import is_due
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import Cancel, pending_step, scheduled_step
from backtest_kit._rules.tape import Bar, Tape
from backtest_kit._state.states import LiveStates
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.errors import (
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
        run.risk_gate.join(None)
        try:
            await asyncio.sleep(0)  # runs started together all enter before any goes on
            ledger.state = await self._states.enter(ledger.key, self.stop)
            entered = True
            run.engine.records.add(run.record)
            self._at = await ledger.resume()
            while (batch := await self._advance()) is not None:
                run.risk_gate.pause()
                for number, tick in batch:
                    ledger.heard = number + 1
                    yield tick
                run.risk_gate.resume()
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            run.record.gaps = run.view.gaps(run.record.until)
            if entered:
                await ledger.leave(self._at, cancelled=cancelled)
            else:
                run.risk_gate.leave()
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
            if reached < when:
                run.risk_gate.pause()  # nobody waits for one that has no candles
            else:
                run.risk_gate.resume()
        except ExchangeRefusedError:
            raise
        except DataError as error:
            if self._recorded:
                raise
            run.risk_gate.pause()  # cut off: the others don't wait for it
            run.error("feed", error)
        except StateError as error:
            if self._ledger.filled is None:
                run.risk_gate.cancel_reservation()  # what the step would have opened
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
                self._run.risk_gate.advance_to(stop + 1)
                continue
            price = tape.price[tape.row(t)] if t >= tape.first else float("nan")
            moment.set(Moment(self._run, t))
            if not on_time:  # before the step, whose outcome is stored with the count
                self._miss(missed, t, t)
            try:
                if price == price:
                    await self._step(tape.bar(t), on_time=on_time)
                else:
                    self._no_price(tape, t)
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

    def _no_price(self, tape: Tape, when: int) -> None:
        count = self._run.config.avg_price_candles_count
        self._run.error(
            "step",
            DataRangeError(
                f"no average price of {self._run.symbol} at {iso(when)}: it takes {count} closed "
                f"1m candles, and the data begin at {iso(tape.first - MINUTE)}"
            ),
        )

    async def _step(self, bar: Bar, *, on_time: bool) -> None:
        """Do one step: first what becomes of the open signal; the strategy is asked without one."""
        run, state = self._run, self._ledger.state
        row, asks = state.signal, on_time and self._is_due(bar.when)
        if row is not None and row.pending_at is not None:
            over = await self._pending(row, bar, asks=asks)
        else:
            run.risk_gate.advance_to(bar.when)
            over = row is None or await self._scheduled(row, bar, asks=asks)
        if over and asks and not run.stopping:
            run.risk_gate.advance_to(bar.when)
            await self._ask(bar)
        elif row is None and run.wants("on_tick", "on_idle"):
            await run.tell(self._idle(bar))
        run.risk_gate.advance_to(bar.when + 1)

    def _is_due(self, when: int) -> bool:
        """Say whether the strategy is asked at the step `when`, once nothing is open at it."""
        run, state = self._run, self._ledger.state
        at_close = run.config.ask_at == "close"
        if run.stopping or (state.signal is not None and not at_close):
            return False
        return is_due(when, state.asked_at, self._interval, at_close)

    def _done(self, when: int, asks: bool) -> int:
        """Return the newest step that is over once what ends at `when` is stored.

        Where the strategy is still to be asked, that is the one before: a process that dies in
        between asks it when it starts again.
        """
        return when - MINUTE if asks else when

    async def _ask(self, bar: Bar) -> None:
        """Ask the strategy; validate, ask the risk profiles, then open or schedule."""
        run, when = self._run, bar.when
        row = answer = None
        try:
            if not self._recorded:
                await run.view.prefetch(when)
            answer = await ask(self._ask_strategy, run.symbol, to_datetime(when))
            if answer is not None:
                row = self._accept(answer, bar)
        except Exception as error:  # noqa: BLE001 - an error of one step never ends a run
            run.error("get_signal", error)
        run.record.calls += 1
        if row is not None:
            filled = row.pending_at is not None
            allowed = await run.risk_allows(row, bar.fill, when, reserve=filled)
            if allowed and (run.stopping or self._ticker.over(when)):
                run.risk_gate.cancel_reservation()  # the checks took too long
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
        row = run.accept(answer, bar.quote, bar.when)
        if self._ticker.over(bar.when):
            raise _too_late(bar.when)
        return None if run.stopping else row

    async def _scheduled(self, row: SignalRow, bar: Bar, *, asks: bool) -> bool:
        """Follow a scheduled signal through a step; say whether it ended."""
        run, when, price = self._run, bar.when, bar.price
        commit, done = self._ledger.commit, self._done(when, asks)
        outcome = scheduled_step(row, bar, run.config)
        if outcome is None:
            if run.wants("on_tick"):
                await run.tell(step.waiting(row, when, price))
            return False
        if isinstance(outcome, Cancel):
            cancelled = step.cancelled(row, when, price, outcome.reason)
            await commit(done, price, [cancelled], signal=None)
            return True
        filled = outcome.row
        allowed = await run.risk_allows(filled, filled.price_open, when, reserve=True)
        if not allowed or run.stopping:
            run.risk_gate.cancel_reservation()
            reason: CancelReason = "user" if allowed else "risk"
            await commit(done, price, [step.cancelled(row, when, price, reason)], signal=None)
            return True
        opened = step.opened(filled, when, price)
        if outcome.close is None:
            await commit(when, price, [opened], signal=filled, fired=0)
            return False
        closed = step.closed(filled, when, price, outcome.close, run.config)
        await commit(done, price, [opened, closed], signal=None, fired=0)
        return True

    async def _pending(self, row: SignalRow, bar: Bar, *, asks: bool) -> bool:
        """Follow a filled signal through a step; say whether it ended."""
        run, when = self._run, bar.when
        close = pending_step(row, bar, run.config)
        if close is not None:
            tick = step.closed(row, when, bar.price, close, run.config)
            done = self._done(when, asks)
            await self._ledger.commit(done, bar.price, [tick], signal=None, fired=0)
            return True
        revenue = revenue_percent(row.position, row.price_open, bar.price)
        levels, fired = crossed(revenue, self._ledger.state.fired)
        events: list[Event] = [
            step.milestone(row, run.mode, when, bar.price, level, revenue) for level in levels
        ]
        if run.wants("on_tick", "on_active"):
            active = step.active(row, when, bar.price, revenue)
            if not events:
                await run.tell(active)
                return False
            await self._ledger.commit(when, bar.price, events, fired=fired, first=active)
        elif events:
            await self._ledger.commit(when, bar.price, events, fired=fired)
        return False

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

"""The driver of a live run: a step per minute of a clock, each durable before anyone is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from backtest_kit._data.calendar import closed_at
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.asking import has_warmup, plain, question
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.pacer import Pacer
from backtest_kit._engine.run import Run
from backtest_kit._live.clocks import WOKEN, Ticker
from backtest_kit._live.ledger import Event, Ledger, LiveTick
from backtest_kit._rules import transitions as step
from backtest_kit._rules.asking import is_due
from backtest_kit._rules.bars import Bar, Bars
from backtest_kit._rules.missed import plan
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import Cancel, pending_step, scheduled_step
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.clock import stopwatch, yield_to_others
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


class MinuteDriver:
    """The driver of one live run; `results` may be iterated once.

    `recorded`: all candles exist already (a virtual clock), so that a missing one is not late but
    the end of the data.
    """

    def __init__(self, run: Run, ticker: Ticker, owner: StateOwner, *, recorded: bool) -> None:
        self._run = run
        self._ticker = ticker
        self._recorded = recorded
        self._ask_strategy = question(run.strategy)
        self._interval = INTERVALS[run.strategy.interval]
        self._base = INTERVALS[run.config.base_interval]
        self._ledger = Ledger(run, owner)
        self._wake = asyncio.Event()
        self._at: int | None = None
        self._tried: int | None = None
        self._pacer = Pacer(run.engine.bus)

    def stop(self) -> None:
        """Take no new signals; cancel a waiting one, and follow an open position to its close."""
        self._run.stopping = True
        self._wake.set()

    async def results(self) -> AsyncGenerator[LiveTick, None]:
        """Yield opened, closed and cancelled signals; listeners are told of the other results."""
        run, ledger = self._run, self._ledger
        entered = cancelled = False
        run.risk_gate.join(None)
        try:
            await yield_to_others()  # runs started together all enter before any goes on
            await ledger.enter(self.stop)
            entered = True
            run.engine.records.add(run.record)
            run.begin()
            at = await ledger.resume()
            self._at = None if at is None else at // self._base * self._base
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
            run.end()
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
        """Do steps until there are results to yield; `None` at the end of the run."""
        outside = current_moment.set(None)
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
                    if self._pacer.due:
                        await self._pacer.yield_now()
        finally:
            current_moment.reset(outside)

    async def _minute(self, when: int) -> None:
        """Do the step `when` and, with an open signal, the steps missed before it."""
        run, began = self._run, stopwatch()
        self._tried = when
        if self._at is None:
            # a start in the middle of a long candle has missed no step
            begun = self._base > MINUTE and self._ticker.over(when)
            self._at = when if begun else when - self._base
            self._ledger.begin(when)
        current_moment.set(Moment(run, when))
        follows = self._ledger.signal is not None or run.exchange.calendar is not None
        try:
            newest = self._newest_open(when)
            if newest <= self._at:
                self._rest(when)
                return
            since = self._at + self._base if follows else newest
            if not self._recorded:
                run.view.horizon = when
            bars = await run.view.bars(run.symbol, since, newest)
            reached = min(newest, bars.stop - bars.step)
            if reached < newest and run.exchange.calendar != "data":
                late = DataRangeError(
                    f"the candle of {run.symbol} that closed at {iso(newest)} is not there; the "
                    f"newest closed at {iso(bars.stop)}"
                )
                if self._recorded:
                    raise late
                run.error("feed", late)
            await self._catch_up(bars, reached, when)
            if reached < newest:
                run.risk_gate.pause()  # nobody waits for one that has no candles
            else:
                run.risk_gate.resume()
                self._rest(when)
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
            self._ledger.undo()
            run.error("state", error)
        run.timed("live_tick", stopwatch() - began)
        if not self._recorded:
            self._ledger.heartbeat(self._at)

    async def _catch_up(self, bars: Bars, reached: int, when: int) -> None:
        """Do or skip the steps up to `reached`; of them, only `when` can be on time."""
        assert self._at is not None
        record, base = self._run.record, self._base
        known, first = record.missed, self._at + base
        missed = range(first, first, base)
        try:
            while self._at < reached:
                # planned anew after each step: it may close the signal, and it takes time
                on_time = reached == when and not self._ticker.over(when)
                lives = self._ledger.signal is not None
                steps, skipped = plan(self._at, reached, base, on_time=on_time, lives=lives)
                if skipped:
                    self._at = skipped[-1]
                    missed = range(first, skipped.stop, base)
                    self._run.risk_gate.advance_to(self._at + 1)
                    continue
                t = steps[0]
                if not bars.open_steps(steps[:1]):
                    self._at = t
                    continue
                on_time = on_time and t == when
                after = missed if on_time else range(first, t + base, base)
                record.missed = known + bars.open_steps(after)  # stored with the step's outcome
                await self._do(bars, t, on_time=on_time)
                self._at, missed = t, after
                if self._pacer.due:
                    await self._pacer.yield_now()
        finally:
            count = bars.open_steps(missed)
            record.missed = known + count  # a step that failed will be done again
            record.until = self._at or 0
            if count:
                self._tell_missed(missed, count)
        if count:
            await self._ledger.note(self._at)

    async def _do(self, bars: Bars, when: int, *, on_time: bool) -> None:
        """Do one step, if it has a price."""
        current_price = bars.price[bars.row(when)] if when >= bars.first else float("nan")
        current_moment.set(Moment(self._run, when))
        if current_price == current_price:
            await self._step(bars.bar(when), on_time=on_time)
        else:
            self._run.warming(asked=False)
        self._run.record.frames += on_time

    def _newest_open(self, when: int) -> int:
        """Return the newest step up to `when` at which the market may be open."""
        calendar = self._run.exchange.calendar
        while when > (self._at or 0) and closed_at(calendar, when, self._base):
            when -= self._base
        return when

    def _rest(self, when: int) -> None:
        """Pass over steps in closed times, up to `when`: nothing can happen there."""
        self._at = self._run.record.until = when
        self._run.risk_gate.advance_to(when + 1)

    def _tell_missed(self, missed: range, count: int) -> None:
        steps = "1 step was" if count == 1 else f"{count} steps were"
        self._run.error(
            "missed steps",
            MissedStepsError(
                f"{steps} missed, {iso(missed[0])} to {iso(missed[-1])}: an open signal was "
                "followed through them, the strategy was not asked"
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
            await run.publish(self._idle(bar))
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
        return when - self._base if asks else when

    async def _ask(self, bar: Bar) -> None:
        """Ask the strategy; validate, ask the risk profiles, then open or schedule."""
        run, when = self._run, bar.when
        row = answer = None
        try:
            if not self._recorded:
                await run.view.prefetch(when)
            if await has_warmup(run, when):
                answer = await call_user_code(self._ask_strategy, run.symbol, to_datetime(when))
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
            await run.publish(self._idle(bar))

    def _accept(self, answer: Any, bar: Bar) -> SignalRow | None:
        """Return the row of a valid answer that came in time."""
        run = self._run
        row = plain(run.accept(answer, bar.quote, bar.when), self._ask_strategy)
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
                await run.publish(step.waiting(row, when, price))
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
                await run.publish(active)
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

"""The steps of a live run, one at each minute of a clock, each durable before anyone is told."""

from __future__ import annotations

from typing import Any

from backtest_kit._data.calendar import LOOK_AHEAD, closed_at, is_ever_open, load_calendar
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.asking import has_warmup, never_asked, plain, question
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.pacer import Pacer
from backtest_kit._engine.run import Run
from backtest_kit._live.clocks import Ticker
from backtest_kit._live.ledger import Event, Ledger
from backtest_kit._live.stoppable import Stoppable, Stopped
from backtest_kit._rules import transitions as step
from backtest_kit._rules.asking import is_due
from backtest_kit._rules.bars import Bar, Bars
from backtest_kit._rules.missed import plan
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import Cancel, pending_step, scheduled_step
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.errors import (
    BeforeDataError,
    DataError,
    DataRangeError,
    ExchangeRefusedError,
    FetchError,
    MissedStepsError,
    StateError,
)
from backtest_kit._values.results import CancelReason, TickIdle
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS, MINUTE, iso, to_datetime


class MinuteDriver:
    """Does the steps of one live run.

    `recorded`: all candles exist already (a virtual clock), so that a missing one is not late but
    the end of the data.
    """

    def __init__(
        self, run: Run, ticker: Ticker, ledger: Ledger, pacer: Pacer, *, recorded: bool
    ) -> None:
        self._run = run
        self._ticker = ticker
        self._recorded = recorded
        self._ask_strategy = question(run.strategy)
        self._interval = INTERVALS[run.strategy.interval]
        self._base = INTERVALS[run.config.base_interval]
        self._ledger = ledger
        self._pacer = pacer
        self._waits = Stoppable(run)
        #: The newest step that is done, and the newest that was tried (ms).
        self.at: int | None = None
        self.tried: int | None = None

    def begin_after(self, at: int | None) -> None:
        """Go on from the step `at` (ms); `None`: from the first."""
        self.at = None if at is None else at // self._base * self._base

    def interrupt(self) -> None:
        """End what a step waits for, where nothing is open: the run is to stop."""
        self._waits.end()

    async def minute(self, when: int) -> None:
        """Do the step `when` and, with an open signal, the steps missed before it."""
        run, began = self._run, stopwatch()
        if self.tried is None and run.config.ask_at == "close":
            calendar = run.exchange.calendar
            await load_calendar(calendar, when, when + LOOK_AHEAD)
            if not is_ever_open(calendar, when - 1, self._interval, self._base):
                run.error("frame", never_asked(run))
        self.tried = when
        if self.at is None:
            # a start in the middle of a long candle has missed no step
            begun = self._base > MINUTE and self._ticker.over(when)
            self.at = when if begun else when - self._base
            self._ledger.begin(when)
        current_moment.set(Moment(run, when))
        follows = self._ledger.signal is not None or run.exchange.calendar is not None
        try:
            await self._ledger.confirm()
            await load_calendar(run.exchange.calendar, self.at, when)
            newest = self._newest_open(when)
            if newest <= self.at:
                self._rest(when)
                return
            since = self.at + self._base if follows else newest
            if not self._recorded:
                run.view.horizon = when
            bars = await self._waits.unless_stopped(run.view.bars(run.symbol, since, newest))
            reached = min(newest, bars.stop - bars.step)
            if reached < newest and run.exchange.calendar != "data":
                late = DataRangeError(
                    f"the candle of {run.symbol} that closed at {iso(newest)} is not there; the "
                    f"newest closed at {iso(bars.stop - bars.step)}"
                )
                if self._recorded:
                    raise late
                run.error("feed", late)
            await self._catch_up(bars, reached, when)
            run.watch_candles()
            if reached < newest:
                run.risk_gate.pause()  # nobody waits for one that has no candles
            else:
                run.risk_gate.resume()
                self._rest(when)
        except Stopped:
            self._ledger.undo()
            return
        except DataError as error:
            if self._recorded:
                raise self._end_of_replay(error) from error
            if isinstance(error, ExchangeRefusedError) and self._ledger.signal is None:
                raise  # what is open outlives one
            run.risk_gate.pause()  # cut off: the others don't wait for it
            run.error("feed", error)
        except StateError as error:
            if self._ledger.filled is None:
                run.risk_gate.cancel_reservation()  # what the step would have opened
            self._ledger.undo()
            run.error("state", error)
        run.timed("live_tick", stopwatch() - began)
        if not self._recorded:
            self._ledger.heartbeat(self.at)

    def _end_of_replay(self, error: DataError) -> DataError:
        """Return what ends a run on a virtual clock: passing over steps would change its trades."""
        if not isinstance(error, FetchError):
            return error
        return FetchError(
            f"{error}. By a virtual clock this ends the run, since a replay without these steps "
            "would have other trades than a backtest; its state is stored, and started again it "
            "goes on from there"
        )

    async def _catch_up(self, bars: Bars, reached: int, when: int) -> None:
        """Do or skip the steps up to `reached`; of them, only `when` can be on time."""
        assert self.at is not None
        record, base = self._run.record, self._base
        known, first = record.missed, self.at + base
        missed = range(first, first, base)
        try:
            while self.at < reached:
                # planned anew after each step: it may close the signal, and it takes time
                on_time = reached == when and not self._ticker.over(when)
                lives = self._ledger.signal is not None
                steps, skipped = plan(self.at, reached, base, on_time=on_time, lives=lives)
                if skipped:
                    self.at = skipped[-1]
                    missed = range(first, skipped.stop, base)
                    self._pass_to(self.at)
                    continue
                t = steps[0]
                if not bars.open_steps(steps[:1]):
                    self.at = t
                    continue
                on_time = on_time and t == when
                after = missed if on_time else range(first, t + base, base)
                record.missed = known + bars.open_steps(after)  # stored with the step's outcome
                await self._do(bars, t, on_time=on_time)
                self.at, missed = t, after
                if self._pacer.due:
                    await self._pacer.yield_now()
        finally:
            count = bars.open_steps(missed)
            record.missed = known + count  # a step that failed will be done again
            record.until = self.at or 0
            if count:
                self._tell_missed(missed, count)
        if count:
            await self._ledger.note(self.at)

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
        while when > (self.at or 0) and closed_at(calendar, when, self._base):
            when -= self._base
        return when

    def _rest(self, when: int) -> None:
        """Pass over steps in closed times, up to `when`: nothing can happen there."""
        self.at = self._run.record.until = when
        self._pass_to(when)

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
        self._pass_to(bar.when)

    def _pass_to(self, when: int) -> None:
        """Say that the step `when` is done: the run does nothing before the next one."""
        self._run.risk_gate.advance_to(when + self._base - 1)

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
            answer = await self._answer(when)
            if answer is not None:
                row = self._accept(answer, bar)
        except Stopped:
            raise
        except BeforeDataError as error:
            run.call_failed(error)
        except Exception as error:  # noqa: BLE001 - an error of one step never ends a run
            run.error("get_signal", error)
        run.record.calls += 1
        if row is not None:
            filled = row.pending_at is not None
            allowed = await self._allowed(row, bar, reserve=filled)
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

    async def _answer(self, when: int) -> Any:
        """Return the strategy's answer; one that does not come in time is not waited for."""
        run = self._run
        try:
            async with self._waits.within(self._ticker.left(when)):
                if not self._recorded:
                    await run.view.prefetch(when)
                if await has_warmup(run, when):
                    answer = await call_user_code(self._ask_strategy, run.symbol, to_datetime(when))
                    run.warm(when)
                    return answer
        except TimeoutError:
            if self._ticker.over(when):
                raise _too_late(when) from None
            raise
        run.warming()
        return None

    async def _allowed(self, row: SignalRow, bar: Bar, *, reserve: bool) -> bool:
        """Ask the risk profiles; what they do not say in time is not waited for."""
        run, when = self._run, bar.when
        try:
            async with self._waits.within(self._ticker.left(when)):
                return await run.risk_allows(row, bar.fill, when, reserve=reserve)
        except TimeoutError:
            run.error("risk", _too_late(when))
            return False

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
        allowed = await self._waits.unless_stopped(
            run.risk_allows(filled, filled.price_open, when, reserve=True)
        )
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

    async def drop(self, row: SignalRow) -> bool:
        """Cancel a waiting signal because the user stops the run; say whether that was stored."""
        when = max(self.at or 0, row.scheduled_at)
        price = row.price_open if (at := self._ledger.state.price) is None else at
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

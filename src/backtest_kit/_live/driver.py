"""The steps of a live run, one at each minute of a clock, each durable before anyone is told."""

from __future__ import annotations

from backtest_kit._data.calendar import LOOK_AHEAD, closed_at, is_ever_open, load_calendar
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.asking import never_asked
from backtest_kit._engine.pacer import Pacer
from backtest_kit._engine.run import Run
from backtest_kit._live.account_gate import live_gate
from backtest_kit._live.asking import Asking
from backtest_kit._live.clocks import Ticker
from backtest_kit._live.ledger import Ledger
from backtest_kit._live.orders import Orders
from backtest_kit._live.steps import Steps
from backtest_kit._live.stoppable import Stoppable, Stopped
from backtest_kit._rules import transitions as told
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.missed import plan
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.errors import (
    DataError,
    DataRangeError,
    ExchangeRefusedError,
    FetchError,
    MissedStepsError,
    StateError,
)
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS, MINUTE, iso


class MinuteDriver:
    """Does the steps of one live run.

    `recorded`: all candles exist already (a virtual clock), so that a missing one is not late but
    the end of the data.
    """

    def __init__(
        self,
        run: Run,
        ticker: Ticker,
        ledger: Ledger,
        owner: StateOwner,
        pacer: Pacer,
        *,
        recorded: bool,
    ) -> None:
        self._run = run
        self._ticker = ticker
        self._recorded = recorded
        self._interval = INTERVALS[run.strategy.interval]
        self._base = INTERVALS[run.config.base_interval]
        self._ledger = ledger
        self._account = live_gate(run)
        self._pacer = pacer
        self._waits = Stoppable(run)
        asking = Asking(run, ticker, self._waits, recorded=recorded)
        self._orders = Orders(run, ledger, owner, asking, recorded=recorded)
        self._steps = Steps(run, ledger, asking, self._orders, self._waits)
        #: The newest step that is done, and the newest that was tried (ms).
        self.at: int | None = None
        self.tried: int | None = None

    async def begin_after(self, at: int | None, *, ended_before: int | None) -> None:
        """Go on from the step `at` (ms); `None`: from the first.

        `ended_before`: when this session began (ms), if the last one ended in order.
        """
        self._orders.ended_before = ended_before
        await self._orders.tidy()
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
            if self._account is not None:
                await self._account.reach(when)
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
            await self._catch_up(bars, reached, newest, when)
            run.watch_candles()
            if reached < newest:
                self._pause()  # nobody waits for one that has no candles
            else:
                self._resume()
                self._rest(when)
        except Stopped:
            self._undo()
            return
        except DataError as error:
            if self._recorded:
                raise self._end_of_replay(error) from error
            if isinstance(error, ExchangeRefusedError) and self._ledger.signal is None:
                raise  # what is open outlives one
            if self._account is not None:
                self._account.undo()
            self._pause()  # cut off: the others don't wait for it
            run.error("feed", error)
        except StateError as error:
            self._undo()
            if not self._recorded:
                self._pause()  # nobody waits for one that can't store what it does
            run.error("state", error)
        run.timed("live_tick", stopwatch() - began)
        if not self._recorded:
            self._ledger.heartbeat(self.at)

    def _undo(self) -> None:
        """Take back what a step did that was not stored, and the slot for what it would open."""
        self._run.risk_gate.cancel_reservation(held=self._ledger.filled is not None)
        self._ledger.undo()

    def _pause(self) -> None:
        self._run.risk_gate.pause()
        if self._account is not None:
            self._account.pause()

    def _resume(self) -> None:
        self._run.risk_gate.resume()
        if self._account is not None:
            self._account.resume()

    def _end_of_replay(self, error: DataError) -> DataError:
        """Return what ends a run on a virtual clock: passing over steps would change its trades."""
        if not isinstance(error, FetchError):
            return error
        return FetchError(
            f"{error}. By a virtual clock this ends the run, since a replay without these steps "
            "would have other trades than a backtest; its state is stored, and started again it "
            "goes on from there"
        )

    async def _catch_up(self, bars: Bars, reached: int, newest: int, when: int) -> None:
        """Do or skip the steps up to `reached`; of them, only `when` can be on time.

        `newest` is the newest step there should be: only that one is at a price of now.
        """
        assert self.at is not None
        if self._account is not None:
            self._account.look_at(bars)
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
                await self._do(bars, t, on_time=on_time, newest=t == reached == newest)
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

    async def _do(self, bars: Bars, when: int, *, on_time: bool, newest: bool) -> None:
        """Do one step, if it has a price."""
        current_price = bars.price[bars.row(when)] if when >= bars.first else float("nan")
        current_moment.set(Moment(self._run, when))
        if current_price == current_price:
            await self._steps.step(bars.bar(when), on_time=on_time, newest=newest)
            self._pass_to(when)
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

    def _pass_to(self, when: int) -> None:
        """Say that the step `when` is done: the run does nothing before the next one."""
        self._run.risk_gate.advance_to(when + self._base - 1)
        if self._account is not None:
            self._account.pass_to(when + self._base, 0)

    async def drop(self, row: SignalRow) -> bool:
        """Cancel a waiting signal because the user stops the run; say whether that was stored."""
        when = max(self.at or 0, row.scheduled_at)
        price = row.price_open if (at := self._ledger.state.price) is None else at
        dropped = told.cancelled(row, when, price, "user")
        try:
            await self._ledger.commit(when, price, [dropped], signal=None)
        except StateError as error:  # the next minute tries again
            self._run.error("state", error)
            return False
        return True

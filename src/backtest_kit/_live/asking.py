"""What a live run asks at a step: its strategy and its risk profiles, for as long as it is on time.

What a row over arrays says of exits is no question of time: it follows from the candles.
"""

from __future__ import annotations

import asyncio
from typing import Any

from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.asking import (
    ArrayQuestion,
    ask_manage,
    has_warmup,
    manage_failed,
    question,
)
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import OPENS
from backtest_kit._live.clocks import Ticker
from backtest_kit._live.stoppable import Stoppable
from backtest_kit._rules.asking import is_due
from backtest_kit._rules.bars import Bar
from backtest_kit._values.actions import Position
from backtest_kit._values.errors import (
    BeforeDataError,
    DataError,
    DataRangeError,
    MissedStepsError,
)
from backtest_kit._values.results import CancelReason
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS, iso, to_datetime


class Asking:
    """Asks for one live run. `recorded`: all candles exist already."""

    def __init__(self, run: Run, ticker: Ticker, waits: Stoppable, *, recorded: bool) -> None:
        self._run = run
        self._ticker = ticker
        self._waits = waits
        self._recorded = recorded
        self._question = question(run.strategy)
        self._interval = INTERVALS[run.strategy.interval]
        self._manage_interval = INTERVALS[run.strategy.manage_interval]
        #: Whether the strategy is asked while a position is open.
        self.manages = run.strategy.manage is not None

    def is_due(self, when: int, asked_at: int | None, *, follows: bool, reverses: bool) -> bool:
        """Say whether the strategy is asked at the step `when`, once nothing is open at it.

        `follows`: something was open when the step began; `reverses`: it was told to end here.
        """
        at_close = self._run.config.ask_at == "close"
        if self._run.stopping or (follows and not at_close and not reverses):
            return False
        return is_due(when, asked_at, self._interval, at_close)

    async def answer(self, when: int) -> Any:
        """Return the strategy's answer; one that does not come in time is not waited for.

        Raises:
            MissedStepsError: it did not.
            Stopped: the run is to stop.
            Exception: whatever the strategy raises.
        """
        run = self._run
        try:
            async with self._waits.within(self._ticker.left(when)):
                if not self._recorded:
                    await run.view.prefetch(when)
                if await has_warmup(run, when):
                    answer = await call_user_code(self._question, run.symbol, to_datetime(when))
                    run.warm(when)
                    return answer
        except TimeoutError:
            if self._ticker.over(when):
                raise too_late(when) from None
            raise
        run.warming()
        return None

    def manage_is_due(self, when: int, asked_at: int | None) -> bool:
        """Say whether `manage` is asked at the step `when`, if a position lives on."""
        at_close = self._run.config.ask_at == "close"
        return self.manages and is_due(when, asked_at, self._manage_interval, at_close)

    async def manage(self, position: Position, when: int) -> list[object]:
        """Return what `manage` wants done, in order; what it does not say in time is not done.

        What goes wrong is an error event.
        """
        run, actions = self._run, list[object]()
        try:
            async with asyncio.timeout(self._ticker.left(when)):
                if not self._recorded:
                    await run.view.prefetch(when)
                actions = await ask_manage(run, position, when)
        except TimeoutError:  # also where the wall clock was set back meanwhile
            await manage_failed(run, too_late(when, "nothing was done"))
            return []
        if self._ticker.over(when):
            await manage_failed(run, too_late(when, "nothing was done"))
            return []
        return actions

    def accept(self, answer: Any, bar: Bar) -> SignalRow | None:
        """Return the row of a valid answer; `None` where the run is to stop.

        Raises:
            SignalError: it is no valid proposal.
            MissedStepsError: it did not come in time.
        """
        row = self._run.accept(answer, bar.quote, bar.when)
        if self._ticker.over(bar.when):
            raise too_late(bar.when)
        return None if self._run.stopping else row

    async def allowed(self, row: SignalRow, bar: Bar) -> bool:
        """Ask the risk profiles; what they do not say in time is not waited for.

        A row that is filled has reserved its slot then.
        """
        run, when = self._run, bar.when
        reserve = row.pending_at is not None
        try:
            async with self._waits.within(self._ticker.left(when)):
                allowed = await run.risk_allows(row, bar.fill, when, reserve=reserve)
        except TimeoutError:
            run.error("risk", too_late(when))
            return False
        if allowed and (run.stopping or self._ticker.over(when)):
            if reserve:
                run.risk_gate.cancel_reservation()  # the checks took too long
            if not run.stopping:
                run.error("risk", too_late(when))
            return False
        return allowed

    async def admitted(self, row: SignalRow, bar: Bar, what: int = OPENS) -> CancelReason | None:
        """Ask risk profiles and account, in the run's turn; return why they refuse.

        What they do not say in time is not waited for. A row that is filled has reserved its slot.

        Raises:
            DataError: the rules of the market can't be had.
        """
        run, when, account = self._run, bar.when, self._run.account
        if account is not None:
            await account.wait(when, what)
        if not await self.allowed(row, bar):
            return "risk"
        if account is None:
            return None
        try:
            refused: CancelReason | None = await account.admit(row, when)
            if refused is None and self._ticker.over(when):
                run.error("sizing", too_late(when))
                refused = "size"
        except BaseException:
            run.risk_gate.cancel_reservation()
            raise
        if refused is not None and row.pending_at is not None:
            run.risk_gate.cancel_reservation()
        return refused

    async def exits(self, side: int, when: int) -> bool:
        """Say whether the row of the candle that closed at `when` says "nothing on `side`".

        Raises:
            DataError: the candles can't be had; the step is to be done once they can.
        """
        run, asked = self._run, self._question
        if not isinstance(asked, ArrayQuestion) or when % self._interval:
            return False
        if asked.has_exits is False:
            return False
        current_moment.set(Moment(run, when))
        try:
            return bool(await call_user_code(asked.exits, run.symbol, side))
        except DataError as error:
            there_is_none = isinstance(error, DataRangeError) and self._recorded
            if there_is_none or isinstance(error, BeforeDataError):
                return False
            raise
        except Exception as error:  # noqa: BLE001 - it never ends a run
            run.error("get_signal", error)
            return False


def too_late(when: int, outcome: str = "nothing was opened") -> MissedStepsError:
    """Return the error of an answer that came when its minute was over."""
    return MissedStepsError(
        f"the answer for {iso(when)} came after its minute was over; the chance has gone, and "
        f"{outcome}"
    )

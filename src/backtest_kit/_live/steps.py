"""One step of a live run: what becomes of the open signal, and what the strategy is asked."""

from __future__ import annotations

from typing import Any, Final

from backtest_kit._engine.run import Run
from backtest_kit._live.asking import Asking
from backtest_kit._live.ledger import Ledger
from backtest_kit._live.stoppable import Stoppable, Stopped
from backtest_kit._rules import holding as at
from backtest_kit._rules import transitions as told
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.managed import (
    Holding,
    Managed,
    close_managed,
    open_managed,
    step_managed,
)
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import Cancel, scheduled_step
from backtest_kit._values.errors import BeforeDataError
from backtest_kit._values.events import RunEvent
from backtest_kit._values.results import CancelReason, CloseReason, TickActive, TickIdle
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS

#: What a step leaves behind where nothing is open any more.
_NOTHING: Final[dict[str, Any]] = {
    "signal": None,
    "holding": None,
    "fired": 0,
    "managed_at": None,
}


class Steps:
    """Does the steps of one live run; what each brings is stored before anybody is told."""

    def __init__(self, run: Run, ledger: Ledger, asking: Asking, waits: Stoppable) -> None:
        self._run = run
        self._ledger = ledger
        self._asking = asking
        self._waits = waits
        self._base = INTERVALS[run.config.base_interval]

    async def step(self, bar: Bar, *, on_time: bool) -> None:
        """Do one step: first what becomes of the open signal; the strategy is asked without one.

        Raises:
            StateError: it can't be stored; it is to be done again.
            DataError: what it needs of the market can't be had; it is to be done again.
            Stopped: the run is to stop, and nothing is open.
        """
        run, state, when = self._run, self._ledger.state, bar.when
        row = state.signal
        exits = row is not None and await self._asking.exits(row.side, when)
        asks = on_time and self._asking.is_due(
            when, state.asked_at, follows=row is not None, reverses=exits
        )
        if row is not None and row.pending_at is not None:
            await self._pending(row, bar, exits=exits, asks=asks)
        else:
            run.risk_gate.advance_to(when)
            if row is not None:
                await self._scheduled(row, bar, exits=exits, asks=asks)
        if asks and not run.stopping and self._ledger.signal is None:
            run.risk_gate.advance_to(when)
            await self._ask(bar)
        elif row is None and run.wants("on_tick", "on_idle"):
            await run.publish(self._idle(bar))

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
            answer = await self._asking.answer(when)
            if answer is not None:
                row = self._asking.accept(answer, bar)
        except Stopped:
            raise
        except BeforeDataError as error:
            run.call_failed(error)
        except Exception as error:  # noqa: BLE001 - an error of one step never ends a run
            run.error("get_signal", error)
        run.record.calls += 1
        if row is not None and await self._asking.allowed(row, bar):
            events, changes = self._begun(row, bar)
            await self._ledger.commit(when, bar.price, events, asked_at=when, **changes)
            return
        await self._ledger.commit(when, bar.price, asked_at=when)
        if answer is None and run.wants("on_tick", "on_idle"):
            await run.publish(self._idle(bar))

    def _begun(self, row: SignalRow, bar: Bar) -> tuple[list[RunEvent], dict[str, Any]]:
        """Return what a signal that waits or opens at its own step brings: to tell, to store."""
        if row.pending_at is None:
            return [told.scheduled(row, bar.when, bar.price)], _NOTHING | {"signal": row}
        opened = open_managed(row, bar, self._run.config)
        return self._opening(opened, bar), _NOTHING | {"signal": row, "holding": opened.holding}

    def _opening(self, opened: Managed, bar: Bar) -> list[RunEvent]:
        """Return what the step of a signal's fill brings, but for its close."""
        holding, when, price = opened.holding, bar.when, bar.price
        closes = opened.close is not None
        events: list[RunEvent] = [told.opened(holding.row, when, price)]
        events += told.happened(None, holding, when, price, closes=closes)
        moved = None if closes else told.moved(None, holding, when, price)
        return events if moved is None else [*events, moved]

    async def _scheduled(self, row: SignalRow, bar: Bar, *, exits: bool, asks: bool) -> None:
        """Follow a waiting signal through a step."""
        run, when, price = self._run, bar.when, bar.price
        outcome = scheduled_step(row, bar, run.config) or (Cancel("exit") if exits else None)
        if outcome is None:
            if run.wants("on_tick"):
                await run.publish(told.waiting(row, when, price))
            return
        if isinstance(outcome, Cancel):
            await self._cancel(row, bar, outcome.reason, asks=asks)
            return
        filled = outcome.row
        allowed = await self._waits.unless_stopped(
            run.risk_allows(filled, filled.price_open, when, reserve=True)
        )
        if not allowed or run.stopping:
            run.risk_gate.cancel_reservation()
            await self._cancel(row, bar, "user" if allowed else "risk", asks=asks)
            return
        opened = open_managed(filled, bar, run.config)
        events = self._opening(opened, bar)
        if opened.close is not None or exits:
            reason: CloseReason = "closed" if opened.close is None else opened.close.reason
            await self._close(opened.holding, bar, reason, events, asks=asks)
            return
        changes = _NOTHING | {"signal": filled, "holding": opened.holding}
        await self._ledger.commit(when, price, events, **changes)

    async def _pending(self, row: SignalRow, bar: Bar, *, exits: bool, asks: bool) -> None:
        """Follow a filled signal through a step."""
        run, when, price = self._run, bar.when, bar.price
        before = self._ledger.holding
        assert before is not None
        holding, close = step_managed(before, bar, run.config)
        closes = close is not None
        events: list[RunEvent] = [*told.happened(before, holding, when, price, closes=closes)]
        if close is not None:
            await self._close(holding, bar, close.reason, events, asks=asks)
            return
        revenue = revenue_percent(row.position, holding.effective_entry, price)
        levels, fired = crossed(revenue, self._ledger.state.fired)
        if run.wants("on_tick", "on_active") and not exits:
            events.append(told.active(row, when, price, revenue))
        events += [told.milestone(row, run.mode, when, price, x, revenue) for x in levels]
        moved = told.moved(before, holding, when, price)
        if moved is not None:
            events.append(moved)
        if exits:
            await self._close(holding, bar, "closed", events, asks=asks)
            return
        await self._go_on(bar, events, holding=holding, fired=fired)

    async def _go_on(
        self, bar: Bar, events: list[RunEvent], *, holding: Holding, fired: int
    ) -> None:
        """Store and tell what a step brought to a position that lives on, if there is anything."""
        ledger, known = self._ledger, self._ledger.holding
        assert known is not None
        lasting = [event for event in events if not isinstance(event, TickActive)]
        if lasting or _differs(known, holding):
            await ledger.commit(bar.when, bar.price, events, holding=holding, fired=fired)
            return
        ledger.holding = holding
        for event in events:
            await self._run.publish(event)

    async def _close(
        self, holding: Holding, bar: Bar, reason: CloseReason, events: list[RunEvent], *, asks: bool
    ) -> None:
        """Store and tell the end of a position; close what it still holds at the market."""
        run, when, price = self._run, bar.when, bar.price
        if holding.is_held:
            holding = close_managed(holding, when, reason, bar.fill)
        events.append(told.closed_managed(holding, when, price, reason, run.config))
        await self._ledger.commit(self._done(when, asks), price, events, **_NOTHING)

    async def _cancel(self, row: SignalRow, bar: Bar, reason: CancelReason, *, asks: bool) -> None:
        cancelled = told.cancelled(row, bar.when, bar.price, reason)
        done = self._done(bar.when, asks)
        await self._ledger.commit(done, bar.price, [cancelled], **_NOTHING)

    def _idle(self, bar: Bar) -> TickIdle:
        return TickIdle(
            symbol=self._run.symbol,
            strategy_name=self._run.strategy_name,
            exchange_name=self._run.exchange_name,
            timestamp=bar.when,
            current_price=bar.price,
        )


def _differs(known: Holding, holding: Holding) -> bool:
    """Say whether a step without a fill or a move has left something that later steps hang on."""
    row = holding.row
    follows = row.trailing_stop is not None or row.breakeven_percent is not None
    return follows and known.state[at.BEST] != holding.state[at.BEST]

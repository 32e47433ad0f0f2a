"""One step of a live run: what becomes of the open signal, and what is asked and ordered."""

from __future__ import annotations

from backtest_kit._engine.run import Run
from backtest_kit._live.asking import Asking
from backtest_kit._live.ledger import Ledger
from backtest_kit._live.orders import NOTHING, Orders, begun, opening
from backtest_kit._live.stoppable import Stoppable, Stopped
from backtest_kit._rules import holding as at
from backtest_kit._rules import transitions as told
from backtest_kit._rules.actions import act_in_turn, position_of
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.managed import (
    Holding,
    close_managed,
    open_managed,
    step_managed,
)
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import Cancel, Close, scheduled_step
from backtest_kit._values.errors import BeforeDataError
from backtest_kit._values.events import RunEvent
from backtest_kit._values.results import CancelReason, TickActive, TickIdle
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS


class Steps:
    """Does the steps of one live run; what each brings is stored before anybody is told."""

    def __init__(
        self, run: Run, ledger: Ledger, asking: Asking, orders: Orders, waits: Stoppable
    ) -> None:
        self._run = run
        self._ledger = ledger
        self._asking = asking
        self._orders = orders
        self._waits = waits
        self._base = INTERVALS[run.config.base_interval]

    async def step(self, bar: Bar, *, on_time: bool, newest: bool) -> None:
        """Do one step: first what becomes of the open signal; the strategy is asked without one.

        Commands are for the `newest` step: what they do is done at a price of now.

        Raises:
            StateError: it can't be stored; it is to be done again.
            DataError: what it needs of the market can't be had; it is to be done again.
            Stopped: the run is to stop, and nothing is open.
        """
        run, when = self._run, bar.when
        row = self._ledger.signal
        exits = row is not None and await self._asking.exits(row.side, when)
        reverses = exits
        asks = on_time and self._asks(when, row, reverses=reverses)
        if row is not None and row.pending_at is not None:
            if await self._pending(row, bar, exits=exits, asks=asks, on_time=on_time):
                reverses = True
        else:
            run.risk_gate.advance_to(when)
            if row is not None:
                await self._scheduled(row, bar, exits=exits, asks=asks)
        asks = on_time and self._asks(when, row, reverses=reverses)
        commands = await self._orders.waiting() if newest else []
        if commands:
            ended = await self._orders.obey(commands, bar, if_asked=self._done(when, asks))
            asks = on_time and not ended and self._asks(when, row, reverses=reverses)
        if asks and not run.stopping and self._ledger.signal is None:
            run.risk_gate.advance_to(when)
            await self._ask(bar)
        elif row is None and self._ledger.signal is None and run.wants("on_tick", "on_idle"):
            await run.publish(self._idle(bar))

    def _asks(self, when: int, row: SignalRow | None, *, reverses: bool) -> bool:
        """Say whether the strategy is asked at a step on time, once nothing is open at it."""
        state = self._ledger.state
        return not state.paused and self._asking.is_due(
            when, state.asked_at, follows=row is not None, reverses=reverses
        )

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
            events, changes = begun(row, bar, run)
            await self._ledger.commit(when, bar.price, events, asked_at=when, **changes)
            return
        await self._ledger.commit(when, bar.price, asked_at=when)
        if answer is None and run.wants("on_tick", "on_idle"):
            await run.publish(self._idle(bar))

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
        events, close = opening(opened, bar), opened.close
        if close is None and exits:
            close = Close("closed", bar.fill)
        if close is not None:
            await self._close(opened.holding, bar, close, events, asks=asks)
            return
        changes = NOTHING | {"signal": filled, "holding": opened.holding}
        await self._ledger.commit(when, price, events, **changes)

    async def _pending(
        self, row: SignalRow, bar: Bar, *, exits: bool, asks: bool, on_time: bool
    ) -> bool:
        """Follow a filled signal through a step; say whether `manage` closed the whole."""
        run, when, price, state = self._run, bar.when, bar.price, self._ledger.state
        holding, close, fired = self._ledger.holding, None, state.fired
        assert holding is not None
        events: list[RunEvent] = []
        if state.followed != when:  # else the process died when `manage` was to be asked
            before = holding
            holding, close = step_managed(before, bar, run.config)
            events += told.happened(before, holding, when, price, closes=close is not None)
            if close is None:
                revenue = revenue_percent(row.position, holding.effective_entry, price)
                levels, fired = crossed(revenue, fired)
                if run.wants("on_tick", "on_active") and not exits:
                    events.append(told.active(row, when, price, revenue))
                events += [told.milestone(row, run.mode, when, price, x, revenue) for x in levels]
                moved = told.moved(before, holding, when, price)
                if moved is not None:
                    events.append(moved)
        if close is None and exits:
            close = Close("closed", bar.fill)
        if close is not None:
            await self._close(holding, bar, close, events, asks=asks)
            return False
        if on_time and self._asking.manage_is_due(when, state.managed_at):
            return await self._manage(row, holding, bar, events, fired)
        await self._go_on(bar, events, holding=holding, fired=fired)
        return False

    async def _manage(
        self, row: SignalRow, holding: Holding, bar: Bar, events: list[RunEvent], fired: int
    ) -> bool:
        """Ask `manage`, and do what it wants; say whether that closed the whole.

        What the candle brought is told before: methods of the strategy's own object are part of it.
        """
        run, ledger, when = self._run, self._ledger, bar.when
        if events:
            done = when - self._base
            await ledger.commit(
                done, bar.price, events, holding=holding, fired=fired, followed=when
            )
        actions = await self._asking.manage(position_of(holding, bar), when)
        acts, refused = act_in_turn(holding, actions, bar, run.config, "manage")
        for error in refused:
            await run.manage_failed(error)
        events = [tick for each in acts for tick in told.acted(each, when, bar.price)]
        left, close = acts[-1].managed if acts else (holding, None)
        if close is None:
            await ledger.commit(when, bar.price, events, holding=left, managed_at=when)
            return False
        asks = self._asks(when, row, reverses=True)
        await self._close(left, bar, close, events, asks=asks)
        return True

    async def _go_on(
        self, bar: Bar, events: list[RunEvent], *, holding: Holding, fired: int
    ) -> None:
        """Store and tell what a step brought to a position that lives on, if there is anything."""
        ledger, known = self._ledger, self._ledger.holding
        assert known is not None
        lasting = [event for event in events if not isinstance(event, TickActive)]
        if lasting or self._differs(known, holding):
            await ledger.commit(bar.when, bar.price, events, holding=holding, fired=fired)
            return
        ledger.holding = holding
        for event in events:
            await self._run.publish(event)

    def _differs(self, known: Holding, holding: Holding) -> bool:
        """Say whether a step without a fill or a move has left what later steps hang on."""
        row, better = holding.row, known.state[at.BEST] != holding.state[at.BEST]
        if self._asking.manages:
            return better or known.state[at.WORST] != holding.state[at.WORST]
        return better and (row.trailing_stop is not None or row.breakeven_percent is not None)

    async def _close(
        self, holding: Holding, bar: Bar, close: Close, events: list[RunEvent], *, asks: bool
    ) -> None:
        """Store and tell the end of a position; what it still holds is closed at that price."""
        when, price, reason = bar.when, bar.price, close.reason
        if holding.is_held:
            holding = close_managed(holding, when, reason, close.price)
        config = self._run.config
        events.append(told.closed_managed(holding, when, price, reason, config, close.note))
        await self._ledger.commit(self._done(when, asks), price, events, **NOTHING)

    async def _cancel(self, row: SignalRow, bar: Bar, reason: CancelReason, *, asks: bool) -> None:
        cancelled = told.cancelled(row, bar.when, bar.price, reason)
        done = self._done(bar.when, asks)
        await self._ledger.commit(done, bar.price, [cancelled], **NOTHING)

    def _idle(self, bar: Bar) -> TickIdle:
        return TickIdle(
            symbol=self._run.symbol,
            strategy_name=self._run.strategy_name,
            exchange_name=self._run.exchange_name,
            timestamp=bar.when,
            current_price=bar.price,
        )

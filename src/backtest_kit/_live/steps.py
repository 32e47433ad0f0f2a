"""One step of a live run: what becomes of the open signal, and what is asked and ordered."""

from __future__ import annotations

from contextlib import nullcontext

from backtest_kit._engine.asking import manage_failed
from backtest_kit._engine.run import Run
from backtest_kit._engine.turns import ACTIVATES, CLOSES, OPENS
from backtest_kit._live.account_gate import live_gate
from backtest_kit._live.asking import Asking, too_late
from backtest_kit._live.ledger import Ledger
from backtest_kit._live.orders import Orders
from backtest_kit._live.stoppable import Stoppable, Stopped
from backtest_kit._live.turn import Turn
from backtest_kit._rules import holding as at
from backtest_kit._rules import transitions as told
from backtest_kit._rules.actions import position_of
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.managed import Holding, step_managed
from backtest_kit._rules.profit import crossed, revenue_percent
from backtest_kit._rules.steps import Cancel, Close, scheduled_step
from backtest_kit._values.errors import BeforeDataError
from backtest_kit._values.results import CancelReason, TickIdle
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
        self._account = live_gate(run)
        self._base = INTERVALS[run.config.base_interval]

    async def step(self, bar: Bar, *, on_time: bool, newest: bool) -> None:
        """Do one step: first what becomes of the open signal; the strategy is asked without one.

        Commands are for the `newest` step: what they do is done at a price of now.

        Raises:
            StateError: it can't be stored; it is to be done again.
            DataError: what it needs of the market can't be had; it is to be done again.
            Stopped: the run is to stop, and nothing is open.
        """
        run, ledger, when = self._run, self._ledger, bar.when
        turn, row = Turn(run, ledger, bar), ledger.signal
        reverses = row is not None and await self._asking.exits(row.side, when)
        if row is not None and row.pending_at is not None:
            if await self._pending(turn, row, exits=reverses, on_time=on_time):
                reverses = True
        else:
            run.risk_gate.advance_to(when)
            if row is not None:
                await self._scheduled(turn, row, exits=reverses)
        commands = await self._orders.waiting() if newest else []
        await self._orders.obey(commands, turn)
        asks = (
            on_time
            and turn.signal is None
            and not (turn.paused or turn.ended_by_hand)
            and self._asking.is_due(
                when, ledger.state.asked_at, follows=row is not None, reverses=reverses
            )
        )
        if turn.is_lasting or _differs(ledger.holding, turn.holding, self._asking.manages):
            # a process that dies before the strategy was asked does so when it starts again
            await turn.store(when - self._base if asks else when)
        else:
            ledger.holding = turn.holding
            await turn.tell_now()
        if self._account is not None:
            self._account.pass_to(when, OPENS)
        await self._orders.forget(commands)
        if asks and not run.stopping:
            run.risk_gate.advance_to(when)
            await self._ask(turn)
        elif row is None and ledger.signal is None and run.wants("on_tick", "on_idle"):
            await run.publish(self._idle(bar))

    async def _ask(self, turn: Turn) -> None:
        """Ask the strategy; validate, ask the risk profiles, then open or schedule."""
        run, bar = self._run, turn.bar
        row = answer = None
        try:
            answer = await self._asking.answer(bar.when)
            if answer is not None:
                row = self._asking.accept(answer, bar)
        except Stopped:
            raise
        except BeforeDataError as error:
            run.call_failed(error)
        except Exception as error:  # noqa: BLE001 - an error of one step never ends a run
            run.error("get_signal", error)
        run.record.calls += 1
        if row is not None and await self._asking.admitted(row, bar) is None:
            turn.begin(row)
        await turn.store(bar.when, asked_at=bar.when)
        if answer is None and run.wants("on_tick", "on_idle"):
            await run.publish(self._idle(bar))

    async def _scheduled(self, turn: Turn, row: SignalRow, *, exits: bool) -> None:
        """Follow a waiting signal through a step."""
        run, bar = self._run, turn.bar
        outcome = scheduled_step(row, bar, run.config) or (Cancel("exit") if exits else None)
        if outcome is None:
            if run.wants("on_tick"):
                turn.events.append(told.waiting(row, bar.when, bar.price))
            return
        if isinstance(outcome, Cancel):
            turn.cancel(outcome.reason)
            return
        refused = await self._waits.unless_stopped(self._refused(outcome.row, bar.when))
        if refused is not None or run.stopping:
            run.risk_gate.cancel_reservation()
            turn.cancel(refused or "user")
            return
        close = turn.open(outcome.row)
        if close is None and exits:
            close = Close("closed", bar.fill)
        if close is not None:
            turn.close(close)

    async def _refused(self, row: SignalRow, when: int) -> CancelReason | None:
        """Return why risk profiles or account don't let a waiting signal be filled."""
        run, account = self._run, self._account
        if account is not None:
            await account.wait(when, ACTIVATES)
        try:
            async with nullcontext() if account is None else account.in_time():
                allowed = await run.risk_allows(row, row.price_open, when, reserve=True)
        except TimeoutError:  # runs of the same account wait for the answer
            run.error("risk", too_late(when))
            return "risk"
        if not allowed:
            return "risk"
        try:
            return None if account is None else await account.admit(row, when)
        except BaseException:
            run.risk_gate.cancel_reservation()
            raise

    async def _pending(self, turn: Turn, row: SignalRow, *, exits: bool, on_time: bool) -> bool:
        """Follow a filled signal through a step; say whether `manage` closed the whole."""
        run, bar, state = self._run, turn.bar, self._ledger.state
        close, closes, before = None, False, turn.holding
        if state.followed != bar.when:  # else the process died when `manage` was to be asked
            close = await self._follow(turn, row, exits=exits)
        if close is None and exits:
            close = Close("closed", bar.fill)
        if close is not None:
            turn.close(close)
            return False
        if not (on_time and self._asking.manage_is_due(bar.when, state.managed_at)):
            return False
        if before is not None and turn.holding is not None:
            closes = turn.holding.exits_acted != before.exits_acted
        # what the candle brought is told before: methods of the strategy's object are part of it
        if turn.is_lasting:
            await turn.store(bar.when - self._base, followed=bar.when)
        else:
            await turn.tell_now()
        if self._account is not None:
            self._account.pass_to(bar.when, CLOSES)
        assert turn.holding is not None
        actions = await self._asking.manage(position_of(turn.holding, bar), bar.when)
        turn.changes["managed_at"] = bar.when
        done, refused = await turn.do(actions, "manage", closes=closes)
        for error in refused:
            await manage_failed(run, error)
        close = done[-1].managed.close if done else None
        if close is not None:
            turn.close(close)
        return close is not None

    async def _follow(self, turn: Turn, row: SignalRow, *, exits: bool) -> Close | None:
        """Let the candle of a step act on a position; return how it closes that, if it does.

        `exits`: it is to end at this step.
        """
        run, bar, before, account = self._run, turn.bar, turn.holding, self._account
        when, price = bar.when, bar.price
        assert before is not None
        if account is None:
            turn.holding, close = step_managed(before, bar, run.config)
        else:
            turn.holding, close = await account.step(before, bar, ends=exits)
        after = turn.holding
        turn.tell(told.happened(before, after, when, price, closes=close is not None), before)
        if close is not None:
            return close
        revenue = revenue_percent(row.position, after.effective_entry, price)
        levels, turn.fired = crossed(revenue, turn.fired)
        if run.wants("on_tick", "on_active") and not exits:
            turn.events.append(told.active(row, when, price, revenue))
        turn.events += [told.milestone(row, run.mode, when, price, x, revenue) for x in levels]
        moved = told.moved(before, after, when, price)
        if moved is not None:
            turn.events.append(moved)
        return None

    def _idle(self, bar: Bar) -> TickIdle:
        return TickIdle(
            symbol=self._run.symbol,
            strategy_name=self._run.strategy_name,
            exchange_name=self._run.exchange_name,
            timestamp=bar.when,
            current_price=bar.price,
        )


def _differs(known: Holding | None, holding: Holding | None, manages: bool) -> bool:
    """Say whether a step without a fill or a move has left what later steps hang on.

    `manages`: the strategy is told of the best and the worst price.
    """
    if known is None or holding is None:
        return False
    if known.has_acted != holding.has_acted:  # a level that the account has skipped
        return True
    row, better = holding.row, known.state[at.BEST] != holding.state[at.BEST]
    if manages:
        return better or known.state[at.WORST] != holding.state[at.WORST]
    return better and (row.trailing_stop is not None or row.breakeven_percent is not None)

"""What one step brings to what lives: put together, and then stored and told at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from backtest_kit._engine.account_gate import Told
from backtest_kit._engine.run import Run
from backtest_kit._live.ledger import Ledger
from backtest_kit._rules import transitions as told
from backtest_kit._rules.actions import By, Done, act_in_turn
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.managed import Holding, close_managed, open_managed
from backtest_kit._rules.steps import Close
from backtest_kit._values.errors import ActionError
from backtest_kit._values.events import RunEvent
from backtest_kit._values.results import CancelReason, TickActive, TickWaiting
from backtest_kit._values.signal import SignalRow

#: What a step leaves behind where nothing is open any more.
_NOTHING: Final[dict[str, Any]] = {"fired": 0, "managed_at": None}


class Turn:
    """What lives, as a step has left it so far; what is to be told of it, and to be stored."""

    def __init__(self, run: Run, ledger: Ledger, bar: Bar) -> None:
        self.bar = bar
        self.signal: SignalRow | None = ledger.signal
        self.holding: Holding | None = ledger.holding
        self.fired = ledger.state.fired
        self.paused = ledger.state.paused
        self.events: list[RunEvent] = []
        self.changes: dict[str, Any] = {}
        #: Whether a person has ended what lived, and whether a signal began at this step.
        self.ended_by_hand = self.began = False
        self._run = run
        self._ledger = ledger
        self._account = run.account

    @property
    def is_lasting(self) -> bool:
        """Whether there is something that must be stored."""
        lasting = [each for each in self.events if not isinstance(each, TickActive | TickWaiting)]
        return bool(lasting or self.changes)

    def begin(self, row: SignalRow) -> None:
        """Let a signal wait, or open at its own step."""
        self.began = True
        if row.pending_at is None:
            self.signal = row
            self.events.append(told.scheduled(row, self.bar.when, self.bar.price))
            self.changes |= _NOTHING
        else:
            self.open(row)

    def open(self, row: SignalRow) -> Close | None:
        """Let a signal be filled; return how the candle of that step closes it, if it does."""
        account, (when, price) = self._account, self._place
        opening = None if account is None else account.opening(when)
        holding, close = open_managed(row, self.bar, self._run.config, opening)
        opened = told.opened(row, when, price)
        if account is not None:
            account.book(None, holding, when)
            opened = msgspec.structs.replace(opened, money=account.money(0))
        self.events.append(opened)
        self.tell(told.happened(None, holding, when, price, closes=close is not None), None)
        moved = None if close is not None else told.moved(None, holding, when, price)
        if moved is not None:
            self.events.append(moved)
        self.signal, self.holding, self.fired = row, holding, 0
        self.changes |= _NOTHING
        return close

    async def do(
        self, actions: Sequence[object], by: By, *, closes: bool = False
    ) -> tuple[list[Done], list[ActionError]]:
        """Do what somebody wants done with the position; return what was, and what was refused.

        `closes`: the position closes something at this step already.
        """
        assert self.holding is not None
        holding, bar, account = self.holding, self.bar, self._account
        if account is not None and actions:
            holding = await account.before_acting(holding, actions, bar.when, closes=closes)
        done, refused = act_in_turn(holding, actions, bar, self._run.config, by)
        if account is not None and done:
            account.book(holding, done[-1].managed.holding, bar.when)
        for each in done:
            self.tell(told.acted(each, *self._place), each.before)
            before, self.holding = self.holding, each.managed.holding
            if before.minutes != self.holding.minutes:
                self._run.risk_gate.extend(self.holding.expires_at)
        return done, refused

    def close(self, close: Close) -> None:
        """End the position; what it still holds is closed at that price."""
        holding, (when, price) = self.holding, self._place
        assert holding is not None
        account, config = self._account, self._run.config
        if holding.is_held:
            known, holding = holding, close_managed(holding, when, close.reason, close.price)
            if account is not None:
                account.book(known, holding, when)
        tick = told.closed_managed(holding, when, price, close.reason, config, close.note)
        self.events.append(tick if account is None else account.closed(tick, when))
        self._end()

    def cancel(self, reason: CancelReason) -> None:
        """End a signal that waits."""
        assert self.signal is not None
        self.events.append(told.cancelled(self.signal, *self._place, reason))
        self._end()

    def _end(self) -> None:
        self.signal = self.holding = None
        self.fired = 0
        self.changes |= _NOTHING

    @property
    def _place(self) -> tuple[int, float]:
        return self.bar.when, self.bar.price

    async def store(self, when: int, **changes: Any) -> None:
        """Store what there is, with the newest step that is over, and tell it; begin anew.

        Raises:
            StateError: it can't be written; nothing was told.
        """
        changes = self.changes | {"fired": self.fired} | changes
        lives = {"signal": self.signal, "holding": self.holding}
        await self._ledger.commit(when, self.bar.price, self.events, **lives, **changes)
        self.events, self.changes = [], {}

    def tell(self, ticks: Iterable[Told], before: Holding | None) -> None:
        """Note what is to be told of fills after those of `before`, and of moves."""
        first = 1 if before is None else len(before.times)
        self.events += ticks if self._account is None else self._account.with_money(ticks, first)

    async def tell_now(self) -> None:
        """Tell what need not be stored."""
        events, self.events = self.events, []
        for event in events:
            await self._run.publish(event)

"""Accounts of live runs on paper, as the runs of a process share them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from backtest_kit._engine.account import SharedAccount, Tally
from backtest_kit._rules import holding as at
from backtest_kit._rules.account import Held
from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.accounts import (
    AccountDocument,
    lost,
    no_part,
    older,
    remedy,
    same_values,
)
from backtest_kit._state.documents import LiveState, RunKey, Transition, run_key
from backtest_kit._state.owner import StateOwner
from backtest_kit._state.positions import restored
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.errors import StateError
from backtest_kit._values.results import TickClosed
from backtest_kit._values.time import INTERVALS, to_datetime

#: What an account keeps for as long as it is stored.
_FIXED: Final = ("exchange_name", "currency", "balance", "leverage", "maintenance_percent")
#: The place of a run whose own is not known yet.
LAST: Final = 10**9
#: Of a balance: how far the sum of the parts may be off what was stored, by rounding.
_ROUNDING: Final = 1e-9


class Absent(NamedTuple):
    """A run that does not run now; what it holds is worth the last price that it saw."""

    symbol: str
    strategy_name: str
    price: float

    def mark(self, when: int) -> float:
        """Return the price of what it holds."""
        return self.price


class Seated(Protocol):
    """A run of this process, as the account knows it."""

    is_seated: asyncio.Event


class LiveAccount:
    """One account, as the live runs of this process share it while there are any."""

    def __init__(self, schema: AccountSchema, exchange_name: str) -> None:
        self.schema = schema
        self.exchange_name = exchange_name
        self.shared = SharedAccount(schema)
        self.loop = asyncio.get_running_loop()
        #: Its runs that are in this process, in the order in which they arrived.
        self.gates: list[Seated] = []
        #: The places of runs, also of those that do not run now.
        self.places: dict[RunKey, int] = {}
        #: Why it is not known what a run of it has, by run.
        self.missing: dict[RunKey, str] = {}
        self.has_told = False
        self.booked = 0
        #: How often its document was written, as far as is known.
        self.revision = 0
        self._is_older = False
        self._day = -1
        self._loading = asyncio.Lock()
        self._writing = asyncio.Lock()
        #: What its document should say; `revision` and what is stored come after.
        self._document: AccountDocument | None = None
        #: Whether it does say so, as far as is known.
        self._is_kept = True
        self._owner: StateOwner

    async def load(self, owner: StateOwner, now: int) -> None:
        """Read what is stored, once; a new account begins at `now` (ms).

        Raises:
            CorruptStateError: the account's document is damaged or gone.
            StateError: it was begun with other values, or can't be read or written.
        """
        async with self._loading:
            if self._document is not None:
                return
            name = self.schema.account_name
            document = await owner.accounts.read(name)
            if document is not None:
                self.missing = await _missing(owner, document)
            states = owner.runs.of_account(name)
            if document is None and states:
                raise lost(name, owner.accounts.where(name))
            if document is None or not (states or document.changes or document.places):
                document = self._begun(now)  # nobody's money is in what was there
                await owner.accounts.write(document)
            begun = msgspec.structs.asdict(self._begun(document.since))
            wrong = same_values(document, {name: begun[name] for name in _FIXED})
            if wrong is not None:
                raise StateError(
                    f"account {name!r} was begun with {wrong}: register it as it was, or take "
                    f"another name (it is kept in {owner.accounts.where(name)})"
                )
            # all is read before any of it is taken in: who comes next may have to begin again
            read = [(state, await _history(owner, state)) for state in states]
            for text, order in document.places.items():
                self.place(run_key(text), order)
            self._take_in(read, document.paid_in)
            known = [state.account.revision for state in states if state.account is not None]
            self.revision = max(document.revision, *known, 0)
            self._is_older = self.revision > document.revision
            steps = [max(state.at or 0, owner.heartbeats.last_step(state)) for state in states]
            if any(steps):  # a day that has ended since is to be kept too
                self._day = (max(steps) - 1) // INTERVALS["1d"]
            self._document, self._owner = document, owner

    @property
    def trouble(self) -> str:
        """Why it is not known what money it has; "" where it is.

        For as long as that is so, nothing is entered.
        """
        name = self.schema.account_name
        why = [*self.missing.values()]
        if self._is_older:
            why.append(older(name, self._owner.accounts.where(name)))
        return "" if not why else f"{'; '.join(why)}. {remedy(name)}"

    def _take_in(
        self, read: Iterable[tuple[LiveState, Sequence[Transition]]], paid_in: float
    ) -> None:
        """Take in what the runs have done so far."""
        shared, closed = self.shared, list[tuple[tuple[int, bool, int], TickClosed]]()
        parts = list[AccountPart]()
        for state, history in sorted(read, key=lambda pair: pair[0].began_at or 0):
            part = state.account
            assert part is not None
            parts.append(part)
            # its place may not be in the account's document yet; or it was given to another
            order = (
                self.places[state.key]
                if state.key in self.places
                else self.place(state.key, part.order)
            )
            price = float("nan") if part.mark is None else part.mark
            shared.members[order] = Absent(state.symbol, state.strategy_name, price)
            shared.tallies[order] = Tally(
                dict(part.refusals), dict(part.skips), part.reductions, part.not_charged
            )
            shared.trades += part.trades
            if state.position is not None and state.signal is not None:
                numbers = restored(state.position, state.signal).state
                held = Held(numbers[at.SIDE], numbers[at.OWNED], numbers[at.BASIS])
                shared.books.held[order] = held
            for entry in history:
                tick = entry.tick
                if isinstance(tick, TickClosed) and tick.money is not None:
                    at_once = tick.signal.pending_at == tick.close_timestamp
                    closed.append(((tick.close_timestamp, at_once, order), tick))
        for _, tick in sorted(closed, key=lambda pair: pair[0]):
            profits = shared.profits.setdefault(tick.strategy_name, [])
            profits.append(tick.pnl.pnl_percentage)
        shared.books.balance = total = paid_in + sum(part.gain for part in parts)
        if parts:
            newest = max(parts, key=lambda part: part.booked)
            self.booked = newest.booked
            if abs(newest.left - total) <= _ROUNDING * max(paid_in, abs(total)):
                shared.books.balance = newest.left  # in the order of events, to the last bit
            last = max(parts, key=lambda part: part.taken_at)
            shared.taken, shared.taken_at = last.taken, last.taken_at

    async def note_days(self, when: int) -> None:
        """Keep the equity of the day that ended before the step `when` (ms), if one has.

        Midnight belongs to the day that ends.

        Raises:
            StateError: it can't be stored.
        """
        known, document = self._day, self._document
        begins = known < 0  # its first minute is of the day that begins
        day = (when - (not begins)) // INTERVALS["1d"]
        self._day = max(day, known)
        if document is None or not 0 <= known < day:
            return
        equity = self.equity((known + 1) * INTERVALS["1d"])
        if math.isfinite(equity):
            date = to_datetime(known * INTERVALS["1d"]).date().isoformat()
            await self._keep(document, closes=document.closes | {date: equity})

    async def keep_place(self, key: RunKey) -> None:
        """Store the place of a run that has stored its part; raises StateError.

        Not before: a run that has a place and no part is one whose document is gone.
        """
        document = self._document
        if document is not None and not (self._is_kept and str(key) in document.places):
            places = document.places | {str(key): self.places[key]}
            await self._keep(document, places=places)

    async def _keep(self, document: AccountDocument, **changes: Any) -> None:
        """Change its document; an older copy is left as it is, so that it is still known for one.

        Raises:
            StateError: it can't be stored; the next change stores this one too.
        """
        self._document = msgspec.structs.replace(document, **changes)
        self._is_kept = False
        if self._is_older:
            return
        async with self._writing:
            revision, wanted = self.revision + 1, self._document
            document = msgspec.structs.replace(wanted, revision=revision)
            await self._owner.accounts.write(document)
            self.revision, self._is_kept = revision, wanted is self._document

    def equity(self, now: int) -> float:
        """Return its equity by the newest marks (at `now`, ms); NaN where it is not known."""
        return math.nan if self.missing else self.shared.equity(now)

    def place(self, key: RunKey, order: int | None = None) -> int:
        """Return the place of a run: its own, or `order`, or one behind all others."""
        taken = self.places.values()
        if key in self.places:  # it began anew, and its start failed
            order = self.places[key]
        elif order is None or order in taken:
            order = max(taken, default=-1) + 1
        self.places[key] = order
        return order

    def left(self, order: int, absent: Absent | None) -> None:
        """Keep the place of a run that has left, but for a new one that has stored nothing."""
        stored = {} if self._document is None else self._document.places
        key = next(key for key, place in self.places.items() if place == order)
        if absent is not None:
            self.shared.members[order] = absent
        elif str(key) not in stored:
            del self.places[key], self.shared.members[order], self.shared.tallies[order]

    def _begun(self, now: int) -> AccountDocument:
        schema = self.schema
        return AccountDocument(
            name=schema.account_name,
            exchange_name=self.exchange_name,
            currency=schema.currency,
            balance=float(schema.balance),
            leverage=float(schema.leverage),
            maintenance_percent=float(schema.maintenance_percent),
            since=now,
            changes=(),
            closes={},
            places={},
            revision=1,
        )


async def _history(owner: StateOwner, state: LiveState) -> Sequence[Transition]:
    """Return what a run has done; of one whose journal can't be read, what is not in it yet.

    Only sizes by its closed trades hang on it: that is reported, and ends no other run.
    """
    try:
        return await owner.journal.history(state)
    except StateError as error:
        owner.report("journal", error)
        return state.outbox


async def _missing(owner: StateOwner, document: AccountDocument) -> dict[RunKey, str]:
    """Return of which runs of an account it is not known what they have, and why."""
    found = dict[RunKey, str]()
    for key in map(run_key, document.places):
        try:
            state = await owner.runs.current(key)
        except StateError as error:
            found[key] = str(error)
            continue
        if state.account is None:
            found[key] = no_part(key)
    return found

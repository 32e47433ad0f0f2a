"""Risk profiles: checks that must agree before a signal opens, and the book of open positions.

Backtests that run at the same time and share a profile share one book, in simulated time: before a
run is checked at an instant, it waits until every other run has come that far. So what a profile
allows does not depend on which run happens to be computed first. At one instant positions are
closed before others are opened, and runs are asked in the order in which they began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from backtest_kit._engine.ambient import ask
from backtest_kit._values.positions import ActivePosition, Until, position_of
from backtest_kit._values.schemas import RiskSchema
from backtest_kit._values.signal import SignalRow

FOREVER = 2**62


class RiskCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a risk check decides on; `timestamp` in milliseconds UTC."""

    symbol: str
    strategy_name: str
    exchange_name: str
    signal: SignalRow
    price: float
    timestamp: int
    active_count: int
    active_positions: tuple[ActivePosition, ...]


class Verdict(msgspec.Struct, frozen=True):
    """A profile's answer; `reason` is `None` where it agrees."""

    risk_name: str
    active_count: int
    reason: str | None


class _Held:
    __slots__ = ("closed_at", "position")

    def __init__(self, position: ActivePosition, closed_at: int = FOREVER) -> None:
        self.position = position
        self.closed_at = closed_at


class Book:
    """Open positions of one profile, for the runs that share it."""

    def __init__(self) -> None:
        self.clocks: dict[object, int] = {}
        self.parked: set[object] = set()
        self._held: list[_Held] = []
        self._moved = asyncio.Event()

    def active(self, when: int) -> tuple[ActivePosition, ...]:
        """Return the positions that are open at `when`."""
        return tuple(h.position for h in self._held if h.position.opened_at <= when < h.closed_at)

    def add(self, positions: Iterable[Until]) -> None:
        """Count positions whose end is known."""
        self._held += [_Held(*until) for until in positions]

    def hold(self, position: ActivePosition, until: int) -> None:
        """Count a position of a run that is not here, until an instant."""
        self.forget(position.symbol, position.strategy_name, position.exchange_name)
        self._held.append(_Held(position, until))

    def reserve(self, position: ActivePosition) -> _Held:
        """Count a position from now on."""
        held = _Held(position)
        self._held.append(held)
        return held

    def drop(self, held: _Held) -> None:
        """Take a reservation back as if it had never been."""
        self._held.remove(held)

    def forget(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        """Drop what is held for a run that now speaks for itself."""
        names = (symbol, strategy_name, exchange_name)
        self._held = [
            held
            for held in self._held
            if names
            != (held.position.symbol, held.position.strategy_name, held.position.exchange_name)
        ]

    def at(self, member: object, when: int) -> None:
        """Note that a run will not act before `when`."""
        self.clocks[member] = when
        slowest = min(self.clocks.values())
        self._held = [held for held in self._held if held.closed_at > slowest]
        self.moved()

    def moved(self) -> None:
        """Wake the runs that wait for another."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def turn(self, member: object, when: int, patience: float | None) -> None:
        """Wait until no other run can act before this one does; at most `patience` seconds."""
        self.at(member, when)
        try:
            async with asyncio.timeout(patience):
                while self._must_wait(member, when):
                    await self._moved.wait()
        except TimeoutError:
            return

    def _must_wait(self, member: object, when: int) -> bool:
        earlier = True
        for other, clock in self.clocks.items():
            if other is member:
                earlier = False
            elif other not in self.parked and (clock < when or (clock == when and earlier)):
                return True
        return False


class Books:
    """The books of one mode of an engine; a book lives as long as a run that uses it."""

    def __init__(self) -> None:
        self._books: dict[tuple[int, str], Book] = {}

    def enter(self, member: object, names: Sequence[str], when: int) -> dict[str, Book]:
        """Return the books of these profiles, with the run as their member from `when` on."""
        loop = id(asyncio.get_running_loop())
        books = {name: self._books.setdefault((loop, name), Book()) for name in names}
        for book in books.values():
            book.clocks[member] = when
        return books

    def leave(self, member: object, books: dict[str, Book]) -> None:
        """End the run's membership."""
        for book in books.values():
            book.clocks.pop(member, None)
            book.parked.discard(member)
            book.moved()
        for key, book in [*self._books.items()]:
            if not book.clocks:
                del self._books[key]


class Desk:
    """One run's dealings with its risk profiles.

    `patience` is how many seconds the run waits for another one that is behind, `None` for ever.
    """

    def __init__(
        self, books: Books, schemas: Sequence[RiskSchema], patience: float | None = None
    ) -> None:
        self._all = books
        self.schemas = schemas
        self._patience = patience
        self._books: dict[str, Book] = {}
        self._reserved: list[tuple[Book, _Held]] = []

    def enter(self, when: int) -> None:
        """Begin: from now on, runs that share a profile wait for this one, which is at `when`."""
        self._books = self._all.enter(self, [schema.name for schema in self.schemas], when)

    def restore(
        self,
        others: Mapping[str, Sequence[Until]],
        names: tuple[str, str, str],
        own: SignalRow | None,
        closed: Sequence[Until],
    ) -> None:
        """Count what the stored state says was open: the run's own positions, others' by profile.

        Others that run in this process speak for themselves; a book knows them already. `closed`
        ones count for runs that still have to do steps at which they were open. `names`: symbol,
        strategy and exchange of the run.
        """
        for name, book in self._books.items():
            for until in others.get(name, ()):
                book.hold(*until)
            book.forget(*names)
            book.add(closed)
            if own is not None:
                self._reserved.append((book, book.reserve(position_of(own))))

    def at(self, when: int) -> None:
        """Say that this run will not act before `when`."""
        for book in self._books.values():
            book.at(self, when)

    def park(self, parked: bool) -> None:
        """Say that nobody needs to wait for the run: it is in its consumer's hands, or cut off."""
        for book in self._books.values():
            (book.parked.add if parked else book.parked.discard)(self)
            book.moved()

    async def check(
        self, row: SignalRow, price: float, when: int, *, reserve: bool
    ) -> list[Verdict]:
        """Ask every profile in turn, up to the first that refuses; with `reserve`, take the slots.

        Check and reserve are one step: nobody else is checked by the same profile in between.
        """
        for book in self._books.values():
            await book.turn(self, when, self._patience)
        verdicts: list[Verdict] = []
        taken: list[tuple[Book, _Held]] = []
        position = msgspec.structs.replace(position_of(row), opened_at=when)
        keep = False
        try:
            for schema in self.schemas:
                book = self._books[schema.name]
                active = book.active(when)
                # reserved before the first await of a check, so that nobody can take the same slot
                taken.append((book, book.reserve(position)))
                reason = await _reason(schema, row, price, when, active)
                verdicts.append(Verdict(schema.name, len(active), reason))
                if reason is not None:
                    break
            else:
                keep = reserve
        finally:  # also where the run is cancelled inside a check
            if keep:
                self._reserved = taken
            else:
                for book, held in taken:
                    book.drop(held)
        return verdicts

    def release(self, when: int) -> None:
        """Note that the run's position closes at `when`."""
        for _, held in self._reserved:
            held.closed_at = when
        self._reserved = []
        self.at(when)

    def give_back(self) -> None:
        """Take the slots back that the last check took: the signal could not be opened."""
        for book, held in self._reserved:
            book.drop(held)
        self._reserved = []

    def leave(self, open_until: int = FOREVER) -> None:
        """End: nobody waits for this run any more; a position still open counts `open_until`."""
        for _, held in self._reserved:
            held.closed_at = open_until
        self._all.leave(self, self._books)


async def _reason(
    schema: RiskSchema,
    row: SignalRow,
    price: float,
    when: int,
    active: tuple[ActivePosition, ...],
) -> str | None:
    check = RiskCheck(
        symbol=row.symbol,
        strategy_name=row.strategy_name,
        exchange_name=row.exchange_name,
        signal=row,
        price=price,
        timestamp=when,
        active_count=len(active),
        active_positions=active,
    )
    for validation in schema.validations:
        try:
            answer: Any = await ask(validation, check)
        except Exception as error:  # noqa: BLE001 - raising is how a check rejects
            return str(error) or type(error).__name__
        if answer is None or answer is True:
            continue
        if isinstance(answer, str) and answer:
            return answer
        name = getattr(validation, "__name__", repr(validation))
        return f"{name} returned {answer!r}"
    return None

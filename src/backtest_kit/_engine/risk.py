"""Risk profiles: checks that must agree before a signal opens, and the positions they count.

Backtests of one event loop that run at the same time and share a profile share one book of
positions, in simulated time:

- Before a run is checked at an instant, it waits until every other run has come that far. So the
  outcome does not depend on how fast each is computed. At one instant positions are closed before
  others are opened, and runs are asked in the order in which they began.
- A book keeps all positions until its last run ends. A run that is behind (it began later, or its
  consumer held it) is asked about the instant of its proposal and about each later instant, within
  the longest life of the proposal, at which another run has already opened a position. So at no
  instant more is open than the profile allows, whatever the order of computation.
- Runs that begin before any check after their start has been answered form one group. A run that
  begins later forms a new group, which waits until the earlier one has ended: what the earlier
  runs do never depends on it, and what it does never depends on how far they had come.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from backtest_kit._engine.guard import call_user_code
from backtest_kit._values.origin import is_user_class
from backtest_kit._values.positions import (
    ActivePosition,
    PositionHistory,
    RunNames,
    Until,
    position_of,
)
from backtest_kit._values.schemas import RiskSchema
from backtest_kit._values.signal import SignalRow, expires_at


class RiskCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a risk check decides on; `timestamp` in milliseconds UTC.

    `active_positions` are those open at `timestamp`. Where other runs are ahead and have opened
    positions during the proposal's longest possible life, the check is called again for each such
    instant, with the positions open then and an unchanged `timestamp`.
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    signal: SignalRow
    price: float
    timestamp: int
    active_count: int
    active_positions: tuple[ActivePosition, ...]


class RiskAnswer(msgspec.Struct, frozen=True):
    """A profile's answer; `reason` is `None` where it agrees, `error` a bug of the check `by`."""

    risk_name: str
    active_count: int
    reason: str | None
    by: str = ""
    error: Exception | None = None


class SharedBook:
    """The positions of one profile, and the runs that share it."""

    def __init__(self) -> None:
        self.members: list[RiskGate] = []
        self.histories: list[PositionHistory] = []
        #: By group: the latest check that was answered, as its instant (ms) and the run's order.
        self.answered: dict[int, tuple[int, int]] = {}
        self.changed = asyncio.Event()

    def active(self, when: int, asking: PositionHistory) -> tuple[ActivePosition, ...]:
        """Return the positions of others that are open at `when`, by time of opening."""
        found = (history.at(when) for history in self.histories if history is not asking)
        return tuple(sorted(filter(None, found), key=lambda position: position.opened_at))

    def opened_between(self, after: int, before: int, asking: PositionHistory) -> list[int]:
        """Return the instants between two instants at which others have opened positions."""
        others = (history for history in self.histories if history is not asking)
        return sorted({t for other in others for t in other.opened_between(after, before)})

    def add_absent(self, position: ActivePosition, until: int) -> None:
        """Count a position of a run that is not in this process, until an instant.

        A run that has joined, and is about to read its own state, keeps its history.
        """
        names = (position.symbol, position.strategy_name, position.exchange_name)
        here = next((m.history for m in self.members if m.history.names == names), None)
        self.forget(names, but=here)
        history = PositionHistory(names)
        history.open(position, until)
        self.histories.append(history)

    def forget(self, names: RunNames, *, but: PositionHistory | None = None) -> None:
        """Drop what is known of a run that now speaks for itself, in the history `but`."""
        self.histories = [h for h in self.histories if h is but or h.names != names]

    def wake(self) -> None:
        """Let the runs that wait for another look again."""
        self.changed.set()
        self.changed = asyncio.Event()


class SharedBooks:
    """The books of one mode of an engine, by event loop and profile.

    A book lives as long as one of its runs.
    """

    def __init__(self) -> None:
        self._books: dict[tuple[int, str], SharedBook] = {}
        self._orders = itertools.count()

    def join(self, gate: RiskGate, names: Sequence[str], start: int | None) -> None:
        """Make a run that begins at `start` (ms) a member of the books of these profiles.

        `None`: it does not know yet, and belongs to the first group.
        """
        gate.loop = loop = id(asyncio.get_running_loop())
        books = {name: self._books.setdefault((loop, name), SharedBook()) for name in names}
        gate.order = next(self._orders)
        gate.clock = start or 0
        gate.group = 0 if start is None else _group_of(books.values(), start)
        gate.books = books
        for book in books.values():
            book.members.append(gate)
            book.histories.append(gate.history)

    def leave(self, gate: RiskGate) -> None:
        """End the run's membership; its positions stay as long as the book."""
        for name, book in gate.books.items():
            book.members.remove(gate)
            book.histories = [h for h in book.histories if len(h) or h is not gate.history]
            book.wake()
            if not book.members:
                del self._books[gate.loop, name]


def _group_of(books: Iterable[SharedBook], start: int) -> int:
    """Return the newest group of some books, or a new one where that has got past `start`.

    One number for all of a run's books: whom a run waits for is then before it in the order of
    (group, instant, order of beginning), and runs never wait for each other in a circle.
    """
    books = list(books)
    newest = max((member.group for book in books for member in book.members), default=0)
    past = any(newest in book.answered and book.answered[newest][0] > start for book in books)
    return newest + past


class RiskGate:
    """What one run has to do with its risk profiles: it is checked, and its position is counted.

    `names`: symbol, strategy and exchange of the run. `patience`: for how many seconds the run
    waits for another one that is behind; `None` is for ever, as simulated time needs. `step_at`
    returns the run's first step at or after an instant (ms): there a lifetime ends. `account`: runs
    of one account wait for their turns before they ask, so that here they don't for each other.
    """

    def __init__(
        self,
        shared: SharedBooks,
        schemas: Sequence[RiskSchema],
        names: RunNames,
        logger: logging.Logger,
        *,
        patience: float | None = None,
        step_at: Callable[[int], int] = lambda when: when,
        account: str | None = None,
    ) -> None:
        self.account = account
        self._step_at = step_at
        self._shared = shared
        self.schemas = schemas
        self._logger = logger
        self._patience = patience
        self._warned = patience is not None  # a live run can't be reproduced anyway
        self._expires_at = 0
        self.history = PositionHistory(names)
        self.books: dict[str, SharedBook] = {}
        self.loop = self.order = self.clock = self.group = 0
        self.paused = False

    def join(self, start: int | None) -> None:
        """Begin: from now on, runs that share a profile wait for this one, which is at `start`.

        `None`: a live run, which learns where it is from its state and its clock.
        """
        self._shared.join(self, [schema.name for schema in self.schemas], start)

    def restore(
        self,
        absent: Mapping[str, Sequence[Until]],
        own: SignalRow | None,
        closed: Sequence[Until],
    ) -> None:
        """Count what the stored state says was open: the run's own positions, others' by profile.

        `absent` ones are of runs that are not in this process; the books know the rest already.
        `closed` ones count for runs that still have to do steps at which they were open.
        """
        for name, book in self.books.items():
            for position, until in absent.get(name, ()):
                book.add_absent(position, until)
            book.forget(self.history.names, but=self.history)
        for position, until in closed:
            self.history.open(position, until)
        if own is not None:
            self.history.open(position_of(own))
            self._expires_at = self._step_at(expires_at(own))

    def advance_to(self, when: int) -> None:
        """Say that this run will not act before `when`."""
        self.clock = when
        self._wake_others()

    def pause(self) -> None:
        """Let others go on without this run: its consumer holds it, or its candles are missing."""
        self.paused = True
        self._wake_others()

    def resume(self) -> None:
        """Say that the run goes on after a pause."""
        self.paused = False

    async def check(
        self, row: SignalRow, price: float, when: int, *, reserve: bool
    ) -> list[RiskAnswer]:
        """Ask every profile in turn, up to the first that refuses; with `reserve`, take a slot.

        Check and reserve are one step: the profile checks no other run in between.
        """
        if not self._warned and self.account is None and self._is_behind(when):
            self._warn()
        await self._wait_for_others(when)
        for book in self.books.values():
            latest = book.answered.get(self.group, (when, self.order))
            book.answered[self.group] = max(latest, (when, self.order))
        until = self._step_at(expires_at(row)) if reserve else when
        answers: list[RiskAnswer] = []
        # counted before the first await of a check, so that no other run takes the same slot
        self.history.open(msgspec.structs.replace(position_of(row), opened_at=when))
        keep = False
        try:
            for schema in self.schemas:
                answers.append(await self._ask(schema, row, price, when, until))
                if answers[-1].reason is not None:
                    break
            else:
                keep = reserve
        finally:  # also where the run is cancelled inside a check
            if keep:
                self._expires_at = until
            else:
                self.history.cancel()
        return answers

    async def _ask(
        self, schema: RiskSchema, row: SignalRow, price: float, when: int, until: int
    ) -> RiskAnswer:
        """Ask a profile about `when`, then about later instants at which others have opened."""
        book = self.books[schema.name]
        active = book.active(when, self.history)
        answer = await _answer(schema, row, price, when, active)
        if answer.reason is None:
            for later in book.opened_between(when, until, self.history):
                then = book.active(later, self.history)
                refusal = await _answer(schema, row, price, when, then)
                if refusal.reason is not None:
                    return refusal
        return answer

    def extend(self, until: int) -> None:
        """Note that the run's open position may live until `until` (ms); nobody is asked."""
        self._expires_at = self._step_at(until)

    def close_position(self, when: int) -> None:
        """Note that the run's position closes at `when`."""
        if self.history.is_open:
            self.history.close(when)
        self.advance_to(when)

    def cancel_reservation(self, *, held: bool = False) -> None:
        """Give back the slot that the last check took: the signal could not be opened.

        `held`: the run holds a position, which keeps its own.
        """
        if self.history.open_count > held:
            self.history.cancel()

    def leave(self) -> None:
        """End: others no longer wait for this run; an open position counts for its lifetime."""
        if self.history.is_open:
            self.history.close(self._expires_at)
        self._shared.leave(self)

    async def _wait_for_others(self, when: int) -> None:
        """Wait until no other run can act before this one does; at most `patience` seconds."""
        self.advance_to(when)
        try:
            async with asyncio.timeout(self._patience):
                while (book := self._awaited(when)) is not None:
                    await book.changed.wait()
        except TimeoutError:
            return

    def _awaited(self, when: int) -> SharedBook | None:
        """Return a book with a run that this one has to wait for, if there is one."""
        mine = (self.group, when, self.order)
        for book in self.books.values():
            for other in book.members:
                if self.account is not None and other.account == self.account:
                    continue
                if not other.paused and (other.group, other.clock, other.order) < mine:
                    return book
        return None

    def _is_behind(self, when: int) -> bool:
        """Say whether others have been checked at later instants, or will be before this run."""
        return any(
            max(book.answered.values(), default=(when, self.order)) > (when, self.order)
            or any(other.group < self.group for other in book.members)
            for book in self.books.values()
        )

    def _warn(self) -> None:
        self._warned = True
        symbol, strategy_name, _ = self.history.names
        self._logger.warning(
            "%s on %s %s other runs that share its risk profiles had got ahead (%s): their "
            "positions stand, and it opens only what the profiles allow beside them. Runs that "
            "belong together are started together and consumed promptly, as by asyncio.gather",
            strategy_name,
            symbol,
            "was started when" if self.group else "goes on after",
            ", ".join(self.books),
        )

    def _wake_others(self) -> None:
        for book in self.books.values():
            book.wake()


async def _answer(
    schema: RiskSchema,
    row: SignalRow,
    price: float,
    when: int,
    active: tuple[ActivePosition, ...],
) -> RiskAnswer:
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
        by = str(getattr(validation, "__name__", repr(validation)))
        refuses = partial(RiskAnswer, schema.name, len(active), by=by)
        try:
            answer: Any = await call_user_code(validation, check)
        except Exception as error:  # noqa: BLE001 - raising is how a check rejects
            if _rejects(error):
                return refuses(str(error) or type(error).__name__)
            return refuses(f"{by} raised {type(error).__name__}: {error}", error=error)
        if answer is None or answer is True:
            continue
        if isinstance(answer, str) and answer:
            return refuses(answer)
        return refuses(f"{by} returned {answer!r}")
    return RiskAnswer(schema.name, len(active), None)


def _rejects(error: Exception) -> bool:
    """Say whether a check has rejected by raising, and has not failed.

    An error of the user's own rejects, and what states something in words: nobody raises a KeyError
    to say that a position is too large.
    """
    kind = type(error)
    return kind in (Exception, RuntimeError, ValueError, AssertionError) or is_user_class(kind)

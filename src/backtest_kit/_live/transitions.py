"""A place in the transitions of a live run, from which they are read one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from backtest_kit._state.documents import RunKey, Transition
from backtest_kit._state.journal import Journal
from backtest_kit._values.results import (
    TickActive,
    TickCancelled,
    TickClosed,
    TickOpened,
    TickWaiting,
)

#: What the consumer of a run is told of.
LiveTick = TickOpened | TickClosed | TickCancelled
#: Results that say how things are: told, and not stored.
STATES: Final = (TickActive, TickWaiting)


class Source(Protocol):
    """Where the transitions of a run are: in its outbox, or in the journal."""

    @property
    def sequence(self) -> int:
        """The sequence that the next transition will have."""
        ...

    async def after(self, sequence: int) -> Sequence[Transition]:
        """Return some of the transitions from `sequence` on, oldest first; raises StateError."""
        ...


class Transitions:
    """The transitions of a run from `sequence` on, however many they are, a page at a time.

    `moved` is called when a transition has been done with.
    """

    def __init__(
        self, source: Source, sequence: int, moved: Callable[[], object] = lambda: None
    ) -> None:
        self._source = source
        self._page: list[Transition] = []
        self._moved = moved
        #: The sequence of the next transition that is not done with.
        self.sequence = sequence

    @property
    def end(self) -> int:
        """The sequence that the next transition of the run will have."""
        return self._source.sequence

    @property
    def left(self) -> int:
        """Number of transitions that are not done with."""
        return self.end - self.sequence

    async def next(self) -> Transition | None:
        """Return the next transition; what the journal has lost is passed over.

        Raises:
            StateError: it can't be read.
        """
        while self.left > 0:
            self._page = [entry for entry in self._page if entry.sequence >= self.sequence]
            if not self._page:
                self._page = list(await self._source.after(self.sequence))
            if self._page:
                return self._page[0]
            self.sequence = self.end
            self._moved()
        return None

    def done(self, entry: Transition) -> None:
        """Note that a transition is done with, and those before it."""
        self.sequence = max(self.sequence, entry.sequence + 1)
        self._moved()


async def first_of(place: Transitions, most: int) -> list[Transition]:
    """Return the transitions from a place on, so many at most; raises StateError."""
    found = list[Transition]()
    while len(found) < most and (entry := await place.next()) is not None:
        found.append(entry)
        place.done(entry)
    return found


async def stored_after(
    journal: Journal | None,
    key: RunKey,
    sequence: int,
    end: int,
    kept: Sequence[Transition],
) -> Sequence[Transition]:
    """Return some of a run's transitions from `sequence` on and before `end`, oldest first.

    Those that are not among the `kept` ones are read from the journal, if it can still be read.

    Raises:
        StateError: a page can't be read.
    """
    while sequence < end:
        found = [entry for entry in kept if entry.sequence >= sequence]
        if journal is None or (found and found[0].sequence == sequence):
            return found
        page = await journal.page(key, sequence)
        stored = [entry for entry in page if sequence <= entry.sequence < end]
        if stored or found:
            return stored or found
        sequence = journal.next_page(sequence)  # this one is lost
    return ()

"""The journal: all transitions of a run, in pages of 256."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count, groupby
from typing import Final

import msgspec

from backtest_kit._state.documents import LiveState, Page, RunKey, Transition
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.errors import CorruptStateError, StateError

#: Transitions in one document of the journal.
PAGE_SIZE: Final = 256


def page_key(key: RunKey, page: int) -> str:
    """Return the key of a page of the journal."""
    return f"{key}/{page:06d}"


def page_keys(state: LiveState) -> list[str]:
    """Return the keys of all pages that a run's transitions fill."""
    return [page_key(state.key, page) for page in range(-(-state.sequence // PAGE_SIZE))]


def merge(state: LiveState, pages: Iterable[Page | None]) -> list[Transition]:
    """Return all transitions of a run, oldest first, from its outbox and its pages.

    `None` stands for a page that is missing. Entries of a page which the document does not know
    of are left out: the page is newer than a copy of the document that was put back.
    """
    found: dict[int, Transition] = {}
    for page in pages:
        for entry in page.transitions if page is not None else ():
            if entry.sequence < state.sequence:
                found[entry.sequence] = entry
    found |= {entry.sequence: entry for entry in state.outbox}
    return [found[number] for number in sorted(found)]


def missing(state: LiveState, found: Sequence[Transition]) -> str:
    """Return which of a run's transitions are in no page, such as `3 to 7, 9`; "" if none."""
    if len(found) == state.sequence:
        return ""
    there = {entry.sequence for entry in found}
    lost = [number for number in range(state.sequence) if number not in there]
    spans = [
        [number for _, number in group]
        for _, group in groupby(enumerate(lost), key=lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(f"{s[0]} to {s[-1]}" if len(s) > 1 else f"{s[0]}" for s in spans)


class Reach(msgspec.Struct, frozen=True):
    """How far the journal of a run goes: the revision of its document, and the next sequence."""

    revision: int = 0
    sequence: int = 0

    def with_page(self, page: Page) -> Reach:
        """Return how far it goes with one more page."""
        last = page.transitions[-1].sequence + 1 if page.transitions else 0
        return Reach(max(self.revision, page.revision), max(self.sequence, last))


class Journal:
    """The pages of all runs in the state."""

    def __init__(self, store: DocumentStore, report: Callable[[str, Exception], None]) -> None:
        self._store = store
        self._report = report
        #: The runs of which a page was damaged, and that was reported.
        self._damaged: set[RunKey] = set()

    async def add(self, key: RunKey, entries: Iterable[Transition], revision: int) -> None:
        """Make transitions of a run durable; doing so again changes nothing.

        `revision` is that of a document of the run which is stored.

        Raises:
            StateError: that failed, or a page is damaged (it was moved aside).
        """
        pages: dict[int, list[Transition]] = {}
        for entry in entries:
            pages.setdefault(entry.sequence // PAGE_SIZE, []).append(entry)
        for number, new in pages.items():
            name = page_key(key, number)
            page = await self._store.read("journal", name, Page)
            kept = {entry.sequence: entry for entry in (page.transitions if page else ())}
            kept |= {entry.sequence: entry for entry in new}
            document = Page(tuple(kept[number] for number in sorted(kept)), revision)
            await self._store.write("journal", name, document)

    async def history(self, state: LiveState) -> list[Transition]:
        """Return all transitions of a run, oldest first; damaged and missing pages are reported.

        Raises:
            StateError: a page can't be read.
        """
        key = state.key
        found = merge(state, [await self._page(key, name) for name in page_keys(state)])
        lost = missing(state, found)
        if lost and key not in self._damaged:
            self._report("journal", StateError(f"{gap(key, lost)}; the run goes on"))
        return found

    async def reach(self, key: RunKey, sequence: int = 0) -> Reach:
        """Return how far the pages from that with `sequence` on go; damaged ones are reported.

        Raises:
            StateError: a page can't be read.
        """
        found = Reach()
        for number in count(sequence // PAGE_SIZE):
            page = await self._page(key, page_key(key, number))
            if page is None:
                break
            found = found.with_page(page)
        return found

    async def page(self, key: RunKey, sequence: int) -> tuple[Transition, ...]:
        """Return the page that the transition `sequence` of a run is on; raises as `history`."""
        page = await self._page(key, page_key(key, sequence // PAGE_SIZE))
        return () if page is None else page.transitions

    @staticmethod
    def next_page(sequence: int) -> int:
        """Return the first sequence that is not on the page of `sequence`."""
        return (sequence // PAGE_SIZE + 1) * PAGE_SIZE

    async def _page(self, key: RunKey, name: str) -> Page | None:
        try:
            return await self._store.read("journal", name, Page)
        except CorruptStateError as error:
            self._damaged.add(key)
            self._report("journal", error)
            return None


def gap(key: RunKey, lost: str) -> str:
    """Return the message for transitions that are in no page of the journal."""
    return (
        f"transitions {lost} of {key.strategy_name} on {key.symbol} ({key.exchange_name}) are not "
        "in the journal: a page was lost, or an older copy was put in its place"
    )

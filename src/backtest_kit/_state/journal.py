"""The journal: all transitions of a run, in pages of 256."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from backtest_kit._state.documents import LiveState, Page, RunKey, Transition
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.errors import CorruptStateError

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
    found = {entry.sequence: entry for entry in state.outbox}
    for page in pages:
        for entry in page.transitions if page is not None else ():
            if entry.sequence < state.sequence:
                found[entry.sequence] = entry
    return [found[number] for number in sorted(found)]


class Journal:
    """The pages of all runs in the state."""

    def __init__(self, store: DocumentStore, report: Callable[[str, Exception], None]) -> None:
        self._store = store
        self._report = report

    async def add(self, key: RunKey, entries: Iterable[Transition]) -> None:
        """Make transitions of a run durable; doing so again changes nothing.

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
            document = Page(tuple(kept[number] for number in sorted(kept)))
            await self._store.write("journal", name, document)

    async def history(self, state: LiveState) -> list[Transition]:
        """Return all transitions of a run, oldest first; damaged pages are reported.

        Raises:
            StateError: a page can't be read.
        """
        return merge(state, [await self._page(name) for name in page_keys(state)])

    async def page(self, key: RunKey, sequence: int) -> tuple[Transition, ...]:
        """Return the page that the transition `sequence` of a run is on; raises as `history`."""
        page = await self._page(page_key(key, sequence // PAGE_SIZE))
        return () if page is None else page.transitions

    @staticmethod
    def next_page(sequence: int) -> int:
        """Return the first sequence that is not on the page of `sequence`."""
        return (sequence // PAGE_SIZE + 1) * PAGE_SIZE

    async def _page(self, name: str) -> Page | None:
        try:
            return await self._store.read("journal", name, Page)
        except CorruptStateError as error:
            self._report("journal", error)
            return None

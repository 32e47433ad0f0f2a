"""How far each named listener has been told of the transitions of each run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from backtest_kit._state.documents import Count, Document, RunKey
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.errors import CorruptStateError

#: The kind of these documents.
CURSOR: Final = "cursor"


class Cursor(Document, frozen=True):
    """The sequence of the next transition of a run that a listener is to be told of."""

    sequence: Count


class Cursors:
    """The cursors in the state, by listener and run."""

    def __init__(self, store: DocumentStore, report: Callable[[str, Exception], None]) -> None:
        self._store = store
        self._report = report

    async def read(self, name: str, key: RunKey) -> int | None:
        """Return a cursor, `None` where there is none; 0, and told, where it is damaged.

        Raises:
            StateError: it can't be read.
        """
        try:
            found = await self._store.read(CURSOR, cursor_key(name, key), Cursor)
        except CorruptStateError as error:
            # what it was told of is not known: all of it once more, so that nothing is left out
            self._report(f"listener {name}", error)
            return 0
        return None if found is None else found.sequence

    async def write(self, name: str, key: RunKey, sequence: int) -> None:
        """Make a cursor durable; raises StateError where that fails."""
        if self._store.is_open:
            await self._store.write(CURSOR, cursor_key(name, key), Cursor(sequence))


def cursor_key(name: str, key: RunKey) -> str:
    """Return the key of a listener's cursor for a run: the run's own, then the name."""
    return f"{key}/{quote(name, safe='')}"

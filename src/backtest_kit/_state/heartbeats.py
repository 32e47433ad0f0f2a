"""Heartbeats: how far each run has come, also by steps that changed nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from backtest_kit._state.documents import Heartbeat, LiveState, RunKey
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.clock import Clock
from backtest_kit._values.errors import CorruptStateError, StateError

#: The key of the only document of heartbeats.
HEARTBEAT: Final = "all"
#: The runs' steps are written together, this many seconds after the first of them.
_DELAY: Final = 2.0


class Heartbeats:
    """The newest step of every run, written for all of them together."""

    def __init__(
        self,
        store: DocumentStore,
        report: Callable[[str, Exception], None],
        clock: Callable[[], Clock],
    ) -> None:
        self._store = store
        self._report = report
        self._clock = clock
        self._steps: dict[str, int] = {}
        self._document_steps: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._writing: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read what was noted earlier; a damaged document is moved aside and reported.

        Raises:
            StateError: it can't be read.
        """
        stored = None
        try:
            stored = await self._store.read("heartbeat", HEARTBEAT, Heartbeat)
        except CorruptStateError as error:
            self._report("heartbeat", error)
        self._steps = dict(stored.at) if stored else {}
        self._document_steps = dict(stored.document_step) if stored else {}
        self._revisions = dict(stored.revision) if stored else {}
        self._told = dict(stored.told) if stored else {}

    def note(self, key: RunKey, step: int, document: LiveState | None) -> None:
        """Note the newest step (ms) of a run, which went on from a stored document."""
        self._steps[str(key)] = step
        if document is not None:
            self._revisions[str(key)] = document.revision
            if document.at is not None:
                self._document_steps[str(key)] = document.at
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    def last_step(self, state: LiveState) -> int:
        """Return the newest step (ms) noted of a run, 0 if there is none for this document."""
        return self._document().last_step(state)

    def revision(self, key: RunKey) -> int:
        """Return the newest revision of a run's document that was noted, 0 if there is none."""
        return self._revisions.get(str(key), 0)

    def told(self, key: RunKey) -> int:
        """Return the revision up to which the loss of a run's documents was told of."""
        return self._told.get(str(key), 0)

    async def tell(self, key: RunKey, revision: int) -> None:
        """Note durably that the loss of a run's documents up to `revision` was told of.

        Raises:
            StateError: it can't be written.
        """
        text = str(key)
        for noted in (self._steps, self._document_steps, self._revisions):
            noted.pop(text, None)
        self._told[text] = max(revision, self.told(key))
        await self._store.write("heartbeat", HEARTBEAT, self._document())

    def stop(self) -> None:
        """Write nothing more, until another step is noted."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    async def _write(self) -> None:
        await self._clock().sleep(_DELAY)
        try:
            await self._store.write("heartbeat", HEARTBEAT, self._document())
        except StateError as error:
            self._report("heartbeat", error)

    def _document(self) -> Heartbeat:
        return Heartbeat(
            dict(self._steps), dict(self._document_steps), dict(self._revisions), dict(self._told)
        )

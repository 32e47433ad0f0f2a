"""What a live run waits for, and `stop` may end: its step is not done then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from backtest_kit._engine.run import Run

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - no error: the user wants no more
    """The run was asked to stop while nothing was open, and something was awaited."""


class Stoppable:
    """What one run awaits now; while something is open, the run's driver does not end it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._scope: asyncio.Timeout | None = None

    def end(self) -> None:
        """End what is awaited, because the run is to stop."""
        if self._scope is not None:
            self._scope.reschedule(0)

    async def unless_stopped(self, work: Awaitable[T]) -> T:
        """Await something; raises `Stopped` where `end` came first."""
        async with self.within(None):
            return await work

    @asynccontextmanager
    async def within(self, seconds: float | None) -> AsyncGenerator[None, None]:
        """Let `end`, or so many seconds, end what is awaited inside; begin nothing once stopped.

        Only where nothing is open: a position is followed to its close.

        Raises:
            Stopped: `end` came.
            TimeoutError: the seconds are over.
        """
        row = self._run.record.signal
        if row is not None and row.pending_at is not None:
            yield
            return
        try:
            async with asyncio.timeout(0 if self._run.stopping else seconds) as self._scope:
                yield
        except TimeoutError:
            if self._run.stopping and self._scope is not None and self._scope.expired():
                raise Stopped from None
            raise
        finally:
            self._scope = None

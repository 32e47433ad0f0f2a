"""Trials of array strategies, begun before it is their turn, in as many threads as there are cores.

The kernel and NumPy over long arrays hold no lock, so that threads run side by side.
"""

from __future__ import annotations

import asyncio
import os

from backtest_kit._array_trial import beside, unwatched
from backtest_kit._trades import Trial
from backtest_kit._walk import Here


class Ahead(Here):
    """Trials in this process, each when it is asked for; array strategies somewhat earlier.

    Only those that nobody could tell from trials in order, and no more at a time than cores, so
    that memory is bounded. What one raises comes when it is its turn.
    """

    def _begin(self, index: int) -> asyncio.Task[Trial]:
        """Return the trial that is due, with those after it begun."""
        begun, cores = self._begun, os.cpu_count() or 1
        beside.set(cores > 1)
        for i in range(index, min(index + cores, len(self._strategies))):
            if i > index and not unwatched(self._strategies[i], self._engine):
                break
            if i not in begun:
                begun[i] = asyncio.ensure_future(super().trial(i))
        return begun.pop(index)

    async def open(self) -> None:
        """See `Trials`."""
        self._begun: dict[int, asyncio.Task[Trial]] = {}

    async def trial(self, index: int) -> Trial:
        """See `Trials`."""
        task = self._begin(index)
        try:
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """See `Trials`."""
        for task in self._begun.values():
            task.cancel()
        await asyncio.gather(*self._begun.values(), return_exceptions=True)
        self._begun.clear()

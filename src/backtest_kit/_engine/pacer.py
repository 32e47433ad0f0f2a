"""How a driver shares the event loop: it yields every few milliseconds, and waits for listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backtest_kit._engine.bus import Bus
from backtest_kit._values.clock import stopwatch, yield_to_others

#: A driver lets other tasks run after about this many milliseconds.
YIELD_AFTER_MS: Final = 10.0
#: It waits there while a listener is more than this many events behind.
MAX_EVENTS_BEHIND: Final = 1_000


class Pacer:
    """Says when one driver has to yield, and yields; `hurries`: it waits for no listener now."""

    def __init__(self, bus: Bus, hurries: Callable[[], bool] = lambda: False) -> None:
        self._bus = bus
        self._hurries = hurries
        self._yielded = stopwatch()

    @property
    def due(self) -> bool:
        """Whether the driver has worked for `YIELD_AFTER_MS` since it last yielded."""
        return stopwatch() - self._yielded >= YIELD_AFTER_MS

    async def yield_now(self) -> None:
        """Let other tasks run, and wait for listeners that are far behind."""
        await yield_to_others()
        await self._bus.drain(MAX_EVENTS_BEHIND, self._hurries)
        self._yielded = stopwatch()

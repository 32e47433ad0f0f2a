"""The only place that asks what time it is, and that waits."""

from __future__ import annotations

import asyncio
import time


def wall_ms() -> int:
    """Return the machine's wall clock, milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def stopwatch() -> float:
    """Return a monotonic reading in milliseconds; only differences mean something."""
    return time.perf_counter_ns() / 1e6


async def yield_to_others() -> None:
    """Let other tasks of the event loop run."""
    await asyncio.sleep(0)


class Clock:
    """Time as an engine's live runs and requests see it: the machine's, and the event loop's.

    A subclass with another `wall_ms` on an event loop with another `time` is a clock for tests:
    `backtest_kit.testing.SimulatedTime`.
    """

    #: Whether this time passes while threads work. If not, sync listeners of live runs are called
    #: on the event loop, or they would be far behind at once.
    waits_for_threads = True

    def wall_ms(self) -> int:
        """Return the wall clock, milliseconds since the epoch, UTC."""
        return wall_ms()

    def monotonic(self) -> float:
        """Return the event loop's time in seconds; only differences mean something."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of the event loop's time."""
        await asyncio.sleep(seconds)

"""Time that passes only while everybody waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import datetime
from typing import Any, TypeVar, TypeVarTuple

from backtest_kit._engine.engine import current_engine
from backtest_kit._values.clock import Clock
from backtest_kit._values.time import to_ms

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _LeapingSelector(selectors.DefaultSelector):
    """Returns at once instead of waiting for a timer, and counts the seconds it left out."""

    leapt = 0.0
    working = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout and self.working:
            timeout = None
        if ready or timeout is None:
            return ready or super().select(None)
        self.leapt += timeout
        return ready


class LeapingEventLoop(asyncio.SelectorEventLoop):
    """An event loop that leaps to the next timer instead of waiting for it.

    `time()` begins at 0 and counts only the pauses. What `asyncio.to_thread` and `run_in_executor`
    do takes no time by this clock, and is waited for. Other threads and the network are not waited
    for while a timer is set.
    """

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Do work in a thread, and leap over nothing until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._leaping.working += 1
        future.add_done_callback(self._worked)
        return future

    def _worked(self, _: object) -> None:
        self._leaping.working -= 1

    def time(self) -> float:
        """Return the seconds leapt over so far."""
        return self._leaping.leapt

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        self._leaping.leapt += seconds


class SimulatedTime(Clock):
    """Wall-clock time in which a live session of days takes seconds; in milliseconds UTC.

    `run` runs a coroutine, such as one that awaits `Live.background`, on a `LeapingEventLoop`,
    with this as the clock of the current engine. Keep state in `MemoryAdapter`, so that days of
    steps need no disk. Sync listeners and callbacks are called on the event loop, unlike those of a
    live run by the real clock.

    Add to `start` while it runs, and the machine has slept for so long; set `skew`, and the clock
    that the engine reads is so much ahead of the true time `now`.
    """

    waits_for_threads = False

    def __init__(self, start: datetime | int) -> None:
        self.start = milliseconds(start)
        self.skew = 0
        self.loop: LeapingEventLoop | None = None

    @property
    def now(self) -> int:
        """The true time."""
        return self.start + (0 if self.loop is None else round(self.loop.time() * 1000))

    def wall_ms(self) -> int:
        """Return what the engine takes for the time."""
        return self.now + self.skew

    def new_loop(self) -> LeapingEventLoop:
        """Return the event loop for a `run`."""
        return LeapingEventLoop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, from `start` on, and return its result."""
        loop = self.loop = self.new_loop()
        engine = current_engine()
        outside, engine.clock = engine.clock, self
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(work)
        finally:
            engine.clock = outside

    async def until(self, when: datetime | int) -> None:
        """Wait until the true time is `when`."""
        await self.sleep(max(0, milliseconds(when) - self.now) / 1000)


def milliseconds(when: datetime | int) -> int:
    """Return an aware datetime, or milliseconds UTC, as milliseconds UTC."""
    return when if isinstance(when, int) else to_ms(when)

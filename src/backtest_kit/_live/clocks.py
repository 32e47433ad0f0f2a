"""When a live run steps: by the wall clock, or by a virtual one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from backtest_kit._values.clock import Clock, stopwatch
from backtest_kit._values.errors import ArgumentError, ClockError
from backtest_kit._values.time import MINUTE, iso, to_ms

#: While waiting, the wall clock is read this often: it may jump, or the machine may sleep.
_GLANCE_MS: Final = 1_000
#: Returned by a ticker that was woken before a step was due.
WOKEN: Final = -1


class Ticker(Protocol):
    """Says when one live run steps; a step is named by its minute, in milliseconds UTC."""

    async def next(self, done: int | None, tried: int | None, wake: asyncio.Event) -> int | None:
        """Wait for the next step after `done`, skipping `tried` (the step that just failed).

        Returns the newest step that is due, `None` after the last one, or `WOKEN` if `wake` is set
        first.
        """
        ...

    def over(self, when: int) -> bool:
        """Say whether the minute that begins with step `when` is over: too late to act on it."""
        ...

    def left(self, when: int) -> float | None:
        """Return the seconds until it is over; `None`: it never is."""
        ...


class WallTicker:
    """Steps by the wall clock, `delay_ms` after each end of a candle of `base` milliseconds.

    Every step is computed from the wall clock, so nothing drifts. If the clock goes back, the
    ticker waits until it has passed the last step again, so that no step is done twice, and
    calls `report` once. A step that failed is due again after a minute.
    """

    def __init__(
        self,
        clock: Clock,
        delay_ms: int,
        report: Callable[[ClockError], object],
        base: int = MINUTE,
    ) -> None:
        self._clock = clock
        self._delay = delay_ms
        self._base = base
        self._tried_at = 0
        self._report = report
        self._told = False

    async def next(self, done: int | None, tried: int | None, wake: asyncio.Event) -> int | None:
        """See `Ticker`."""
        while True:
            now = self._clock.wall_ms() - self._delay
            due = now // self._base * self._base
            again = now >= self._tried_at + MINUTE or now < self._tried_at
            if (done is None or due > done) and (due != tried or again):
                self._told, self._tried_at = False, now
                return due
            if done is not None and due < done - self._base and not self._told:
                self._told = True
                self._report(
                    ClockError(
                        f"the wall clock says {iso(now // 1000 * 1000)}, but the step of "
                        f"{iso(done)} is done: it has gone back; the next step comes after "
                        f"{iso(done)} by this clock"
                    )
                )
            left = max(due, done or 0) + self._base - now
            try:
                async with asyncio.timeout(min(left, _GLANCE_MS) / 1000):
                    await wake.wait()
                return WOKEN
            except TimeoutError:
                continue

    def over(self, when: int) -> bool:
        """See `Ticker`."""
        return self._clock.wall_ms() - self._delay >= when + MINUTE

    def left(self, when: int) -> float:
        """See `Ticker`."""
        return max(0, when + MINUTE + self._delay - self._clock.wall_ms()) / 1000


class VirtualClock:
    """A clock for `Live.run(..., clock=...)`: a step at each minute from `start` to `end`.

    With a longer base interval, at each end of its candles. Both are included, and must be aware.
    Steps follow each other as fast as they can be done or, with `speed`, at most that many times as
    fast as in real time. The run ends at `end`; an open position stays open.

    Raises:
        ArgumentError: a datetime is naive, `end` is before `start`, or `speed` is not above 0.
    """

    def __init__(self, start: datetime, end: datetime, *, speed: float | None = None) -> None:
        self.start, self.end = to_ms(start, "start"), to_ms(end, "end")
        if self.start % MINUTE:
            raise ArgumentError(f"start={start.isoformat()} must be a whole minute")
        if self.end < self.start:
            raise ArgumentError(f"end={end.isoformat()} is before start={start.isoformat()}")
        if speed is not None and not 0 < speed < float("inf"):
            raise ArgumentError(f"speed={speed!r} must be a number above 0")
        self.speed = speed


class VirtualTicker:
    """Steps by a `VirtualClock`, at the ends of candles of `base` milliseconds."""

    def __init__(self, clock: VirtualClock, base: int = MINUTE) -> None:
        self._clock = clock
        self._base = base
        self._start = -(-clock.start // base) * base
        self._due = 0.0

    async def next(self, done: int | None, tried: int | None, wake: asyncio.Event) -> int | None:
        """See `Ticker`."""
        clock = self._clock
        newest = max(done or 0, tried or 0)
        when = max(self._start, newest + self._base) if newest else self._start
        if when > clock.end:
            return None
        if clock.speed is not None and await self._paced(self._base / clock.speed, wake):
            return WOKEN
        return when

    def over(self, when: int) -> bool:
        """See `Ticker`: while a step is done, a virtual clock stands still."""
        return False

    def left(self, when: int) -> None:
        """See `Ticker`."""
        return

    async def _paced(self, pause: float, wake: asyncio.Event) -> bool:
        """Keep steps `pause` ms apart; say whether `wake` came first."""
        now = stopwatch()
        due = max(self._due + pause, now) if self._due else now
        if due > now:
            try:
                async with asyncio.timeout((due - now) / 1000):
                    await wake.wait()
                return True
            except TimeoutError:
                pass
        self._due = due
        return False

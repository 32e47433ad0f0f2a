"""What a listener of live runs has not been told yet: bounded, and known for how long."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from backtest_kit._engine.ambient import Moment
from backtest_kit._values.results import TickActive, TickIdle, TickWaiting

#: Events that wait for one listener at most, beside the newest state of each run.
MOST_EVENTS: Final = 1_000
#: A listener is told of when it is so far behind, and each time that has doubled.
BEHIND_FROM: Final = 100
#: But not for a burst: only if it has not been up to date for so many seconds.
BEHIND_FOR: Final = 10.0
#: The same for the seconds that one call takes.
SLOW_FROM: Final = 60.0


class _Entry:
    """An event that waits; a state may stand for earlier ones of its run as well."""

    __slots__ = ("count", "event", "key", "moment")

    def __init__(self, event: Any, moment: Moment | None, key: object) -> None:
        self.event = event
        self.moment = moment
        self.key = key
        self.count = 1


class Backlog:
    """The events that wait for one listener, in order.

    An idle, waiting or active result tells the state of its run: a newer one takes the place of one
    that still waits, unless a transition came in between. Of the other events `MOST_EVENTS` wait
    at most; further ones are dropped and counted.
    """

    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._states: dict[object, _Entry] = {}
        self._waiting = self._calling = 0
        self._began: float | None = None
        self._since = 0.0
        #: Events dropped since the listener was last up to date, and since it began to listen.
        self.lost = self.dropped = 0
        self._tell_at: float = BEHIND_FROM
        self._tell_after = SLOW_FROM

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def behind(self) -> int:
        """Number of events that the listener has not heard, also those dropped or replaced."""
        return self._waiting + self._calling + self.lost

    def busy(self, now: float) -> float:
        """For how many seconds the present call has lasted."""
        return 0.0 if self._began is None else max(0.0, now - self._began)

    def add(self, event: Any, moment: Moment | None, now: float) -> None:
        """Queue an event with the moment at which it was emitted, or drop it; `now` in seconds."""
        if self.behind == 0:
            self._since = now
        names = (
            getattr(event, "symbol", None),
            getattr(event, "strategy_name", None),
            getattr(event, "exchange_name", None),
        )
        if not isinstance(event, TickIdle | TickWaiting | TickActive):
            self._states.pop(names, None)
            if len(self._entries) - len(self._states) >= MOST_EVENTS:
                self.lost += 1
                self.dropped += 1
                return
            self._entries.append(_Entry(event, moment, None))
        elif (entry := self._states.get(names)) is not None:
            entry.event, entry.moment = event, moment
            entry.count += 1
        else:
            self._states[names] = entry = _Entry(event, moment, names)
            self._entries.append(entry)
        self._waiting += 1

    def take(self, now: float) -> tuple[Any, Moment | None]:
        """Return the next event: its call begins at `now` (seconds)."""
        entry = self._entries.popleft()
        if entry.key is not None and self._states.get(entry.key) is entry:
            del self._states[entry.key]
        self._waiting -= entry.count
        self._calling, self._began = 1, now
        return entry.event, entry.moment

    def told(self) -> None:
        """Note that the call has ended."""
        self._calling, self._began = 0, None
        if not self._entries:
            self.lost = 0
            self._tell_at, self._tell_after = BEHIND_FROM, SLOW_FROM

    def clear(self) -> None:
        """Forget what waits: the listener has gone."""
        self._entries.clear()
        self._states.clear()
        self._waiting = self.lost = 0

    def complaint(self, now: float) -> str | None:
        """Say how far behind the listener is, if that has doubled since it was said last."""
        busy = self.busy(now)
        is_burst = now - self._since < BEHIND_FOR
        if (self.behind < self._tell_at or is_burst) and busy < self._tell_after:
            return None
        self._tell_at = max(self._tell_at, 2 * self.behind)
        self._tell_after = max(self._tell_after, 2 * busy)
        text = f"is {self.behind:,} event{'' if self.behind == 1 else 's'} behind"
        if self.lost:
            text += f", of which {self.lost:,} were dropped"
        if busy >= 1:
            text += f"; one call has lasted for {busy:,.0f} s"
        return text

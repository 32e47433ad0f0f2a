"""Named listeners: told of every transition of live runs, in order, also across restarts.

Each has a cursor per run, a document in the state: the sequence of the next transition to tell. It
is written after the listener's call has returned, so a crash in between tells that one again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.backlog import BEHIND_FROM, SLOW_FROM
from backtest_kit._engine.engine import Engine, current_engine, describe
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.run import Run
from backtest_kit._engine.threads import CallThread
from backtest_kit._live.transitions import Source, Transitions
from backtest_kit._state.cursors import Cursors
from backtest_kit._state.documents import RunKey, Transition
from backtest_kit._values.errors import RegistrationError, StateError
from backtest_kit._values.events import ErrorEvent, ListenerHealth, RunEvent

if TYPE_CHECKING:
    from backtest_kit._engine.listen import Unsubscribe


def listen_transitions(
    function: Callable[[RunEvent], Any], *, name: str, from_start: bool = False
) -> Unsubscribe:
    """Tell a listener of every transition of live runs, once or more, in order, for good.

    `function`, sync or async, is called with each result but idle, active and waiting ones, with
    milestones, and with what came of commands, one after another; each has a `transition_id`, by
    which a repeat is known. How far it has been told is kept in the state under `name`: after a
    restart or a crash it goes on there, and nothing is left out however long it was away. A new
    name begins with what comes next, or `from_start` with the oldest transition in the journal. No
    run waits for it. What it raises goes to `listen_error`, and counts as told.

    Returns what ends the listening; its place is kept for the next time.

    Raises:
        RegistrationError: the name is empty, or another listener of this process has it.
        TypeError: `function` can't be called.
    """
    if not callable(function):
        raise TypeError(f"a listener must be a function, not {function!r}")
    engine = current_engine()
    if not isinstance(name, str) or not name:
        raise RegistrationError(f"name={name!r} must be a non-empty text")
    if name in engine.named_listeners:
        raise RegistrationError(f"a listener named {name!r} is there already; end it first")
    listener = NamedListener(engine, function, name, from_start=from_start)
    engine.named_listeners[name] = listener

    def unsubscribe() -> None:
        if engine.named_listeners.get(name) is listener:
            del engine.named_listeners[name]
        listener.close()

    return unsubscribe


class _Place:
    """Where a listener is in the transitions of one run."""

    def __init__(self, run: Run, transitions: Transitions) -> None:
        self.run = run
        self.transitions = transitions


class NamedListener:
    """One named listener: its places in the runs that are there, and the task that tells it."""

    def __init__(
        self, engine: Engine, function: Callable[..., Any], name: str, *, from_start: bool
    ) -> None:
        self.name = name
        self._engine = engine
        self._function = function
        self._from_start = from_start
        self._places: dict[RunKey, _Place] = {}
        self._cursors: Cursors | None = None
        self._thread = CallThread(f"listener {name}")
        self._task: asyncio.Task[None] | None = None
        self._began: float | None = None
        self._tell_at, self._tell_after = BEHIND_FROM, SLOW_FROM

    @property
    def behind(self) -> int:
        """Number of transitions of the runs that are there which it has not heard."""
        return sum(place.transitions.left for place in [*self._places.values()])

    @property
    def lag(self) -> ListenerHealth:
        """How far behind it is."""
        return ListenerHealth(
            name=self.name, behind=self.behind, dropped=0, busy_seconds=self._busy
        )

    @property
    def _busy(self) -> float:
        return 0.0 if self._began is None else max(0.0, self._now() - self._began)

    def _now(self) -> float:
        return self._engine.clock.wall_ms() / 1000  # may be asked for from any thread

    async def attach(self, run: Run, key: RunKey, source: Source, cursors: Cursors) -> None:
        """Go on in a run where the stored cursor is; note where a new one begins.

        Raises:
            StateError: the cursor can't be read or written.
        """
        if key in self._places:
            return
        stored = await cursors.read(self.name, key)
        cursor = (0 if self._from_start else source.sequence) if stored is None else stored
        # beyond the end: the run's state was deleted, and it began anew
        cursor = min(cursor, source.sequence)
        if cursor != stored:
            # before anything comes: after a crash before its first call it must go on from here
            await cursors.write(self.name, key, cursor)
        self._cursors = cursors
        self._places[key] = _Place(run, Transitions(source, cursor))
        self.wake()

    def detach(self, key: RunKey) -> None:
        """Leave a run; the rest is told when it runs again."""
        self._places.pop(key, None)

    def wake(self) -> None:
        """Go on with what is to be told; say so if it is far behind."""
        behind, busy = self.behind, self._busy
        if behind >= self._tell_at or busy >= self._tell_after:
            self._tell_at, self._tell_after = max(2 * behind, BEHIND_FROM), max(2 * busy, SLOW_FROM)
            self._engine.tell_behind(self.name, f"is {behind:,} transitions behind")
        if behind and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def told(self, key: RunKey) -> None:
        """Wait until it has heard all of a run."""
        while (place := self._places.get(key)) is not None and place.transitions.left:
            if self._task is None or self._task.done():
                return
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Tell nothing more."""
        self._places.clear()

    async def _work(self) -> None:
        try:
            while (found := await self._next()) is not None:
                await self._tell(*found)
            self._tell_at, self._tell_after = BEHIND_FROM, SLOW_FROM
        except StateError as error:  # the next transition tries again
            self._report("state", error)

    async def _next(self) -> tuple[_Place, Transition] | None:
        """Return the oldest transition of all runs that is to be told."""
        found: list[tuple[int, int, _Place, Transition]] = []
        for i, place in enumerate([*self._places.values()]):
            entry = await place.transitions.next()
            if entry is not None:
                found.append((entry.event.timestamp, i, place, entry))
        return min(found, key=lambda each: each[:2])[2:] if found else None

    async def _tell(self, place: _Place, entry: Transition) -> None:
        event = entry.event
        current_moment.set(Moment(place.run, event.timestamp))
        away = self._engine.clock.waits_for_threads and not place.run.waits
        self._began = self._now()
        try:
            await (self._thread.call if away else call_user_code)(self._function, event)
        except Exception as error:  # noqa: BLE001 - a listener never stops a run
            self._report(f"listener {self.name}", error)
        finally:
            self._began = None
        place.transitions.done(entry)
        key = next((key for key, each in self._places.items() if each is place), None)
        if key is not None and self._cursors is not None:
            await self._cursors.write(self.name, key, entry.sequence + 1)

    def _report(self, where: str, error: Exception) -> None:
        at = current_moment.get()
        if at is None:
            self._engine.logger.error("%s: %s", where, describe(error))
            return
        self._engine.report(
            ErrorEvent(
                where=where,
                error=error,
                symbol=at.run.symbol,
                strategy_name=at.run.strategy_name,
                exchange_name=at.run.exchange_name,
                mode="live",
                when=at.when,
            ),
            waited=at.run.waits,
        )

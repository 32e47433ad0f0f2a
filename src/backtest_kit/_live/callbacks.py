"""The registered callbacks of a live run by the wall clock: no step waits for them.

They are called one after another, in the order of what happened, each with a time limit: async ones
on the event loop, sync ones in a thread. Transitions are read from the run's outbox and journal, so
that none is forgotten however long a call takes; of the states of steps the newest is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.backlog import BEHIND_FROM
from backtest_kit._engine.guard import call_user_code, given_up
from backtest_kit._engine.run import Run
from backtest_kit._engine.threads import CallThread, is_async
from backtest_kit._live.transitions import Transitions
from backtest_kit._values.errors import StateError
from backtest_kit._values.events import ListenerHealth
from backtest_kit._values.results import TickActive, TickIdle, TickWaiting

#: Calls beside those for transitions (of risk profiles) that wait at most.
_MOST_CALLS: Final = 1_000


class _Call(NamedTuple):
    """A call that is made before that for the transition `sequence`."""

    sequence: int
    where: str
    function: Callable[..., Any]
    argument: object
    moment: Moment | None


class Callbacks:
    """Calls what was registered for one run; `transitions` begin with the first one to tell."""

    def __init__(self, run: Run, transitions: Transitions) -> None:
        self._run = run
        self._transitions = transitions
        self._calls: deque[_Call] = deque()
        self._states: dict[str, _Call] = {}
        self._thread = CallThread(f"callbacks of {run.strategy_name} on {run.symbol}")
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0
        self._began: float | None = None
        self._tell_at = BEHIND_FROM

    @property
    def behind(self) -> int:
        """Number of calls that wait or are being made."""
        busy = self._began is not None
        return self._transitions.left + len(self._calls) + len(self._states) + busy

    @property
    def health(self) -> ListenerHealth:
        """How far behind they are."""
        now = self._now()
        return ListenerHealth(
            name=f"callbacks of {self._run.strategy_name} on {self._run.symbol}",
            behind=self.behind,
            dropped=self._dropped,
            busy_seconds=0.0 if self._began is None else max(0.0, now - self._began),
        )

    def _now(self) -> float:
        return self._run.engine.clock.wall_ms() / 1000  # may be asked for from any thread

    def call_later(self, where: str, function: Callable[..., Any], argument: object) -> None:
        """Queue a call that is no transition's."""
        call = _Call(self._transitions.end, where, function, argument, current_moment.get())
        if isinstance(argument, TickIdle | TickActive | TickWaiting) or where.endswith("on_write"):
            self._states[where] = call  # only the newest is of interest
        elif len(self._calls) < _MOST_CALLS:
            self._calls.append(call)
        else:
            self._dropped += 1
        self.wake()

    def wake(self) -> None:
        """Go on with what waits."""
        behind = self.behind
        if behind >= self._tell_at:
            self._tell_at = 2 * behind
            name = self.health.name
            self._run.engine.tell_behind(name, f"are {behind:,} calls behind")
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def finished(self) -> None:
        """Wait until nothing is left to call."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def close(self) -> None:
        """Call nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            while True:
                call = self._next_call()
                if call is not None:
                    current_moment.set(call.moment)
                    await self._make(call.where, call.function, call.argument)
                elif self._transitions.left:
                    await self._tell_transition()
                else:
                    self._tell_at = BEHIND_FROM
                    return
        except StateError as error:  # the next transition tries again
            self._run.error("state", error)

    def _next_call(self) -> _Call | None:
        """Return the oldest call that is due before the next transition."""
        due = [*self._states.values(), *([self._calls[0]] if self._calls else [])]
        call = min(due, key=lambda each: each.sequence, default=None)
        if call is None or call.sequence > self._transitions.sequence:
            return None
        if self._states.get(call.where) is call:
            del self._states[call.where]
        else:
            self._calls.popleft()
        return call

    async def _tell_transition(self) -> None:
        entry = await self._transitions.next()
        if entry is None:
            return
        event = entry.event
        current_moment.set(Moment(self._run, event.timestamp))
        for name, function in self._run.callbacks_for(event, own=False):
            await self._make(f"callback {name}", function, event)
        self._transitions.done(entry)

    async def _make(self, where: str, function: Callable[..., Any], argument: object) -> None:
        """Make one call; where it takes too long, say so, and end it if it can be ended."""
        run = self._run
        away = run.engine.clock.waits_for_threads
        make = self._thread.call if away else call_user_code
        call = asyncio.ensure_future(make(function, argument))
        self._began = self._now()
        try:
            limit = run.config.callback_timeout_seconds
            await asyncio.wait([call], timeout=limit)
            if not call.done():
                self._give_up(where, function, call)
                await asyncio.wait([call])
            if not call.cancelled() and (error := call.exception()) is not None:
                if not isinstance(error, Exception):
                    raise error
                run.error(where, error)
        finally:
            self._began = None
            if not call.done():
                call.cancel()

    def _give_up(self, where: str, function: Callable[..., Any], call: asyncio.Future[Any]) -> None:
        error = given_up(self._run.config)
        if not is_async(function):
            error = type(error)(
                f"takes longer than {self._run.config.callback_timeout_seconds:g} s "
                "(callback_timeout_seconds), and can't be ended: the other callbacks of this run "
                "wait for it, the run does not"
            )
        else:
            call.cancel()
        self._run.error(where, error)

"""Runs that act on one thing in the order of simulated time, whichever is computed first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from operator import attrgetter
from typing import Any, Final

#: At one instant: positions that close anything, ...
CLOSES: Final = 1
#: ... the others, ...
HOLDS: Final = 3
#: ... signals that waited, ...
ACTIVATES: Final = 4
#: ... and new ones.
OPENS: Final = 5
#: An instant, one of these, and the run's place among the runs.
_Key = tuple[int, int, int]
_by_key = attrgetter("key")
#: Steps of scripts before other tasks of the event loop get to run.
_MOST_AT_ONCE: Final = 500


class Turns:
    """Lets its runs act in the order of (instant, what they do, order of the runs).

    Each publishes the earliest that it may do next, and goes on when that is the first of all. A
    run that has not published anything more is still at what it did last, and the others wait.
    """

    def __init__(self) -> None:
        self._turns: list[Turn] = []

    def join(self) -> Turn:
        """Return the place of one more run, behind those that there are."""
        turn = Turn(self, len(self._turns))
        self._turns.append(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Let the others go on without a run."""
        if turn in self._turns:
            self._turns.remove(turn)
        self.pass_on()

    def is_first(self, turn: Turn) -> bool:
        """Say whether nothing of any other run comes before what this one does next."""
        return all(turn.key <= other.key for other in self._turns)

    def pass_on(self) -> None:
        """Wake the run whose turn it is, if it waits for it, or go on with its script."""
        for _ in range(_MOST_AT_ONCE):
            first = min(self._turns, key=_by_key, default=None)
            if first is None:
                return
            if first.script is None:
                if first.waiter is not None and not first.waiter.done():
                    first.waiter.set_result(None)
                return
            first.script.go_on()
        asyncio.get_running_loop().call_soon(self.pass_on)


class Turn:
    """The place of one run: `key` is the earliest that it may do next."""

    def __init__(self, turns: Turns, order: int) -> None:
        self._turns = turns
        self.order = order
        self.key: _Key = (0, 0, order)
        self.waiter: asyncio.Future[None] | None = None
        self.script: _Script | None = None

    async def wait(self, when: int, what: int) -> None:
        """Wait until nothing of any other run comes before `what` this one does at `when` (ms)."""
        self.key = max(self.key, (when, what, self.order))
        if self._turns.is_first(self):
            return
        if self.script is not None:
            await _Pause()
            return
        self.waiter = asyncio.get_running_loop().create_future()
        self._turns.pass_on()  # scripts may go on until this one is the first
        try:
            await self.waiter
        finally:
            self.waiter = None

    async def play(self, script: Coroutine[Any, Any, None]) -> None:
        """Do what a script does, which awaits nothing but turns of this run.

        Scripts of several runs take their turns without the event loop, which costs more than what
        a trade does.
        """
        self.script = played = _Script(self, script)
        self._turns.pass_on()
        try:
            await played.done
        finally:
            self.script = None
            script.close()

    def leave(self) -> None:
        """End: the others no longer wait for this run."""
        self._turns.leave(self)


class _Pause:
    """Hands over to who goes on with a script."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class _Script:
    """A script of a run, which goes on as far as its next turn; `done` once it has ended."""

    def __init__(self, turn: Turn, script: Coroutine[Any, Any, None]) -> None:
        self._turn = turn
        self._script = script
        self._context = copy_context()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        """Go on to the next turn, or to the end."""
        if self.done.done():  # who awaited it has been cancelled
            self._turn.script = None
            return
        try:
            self._context.run(self._script.send, None)
        except StopIteration:
            self._turn.script = None
            self.done.set_result(None)
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            self._turn.script = None
            self.done.set_exception(error)

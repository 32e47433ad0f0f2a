"""Runs that act on one thing in the order of simulated time, whichever is computed first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import copy_context
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
#: Steps of scripts before other tasks of the event loop get to run.
_MOST_AT_ONCE: Final = 500


class Turns:
    """Lets its runs act in the order of (instant, what they do, order of the runs), one at a time.

    Each publishes the earliest that it may do next, and goes on when that is the first of all. A
    run that has not published anything more is still at what it did last, and the others wait.
    """

    def __init__(self) -> None:
        self._turns: list[Turn] = []
        self._passes_on = False

    def join(self, order: int | None = None) -> Turn:
        """Return the place of one more run, by default behind those that there are."""
        turn = Turn(self, len(self._turns) if order is None else order)
        self._turns.append(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """Let the others go on without a run."""
        if turn in self._turns:
            self._turns.remove(turn)
        self.pass_on()

    def is_next(self, turn: Turn) -> bool:
        """Say whether a run may act: nothing of any other comes before, and no other acts."""
        return all(
            other is turn or not (other.acts or (other.counts and other.key < turn.key))
            for other in self._turns
        )

    def have_reached(self, when: int, but: Turn) -> bool:
        """Say whether all other runs are done with what comes before an instant (ms)."""
        return all(
            other is but or not other.counts or other.key[0] >= when for other in self._turns
        )

    def pass_on(self) -> None:
        """Wake the run whose turn it is, or go on with its script, and who waits for an instant."""
        if self._passes_on:  # a script says what it does, and the loop below goes on from there
            return
        self._passes_on = True
        try:
            for _ in range(_MOST_AT_ONCE):
                first = self._first()
                if first is None or first.script is None:
                    break
                first.acts = True
                first.script.go_on()
            else:
                asyncio.get_running_loop().call_soon(self.pass_on)
                return
        finally:
            self._passes_on = False
        if first is not None and first.waiter is not None and _wake(first.waiter):
            first.acts = True
        reached = min((turn.key[0] for turn in self._turns if turn.counts), default=0)
        for turn in self._turns:
            if turn.barrier is not None and turn.key[0] <= reached:
                _wake(turn.barrier)

    def _first(self) -> Turn | None:
        """Find the run whose turn it is, if no other acts and it waits for its turn."""
        first: Turn | None = None
        hasty: Turn | None = None
        for turn in self._turns:
            if turn.acts:
                return None
            if (turn.counts or turn.waits) and (first is None or turn.key < first.key):
                first = turn
            if turn.is_hasty and (hasty is None or turn.key < hasty.key):
                hasty = turn
        # whom the first holds up for too long goes without it
        return first if first is not None and first.waits else hasty


class Turn:
    """The place of one run: `key` is the earliest that it may do next.

    It `acts` from the end of `wait` until it publishes something later. `counts`: others wait for
    it. `is_hasty`: it has waited for long enough, and waits only for whoever acts just now.
    """

    def __init__(self, turns: Turns, order: int) -> None:
        self._turns = turns
        self.order = order
        self.key: _Key = (0, 0, order)
        self.acts = self.is_hasty = False
        self.counts = True
        self.waiter: asyncio.Future[None] | None = None
        self.barrier: asyncio.Future[None] | None = None
        self.script: _Script | None = None

    @property
    def waits(self) -> bool:
        """Whether the run waits for its turn."""
        return self.waiter is not None or self.script is not None

    async def wait(self, when: int, what: int, patience: float | None = None) -> None:
        """Wait until nothing of any other run comes before `what` this one does at `when` (ms).

        After `patience` seconds (`None`: never) only until no other acts.
        """
        self._publish(when, what)
        if self._turns.is_next(self):
            self.acts = True
            return
        if self.script is not None:
            await _Pause()
            return
        self.waiter = asyncio.get_running_loop().create_future()
        hurry = None
        if patience is not None:
            hurry = asyncio.get_running_loop().call_later(patience, self._hurry)
        self._turns.pass_on()  # scripts may go on until this one is the first
        try:
            await self.waiter
        except asyncio.CancelledError:
            self.acts, self.waiter = False, None
            self._turns.pass_on()
            raise
        finally:
            self.waiter, self.is_hasty = None, False
            if hurry is not None:
                hurry.cancel()

    async def wait_for_others(self, when: int) -> None:
        """Wait until all others are done with what comes before an instant (ms)."""
        self.pass_to(when, 0)
        while not self._turns.have_reached(when, self):
            self.barrier = asyncio.get_running_loop().create_future()
            try:
                await self.barrier
            finally:
                self.barrier = None

    def pass_to(self, when: int, what: int) -> None:
        """Say that the run does nothing before `what` it may do at `when` (ms)."""
        self._publish(when, what)
        self._turns.pass_on()

    def stop_acting(self) -> None:
        """Let others act before this one does anything else."""
        self.acts = False
        self._turns.pass_on()

    def pause(self) -> None:
        """Let others go on without this run: it is held up, for who knows how long."""
        self.counts = self.acts = False
        self._turns.pass_on()

    def resume(self) -> None:
        """Say that the run goes on after a pause."""
        self.counts = True

    async def play(self, script: Coroutine[Any, Any, None]) -> None:
        """Do what a script does, which awaits nothing but turns of this run.

        Scripts of several runs take their turns without the event loop, which costs more than what
        a trade does.
        """
        self.script = played = _Script(self, script)
        self.acts = False
        self._turns.pass_on()
        try:
            await played.done
        finally:
            self.script = None
            script.close()

    def leave(self) -> None:
        """End: the others no longer wait for this run."""
        self.acts = False
        self._turns.leave(self)

    def _publish(self, when: int, what: int) -> None:
        self.key = max(self.key, (when, what, self.order))
        self.acts = False

    def _hurry(self) -> None:
        self.is_hasty = True
        self._turns.pass_on()


def _wake(waiter: asyncio.Future[None]) -> bool:
    """Wake who waits; say whether it did still wait."""
    if waiter.done():
        return False
    waiter.set_result(None)
    return True


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

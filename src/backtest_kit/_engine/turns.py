"""Runs that act on one thing in the order of simulated time, whichever is computed first."""

from __future__ import annotations

import asyncio
from typing import Final

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
        """Wake the run whose turn it is, if it waits for it."""
        first = min(self._turns, key=lambda turn: turn.key, default=None)
        if first is not None and first.waiter is not None and not first.waiter.done():
            first.waiter.set_result(None)


class Turn:
    """The place of one run: `key` is the earliest that it may do next."""

    def __init__(self, turns: Turns, order: int) -> None:
        self._turns = turns
        self.order = order
        self.key: _Key = (0, 0, order)
        self.waiter: asyncio.Future[None] | None = None

    async def wait(self, when: int, what: int) -> None:
        """Wait until nothing of any other run comes before `what` this one does at `when` (ms)."""
        self.key = max(self.key, (when, what, self.order))
        if self._turns.is_first(self):
            return
        self._turns.pass_on()
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def leave(self) -> None:
        """End: the others no longer wait for this run."""
        self._turns.leave(self)

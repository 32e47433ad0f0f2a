"""Commands to live runs: each a document of its own, written by whoever sends it.

A run reads them at its next step, notes in its own document what came of each, in the same write as
what it did, and then deletes them. So a command is done once, wherever a process is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from backtest_kit._state.documents import Document, LiveState, RunKey
from backtest_kit._state.envelope import DamagedError
from backtest_kit._state.lock import Owner
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.commands import Order
from backtest_kit._values.errors import CorruptStateError
from backtest_kit._values.time import MINUTE, Instant, iso

#: The kind of these documents.
COMMAND: Final = "command"


class Command(Document, frozen=True, kw_only=True):
    """What a live run is to do; `sent_at` in milliseconds by the sender's wall clock.

    `keep`: also if the run ends before it has read it, and starts again. A document of before
    there was this field is kept.
    """

    id: str
    exchange_name: str
    strategy_name: str
    symbol: str
    sent_at: Instant
    order: Order
    keep: bool = True

    @property
    def run(self) -> RunKey:
        """Which run it is for."""
        return RunKey(self.exchange_name, self.strategy_name, self.symbol)

    def check(self, key: str) -> None:
        """Compare the names in it with its key."""
        if command_key(self.run, self.id) != key:
            raise DamagedError(f"it is the command {command_key(self.run, self.id)}, not {key}")


class Commands:
    """The commands in the state that wait for runs."""

    def __init__(self, store: DocumentStore, report: Callable[[str, Exception], None]) -> None:
        self._store = store
        self._report = report

    async def waiting(self, key: RunKey) -> list[Command]:
        """Return the commands to a run, in the order in which they were sent.

        One that is damaged is moved aside, and reported.

        Raises:
            StateError: they can't be read.
        """
        begin, found = f"{key}/", list[Command]()
        for name in await self._store.keys(COMMAND):
            if not name.startswith(begin):
                continue
            try:
                command = await self._store.read(COMMAND, name, Command)
            except CorruptStateError as error:
                self._report("command", error)
                continue
            if command is not None:
                found.append(command)
        return sorted(found, key=lambda command: (command.sent_at, command.id))

    async def forget(self, command: Command) -> None:
        """Delete a command that has been answered; raises StateError."""
        await self._store.delete(COMMAND, command_key(command.run, command.id))


def command_key(key: RunKey, name: str) -> str:
    """Return the key of a command: the run's own, then its id."""
    return f"{key}/{quote(name, safe='')}"


def why_not_running(state: LiveState | None, owner: Owner | None, step: int, now: int) -> str:
    """Return why a run does not seem to run; "" if it does.

    `owner` is who has the state (`None`: nobody, or the adapter can't tell), `step` the newest step
    of the run and `now` the time, both in milliseconds.
    """
    if state is None:
        return "it has never run"
    session = state.session
    if session is None:
        return (
            "it has ended" if state.at is None else f"it has ended, after its step {iso(state.at)}"
        )
    process = session.owner
    # its number may have been another's, as in containers
    if owner is not None and _who(owner) != _who(process):
        return f"it ran in {process}, and another process has the state now"
    alive = process.alive()
    if alive is False:
        return f"it ran in {process}, which runs no more"
    late = 2 * session.every + MINUTE
    if alive is None and not session.recorded and now - max(step, session.since) > late:
        return f"its newest step is that of {iso(step)}, in {process}"
    return ""


def _who(owner: Owner) -> tuple[int, str, int]:
    return owner.pid, owner.host, owner.since

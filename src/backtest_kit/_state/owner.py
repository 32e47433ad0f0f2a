"""Which live runs of this process use the durable state, and since when it is this process's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from backtest_kit._state.accounts import Accounts
from backtest_kit._state.adapter import PersistAdapter, finish
from backtest_kit._state.commands import Commands
from backtest_kit._state.cursors import Cursors
from backtest_kit._state.documents import LiveState, RunKey, Session
from backtest_kit._state.heartbeats import Heartbeats
from backtest_kit._state.journal import Journal
from backtest_kit._state.lock import this_process
from backtest_kit._state.runs import RunDocuments
from backtest_kit._state.storage import DocumentStore
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config
from backtest_kit._values.errors import StateError
from backtest_kit._values.positions import Until
from backtest_kit._values.time import INTERVALS


class StateOwner:
    """The state of an engine's live runs: taken by the first run, given back by the last.

    `adapter` chooses where it is kept, each time it is taken; `report` is told what went wrong
    without ending a run, and where.
    """

    def __init__(
        self,
        adapter: Callable[[], PersistAdapter],
        report: Callable[[str, Exception], None],
        clock: Callable[[], Clock],
    ) -> None:
        self._choose = adapter
        self.report = report
        self._clock = clock
        self._store = DocumentStore(clock)
        self._locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
        self.journal = Journal(self._store, report)
        self.heartbeats = Heartbeats(self._store, report, clock)
        self.runs = RunDocuments(self._store, report, self.journal, self.heartbeats)
        self.cursors = Cursors(self._store, report)
        self.commands = Commands(self._store, report)
        self.accounts = Accounts(self._store)
        #: Runs that somebody of this process has sent a command to.
        self.sent_to: set[RunKey] = set()
        #: This process as whoever looks at the state sees it.
        self.process = this_process()
        #: Runs that have ended and may still have something to write.
        self._leaving = 0
        #: What stops each run of this process.
        self.running: dict[RunKey, Callable[[], None]] = {}

    @property
    def adapter(self) -> PersistAdapter:
        """Where the state is kept: what is in use, else what would be."""
        return self._store.adapter or self._choose()

    def session(self, config: Config, *, recorded: bool) -> Session:
        """Return what says that a run runs in this process from now on."""
        every = INTERVALS[config.base_interval]
        return Session(self.process, self._clock().wall_ms(), every, recorded)

    async def enter(self, key: RunKey, stop: Callable[[], None]) -> LiveState:
        """Return where a run stands; it is this process's from now on.

        Raises:
            StateOwnedError: another process has the state.
            CorruptStateError: the run's document is damaged, gone or an older copy, or was before
                and nobody saw to it.
            StateError: the run already runs, or the state can't be read or written.
        """
        async with self._turn():
            if key in self.running:
                raise StateError(
                    f"{key.strategy_name} on {key.symbol} ({key.exchange_name}) already runs live "
                    "in this process"
                )
            if not self._store.is_open:
                await self._open()
            self.running[key] = stop
        try:
            return await self.runs.current(key)
        except BaseException:
            await self.leave(key)
            raise

    async def leave(self, key: RunKey) -> None:
        """Give a run back; the last one gives the state back, also where this is cancelled."""
        await finish(asyncio.ensure_future(self._leave(key)))

    async def _leave(self, key: RunKey) -> None:
        self.running.pop(key, None)
        if not self.running:
            self.heartbeats.stop()
        self._leaving += 1
        try:
            await self._store.settled()
            await self.runs.confirm(key)
        except StateError as error:
            self.report("state", error)
        finally:
            self._leaving -= 1
        async with self._turn():  # who enters now waits until the state was given back
            if self.running or self._leaving:
                return
            try:
                await self._store.close()
            except Exception as error:  # noqa: BLE001 - the run's own outcome matters more
                self.report("state", error)

    def positions_elsewhere(self, key: RunKey) -> dict[str, list[Until]]:
        """Return, by risk profile, the open positions of runs that don't run in this process."""
        return self.runs.open_positions(but={key, *self.running})

    async def _open(self) -> None:
        """Take the state for this process, and read what is in it."""
        await self._store.open(self._choose())
        try:
            self.process = await self._store.owner() or this_process()
            await self.heartbeats.load()
            await self.runs.load()
        except BaseException:
            await self._store.close()
            raise

    def _turn(self) -> asyncio.Lock:
        """Return what lets one run at a time take the state or give it back."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

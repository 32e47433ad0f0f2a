"""The document of each live run: its open signal, throttle and outbox."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

import msgspec

from backtest_kit._state.documents import LiveState, RunKey, encode, nothing_stored, run_key
from backtest_kit._state.heartbeats import Heartbeats
from backtest_kit._state.journal import Journal
from backtest_kit._state.storage import SET_ASIDE, DocumentStore
from backtest_kit._values.errors import CorruptStateError, StateError
from backtest_kit._values.positions import Until, position_of
from backtest_kit._values.signal import SignalRow, expires_at
from backtest_kit._values.time import MINUTE


class RunDocuments:
    """The newest stored document of every run in the state, whichever process it ran in."""

    def __init__(
        self,
        store: DocumentStore,
        report: Callable[[str, Exception], None],
        journal: Journal,
        heartbeats: Heartbeats,
    ) -> None:
        self._store = store
        self._report = report
        self._journal = journal
        self._heartbeats = heartbeats
        self._states: dict[RunKey, LiveState] = {}
        #: What is wrong with runs whose document is damaged, gone or an older copy.
        self._damaged: dict[RunKey, str] = {}
        #: Runs of which a write failed, so that what is stored is not known.
        self._doubtful: set[RunKey] = set()

    async def load(self) -> None:
        """Read the documents of all runs; what is wrong with one is reported, and concerns it only.

        Raises:
            StateError: the state can't be read.
        """
        self._states, self._damaged, self._doubtful = {}, {}, set()
        for key in self._keys(await self._store.keys("run"), "the state"):
            try:
                await self._load(key)
            except StateError as error:
                self._report("state", error)
        for text in await self._store.keys(f"run{SET_ASIDE}"):
            place = self._store.where(f"run{SET_ASIDE}", text)
            for key in self._keys([text.partition(" ")[0]], place):
                if key not in self._states and key not in self._damaged:
                    self._damaged[key] = self._remedy(key, f"was moved to {place}", place)
        for found, text in await self._store.unreadable("run"):
            self._report("state", StateError(text))
            for key in self._keys([] if found is None else [found], text):
                if key not in self._states:
                    self._damaged.setdefault(key, text)

    async def current(self, key: RunKey) -> LiveState:
        """Return where a run stands; an empty document if nothing is stored of it.

        Raises:
            CorruptStateError: the document is damaged, gone or an older copy; or it was moved aside
                and not replaced since.
            StateError: it can't be read.
        """
        if key in self._damaged:
            raise CorruptStateError(self._damaged[key])
        if key not in self._states:
            # the adapter's list may have left it out, as `FileAdapter` does with a damaged document
            await self._load(key)
        return self._states.get(key) or nothing_stored(key)

    async def write(self, state: LiveState) -> None:
        """Make a run's state durable.

        Raises:
            StateError: that failed; then nothing has changed, or `confirm` must be called.
        """
        key = state.key

        def written() -> None:
            self._states[key] = state
            self._doubtful.discard(key)

        self._doubtful.add(key)
        try:
            await self._store.write("run", str(key), state, then=written)
        except StateError:
            with suppress(StateError):  # it stays doubtful
                await self._undo(key)
            raise

    async def confirm(self, key: RunKey) -> None:
        """Store again what is known to be stored, where a write failed and may have been done.

        Raises:
            StateError: that failed too; what is stored is still not known.
        """
        if key not in self._doubtful:
            return
        state = self._states.get(key)
        if state is None:
            await self._store.delete("run", str(key))
        else:
            await self._store.write("run", str(key), state)
        self._doubtful.discard(key)

    async def _undo(self, key: RunKey) -> None:
        """Make sure that a write which failed was not done: look, and store the earlier state."""
        state = self._states.get(key)
        content = await self._store.content("run", str(key))
        if content == (None if state is None else encode("run", str(key), state)):
            self._doubtful.discard(key)
        else:
            await self.confirm(key)

    def stored(self, key: RunKey) -> LiveState | None:
        """Return the newest document of a run that is known to be stored."""
        return self._states.get(key)

    def open_positions(self, but: Collection[RunKey]) -> dict[str, list[Until]]:
        """Return, by risk profile, the open positions of the runs that are not in `but`.

        Each counts until its lifetime is over: a run that never comes back frees its slot then.
        """
        held: dict[str, list[Until]] = {}
        for key, state in self._states.items():
            row = state.signal
            if key not in but and row is not None and row.pending_at is not None:
                for name in state.risk_names:
                    held.setdefault(name, []).append((position_of(row), _until(state, row)))
        return held

    def of_account(self, name: str) -> list[LiveState]:
        """Return the newest documents of the runs that have a part in an account."""
        return [
            state
            for state in self._states.values()
            if state.account is not None and state.account.name == name
        ]

    def oldest_step(self) -> int:
        """Return the earliest of the runs' newest steps (ms): no run acts before it any more."""
        return min((state.at or 0 for state in self._states.values()), default=0)

    async def _load(self, key: RunKey) -> None:
        """Read a run's document, and compare it with what else is known of the run."""

        def explain(error: ValueError, place: str) -> str:
            self._damaged[key] = self._remedy(key, f"was moved to {place}", place, str(error))
            return self._damaged[key]

        try:
            state = await self._store.read("run", str(key), LiveState, explain)
        except CorruptStateError:
            # whoever puts a copy back, or begins with nothing, now knows what happened
            await self._tell(key, (await self._journal.reach(key)).revision)
            raise
        stored = nothing_stored(key) if state is None else state
        reach = await self._journal.reach(key, stored.sequence)
        newest = max(reach.revision, self._heartbeats.revision(key))
        if newest > stored.revision:
            if newest > self._heartbeats.told(key):
                await self._refuse(key, state, newest)
            if state is not None:
                self._report("state", StateError(_goes_on(key)))
            sequence = max(stored.sequence, reach.sequence)
            stored = msgspec.structs.replace(stored, revision=newest, sequence=sequence)
            if (
                not stored.outbox
            ):  # what came after this copy has been told, and is not true any more
                stored = msgspec.structs.replace(stored, told=sequence, heard=sequence)
        self._damaged.pop(key, None)
        if newest or state is not None:
            self._states[key] = stored

    async def _refuse(self, key: RunKey, state: LiveState | None, newest: int) -> None:
        """Set a document aside that is an older copy, or a note in its place; raise."""
        content = await self._store.content("run", str(key))
        place = await self._store.set_aside("run", str(key), content or b"")
        if state is None:
            what = f"is gone, though it had been written {newest} times (see {place})"
        else:
            what = (
                f"is an older copy (written {state.revision} times, and the newest one {newest} "
                f"times); it was moved to {place}"
            )
        self._damaged[key] = self._remedy(key, what, place)
        await self._tell(key, newest)
        raise CorruptStateError(self._damaged[key])

    async def _tell(self, key: RunKey, revision: int) -> None:
        await self._heartbeats.tell(key, max(revision, self._heartbeats.revision(key)))

    def _keys(self, texts: Collection[str], place: str) -> list[RunKey]:
        """Return the keys that are those of runs; others are reported."""
        found = []
        for text in texts:
            try:
                found.append(run_key(text))
            except ValueError as error:
                self._report("state", StateError(f"{error}, found in {place}; it was left alone"))
        return found

    def _remedy(self, key: RunKey, what: str, place: str, why: str = "") -> str:
        damage = f"is damaged ({why}) and {what}" if why else what
        return (
            f"the state of {key.strategy_name} on {key.symbol} ({key.exchange_name}) {damage}; "
            "whether a position is open is not known. Put a good copy back as "
            f"{self._store.where('run', str(key))}, or delete {place} to begin with no position"
        )


def _until(state: LiveState, row: SignalRow) -> int:
    """Return when the life of an open position ends, which may have been extended (ms)."""
    held, begun = state.position, row.pending_at
    if held is None or held.minutes is None or begun is None:
        return expires_at(row)
    return begun + held.minutes * MINUTE


def _goes_on(key: RunKey) -> str:
    return (
        f"{key.strategy_name} on {key.symbol} ({key.exchange_name}) goes on from an older copy of "
        "its state, as told before: what was opened or closed after it is not known to it"
    )

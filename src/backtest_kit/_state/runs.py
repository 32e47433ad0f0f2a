"""The document of each live run: its open signal, throttle and outbox."""

from __future__ import annotations

from collections.abc import Callable, Collection

from backtest_kit._state.documents import LiveState, RunKey, run_key
from backtest_kit._state.storage import SET_ASIDE, DocumentStore
from backtest_kit._values.errors import CorruptStateError
from backtest_kit._values.positions import Until, position_of
from backtest_kit._values.signal import expires_at


class RunDocuments:
    """The newest stored document of every run in the state, whichever process it ran in."""

    def __init__(self, store: DocumentStore, report: Callable[[str, Exception], None]) -> None:
        self._store = store
        self._report = report
        self._states: dict[RunKey, LiveState] = {}
        #: What is wrong with runs whose document was moved aside.
        self._damaged: dict[RunKey, str] = {}

    async def load(self) -> None:
        """Read the documents of all runs; damaged ones are moved aside and reported.

        Raises:
            StateError: they can't be read, or a newer release wrote one.
        """
        self._states, self._damaged = {}, {}
        for text in await self._store.keys(f"run{SET_ASIDE}"):
            key = run_key(text.partition(" ")[0])
            place = self._store.where(f"run{SET_ASIDE}", text)
            self._damaged[key] = self._remedy(key, place)
        for text in await self._store.keys("run"):
            key = run_key(text)
            try:
                state = await self._read(key)
            except CorruptStateError as error:
                self._damaged[key] = str(error)
                self._report("state", error)
            else:
                if state is not None:
                    self._states[key] = state
                    self._damaged.pop(key, None)

    async def current(self, key: RunKey) -> LiveState:
        """Return where a run stands; an empty document if nothing is stored of it.

        Raises:
            CorruptStateError: the document is damaged, or was moved aside and not replaced since.
            StateError: it can't be read.
        """
        if key in self._damaged:
            raise CorruptStateError(self._damaged[key])
        if key in self._states:
            return self._states[key]
        # the adapter's list may have left it out, as `FileAdapter` does with a damaged document
        try:
            state = await self._read(key)
        except CorruptStateError as error:
            self._damaged[key] = str(error)
            raise
        if state is None:
            return LiveState(
                exchange_name=key.exchange_name, strategy_name=key.strategy_name, symbol=key.symbol
            )
        self._states[key] = state
        return state

    async def write(self, state: LiveState) -> None:
        """Make a run's state durable.

        Raises:
            StateError: that failed; then nothing has changed.
        """

        def written() -> None:
            self._states[state.key] = state

        await self._store.write("run", str(state.key), state, then=written)

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
                    held.setdefault(name, []).append((position_of(row), expires_at(row)))
        return held

    def oldest_step(self) -> int:
        """Return the earliest of the runs' newest steps (ms): no run acts before it any more."""
        return min((state.at or 0 for state in self._states.values()), default=0)

    async def _read(self, key: RunKey) -> LiveState | None:
        def explain(error: ValueError, place: str) -> str:
            return f"{error}: {self._remedy(key, place)}"

        return await self._store.read("run", str(key), LiveState, explain)

    def _remedy(self, key: RunKey, place: str) -> str:
        return (
            f"the state of {key.strategy_name} on {key.symbol} ({key.exchange_name}) is damaged "
            f"and was moved to {place}; whether a position is open is not known. Put a good copy "
            f"back as {self._store.where('run', str(key))}, or delete the moved document to "
            "begin with no position"
        )

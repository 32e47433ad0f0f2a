"""The durable state of an engine's live runs: who owns it, what lives, what has happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from backtest_kit._state.adapter import PersistAdapter, call
from backtest_kit._state.documents import (
    PAGE,
    Heartbeat,
    LiveState,
    Page,
    RunKey,
    Transition,
    decode,
    encode,
    page_key,
    run_key,
)
from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import CorruptStateError, StateError
from backtest_kit._values.positions import Until, position_of
from backtest_kit._values.signal import expires_at
from backtest_kit._values.time import iso
from backtest_kit._values.user_code import of_user_code

T = TypeVar("T")
#: Added to a kind: where damaged documents of it are kept.
SET_ASIDE: Final = ".corrupt"
#: The key of the only document of heartbeats.
HEARTBEAT: Final = "all"


class LiveStates:
    """The documents of one adapter, as the live runs of one engine use them."""

    def __init__(
        self, adapter: Callable[[], PersistAdapter], report: Callable[[str, Exception], None]
    ) -> None:
        self._choose = adapter
        self._report = report
        self._adapter: PersistAdapter | None = None
        self._locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
        #: What stops each run of this process.
        self.running: dict[RunKey, Callable[[], None]] = {}
        self._states: dict[RunKey, LiveState] = {}
        self._damaged: dict[RunKey, str] = {}
        self._beats: dict[str, int] = {}
        self._based: dict[str, int] = {}
        self._beating: asyncio.Task[None] | None = None
        self._pending: set[asyncio.Task[Any]] = set()

    async def enter(self, key: RunKey, stop: Callable[[], None]) -> LiveState:
        """Return where a run stands; it is this process's from now on.

        Raises:
            StateOwnedError: another process has the state.
            CorruptStateError: the run's document is damaged, or was before and nobody saw to it.
            StateError: the run already runs, or the state can't be read or written.
        """
        async with self._turn():
            if key in self.running:
                raise StateError(
                    f"{key.strategy_name} on {key.symbol} ({key.exchange_name}) already runs live "
                    "in this process"
                )
            if self._adapter is None:
                await self._open()
            self.running[key] = stop
        try:
            if key not in self._states and key not in self._damaged:
                # a listing may have passed over a damaged document
                await self._read("run", str(key), LiveState)
        except BaseException:
            await self.leave(key)
            raise
        if key in self._damaged:
            await self.leave(key)
            raise CorruptStateError(self._damaged[key])
        return self._states.get(key) or LiveState(
            exchange_name=key.exchange_name, strategy_name=key.strategy_name, symbol=key.symbol
        )

    async def leave(self, key: RunKey) -> None:
        """Give a run back; the last one gives the state back."""
        self.running.pop(key, None)
        if not self.running and self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if self._pending:
            await asyncio.wait(set(self._pending))
        async with self._turn():  # who enters now waits until the state was given back
            if self.running or self._adapter is None:
                return
            adapter, self._adapter = self._adapter, None
            try:
                await _give_back(adapter)
            except Exception as error:  # noqa: BLE001 - the run's own outcome matters more
                self._report("state", error)

    def _turn(self) -> asyncio.Lock:
        """Return what lets one run at a time take the state or give it back."""
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())

    async def write(self, state: LiveState) -> None:
        """Make a run's state durable.

        Raises:
            StateError: that failed; then nothing has changed.
        """

        def written(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and task.exception() is None:
                self._states[state.key] = state

        await self._call("write", "run", str(state.key), encode(state), then=written)

    def stored(self, key: RunKey) -> LiveState | None:
        """Return what is stored of a run, as far as this process knows."""
        return self._states.get(key)

    async def journal(self, key: RunKey, entries: Iterable[Transition]) -> None:
        """Make transitions durable in the journal; doing so again changes nothing.

        Raises:
            StateError: that failed, or a page is damaged (it was set aside).
        """
        pages: dict[int, list[Transition]] = {}
        for entry in entries:
            pages.setdefault(entry.sequence // PAGE, []).append(entry)
        for number, new in pages.items():
            name = page_key(key, number)
            page = await self._read("journal", name, Page)
            kept = {entry.sequence: entry for entry in (page.transitions if page else ())}
            kept |= {entry.sequence: entry for entry in new}
            await self._write("journal", name, Page(tuple(kept[i] for i in sorted(kept))))

    async def history(self, state: LiveState) -> list[Transition]:
        """Return all transitions of a run, oldest first; damaged pages are reported."""
        found = {entry.sequence: entry for entry in state.outbox}
        for number in range(-(-state.sequence // PAGE)):
            try:
                page = await self._read("journal", page_key(state.key, number), Page)
            except CorruptStateError as error:
                self._report("journal", error)
                continue
            for entry in page.transitions if page else ():
                if entry.sequence < state.sequence:
                    found[entry.sequence] = entry
        return [found[i] for i in sorted(found)]

    def others(self, key: RunKey) -> dict[str, list[Until]]:
        """Return, by risk profile, the positions of runs that don't run in this process.

        Each counts until its lifetime is over: a run that never comes back frees its slot then.
        """
        held: dict[str, list[Until]] = {}
        for other, state in self._states.items():
            row = state.signal
            if other != key and other not in self.running and row and row.pending_at is not None:
                for name in state.risk_names:
                    held.setdefault(name, []).append((position_of(row), expires_at(row)))
        return held

    def slowest(self) -> int:
        """Return the earliest of the runs' newest steps: nothing acts before it any more."""
        return min((state.at or 0 for state in self._states.values()), default=0)

    def beat(self, key: RunKey, at: int) -> None:
        """Note that a run has done the step `at`; written for all runs together, soon."""
        state = self._states.get(key)
        self._beats[str(key)] = at
        if state is not None and state.at is not None:
            self._based[str(key)] = state.at
        if self._beating is None or self._beating.done():
            self._beating = asyncio.get_running_loop().create_task(self._beat())

    def last_beat(self, state: LiveState) -> int:
        """Return the newest step that was noted of a run, 0 if none was."""
        return self._heartbeat().last(state)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(dict(self._beats), dict(self._based))

    async def _beat(self) -> None:
        await asyncio.sleep(2)
        try:
            await self._write("heartbeat", HEARTBEAT, self._heartbeat())
        except StateError as error:
            self._report("heartbeat", error)

    async def _open(self) -> None:
        """Take the state for this process, and read what is in it."""
        adapter = self._choose()
        try:
            await _take(adapter)
        except StateError:
            raise
        except Exception as error:
            raise StateError(
                f"the state in {_place(adapter)} can't be used: {_why(error)}; make the folder "
                "writable, or choose another state_dir"
            ) from error
        self._adapter = adapter
        try:
            self._states, self._damaged = {}, {}
            for text in await self._call("list", f"run{SET_ASIDE}"):
                key = run_key(text.partition(" ")[0])
                self._damaged[key] = self._remedy(key, _where(adapter, f"run{SET_ASIDE}", text))
            for text in await self._call("list", "run"):
                key = run_key(text)
                try:
                    state = await self._read("run", text, LiveState)
                except CorruptStateError as error:
                    self._damaged[key] = str(error)
                    self._report("state", error)
                else:
                    if state is not None:
                        self._states[key] = state
                        self._damaged.pop(key, None)
            try:
                beat = await self._read("heartbeat", HEARTBEAT, Heartbeat)
            except CorruptStateError as error:
                self._report("heartbeat", error)
                beat = None
            self._beats, self._based = (dict(beat.at), dict(beat.of)) if beat else ({}, {})
        except BaseException:
            self._adapter = None
            await _give_back(adapter)
            raise

    async def _read(self, kind: str, key: str, type_: type[T]) -> T | None:
        """Read a document; a damaged one is set aside, never taken for none."""
        content = await self._call("read", kind, key)
        if content is None:
            return None
        try:
            return decode(kind, content, type_)
        except ValueError as error:
            stamp = iso(wall_ms() // 1000 * 1000).replace(":", "")
            kept = (kind + SET_ASIDE, f"{key} {stamp}")
            await self._call("write", *kept, content)
            await self._call("delete", kind, key)
            place = _where(self._adapter, *kept)
            if kind != "run":
                raise CorruptStateError(
                    f"{_where(self._adapter, kind, key)} is damaged ({error}); it was moved to "
                    f"{place}"
                ) from error
            raise CorruptStateError(f"{error}: " + self._remedy(run_key(key), place)) from error

    def _remedy(self, key: RunKey, place: str) -> str:
        return (
            f"the state of {key.strategy_name} on {key.symbol} ({key.exchange_name}) is damaged "
            f"and was moved to {place}; whether a position is open is not known. Put a good copy "
            f"back as {_where(self._adapter, 'run', str(key))}, or delete the moved document to "
            "begin with no position"
        )

    async def _write(self, kind: str, key: str, document: object) -> None:
        await self._call("write", kind, key, encode(document))

    async def _call(
        self,
        name: str,
        *arguments: object,
        then: Callable[[asyncio.Task[Any]], None] | None = None,
    ) -> Any:
        """Call the adapter. A call that has begun is finished, whatever becomes of the caller."""
        adapter = self._adapter
        assert adapter is not None
        task = asyncio.ensure_future(call(getattr(adapter, name), *arguments))
        self._pending.add(task)
        if then is not None:
            task.add_done_callback(then)
        task.add_done_callback(self._pending.discard)
        try:
            return await asyncio.shield(task)
        except StateError:
            raise
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001
            # nobody may write the same document before this is over, or think that it was not
            await asyncio.wait({task})
            error = of_user_code(failure)
            kind, *keys = map(str, arguments[:2])
            place = _where(adapter, kind, *keys) if keys else f"{kind} in {_place(adapter)}"
            ending = "; nothing was told that is not stored" if name == "write" else ""
            raise StateError(f"can't {name} {place}: {_why(error)}{ending}") from error


async def _take(adapter: PersistAdapter) -> None:
    """Take the state; where this is cancelled, give it back once it has been taken."""
    acquire = getattr(adapter, "acquire", None)
    if acquire is None:
        return
    task = asyncio.ensure_future(call(acquire))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            await _give_back(adapter)
        raise


async def _give_back(adapter: PersistAdapter) -> None:
    release = getattr(adapter, "release", None)
    if release is not None:
        await call(release)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _place(adapter: object) -> str:
    return str(getattr(adapter, "folder", None) or getattr(adapter, "path", None) or adapter)


def _where(adapter: object, kind: str, key: str) -> str:
    where = getattr(adapter, "where", None)
    return str(where(kind, key)) if where is not None else f"{kind} {key}"

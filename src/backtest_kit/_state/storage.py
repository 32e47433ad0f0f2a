"""Typed documents in a persist adapter: the one way in which the state is read and written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any, Final, TypeVar

from backtest_kit._state.adapter import PersistAdapter, call, finish
from backtest_kit._state.documents import decode, encode
from backtest_kit._state.envelope import DamagedError
from backtest_kit._state.lock import Owner
from backtest_kit._values.clock import Clock
from backtest_kit._values.errors import CorruptStateError, StateError
from backtest_kit._values.time import iso

T = TypeVar("T")
#: Added to a kind: where damaged documents of it are kept.
SET_ASIDE: Final = ".corrupt"


class DocumentStore:
    """The documents of the adapter in use, between `open` and `close`.

    Every call of the adapter that has begun is finished, whatever becomes of the caller.
    """

    def __init__(self, clock: Callable[[], Clock]) -> None:
        self._clock = clock
        self._adapter: PersistAdapter | None = None
        self._pending: set[asyncio.Task[Any]] = set()

    @property
    def adapter(self) -> PersistAdapter | None:
        """The adapter in use."""
        return self._adapter

    @property
    def is_open(self) -> bool:
        """Whether this process has the state."""
        return self._adapter is not None

    async def open(self, adapter: PersistAdapter) -> None:
        """Take the state of `adapter` for this process.

        Raises:
            StateOwnedError: another process has it.
            StateError: it can't be used.
        """
        try:
            await _acquire(adapter)
        except StateError:
            raise
        except Exception as error:
            raise StateError(
                f"the state in {_place(adapter)} can't be used: {_why(error)}; make the folder "
                "writable, or choose another state_dir"
            ) from error
        self._adapter = adapter

    async def close(self) -> None:
        """Give the state back; raises whatever the adapter's `release` raises."""
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            await finish(asyncio.ensure_future(_release(adapter)))

    async def settled(self) -> None:
        """Wait for the calls that are under way."""
        if self._pending:
            await asyncio.wait(set(self._pending))

    async def owner(self) -> Owner | None:
        """Return the process that has the state; `None` if the adapter can't tell.

        Raises:
            StateError: it fails to tell.
        """
        if not hasattr(self._adapter, "owner"):
            return None
        found = await self._call("owner")
        return found if isinstance(found, Owner) else None

    async def keys(self, kind: str) -> list[str]:
        """Return the keys of a kind; raises StateError."""
        return list(await self._call("list", kind))

    async def write(
        self, kind: str, key: str, document: object, *, then: Callable[[], None] | None = None
    ) -> None:
        """Make a document durable; `then` is called once it is, even if the caller is cancelled.

        Raises:
            StateError: that failed; the earlier document or the new one is stored.
        """
        try:
            content = encode(kind, key, document)
        except (ValueError, TypeError, OverflowError) as error:
            raise StateError(f"{self.where(kind, key)} can't be stored: {_why(error)}") from error
        await self._call("write", kind, key, content, then=then)

    async def delete(self, kind: str, key: str) -> None:
        """Remove a document; raises StateError."""
        await self._call("delete", kind, key)

    async def unreadable(self, kind: str) -> list[tuple[str | None, str]]:
        """Return what lies among the documents of a kind and can't be read: key, and a message.

        Raises:
            StateError: the adapter can't tell.
        """
        if not hasattr(self._adapter, "unreadable"):
            return []
        return list(await self._call("unreadable", kind))

    async def read(
        self,
        kind: str,
        key: str,
        type_: type[T],
        explain: Callable[[ValueError, str], str] | None = None,
    ) -> T | None:
        """Return a document, `None` if there is none.

        A damaged document is moved aside. `explain` returns the message for it, from what is wrong
        and where it was moved to.

        Raises:
            CorruptStateError: the document is damaged.
            StateError: it can't be read, or a newer release wrote it.
        """
        content = await self.content(kind, key)
        if content is None:
            return None
        try:
            return decode(kind, key, content, type_)
        except DamagedError as error:
            place = await self.set_aside(kind, key, content)
            if error.key is not None:
                await self._keep_for(kind, error.key, content)
            if explain is not None:
                raise CorruptStateError(explain(error, place)) from error
            raise CorruptStateError(
                f"{self.where(kind, key)} is damaged ({error}); it was moved to {place}"
            ) from error

    async def content(self, kind: str, key: str) -> bytes | None:
        """Return a document as it is stored, damaged or not; `None` if there is none.

        Raises:
            StateError: it can't be read.
        """
        content = await self._call("read", kind, key)
        return None if content is None else bytes(content)

    def where(self, kind: str, key: str) -> str:
        """Return a text that tells a person where a document is."""
        where = getattr(self._adapter, "where", None)
        return str(where(kind, key)) if where is not None else f"{kind} {key}"

    async def set_aside(self, kind: str, key: str, content: bytes) -> str:
        """Move a damaged document; return where it is now.

        Raises:
            StateError: it can't be moved.
        """
        place = await self._keep(kind, key, content)
        await self._call("delete", kind, key)
        return place

    async def _keep_for(self, kind: str, key: str, content: bytes) -> None:
        """Keep a document that lay in the place of another, if its own is not there.

        So its own run finds that something happened to it, and does not begin anew.
        """
        if await self._call("read", kind, key) is None:
            await self._keep(kind, key, content)

    async def _keep(self, kind: str, key: str, content: bytes) -> str:
        stamp = iso(self._clock().wall_ms() // 1000 * 1000).replace(":", "")
        name = f"{key} {stamp}"
        for number in count(2):  # several within a second
            if await self._call("read", kind + SET_ASIDE, name) is None:
                break
            name = f"{key} {stamp} {number}"
        await self._call("write", kind + SET_ASIDE, name, content)
        return self.where(kind + SET_ASIDE, name)

    async def _call(
        self, name: str, *arguments: Any, then: Callable[[], None] | None = None
    ) -> Any:
        adapter = self._adapter
        assert adapter is not None

        def ended(task: asyncio.Task[Any]) -> None:
            self._pending.discard(task)
            if then is not None and not task.cancelled() and task.exception() is None:
                then()

        task = asyncio.ensure_future(call(getattr(adapter, name), *arguments))
        self._pending.add(task)
        task.add_done_callback(ended)
        try:
            # nobody may write the same document before this is over, or think that it was not
            return await finish(task)
        except StateError:
            raise
        except Exception as error:
            kind, *keys = arguments[:2] or ("owner",)
            place = self.where(kind, *keys) if keys else f"{kind} in {_place(adapter)}"
            ending = "; nothing was reported that is not stored" if name == "write" else ""
            raise StateError(f"can't {name} {place}: {_why(error)}{ending}") from error


async def _acquire(adapter: PersistAdapter) -> None:
    """Take the state; where this is cancelled, give it back once it has been taken."""
    acquire = getattr(adapter, "acquire", None)
    if acquire is None:
        return
    task = asyncio.ensure_future(call(acquire))
    try:
        await finish(task)
    except asyncio.CancelledError:
        if not task.cancelled() and task.exception() is None:
            await finish(asyncio.ensure_future(_release(adapter)))
        raise


async def _release(adapter: PersistAdapter) -> None:
    release = getattr(adapter, "release", None)
    if release is not None:
        await call(release)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _place(adapter: object) -> str:
    return str(getattr(adapter, "folder", None) or getattr(adapter, "path", None) or adapter)

"""Checks that every persist adapter must pass, and an adapter in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from backtest_kit._state.adapter import PersistAdapter, call, check_adapter_shape
from backtest_kit._values.errors import StateOwnedError

Make = Callable[[], Any]
#: Keys that must stay distinct, safe and recoverable.
HOSTILE_KEYS: Final = (
    "BTC/USDT:USDT",
    "BTC_USDT_USDT",
    "btc/usdt:usdt",
    "../../etc/x",
    "/etc/x",
    "..",
    ".hidden",
    "CON",
    "a b\tc\nd",
    "quote'\"`",
    "%2F",
    "é",
    "e\u0301",
    "策略",
    "s" * 300,
    "s" * 299 + "t",
)


class MemoryAdapter:
    """State in a dict: for tests, and for runs that need not survive. Shared by its handles."""

    def __init__(self, documents: dict[tuple[str, str], bytes] | None = None) -> None:
        self.documents = {} if documents is None else documents

    async def read(self, kind: str, key: str) -> bytes | None:
        """Return the document, or `None`."""
        return self.documents.get((kind, key))

    async def write(self, kind: str, key: str, document: bytes) -> None:
        """Store a document."""
        self.documents[kind, key] = bytes(document)

    async def delete(self, kind: str, key: str) -> None:
        """Remove a document."""
        self.documents.pop((kind, key), None)

    async def list(self, kind: str) -> list[str]:
        """Return the keys of a kind, sorted."""
        return sorted(key for own, key in self.documents if own == kind)


def check_adapter(make: Make) -> None:
    """Run all checks on what `make()` returns: handles on one place that is empty at first.

    Raises:
        AssertionError: a check failed; the message says what was expected.
    """
    for check in ADAPTER_CHECKS:
        check(make)


def a_document_comes_back_as_it_was(make: Make) -> None:
    """What is written is read, byte for byte, whatever its size; the newest one counts."""
    adapter = _adapter(make)
    for document in (b"{}", '{"é": "策略"}'.encode(), b'"' + b"x" * 1_000_000 + b'"', b"[1]"):
        _do(adapter.write, "check", "document", document)
        assert _do(adapter.read, "check", "document") == document, (
            "read differs from what was written"
        )
    _do(adapter.delete, "check", "document")
    _release(adapter)


def what_is_not_there_is_none(make: Make) -> None:
    """Reading what is not there returns `None`, and deleting it is no error."""
    adapter = _adapter(make)
    assert _do(adapter.read, "check", "nothing") is None, "read of a missing document is not None"
    assert _do(adapter.list, "check") == [], "list of an empty kind is not []"
    _do(adapter.delete, "check", "nothing")
    _do(adapter.write, "check", "gone", b"1")
    _do(adapter.delete, "check", "gone")
    assert _do(adapter.read, "check", "gone") is None, "a deleted document can still be read"
    assert _do(adapter.list, "check") == [], "a deleted document is still listed"
    _release(adapter)


def keys_are_distinct_and_recoverable(make: Make) -> None:
    """Any text is a key of its own, listed as it was given."""
    adapter = _adapter(make)
    for i, key in enumerate(HOSTILE_KEYS):
        _do(adapter.write, "check", key, b"%d" % i)
    for i, key in enumerate(HOSTILE_KEYS):
        assert _do(adapter.read, "check", key) == b"%d" % i, f"{key!r} collides with another key"
    assert list(_do(adapter.list, "check")) == sorted(HOSTILE_KEYS), "list differs from the keys"
    for key in HOSTILE_KEYS:
        _do(adapter.delete, "check", key)
    assert _do(adapter.list, "check") == [], "a key can't be deleted"
    _release(adapter)


def kinds_are_separate(make: Make) -> None:
    """The same key in two kinds names two documents."""
    adapter = _adapter(make)
    _do(adapter.write, "check", "key", b"1")
    _do(adapter.write, "check.other", "key", b"2")
    assert _do(adapter.read, "check", "key") == b"1", "kinds share a document"
    _do(adapter.delete, "check", "key")
    assert _do(adapter.list, "check.other") == ["key"], "deleting in one kind reached another"
    _do(adapter.delete, "check.other", "key")
    _release(adapter)


def another_handle_sees_what_was_written(make: Make) -> None:
    """A document is there for whoever opens the place later."""
    first = _adapter(make)
    _do(first.write, "check", "kept", b"1")
    _release(first)
    second = _adapter(make)
    assert _do(second.read, "check", "kept") == b"1", "a document did not outlive its handle"
    _do(second.delete, "check", "kept")
    _release(second)


def documents_written_at_once_stay_apart(make: Make) -> None:
    """Writes of different documents from several threads don't disturb each other."""
    adapter = _adapter(make)

    def write(i: int) -> None:
        for n in range(10):
            _do(adapter.write, "check", f"document {i}", b"%d" % (100 * i + n))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(8)))
    for i in range(8):
        assert _do(adapter.read, "check", f"document {i}") == b"%d" % (100 * i + 9), (
            "a write was lost"
        )
        _do(adapter.delete, "check", f"document {i}")
    _release(adapter)


def a_second_owner_is_refused(make: Make) -> None:
    """Where an adapter has `acquire`, one owner excludes another, who is told of the first."""
    first, second = make(), make()
    if not hasattr(first, "acquire"):
        return
    _do(first.acquire)
    refusal = ""
    try:
        _do(second.acquire)
    except StateOwnedError as error:
        refusal = str(error)
    assert refusal, "two owners at once, or a refusal that says nothing"
    _do(first.release)
    _do(second.acquire)
    _do(second.release)


def a_command_reaches_the_owner(make: Make) -> None:
    """Who has not acquired the state can write a document, which its owner lists and deletes."""
    owner, sender = _adapter(make), make()
    _do(sender.write, "check", "command", b"1")
    _release(sender)
    assert _do(owner.list, "check") == ["command"], "the owner does not list what another wrote"
    assert _do(owner.read, "check", "command") == b"1", "the owner can't read what another wrote"
    _do(owner.delete, "check", "command")
    assert _do(make().read, "check", "command") is None, "what its owner deleted is still there"
    _release(owner)


#: All checks; each takes a function that returns a handle on one place, the same every time.
ADAPTER_CHECKS: Final = (
    a_document_comes_back_as_it_was,
    what_is_not_there_is_none,
    keys_are_distinct_and_recoverable,
    kinds_are_separate,
    another_handle_sees_what_was_written,
    documents_written_at_once_stay_apart,
    a_second_owner_is_refused,
    a_command_reaches_the_owner,
)


def _adapter(make: Make) -> PersistAdapter:
    adapter = make()
    check_adapter_shape(adapter)
    acquire = getattr(adapter, "acquire", None)
    if acquire is not None:
        _do(acquire)
    return adapter  # type: ignore[no-any-return]


def _release(adapter: object) -> None:
    release = getattr(adapter, "release", None)
    if release is not None:
        _do(release)


def _do(function: Callable[..., Any], *arguments: object) -> Any:
    return asyncio.run(call(function, *arguments))

"""The protocol of persist adapters: where live state is stored."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.user_code import call_once

T = TypeVar("T")
REQUIRED = ("read", "write", "delete", "list")


@runtime_checkable
class PersistAdapter(Protocol):
    """Stores documents (bytes of UTF-8 JSON) by kind and key (any non-empty strings).

    Methods may be sync (they run in worker threads, never two at once for one document) or async.
    When `write` returns, the document is durable and whole. After a crash before that, and after a
    `write` that raised, the earlier document or the new one is there, whole; but what raised must
    not be stored later on. The caller then writes again before it goes on. Every call comes to an
    end, if need be by a time limit of the adapter: nobody gives up waiting for it. `read` and
    `list` also work without `acquire`, while another process writes; so does `write`, which is how
    commands reach a run of another process. An adapter may also have

    - `acquire()`, which excludes other owners or raises `StateOwnedError` naming the present one,
      and `release()`; without them nothing keeps a second process from using the same state;
    - `where(kind, key)`, which returns a text that tells a person where the document is;
    - `owner()`, which returns the present owner as a text, or `None`;
    - `unreadable(kind)`, which returns what lies among the documents of a kind and is not listed:
      for each a text for a person, with the key it seems to have or `None`.

    `backtest_kit.testing.check_adapter` tests all of this.
    """

    def read(self, kind: str, key: str) -> Any:
        """Return the document, or `None` where there is none."""
        ...

    def write(self, kind: str, key: str, document: bytes) -> Any:
        """Store the document in place of an earlier one."""
        ...

    def delete(self, kind: str, key: str) -> Any:
        """Remove the document; it is no error if there is none."""
        ...

    def list(self, kind: str) -> Any:
        """Return the keys of a kind as a list, sorted."""
        ...


def check_adapter_shape(adapter: object) -> None:
    """Check that an object has the methods of an adapter.

    Raises:
        RegistrationError: a method is missing; the message names it.
    """
    missing = [name for name in REQUIRED if not callable(getattr(adapter, name, None))]
    if missing:
        raise RegistrationError(
            f"{adapter!r} is no persist adapter: it lacks {', '.join(missing)} "
            "(see backtest_kit.PersistAdapter)"
        )


async def finish(task: asyncio.Future[T]) -> T:
    """Wait for a task, through any number of cancellations, which are raised once it is done."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # seen, though the cancellation hides it
    raise cancelled


async def call(function: Callable[..., Any], *arguments: object) -> Any:
    """Call an adapter's method, a sync one in a thread. A call once begun is finished."""
    if inspect.iscoroutinefunction(function):
        return await call_once(function, *arguments)
    return await call_once(asyncio.to_thread, function, *arguments)

"""Sync code of users off the event loop, so that what blocks holds up nobody else."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from backtest_kit._engine.ambient import market_loop
from backtest_kit._values.user_code import call_once

_Call = tuple[
    asyncio.AbstractEventLoop, asyncio.Future[Any], contextvars.Context, Callable[[], Any]
]


class CallThread:
    """Makes calls one after another: async ones on the event loop, sync ones in a thread.

    The thread begins with the first sync call and ends with this object. It is a daemon: a call
    that never returns does not hold up the exit of the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] | None = None

    async def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Return what a function answers; raises whatever it raises.

        A caller that is cancelled does not end a sync call: the next one comes after it.
        """
        if is_async(function):
            return await call_once(function, *arguments)
        answer = await self._in_thread(lambda: function(*arguments))
        return await call_once(lambda: answer) if inspect.isawaitable(answer) else answer

    def _in_thread(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        if self._calls is None:
            self._calls = SimpleQueue()
            weakref.finalize(self, self._calls.put, None)
            threading.Thread(
                target=_work, args=(self._calls,), daemon=True, name=self._name
            ).start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        context.run(market_loop.set, loop)
        self._calls.put((loop, future, context, call))
        return future


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether calling a function only makes a coroutine, so that the call can't block."""
    called = getattr(function, "__call__", None)  # noqa: B004 - an object's own method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def name_of(function: Callable[..., Any]) -> str:
    """Return what to call a function in a message."""
    inner = getattr(function, "func", function)  # of functools.partial
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (item := calls.get()) is not None:
        _one(*item)
        del item  # or what it holds would live until the next call


def _one(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    context: contextvars.Context,
    call: Callable[[], Any],
) -> None:
    def settle(method: Callable[[Any], None], value: object) -> None:
        if not future.done():
            method(value)

    try:
        outcome = (future.set_result, context.run(call))
    except (asyncio.CancelledError, StopIteration) as error:
        # of the user's own doing; a future can carry neither
        outcome = (future.set_exception, RuntimeError(f"raised {type(error).__name__}"))
    except BaseException as error:  # noqa: BLE001 - carried to the event loop
        outcome = (future.set_exception, error)
    try:
        loop.call_soon_threadsafe(settle, *outcome)
    except RuntimeError:  # the loop has closed: nobody waits any more
        return

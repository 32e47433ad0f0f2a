"""Runs as background tasks, and runs started from sync code."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any, Generic, Literal, TypeVar

from backtest_kit._engine.guard import call_user_code
from backtest_kit._values.schemas import ExchangeSchema

T = TypeVar("T")
Status = Literal["running", "stopping", "done", "cancelled", "failed"]


class RunTask(Generic[T]):
    """A run in the background. Awaiting it waits for its end, and raises the error."""

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        stop: Callable[[], None],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._stop = stop
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(lambda _: ended())
        # the error was emitted on the exit channel: asyncio need not log it again
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def __await__(self) -> Generator[Any, None, T]:
        return self._task.__await__()

    @property
    def status(self) -> Status:
        """The status of the run."""
        if not self._task.done():
            return "stopping" if self._stopping else "running"
        if self._task.cancelled():
            return "cancelled"
        return "failed" if self._task.exception() is not None else "done"

    def stop(self) -> None:
        """Take no new signals; an open position is followed to its close. Returns at once."""
        self._stopping = True
        self._stop()

    def cancel(self) -> None:
        """End the run at once. May be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)


async def collect(results: AsyncGenerator[T, None]) -> list[T]:
    """Return all results of a run as a list, and close the run, also after an error."""
    async with aclosing(results):
        return [result async for result in results]


async def exhaust(results: AsyncGenerator[object, None]) -> None:
    """Iterate a run to its end, and close it, also after an error."""
    async with aclosing(results):
        async for _ in results:
            pass


async def close_exchange(exchange: ExchangeSchema) -> None:
    """Close the connections of an exchange, where it has any."""
    if exchange.close is not None:
        await call_user_code(exchange.close)


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end; inside a running event loop, in a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run: Callable[[Callable[[], Coroutine[Any, Any, T]]], T] = _here
    else:
        run = _in_thread
    # not while the error is handled: all others would have it as context, and with it these frames
    return run(work)


def _here(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(work())


def _in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    outcome: list[tuple[T, None] | tuple[None, BaseException]] = []
    handle: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def main() -> T:
        task = asyncio.ensure_future(work())
        handle.append((asyncio.get_running_loop(), task))
        return await task

    def target() -> None:
        try:
            outcome.append((asyncio.run(main()), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.append((None, error))

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(target,), daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        if handle:
            loop, task = handle[0]
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]

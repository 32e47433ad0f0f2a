"""What passes between user code and the engine around it: missing candles, and cancellations."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


class CandlesNotLoaded(BaseException):
    """Raised through synchronous user code that reads candles which are not loaded.

    The caller loads them and calls the function again from its beginning.
    """

    def __init__(self, symbol: str, interval: str, limit: int, when: int) -> None:
        super().__init__(symbol, interval, limit, when)
        self.request = (symbol, interval, limit, when)


def of_user_code(error: BaseException) -> Exception:
    """Return what user code raised as an error; a cancellation of the run itself is raised."""
    if isinstance(error, Exception):
        return error
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return RuntimeError(
        "raised CancelledError, though only a task that it waited for was cancelled"
    )


async def call_once(function: Callable[..., Any], *arguments: object) -> Any:
    """Call user code, sync or async, and return its answer.

    Raises:
        Exception: whatever it raises; a `CancelledError` that is not the caller's own cancellation
            comes as a `RuntimeError`.
        CandlesNotLoaded: sync code has read candles that are not loaded.
    """
    try:
        answer = function(*arguments)
        # asking whether something is awaitable costs more than all the rest, and most answer None
        return await answer if answer is not None and inspect.isawaitable(answer) else answer
    except asyncio.CancelledError as error:
        raise of_user_code(error) from error

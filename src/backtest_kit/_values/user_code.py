"""What passes between user code and the engine around it: missing candles, and cancellations."""

from __future__ import annotations

import asyncio


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

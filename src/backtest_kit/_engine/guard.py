"""The one guard around user code: strategies, risk checks, callbacks and listeners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backtest_kit._engine.ambient import moment_of
from backtest_kit._values.config import Config
from backtest_kit._values.errors import CallbackTimeoutError
from backtest_kit._values.user_code import CandlesNotLoaded, call_once, of_user_code


async def call_user_code(function: Callable[..., Any], *arguments: object) -> Any:
    """Call user code, sync or async, and return its answer.

    Sync code that reads candles which are not loaded is called again once they are.

    Raises:
        Exception: whatever it raises, or what loading its candles does; a `CancelledError` that is
            not the run's own cancellation comes as a `RuntimeError`.
    """
    while True:
        try:
            return await call_once(function, *arguments)
        except CandlesNotLoaded as missing:
            await _load(missing)


async def retry_user_code(
    failure: BaseException, function: Callable[..., Any], *arguments: object
) -> Any:
    """Go on where a first call, made without the guard for its speed, raised `failure`.

    Returns and raises what `call_user_code` would have.
    """
    if not isinstance(failure, CandlesNotLoaded):
        raise of_user_code(failure)
    await _load(failure)
    return await call_user_code(function, *arguments)


def given_up(config: Config) -> CallbackTimeoutError:
    """Return the error of a callback that took too long."""
    return CallbackTimeoutError(
        f"took longer than {config.callback_timeout_seconds:g} s (callback_timeout_seconds), and "
        "was given up"
    )


async def _load(missing: CandlesNotLoaded) -> None:
    await moment_of("candles").run.view.provide(*missing.request)

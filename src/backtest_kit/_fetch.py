"""Ask an exchange for candles: in pages, again after a failure, and check every answer."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from backtest_kit._candles import Candles, check_candles, read_candles
from backtest_kit._clock import wall_ms
from backtest_kit._config import Config
from backtest_kit._errors import (
    BadCandlesError,
    DataError,
    FetchError,
)
from backtest_kit._schemas import ExchangeSchema
from backtest_kit._time import MINUTE, interval_ms, iso


class Fetch:
    """Asks one exchange for one series, a page at a time."""

    __slots__ = ("_config", "_exchange", "_interval", "_symbol", "size", "step")

    def __init__(
        self, exchange: ExchangeSchema, symbol: str, interval: str, config: Config
    ) -> None:
        self._exchange = exchange
        self._symbol = symbol
        self._interval = interval
        self._config = config
        self.step = interval_ms(interval)
        self.size = exchange.page_limit or config.max_candles_per_request

    async def pages(self, since: int, until: int) -> list[Candles]:
        """Return the pages of [since, until) that are not empty, checked."""
        size = self.size
        callback = self._exchange.callback("on_candle_data")
        pages: list[Candles] = []
        for start in range(max(since, 0), until, size * self.step):
            limit = min(size, (until - start) // self.step)
            page = await _page(
                self._exchange, self._symbol, self._interval, self.step, start, limit, self._config
            )
            if len(page):
                pages.append(page)
            if callback is not None:
                told = callback(self._symbol, self._interval, page)
                if inspect.isawaitable(told):
                    await told
        return pages


async def _page(
    exchange: ExchangeSchema,
    symbol: str,
    interval: str,
    step: int,
    since: int,
    limit: int,
    config: Config,
) -> Candles:
    """Ask for one page, again after a failure; an answer that breaks a rule is not asked again."""
    name = f"exchange {exchange.exchange_name!r}: {symbol} {interval} from {iso(since)}"
    attempts = config.get_candles_retry_count + 1
    for attempt in range(1, attempts + 1):
        try:
            async with asyncio.timeout(config.get_candles_timeout_ms / 1000):
                answer = await _call(exchange.get_candles, symbol, interval, since, limit)
            break
        except BadCandlesError as error:
            raise BadCandlesError(f"{name}: {error}") from None
        except DataError:
            raise
        except TimeoutError as error:
            failure: Exception = TimeoutError(
                str(error) or f"no answer within {config.get_candles_timeout_ms} ms"
            )
        except Exception as error:  # noqa: BLE001 - whatever an exchange raises may pass
            failure = error
        if attempt == attempts:
            raise FetchError(
                f"{name}: get_candles failed {attempts} times, last with "
                f"{type(failure).__name__}: {failure}"
            ) from failure
        await asyncio.sleep(config.get_candles_retry_delay_ms / 1000)
    try:
        return _select(read_candles(answer), step, since, limit)
    except BadCandlesError as error:
        raise BadCandlesError(f"{name}: {error}") from None


async def _call(function: Callable[..., Any], *arguments: object) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    answer = await _in_thread(functools.partial(function, *arguments))
    return await answer if inspect.isawaitable(answer) else answer


def _in_thread(call: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run a sync call in a daemon thread: one that hangs can be given up, even at exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(method: Callable[[Any], None], value: object) -> None:
        if not future.done():
            method(value)

    def work() -> None:
        try:
            result = (future.set_result, call())
        except BaseException as error:  # noqa: BLE001 - carried to the caller
            result = (future.set_exception, error)
        try:
            loop.call_soon_threadsafe(settle, *result)
        except RuntimeError:  # the loop has closed: nobody waits any more
            return

    threading.Thread(target=work, daemon=True, name="get_candles").start()
    return future


def _select(candles: Candles, step: int, since: int, limit: int) -> Candles:
    """Check an answer, and cut it to the range asked for."""
    check_candles(candles, step)
    if not len(candles):
        return candles
    t = candles.timestamp
    now = wall_ms()
    closed = int(np.searchsorted(t, now - step, side="right"))
    if closed < len(t) and int(t[-1]) > now:
        raise BadCandlesError(
            f"candle {len(t) - 1} ({iso(int(t[-1]))}) lies in the future; the clock says "
            f"{iso(now // MINUTE * MINUTE)}"
        )
    begin = int(np.searchsorted(t, since))
    end = int(np.searchsorted(t, since + limit * step))
    return candles[begin : min(end, closed)]

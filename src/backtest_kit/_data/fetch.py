"""Ask an exchange for candles: in pages, again after a failure, and check every answer."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import random
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from backtest_kit._values.candle_rules import check_candles, check_prints
from backtest_kit._values.candles import Candles, concatenate, read_candles
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config
from backtest_kit._values.errors import (
    BadCandlesError,
    CallbackTimeoutError,
    DataError,
    FetchError,
    TryLaterError,
)
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import MINUTE, interval_ms, iso
from backtest_kit._values.user_code import call_once

#: Pauses (seconds) grow up to this, or to the setting where that is longer. A
#: longer cooldown of an exchange is not waited for: the request fails at once.
LONGEST_PAUSE: Final = 60.0
#: A cooldown lasts this many seconds at most, whatever the exchange asks for.
LONGEST_COOLDOWN: Final = 86_400.0

_spread: Final = random.Random()  # noqa: S311 - spreads requests, hides nothing


class Cooldown:
    """Which exchanges of an engine are not to be called for a while, and why."""

    def __init__(self, clock: Callable[[], Clock]) -> None:
        self._clock = clock
        # by the clock's monotonic time
        self._until: dict[str, tuple[float, TryLaterError]] = {}
        #: Sync calls that were given up and still hold a thread, by function and symbol.
        self.hanging: dict[tuple[object, str], list[_Given]] = {}

    async def wait(self, exchange: str, name: str, pause: float) -> None:
        """Wait `pause` seconds, and until the end of the exchange's cooldown.

        Raises:
            FetchError: longer than `LONGEST_PAUSE`; the message says until when.
        """
        while (wait := max(pause, self._left(exchange, name))) > 0:
            # a little later than it may be asked: others wait for the same moment
            await self._clock().sleep(wait if wait == pause else wait * _spread.uniform(1.0, 1.1))
            pause = 0.0

    def begin(self, exchange: str, name: str, error: TryLaterError) -> None:
        """Note how long an exchange wants not to be called; raises as `wait`."""
        now = self._clock().monotonic()
        until = now + min(max(0.0, error.after or 0.0), LONGEST_COOLDOWN)
        if until > self._until.get(exchange, (now, error))[0]:
            self._until[exchange] = (until, error)
        self._left(exchange, name)

    def _left(self, exchange: str, name: str) -> float:
        if exchange not in self._until:
            return 0.0
        until, reason = self._until[exchange]
        left = until - self._clock().monotonic()
        if left <= 0:
            del self._until[exchange]
            return 0.0
        if left > LONGEST_PAUSE:
            again = (self._clock().wall_ms() + round(left * 1000)) // 1000 * 1000
            raise FetchError(
                f"{name}: not to be asked again before {iso(again)}, in {left:.0f} s: {reason}"
            ) from reason
        return left


class _Given(NamedTuple):
    """A call that was given up: when it was made, by the clock, and whether it is over."""

    began: float
    over: threading.Event


class Fetch:
    """Asks one exchange for one series, a page at a time.

    `apart`: a sync `on_candle_data` is called in a thread, so that one that hangs can be given up.
    """

    __slots__ = (
        "_apart",
        "_clock",
        "_config",
        "_cooldown",
        "_exchange",
        "_interval",
        "_report",
        "_symbol",
        "size",
        "step",
    )

    def __init__(
        self,
        exchange: ExchangeSchema,
        symbol: str,
        interval: str,
        config: Config,
        cooldown: Cooldown,
        report: Callable[[str, Exception], None],
        clock: Callable[[], Clock],
        *,
        apart: bool = False,
    ) -> None:
        self._exchange = exchange
        self._apart = apart
        self._cooldown = cooldown
        self._report = report
        self._clock = clock
        self._symbol = symbol
        self._interval = interval
        self._config = config
        self.step = interval_ms(interval)
        self.size = exchange.page_limit or config.max_candles_per_request

    def data_range(self) -> tuple[int, int] | None:
        """Return the first open time and the end of the data (ms), where the exchange knows."""
        if self._exchange.data_range is None:
            return None
        try:
            return self._exchange.data_range(self._symbol)
        except DataError:
            return None  # the request for candles reports it

    async def pages(self, since: int, until: int, newest: Candles | None = None) -> list[Candles]:
        """Return the pages of [since, until) that are not empty, checked.

        `newest` are the candles before `since`: their closes are what the first ones are checked
        against.
        """
        pages: list[Candles] = []
        empty: list[int] = []
        for start in range(max(since, 0), until, self.size * self.step):
            page = await self._page(start, until, newest)
            if not len(page):
                empty.append(start)
                continue
            # nothing, and now candles: an outage of the market, or of the exchange a moment ago
            late: list[Candles] = []
            while empty and len(again := await self._page(empty.pop(), until, newest)):
                late.insert(0, again)
            empty.clear()
            pages += [*late, page]
            newest = page if len(page) > 1 else concatenate([newest or page[:0], page])
        return pages

    async def _page(self, start: int, until: int, newest: Candles | None) -> Candles:
        """Return the page from `start`, after `on_candle_data` has seen it."""
        limit = min(self.size, (until - start) // self.step)
        page = await self._ask(start, limit, newest)
        callback = self._exchange.callback("on_candle_data")
        if callback is not None:
            await self._show(callback, page)
        return page

    async def _show(self, callback: Callable[..., Any], page: Candles) -> None:
        limit = self._config.callback_timeout_seconds
        arguments = self._symbol, self._interval, page
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                if self._apart and self._clock().waits_for_threads:
                    self._raise_if_hanging(callback, limit)
                    inside = contextvars.copy_context().run
                    await self._call(callback, *arguments, call=inside)
                else:
                    await call_once(callback, *arguments)
        except Exception as error:  # noqa: BLE001 - a callback never fails a request
            late = CallbackTimeoutError(
                f"took longer than {limit:g} s (callback_timeout_seconds), and was given up"
            )
            self._report("callback on_candle_data", late if scope.expired() else error)

    async def _ask(self, since: int, limit: int, newest: Candles | None) -> Candles:
        """Ask for a page, again after a failure; a malformed answer is not asked again."""
        exchange, config = self._exchange, self._config
        owner = exchange.exchange_name
        name = f"exchange {owner!r}: {self._symbol} {self._interval} from {iso(since)}"
        attempts = config.get_candles_retry_count + 1
        attempt, pause = 0, 0.0
        while True:
            attempt += 1
            await self._cooldown.wait(owner, name, pause)
            try:
                seconds = config.get_candles_timeout_ms / 1000
                self._raise_if_hanging(exchange.get_candles, seconds)
                async with asyncio.timeout(seconds):
                    answer = await call_once(
                        self._call, exchange.get_candles, self._symbol, self._interval, since, limit
                    )
                break
            except BadCandlesError as error:
                raise BadCandlesError(f"{name}: {error}") from None
            except TryLaterError as error:
                failure: Exception = error
                self._cooldown.begin(owner, name, error)
            except DataError:
                raise
            except TimeoutError as error:
                failure = TimeoutError(
                    str(error) or f"no answer within {config.get_candles_timeout_ms} ms"
                )
            except Exception as error:  # noqa: BLE001 - whatever an exchange raises may pass
                failure = error
            if attempt == attempts:
                raise FetchError(
                    f"{name}: get_candles failed {attempts} times, last with "
                    f"{type(failure).__name__}: {failure}"
                ) from failure
            first = config.get_candles_retry_delay_ms / 1000
            pause = min(first * 2 ** (attempt - 1), max(first, LONGEST_PAUSE))
            pause *= _spread.uniform(0.8, 1.2)
        try:
            now = self._clock().wall_ms()
            page = _select(read_candles(answer), self.step, since, limit, now)
            if newest is not None:
                check_prints(page, newest)
            return page
        except BadCandlesError as error:
            raise BadCandlesError(f"{name}: {error}") from None

    def _raise_if_hanging(self, function: object, limit: float) -> None:
        """Raise a `TimeoutError` while an earlier sync call holds a thread: make no other."""
        key = (function, self._symbol)
        calls = [call for call in self._cooldown.hanging.get(key, ()) if not call.over.is_set()]
        if not calls:
            self._cooldown.hanging.pop(key, None)
            return
        self._cooldown.hanging[key] = calls
        passed = self._clock().monotonic() - calls[0].began
        raise TimeoutError(
            f"no answer within {limit * 1000:g} ms: the call of {passed:.0f} s ago still hangs; no "
            "other is made until it ends"
        )

    async def _call(
        self,
        function: Callable[..., Any],
        *arguments: object,
        call: Callable[..., Any] = lambda function, *arguments: function(*arguments),
    ) -> Any:
        """Return the answer of a function; a sync one is called in a thread, through `call`."""
        if inspect.iscoroutinefunction(function):
            return await function(*arguments)
        given = _Given(self._clock().monotonic(), threading.Event())
        try:
            answer = await _in_thread(functools.partial(call, function, *arguments), given.over)
        except asyncio.CancelledError:
            self._cooldown.hanging.setdefault((function, self._symbol), []).append(given)
            raise
        return await answer if inspect.isawaitable(answer) else answer


def _in_thread(call: Callable[[], Any], over: threading.Event) -> asyncio.Future[Any]:
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
        over.set()
        try:
            loop.call_soon_threadsafe(settle, *result)
        except RuntimeError:  # the loop has closed: there is no task to wake
            return

    threading.Thread(target=work, daemon=True, name="get_candles").start()
    return future


def _select(candles: Candles, step: int, since: int, limit: int, now: int) -> Candles:
    """Check an answer, and cut it to the range asked for and to candles that closed by `now`."""
    check_candles(candles, step)
    if not len(candles):
        return candles
    t = candles.timestamp
    closed = int(np.searchsorted(t, now - step, side="right"))
    if closed < len(t) and int(t[-1]) > now:
        raise BadCandlesError(
            f"candle {len(t) - 1} ({iso(int(t[-1]))}) lies in the future; the clock says "
            f"{iso(now // MINUTE * MINUTE)}"
        )
    begin = int(np.searchsorted(t, since))
    end = int(np.searchsorted(t, since + limit * step))
    return candles[begin : min(end, closed)]

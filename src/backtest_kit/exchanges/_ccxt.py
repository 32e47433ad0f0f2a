"""Candles from any exchange that ccxt knows (extra `ccxt`)."""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

from backtest_kit._values.candles import Candles, read_candles
from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import (
    BacktestKitError,
    ExchangeRefusedError,
    TryLaterError,
    did_you_mean,
)
from backtest_kit._values.time import INTERVALS, interval_ms, to_ms

#: What the engine asks for by default; a larger page would gain little.
_USUAL: Final = 1000
#: HTTP "unavailable for legal reasons", which ccxt takes for an outage.
_FORBIDDEN_HERE: Final = 451


class CcxtExchange:
    """Candles through ccxt: `CcxtExchange("binance")`; options go to the ccxt client.

    The client respects the exchange's rate limit. What can't get better by asking again (an unknown
    symbol or interval, a refused key, a country that is not served) is raised at once, the rest is
    retried by the engine, no sooner than a `Retry-After` allows.

    A candle is left out until it has closed by the exchange's own clock, so a local clock that is
    ahead does not let a forming one pass. That clock is the `Date` of the answer: whole seconds,
    rounded down, of the web server in front of the exchange. Where there is no `Date`, only the
    local clock counts; and candles that were read in the very moment in which the minute ended,
    just before the `Date` was written, pass as closed.

    The command line and `run_sync` close the client when they end; in an event loop of your own,
    `await exchange.close()`.

    Raises:
        BacktestKitError: ccxt is not installed, or knows no such exchange.
    """

    page_limit: int | None
    intervals: tuple[str, ...] | None

    def __init__(self, name: str, exchange_name: str | None = None, **options: Any) -> None:
        try:
            import ccxt.async_support as ccxt
        except ImportError:
            raise BacktestKitError(
                "CcxtExchange needs ccxt: pip install 'backtest-kit[ccxt]'"
            ) from None
        if name not in ccxt.exchanges:
            raise BacktestKitError(
                f"ccxt knows no exchange {name!r}{did_you_mean(name, ccxt.exchanges)}"
            )
        self.exchange_name = exchange_name or name
        self._made_of = (name, self.exchange_name, options)
        # subclasses included, such as BadSymbol and PermissionDenied; all else may pass
        self._refusals = (
            ccxt.BadRequest,
            ccxt.AuthenticationError,
            ccxt.NotSupported,
            ccxt.ArgumentsRequired,
            ccxt.RestrictedLocation,
            ccxt.InvalidProxySettings,
        )
        self._bad_request, self._bad_symbol = ccxt.BadRequest, ccxt.BadSymbol
        self._any = ccxt.BaseError
        self._make = functools.partial(getattr(ccxt, name), {"enableRateLimit": True, **options})
        client = self._make()
        self.page_limit = _page_limit(client)
        frames = client.timeframes or {}
        self.intervals = tuple(name for name in INTERVALS if name in frames) or None
        # a client belongs to the event loop in which it was first used
        self._clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[Any, ...]:
        # a client can't travel to a worker: it makes its own
        name, exchange_name, options = self._made_of
        return functools.partial(CcxtExchange, **options), (name, exchange_name)

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the closed candles with open times in the `limit` steps from `since`.

        Raises:
            ExchangeRefusedError: asking again would not help; the message is the exchange's.
            TryLaterError: the exchange says when to ask again.
        """
        step = interval_ms(interval)
        rows: list[list[Any]] = []
        start, until = since, since + limit * step
        # an exchange may answer with fewer than asked for: go on from its last candle
        while start < until:
            page, now = await self._ask(symbol, interval, start, (until - start) // step)
            page = [row[:6] for row in page if start <= row[0] < until]
            closed = [row for row in page if now is None or row[0] + step <= now]
            rows += closed
            if not closed or len(closed) < len(page):
                break
            start = closed[-1][0] + step
        return read_candles(rows)

    async def format_price(self, symbol: str, price: float) -> str:
        """Return a price in the precision of the market."""
        client = await self._ready()
        return str(client.price_to_precision(symbol, price))

    async def format_quantity(self, symbol: str, quantity: float) -> str:
        """Return a quantity in the precision of the market."""
        client = await self._ready()
        return str(client.amount_to_precision(symbol, quantity))

    async def close(self) -> None:
        """Close the running loop's client."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _ask(
        self, symbol: str, interval: str, since: int, limit: int
    ) -> tuple[list[list[Any]], int | None]:
        """Return the rows of one answer, and the exchange's time (ms) where it told."""
        answer = _Answer()
        token = _answer.set(answer)
        try:
            client = await self._ready()
            page = await client.fetch_ohlcv(symbol, interval, since=since, limit=limit)
        except self._refusals as error:
            now = answer.now()
            doubtful = isinstance(error, self._bad_request) and not isinstance(
                error, self._bad_symbol
            )
            if doubtful and now is not None and since + limit * interval_ms(interval) > now:
                raise  # the local clock is ahead: what was asked for is not there yet
            raise ExchangeRefusedError(f"{self.exchange_name}: {error}") from error
        except self._any as error:
            if answer.status == _FORBIDDEN_HERE:
                raise ExchangeRefusedError(f"{self.exchange_name}: {error}") from error
            after = answer.retry_after()
            if after is None:
                raise
            raise TryLaterError(str(error), after) from error
        finally:
            _answer.reset(token)
        return page, answer.now()

    async def _ready(self) -> Any:
        """Return the running loop's client, its markets loaded."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make()
            _listen(client)
        if not client.markets:
            # all callers share one request: one that is given up must not cancel it for the others
            await asyncio.shield(client.load_markets())
        return client


class _Answer:
    """Status and headers (their names in lower case) of the last response to one request."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}

    def now(self) -> int | None:
        """Return the time (ms) at which the content was made, at the latest."""
        date = _http_date(self.headers.get("date", ""))
        age = self.headers.get("age", "")  # in a cache, some of which date what they pass on anew
        return date - 1000 * int(age) if date is not None and age.isdecimal() else date

    def retry_after(self) -> float | None:
        """Return the seconds of `Retry-After`, also where it is a date."""
        text = self.headers.get("retry-after", "")
        try:
            return float(text)
        except ValueError:
            until = _http_date(text)
        if until is None:
            return None
        now = _http_date(self.headers.get("date", ""))
        return max(0, until - (wall_ms() if now is None else now)) / 1000


# The client's own `last_response_headers` may be those of another request, made at the same time.
_answer: Final[ContextVar[_Answer | None]] = ContextVar("answer", default=None)


def _listen(client: Any) -> None:
    """Let the requests of `client` note status and headers in the `_answer` of their task."""
    inner = client.on_rest_response

    def hear(
        status: int, reason: str, url: str, method: str, headers: dict[str, str], *rest: Any
    ) -> Any:
        answer = _answer.get()
        if answer is not None:
            answer.status = status
            answer.headers = {name.lower(): text for name, text in headers.items()}
        return inner(status, reason, url, method, headers, *rest)

    client.on_rest_response = hear


def _http_date(text: str) -> int | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _page_limit(client: Any) -> int | None:
    """Return the exchange's own limit where it is below the engine's usual page, else `None`.

    An exchange that answers by windows of time returns nothing for a page that lies in an outage,
    so a page must not be asked for in parts.
    """
    kinds = client.features or {}
    kind = kinds.get(client.options.get("defaultType", "spot")) or kinds.get("spot") or {}
    kind = kind.get("linear") or kind
    limit = (kind.get("fetchOHLCV") or {}).get("limit")
    return limit if isinstance(limit, int) and 0 < limit < _USUAL else None

"""Candles from any exchange that ccxt knows (extra `ccxt`)."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from backtest_kit._values.account import Market
from backtest_kit._values.candles import Candles, read_candles
from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import (
    BacktestKitError,
    ExchangeRefusedError,
    TryLaterError,
    did_you_mean,
)
from backtest_kit._values.time import INTERVALS, interval_ms, to_ms
from backtest_kit.exchanges._ccxt_markets import market_of

#: What the engine asks for by default; a larger page would gain little.
_USUAL: Final = 1000
#: HTTP "unavailable for legal reasons", which ccxt takes for an outage.
_FORBIDDEN_HERE: Final = 451
#: HTTP "proxy authentication required" and "network authentication required".
_NOT_THE_EXCHANGE: Final = (407, 511)
#: What ccxt says where a request has to be signed.
_KEY_WANTED: Final = 'requires "'
#: Characters of a strange answer that an error quotes.
_SHOWN: Final = 120
#: How deep in an object exchanges put their candles.
_DEEP: Final = 3
#: What of an address may hold a signature or a key: the query, and a proxy's user and password.
_QUERY: Final = re.compile(r"\?[^\s\"'<>]*=[^\s\"'<>]*")
_LOGIN: Final = re.compile(r"//[^\s/@]*@")


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

    Keys among the options are used only where an exchange gives candles to nobody without one. No
    error holds a key, or the query of an address.

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
        self._bad_answer, self._wants_key = ccxt.BadResponse, ccxt.AuthenticationError
        self._any = ccxt.BaseError
        secret = ccxt.Exchange.requiredCredentials
        keys = {key: value for key, value in options.items() if key in secret}
        public = {key: value for key, value in options.items() if key not in secret}
        make, usual = getattr(ccxt, name), {"enableRateLimit": True, **public}
        self._make: Callable[[dict[str, Any]], Any] = lambda more: make({**usual, **more})
        # candles are public nearly everywhere, and a bad key must not block them
        self._given = keys
        self._keys: dict[str, Any] = {}
        self._secrets = [str(value) for value in keys.values() if value]
        client = self._make({})
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

    async def get_market(self, symbol: str) -> Market | None:
        """Return the rules of a market, `None` where the exchange has none of this symbol."""
        client = await self._ready()
        found = client.markets.get(symbol)
        return None if found is None else market_of(found, client.precisionMode)

    async def close(self) -> None:
        """Close the running loop's client."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _ask(
        self, symbol: str, interval: str, since: int, limit: int
    ) -> tuple[list[list[Any]], int | None]:
        """Return the rows of one answer, and the exchange's time (ms) where it told."""
        answer, known = _Answer(), not self._given or bool(self._keys)
        token = _answer.set(answer)
        try:
            client = await self._ready()
            page = await client.fetch_ohlcv(symbol, interval, since=since, limit=limit)
            if not page and answer.status and not _tells_of_none(answer.body):
                raise self._rubbish(answer)
        except self._any as raised:
            if isinstance(raised, self._wants_key) and _KEY_WANTED in str(raised) and not known:
                return await self._ask_with_keys(symbol, interval, since, limit)
            error = self._without_secrets(raised)
            text = f"{self.exchange_name}: {error}"
            if answer.status in _NOT_THE_EXCHANGE:
                # from None: what lies below holds the address that was asked
                raise self._bad_answer(f"{text} (a proxy or a login page in between)") from None
            if isinstance(raised, self._refusals) or answer.status == _FORBIDDEN_HERE:
                now = answer.now()
                doubtful = isinstance(raised, self._bad_request) and not isinstance(
                    raised, self._bad_symbol
                )
                if doubtful and now is not None and since + limit * interval_ms(interval) > now:
                    raise error from None  # the local clock is ahead: it is not there yet
                raise ExchangeRefusedError(text) from None
            after = answer.retry_after()
            if after is None:
                raise error from None
            raise TryLaterError(str(error), after) from None
        finally:
            _answer.reset(token)
        return page, answer.now()

    async def _ask_with_keys(
        self, symbol: str, interval: str, since: int, limit: int
    ) -> tuple[list[list[Any]], int | None]:
        """Ask again as who the keys say, for an exchange that gives candles to no others."""
        if not self._keys:
            self._keys = self._given
            await self.close()
        return await self._ask(symbol, interval, since, limit)

    def _without_secrets(self, error: Any) -> Any:
        """Return an error of the same kind, whose text holds no query, key or password."""
        text = _QUERY.sub("", _LOGIN.sub("//", str(error)))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return type(error)(text)

    def _rubbish(self, answer: _Answer) -> Exception:
        start = " ".join(answer.body.split())[:_SHOWN]
        what = f"no list of candles: {start!r}" if start else "nothing at all"
        error: Exception = self._bad_answer(f"answered HTTP {answer.status} with {what}")
        return error

    async def _ready(self) -> Any:
        """Return the running loop's client, its markets loaded."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make(self._keys)
            _listen(client)
        if not client.markets:
            # all callers share one request: one that is given up must not cancel it for the others
            await asyncio.shield(client.load_markets())
            answer = _answer.get()
            if not client.markets and answer is not None:
                raise self._rubbish(answer)
        return client


class _Answer:
    """Status, headers (their names in lower case) and text of the last response to one request."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = ""

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
    """Let the requests of `client` note the response in the `_answer` of their task."""
    inner = client.on_rest_response

    def hear(
        status: int,
        reason: str,
        url: str,
        method: str,
        headers: dict[str, str],
        body: str,
        *rest: Any,
    ) -> Any:
        answer = _answer.get()
        if answer is not None:
            answer.status = status
            answer.headers = {name.lower(): text for name, text in headers.items()}
            answer.body = body
        return inner(status, reason, url, method, headers, body, *rest)

    client.on_rest_response = hear


def _tells_of_none(body: str) -> bool:
    """Say whether an answer without candles can be one: JSON with a place for them.

    That is a list (none may be new enough), or an object that has a list, an empty object or a null
    somewhere, as exchanges say it.
    """
    try:
        return _has_place(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return False


def _has_place(data: object, depth: int = 0) -> bool:
    if isinstance(data, list):
        return not data or any(isinstance(row, list | dict) and len(row) > 4 for row in data)
    if isinstance(data, dict):
        parts = data.values()
        inside = depth < _DEEP and any(_has_place(part, depth + 1) for part in parts)
        return not data or inside or (depth == 0 and None in parts)
    return False


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

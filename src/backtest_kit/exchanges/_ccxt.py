"""Candles from any exchange that ccxt knows (extra `ccxt`)."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Final
from weakref import WeakKeyDictionary

from backtest_kit._candles import Candles, read_candles
from backtest_kit._errors import BacktestKitError, ExchangeRefusedError, did_you_mean
from backtest_kit._time import interval_ms

#: What the engine asks for by default; a larger page would gain little.
_USUAL: Final = 1000


class CcxtExchange:
    """Candles through ccxt: `CcxtExchange("binance")`; options go to the ccxt client.

    The client respects the exchange's rate limit. What can't get better by asking again (an unknown
    symbol or interval, a refused key) is raised at once, the rest is retried by the engine.

    The command line and `run_sync` close the client when they end; in an event loop of your own,
    `await exchange.close()`.

    Raises:
        BacktestKitError: ccxt is not installed, or knows no such exchange.
    """

    page_limit: int | None

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
        self._errors = (
            ccxt.BadSymbol,
            ccxt.AuthenticationError,
            ccxt.NotSupported,
            ccxt.BadRequest,
        )
        self._make = functools.partial(getattr(ccxt, name), {"enableRateLimit": True, **options})
        self.page_limit = _page_limit(self._make())
        # a client belongs to the event loop in which it was first used
        self._clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the candles of `interval` with open times in the `limit` steps from `since`.

        Raises:
            ExchangeRefusedError: asking again would not help; the message is the exchange's.
        """
        client, step = self._client(), interval_ms(interval)
        rows: list[list[Any]] = []
        start, until = since, since + limit * step
        # an exchange may answer with fewer than asked for: go on from its last candle
        while start < until:
            try:
                page = await client.fetch_ohlcv(
                    symbol, interval, since=start, limit=(until - start) // step
                )
            except self._errors as error:
                raise ExchangeRefusedError(f"{self.exchange_name}: {error}") from error
            page = [row[:6] for row in page if start <= row[0] < until]
            if not page:
                break
            rows += page
            start = page[-1][0] + step
        return read_candles(rows)

    async def format_price(self, symbol: str, price: float) -> str:
        """Return a price in the precision of the market."""
        client = self._client()
        await client.load_markets()
        return str(client.price_to_precision(symbol, price))

    async def format_quantity(self, symbol: str, quantity: float) -> str:
        """Return a quantity in the precision of the market."""
        client = self._client()
        await client.load_markets()
        return str(client.amount_to_precision(symbol, quantity))

    async def close(self) -> None:
        """Close the running loop's client."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _client(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = self._make()
        return self._clients[loop]


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

"""An exchange in front of which there is a catalog."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import Month, SeriesKey, months
from backtest_kit._catalog.month import EMPTY, MonthData
from backtest_kit._catalog.spans import Span, missing
from backtest_kit._catalog.writing import alone, write_answer
from backtest_kit._values.candles import Candles, concatenate, read_candles, regroup
from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import BacktestKitError, BadCandlesError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, MINUTE, interval_ms
from backtest_kit._values.user_code import call_once

_log: Final = logging.getLogger("backtest_kit")
#: Months that are kept in memory.
_KEPT: Final = 32
#: Answers that wait to be written while another process writes; then the oldest is given up.
_WAITING: Final = 10_000
#: A candle may appear this much later than it has closed; a gap that is newer is not recorded.
_SETTLED: Final = 5 * MINUTE
#: What it has as the exchange before it.
_SAME: Final = ("page_limit", "intervals", "calendar")


class _Answer(NamedTuple):
    key: SeriesKey
    candles: Candles
    covered: Span
    at: int


class CachedExchange:
    """An exchange that is asked only for what a catalog does not cover.

    `exchange` is a `CcxtExchange`, or any other that is asked through `get_candles`; `catalog` a
    folder or a URI. With `record`, what the exchange answers is written into the catalog, so that a
    live session can be replayed: a candle that it tells differently later stays as it was seen.
    Trading goes on where that can't be written; it is logged, and written later if it can be.
    Before the end, `await close()`.

    Raises:
        RegistrationError: the address can't be used.
    """

    def __init__(
        self,
        exchange: ExchangeSchema | Any,
        catalog: str | os.PathLike[str] = "data",
        *,
        record: bool = False,
    ) -> None:
        self._exchange = exchange
        self._catalog = Catalog(catalog)
        self._record = record
        self._known: dict[tuple[SeriesKey, Month], MonthData] = {}
        self._waiting: list[_Answer] = []
        self._writing = threading.Lock()
        self.exchange_name: str = exchange.exchange_name
        for name in (*_SAME, "format_price", "format_quantity", "get_market"):
            value = getattr(exchange, name, None)
            if value is not None:
                setattr(self, name, value)

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the closed candles with open times in the `limit` steps from `since`.

        Raises as the exchange does.
        """
        step = interval_ms(interval)
        until = since + limit * step
        there, at = await asyncio.to_thread(self._stored, symbol, interval, since, until)
        if at >= until:
            return there
        ask: Callable[[], Any] = functools.partial(
            self._exchange.get_candles, symbol, interval, at, (until - at) // step
        )
        if inspect.iscoroutinefunction(self._exchange.get_candles):
            answer = await call_once(ask)
        else:
            answer = await asyncio.to_thread(ask)
        now = wall_ms()
        told = read_candles(answer)
        begin, end = told.timestamp.searchsorted((at, min(until, now - step + 1)))
        closed = told[int(begin) : int(end)]
        if self._record:
            newest = int(closed.timestamp[-1]) + step if len(closed) else at
            settled = min(until, max(newest, (now - _SETTLED) // step * step))
            if settled > at:
                key = SeriesKey(self.exchange_name, symbol, interval)
                self._waiting.append(_Answer(key, closed, (at, settled), now))
                await asyncio.to_thread(self._write)
        return concatenate([there, closed])

    async def close(self) -> None:
        """Write what waits to be written, and close the exchange."""
        await asyncio.to_thread(self._write)
        if self._waiting:
            _log.error(
                "%d answers of %s are not in the catalog %s: it could not be written",
                len(self._waiting),
                self.exchange_name,
                self._catalog.address,
            )
        close = getattr(self._exchange, "close", None)
        if close is not None:
            await call_once(close)

    def _stored(self, symbol: str, interval: str, since: int, until: int) -> tuple[Candles, int]:
        """Return what the catalog has of the beginning, and where that ends."""
        parts, at = [], since
        while at < until:
            key, end = self._furthest(symbol, interval, at, until)
            if end == at:
                break
            pieces = []
            for month in months(at, end):
                candles = self._month(key, month).candles
                i, j = candles.timestamp.searchsorted((at, end))
                pieces.append(candles[int(i) : int(j)])
            whole = concatenate(pieces)
            parts.append(whole if key.interval == interval else regroup(whole, INTERVALS[interval]))
            at = end
        return concatenate(parts), at

    def _furthest(
        self, symbol: str, interval: str, since: int, until: int
    ) -> tuple[SeriesKey, int]:
        """Return which series covers most from `since` on, to make candles of, and up to where."""
        step = INTERVALS[interval]
        best, best_end = SeriesKey(self.exchange_name, symbol, interval), since
        finer = (name for name, ms in INTERVALS.items() if ms < step and step % ms == 0)
        for name in (interval, *finer):
            key = SeriesKey(self.exchange_name, symbol, name)
            spans = [
                span for month in months(since, until) for span in self._month(key, month).covered
            ]
            gone = missing(spans, since, until)
            end = gone[0][0] // step * step if gone else until
            if end > best_end:
                best, best_end = key, end
        return best, best_end

    def _month(self, key: SeriesKey, month: Month) -> MonthData:
        with self._writing:
            if (key, month) not in self._known:
                while len(self._known) >= _KEPT:
                    del self._known[next(iter(self._known))]
                try:
                    self._known[key, month] = self._catalog.read(key, month)
                except BadCandlesError as error:  # the exchange has them too
                    _log.warning("the exchange is asked instead: %s", error)
                    self._known[key, month] = EMPTY
            return self._known[key, month]

    def _write(self) -> None:
        """Write what waits; what can't be written waits for the next time."""
        with self._writing:
            del self._waiting[:-_WAITING]
            if not self._waiting:
                return
            try:
                with alone(self._catalog):
                    while self._waiting:
                        key, candles, covered, at = self._waiting[0]
                        name = self.exchange_name
                        write_answer(self._catalog, key, candles, (covered,), name, at)
                        for month in months(*covered):
                            self._known.pop((key, month), None)
                        del self._waiting[0]
            except (OSError, BacktestKitError) as error:
                _log.warning("what is seen can't be recorded now: %s", error)

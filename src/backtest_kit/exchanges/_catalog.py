"""Candles of a catalog, read a month at a time."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import Month, SeriesKey, months
from backtest_kit._catalog.spans import missing
from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.content import ContentHash
from backtest_kit._values.errors import DataRangeError, RegistrationError, did_you_mean
from backtest_kit._values.time import INTERVALS, interval_ms
from backtest_kit.exchanges._recorded import Recording, Series

#: Decoded months that a series keeps in memory: a year of minutes takes 25 MB.
KEPT_MONTHS: Final = 14


def is_catalog(address: str | os.PathLike[str]) -> bool:
    """Say whether candles are in a catalog there: a folder of exchanges, or any URI."""
    text = os.fspath(address)
    return "://" in text or any(path.is_dir() for path in Path(text).glob("exchange=*"))


class CatalogExchange(Recording):
    """Candles that `data download` has put into a catalog, a folder or a URI (`s3://...`).

    `exchange` is the venue in the catalog; by default the only one. Where a symbol has several
    intervals, candles of one of them are its own where it covers what is asked for, and all others
    are made of the finest. `calendar` is that of `ExchangeSchema`.

    Raises:
        RegistrationError: there is no such venue, or there are several.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        exchange: str | None = None,
        exchange_name: str | None = None,
        *,
        calendar: str | None = None,
    ) -> None:
        catalog = Catalog(address)
        venues = sorted({key.exchange for key in catalog.series()})
        if exchange is None:
            if len(venues) != 1:
                there = ", ".join(venues) or "nothing"
                raise RegistrationError(
                    f"catalog {catalog.address!r} has candles of {there}: give exchange="
                )
            exchange = venues[0]
        elif exchange not in venues:
            raise RegistrationError(
                f"catalog {catalog.address!r} has no candles of {exchange!r}"
                f"{did_you_mean(exchange, venues)}"
            )
        super().__init__(exchange_name or exchange, calendar)
        self.address = catalog.absolute
        self._venue = exchange
        self._own: dict[SeriesKey, CatalogSeries | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_own": {}}

    def open(self, symbol: str) -> Series:
        """Return the candles of a symbol."""
        catalog = Catalog(self.address)
        keys = [key for key in catalog.series() if key.exchange == self._venue]
        own = [key for key in keys if key.symbol == symbol]
        if not own:
            symbols = sorted({key.symbol for key in keys})
            raise DataRangeError(
                f"catalog {self.address!r} has no candles of {symbol!r} of {self._venue}"
                f"{did_you_mean(symbol, symbols)}"
            )
        return CatalogSeries(catalog, min(own, key=lambda key: INTERVALS[key.interval]))

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the candles of `interval` with open times in the `limit` steps from `since`."""
        step, finest = interval_ms(interval), self.series(symbol)
        if step != finest.step:
            key, until = SeriesKey(self._venue, symbol, interval), since + limit * step
            if key not in self._own:
                catalog = Catalog(self.address)
                self._own[key] = CatalogSeries(catalog, key) if catalog.has_candles(key) else None
            own = self._own[key]
            if own is not None and own.covers(since, until):
                return own.read(since, until)
        return await super().get_candles(symbol, interval, since, limit)

    def content_digest(self) -> str:
        """Return a digest of all candles of the venue; raises OSError."""
        catalog, content = Catalog(self.address), ContentHash()
        for key in catalog.series():
            if key.exchange == self._venue:
                for month in catalog.months(key):
                    passport = catalog.passport(key, month)
                    content.put(str(month), (passport.content if passport else "").encode())
        return content.hexdigest()


class CatalogSeries:
    """One series of a catalog; see `Series`."""

    def __init__(self, catalog: Catalog, key: SeriesKey) -> None:
        self._catalog = catalog
        self._key = key
        self._kept: OrderedDict[Month, Candles] = OrderedDict()
        self.step = key.step
        there = catalog.months(key)
        self._months = set(there)
        self.first = self._edge(there)[0]
        self.end = self._edge(there[::-1])[1]

    def read(self, since: int, until: int) -> Candles:
        """Return the candles with open times in [since, until)."""
        since, until = max(since, self.first), min(until, self.end)
        if since >= until:
            return concatenate([])
        parts = []
        for month in months(since, until):
            if month in self._months:
                candles = self._month(month)
                begin, end = np.searchsorted(candles.timestamp, (since, until))
                parts.append(candles[int(begin) : int(end)])
        return concatenate(parts)

    def covers(self, since: int, until: int) -> bool:
        """Say whether the source has told all there is in [since, until)."""
        known = (
            span
            for month in months(since, until)
            if month in self._months
            for span in self._catalog.covered(self._key, month)
        )
        return not missing(known, since, until)

    def _edge(self, order: Sequence[Month]) -> tuple[int, int]:
        """Return the range of the first month in this order that has candles."""
        for month in order:
            times = self._month(month).timestamp
            if len(times):
                return int(times[0]), int(times[-1]) + self.step
        raise DataRangeError(f"catalog {self._catalog.address!r} has no candles of {self._key} yet")

    def _month(self, month: Month) -> Candles:
        if month in self._kept:
            self._kept.move_to_end(month)
            return self._kept[month]
        candles = self._catalog.read(self._key, month).candles
        self._kept[month] = candles
        while len(self._kept) > KEPT_MONTHS:
            self._kept.popitem(last=False)
        return candles

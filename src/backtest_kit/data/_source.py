"""Where candles are downloaded from: a venue through its interface, or the archive of Binance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from backtest_kit._catalog.layout import SeriesKey, months
from backtest_kit._catalog.spans import Span
from backtest_kit._data.fetch import Cooldown, Fetch
from backtest_kit._engine.task import close_exchange
from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config
from backtest_kit._values.errors import DataError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, MINUTE, iso

#: Pages of a venue that are written together.
_PAGES: Final = 10
#: A candle may appear this much later than it has closed: what is newer is asked for again.
_SETTLED: Final = 5 * MINUTE
_DAY: Final = INTERVALS["1d"]


class Answer(NamedTuple):
    """Candles in time order, and the spans for which they are all there are."""

    candles: Candles
    covered: tuple[Span, ...]


class Source(Protocol):
    """Where candles come from."""

    name: str

    async def chunks(self, key: SeriesKey, wanted: Span) -> list[Span]:
        """Return the spans to ask for, one after another, to have [wanted)."""
        ...

    async def read(self, key: SeriesKey, chunk: Span) -> Answer:
        """Return the candles of a chunk; raises DataError."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Venue:
    """An exchange's own interface, asked in pages, at most as often as it allows."""

    def __init__(
        self, exchange: ExchangeSchema, config: Config, clock: Callable[[], Clock]
    ) -> None:
        self.name = exchange.exchange_name
        self._exchange = exchange
        self._config = config
        self._clock = clock
        self._cooldown = Cooldown(clock)
        self._listings: dict[str, int] = {}

    async def chunks(self, key: SeriesKey, wanted: Span) -> list[Span]:
        """Return some pages at a time, cut at the borders of months."""
        since, until = wanted
        listed = await self._listed(key, since, until)
        self._listings[key.symbol] = listed
        found = [] if listed == since else [(since, listed)]
        length = self._fetch(key.symbol, key.interval).size * _PAGES * key.step
        for month in months(listed, until) if listed < until else []:
            begin, end = max(month.first, listed), min(month.end, until)
            found += [(at, min(at + length, end)) for at in range(begin, end, length)]
        return found

    async def read(self, key: SeriesKey, chunk: Span) -> Answer:
        """Return the candles of a chunk, as far as they have closed and settled."""
        since, until = chunk
        if until <= self._listings.get(key.symbol, since):
            return Answer(concatenate([]), (chunk,))
        fetch = self._fetch(key.symbol, key.interval)
        pages = await fetch.pages(since, until)
        settled = (self._clock().wall_ms() - _SETTLED) // key.step * key.step
        candles = await _complete(fetch, concatenate(pages), since, min(until, settled))
        newest = int(candles.timestamp[-1]) + key.step if len(candles) else since
        return Answer(candles, ((since, min(until, max(settled, newest))),))

    async def _listed(self, key: SeriesKey, since: int, until: int) -> int:
        """Return where the candles begin, by those of days: years before are not asked for."""
        if until - since < 3 * _DAY or key.step >= _DAY or not self._has("1d", key.symbol):
            return since
        days = self._fetch(key.symbol, "1d")
        begin, end = since // _DAY * _DAY, until // _DAY * _DAY  # today has no day yet
        for at in range(begin, end, days.size * _DAY):
            pages = await days.pages(at, min(at + days.size * _DAY, end))
            if pages:  # one day earlier, lest the page was one short
                return max(since, int(pages[0].timestamp[0]) - _DAY)
        return max(since, end)

    async def close(self) -> None:
        """Close the exchange's connections."""
        await close_exchange(self._exchange)

    def _has(self, interval: str, symbol: str) -> bool:
        known = self._exchange.intervals
        names = known(symbol) if callable(known) else known
        return names is None or interval in names

    def _fetch(self, symbol: str, interval: str) -> Fetch:
        return Fetch(
            self._exchange,
            symbol,
            interval,
            self._config,
            self._cooldown,
            self._report,
            self._clock,
        )

    def _report(self, where: str, error: Exception) -> None:
        raise error  # there are no callbacks


async def _complete(fetch: Fetch, candles: Candles, since: int, until: int) -> Candles:
    """Ask once more for each page that has candles, but not all: it may have been cut short."""
    length = fetch.size * fetch.step
    parts: list[Candles] = []
    for begin in range(since, until, length):
        end = min(begin + length, until)
        i, j = candles.timestamp.searchsorted((begin, end))
        page = candles[int(i) : int(j)]
        if 0 < len(page) < (end - begin) // fetch.step:
            again = concatenate(await fetch.pages(begin, end))
            page = again if len(again) > len(page) else page
        parts.append(page)
    rest = int(candles.timestamp.searchsorted(max(since, until)))
    return concatenate([*parts, candles[rest:]])


def not_in_the_future(name: str, when: int, now: int) -> None:
    """Check an instant that a person gave.

    Raises:
        DataError: it lies in the future.
    """
    if when > now:
        raise DataError(
            f"{name}={iso(when)} lies in the future; now is {iso(now // MINUTE * MINUTE)}"
        )

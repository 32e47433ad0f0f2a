"""Candles of an engine: fetched in pages, checked, kept; and the view of them that a run has."""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, SupportsIndex
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._ambient import DataNeeded
from backtest_kit._candles import Candles, Columns, check_candles, read_candles
from backtest_kit._clock import wall_ms
from backtest_kit._config import Config
from backtest_kit._errors import (
    BadCandlesError,
    DataError,
    DataRangeError,
    FetchError,
)
from backtest_kit._fast_forward import Tape
from backtest_kit._schemas import ExchangeSchema
from backtest_kit._series import Gap, Segment, average_prices, fill
from backtest_kit._time import MINUTE, interval_ms, iso

if TYPE_CHECKING:
    from logging import Logger

Key = tuple[str, str, str]
Part = tuple[Columns, npt.NDArray[np.bool_]]
#: How many candles to look back or ahead, where a range begins or ends inside a gap.
LOOK_AROUND: Final = 10_000
#: Candles kept in memory for later runs over the same data (about 60 bytes each).
KEPT_CANDLES: Final = 1_500_000


class Store:
    """The candles of an engine, by (exchange, symbol, interval)."""

    def __init__(self, logger: Callable[[], Logger]) -> None:
        self._segments: OrderedDict[int, tuple[Key, Segment]] = OrderedDict()
        self._locks: WeakKeyDictionary[Any, dict[Key, asyncio.Lock]] = WeakKeyDictionary()
        self._logger = logger

    async def load(
        self,
        exchange: ExchangeSchema,
        symbol: str,
        interval: str,
        since: int,
        until: int,
        config: Config,
    ) -> Segment:
        """Return a segment that covers [since, until) as far as there are data.

        Raises:
            BadCandlesError, GapError, FetchError: as the exchange gave cause.
            DataRangeError: there is no candle at all in the range.
        """
        key = (exchange.exchange_name, symbol, interval)
        step = interval_ms(interval)
        since = since // step * step
        closed = min(until, wall_ms()) // step * step
        lock = self._locks.setdefault(asyncio.get_running_loop(), {}).setdefault(
            key, asyncio.Lock()
        )
        async with lock:
            old = self._nearest(key, since, closed)
            if old is not None and _covers(old, since, closed):
                return old
            name = f"{symbol} {interval} of exchange {exchange.exchange_name!r}"
            fetch = Fetch(exchange, symbol, interval, config)
            segment = await self._extend(fetch, name, old, since, closed, config)
            if segment is None:
                raise DataRangeError(f"{name} has no candles from {iso(since)} to {iso(until)}")
            self._keep(key, segment)
            return segment

    def _nearest(self, key: Key, since: int, until: int) -> Segment | None:
        """Return the kept segment that serves [since, until) best, of those that touch it."""
        touching = [
            segment
            for own, segment in [*self._segments.values()]
            if own == key and since <= segment.stop and segment.first <= until
        ]
        covering = [s for s in touching if _covers(s, since, until)]
        return max(covering or touching, key=lambda segment: segment.stop, default=None)

    def _keep(self, key: Key, segment: Segment) -> None:
        """Keep a segment, and forget those inside it and the oldest ones over the limit."""
        for place, (own, old) in [*self._segments.items()]:
            if own == key and segment.first <= old.first and old.stop <= segment.stop:
                self._segments.pop(place, None)
        self._segments[id(segment)] = (key, segment)
        while sum(old.rows for _, old in [*self._segments.values()]) > KEPT_CANDLES:
            if len(self._segments) == 1:
                break
            self._segments.popitem(last=False)

    async def _extend(
        self,
        fetch: Fetch,
        name: str,
        old: Segment | None,
        since: int,
        until: int,
        config: Config,
    ) -> Segment | None:
        """Return what is known of [since, until): `old` with its missing ends fetched."""
        join = functools.partial(fill, step=fetch.step, policy=config.gap_policy, name=name)
        if old is None:
            pages, asked = await self._onward(fetch, since, until)
            begins, before = await self._before(fetch, pages, since)
            part = join(pages, before=before)
            if part is None:
                return None
            return _segment([part], fetch.step, since, begins=begins, asked=asked)
        parts: list[Part] = [(old.columns, old.filled)]
        begins, asked = old.begins, old.asked
        if since < old.first and not begins:
            pages = await fetch.pages(since, old.first)
            begins, before = await self._before(fetch, pages, since)
            whole = join([*pages, Candles.view(old.columns, 0, 1)], before=before)
            assert whole is not None
            parts.insert(0, (_cut(whole[0], 0, -1), whole[1][:-1]))
        if old.asked < until:
            last = Candles.view(old.columns, old.rows - 1, old.rows)
            pages, asked = await self._onward(fetch, old.stop, until)
            part = join(pages, before=last)
            if part is not None:
                parts.append(part)
        return _segment(parts, fetch.step, since, begins=begins, asked=asked)

    async def _onward(self, fetch: Fetch, since: int, until: int) -> tuple[list[Candles], int]:
        """Return the pages from `since` to `until` at least, and up to where was asked.

        Where candles are missing before `until`, the next one there is tells a gap from the end of
        the data.
        """
        pages = await fetch.pages(since, until)
        if since >= until or (pages and int(pages[-1].timestamp[-1]) + fetch.step == until):
            return pages, until
        limit = min(until + LOOK_AROUND * fetch.step, wall_ms() // fetch.step * fetch.step)
        while until < limit:
            stop = min(until + fetch.size * fetch.step, limit)
            try:
                found = await fetch.pages(until, stop)
            except FetchError as error:
                self._logger().warning("no candle after %s could be had: %s", iso(until), error)
                break
            if found:
                first = found[0][:1]
                return [*pages, first], int(first.timestamp[0]) + fetch.step
            until = stop
        return pages, until

    async def _before(
        self, fetch: Fetch, pages: list[Candles], since: int
    ) -> tuple[bool, Candles | None]:
        """Say whether the data begin in `pages`; if not, find the close that fills a gap there."""
        if pages and int(pages[0].timestamp[0]) == since:
            return False, None
        before = await self._look_back(fetch, since)
        return before is None, before

    async def _look_back(self, fetch: Fetch, since: int) -> Candles | None:
        """Return the last candle before `since`, or `None` where the data begin after it."""
        try:
            pages = await fetch.pages(since - LOOK_AROUND * fetch.step, since)
        except FetchError as error:
            self._logger().warning("no candle before %s could be had: %s", iso(since), error)
            return None
        return pages[-1][-1:] if pages else None


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


def _covers(segment: Segment, since: int, until: int) -> bool:
    head = segment.first <= since or segment.begins
    return head and (segment.stop >= until or segment.asked >= until)


def _cut(columns: Columns, start: int, stop: int | None) -> Columns:
    return tuple(column[start:stop] for column in columns)  # type: ignore[return-value]


def _segment(parts: list[Part], step: int, since: int, *, begins: bool, asked: int) -> Segment:
    """Join parts that follow each other, and leave out what lies before `since`."""
    columns: Columns = tuple(  # type: ignore[assignment]
        np.concatenate(pieces) for pieces in zip(*(part[0] for part in parts), strict=True)
    )
    filled = np.concatenate([part[1] for part in parts])
    skip = (since - int(columns[0][0])) // step
    if skip > 0:
        columns = tuple(column[skip:].copy() for column in columns)  # type: ignore[assignment]
        filled, begins = filled[skip:].copy(), False
    return Segment(columns, filled, step, int(columns[0][0]), begins=begins, asked=asked)


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


class GapCount:
    """The gaps of one series over all that a run has loaded of it, each counted once."""

    def __init__(self) -> None:
        self._since = self._stop = 0
        self._step = MINUTE
        self._gaps: list[Gap] = []

    def add(self, segment: Segment) -> None:
        """Count what this segment covers and none before did."""
        self._step = segment.step
        if self._since == self._stop:
            new = segment.gaps(segment.first, segment.stop)
            self._since, self._stop = segment.first, segment.stop
        else:
            new = segment.gaps(segment.first, self._since)
            new += segment.gaps(max(segment.first, self._stop), segment.stop)
            self._since = min(self._since, segment.first)
            self._stop = max(self._stop, segment.stop)
        joined: list[Gap] = []
        for gap in sorted(self._gaps + new):
            if joined and joined[-1].start + joined[-1].count * self._step == gap.start:
                joined[-1] = Gap(joined[-1].start, joined[-1].count + gap.count)
            else:
                joined.append(gap)
        self._gaps = joined

    def until(self, until: int) -> tuple[Gap, ...]:
        """Return the gaps that begin before `until`, cut there."""
        return tuple(
            Gap(gap.start, min(gap.count, -((gap.start - until) // self._step)))
            for gap in self._gaps
            if gap.start < until
        )


class SeriesGaps(msgspec.Struct, frozen=True):
    """Missing candles of one series that a run has read as filled."""

    symbol: str
    interval: str
    filled: int
    gaps: tuple[Gap, ...]


class MarketView:
    """The market as one run sees it. Windows end at "now"; what lies behind is not reachable."""

    def __init__(
        self, store: Store, exchange: ExchangeSchema, config: Config, horizon: int
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._config = config
        self._horizon = horizon
        self._segments: dict[tuple[str, str], Segment] = {}
        self._limits: dict[tuple[str, str], int] = {}
        self._gaps: dict[tuple[str, str], GapCount] = {}

    def window(self, symbol: str, interval: str, limit: int, when: int) -> Candles:
        """Return the last `limit` candles that have closed at `when`, a slice.

        Raises:
            DataNeeded: they have to be fetched first.
            ValueError, DataRangeError: as `get_candles`.
        """
        if limit.__class__ is not int:
            limit = _whole(limit)
        segment = self._segments.get((symbol, interval))
        if segment is not None:
            end = when // segment.step - segment.first_index
            begin = end - limit if limit > 0 else -1
            if begin >= 0 and end <= segment.rows:
                return Candles.view(segment.columns, begin, end)
        self._check(symbol, interval, limit, when, segment)
        raise DataNeeded(symbol, interval, limit, when)

    async def window_async(self, symbol: str, interval: str, limit: int, when: int) -> Candles:
        """Return the same as `window`, fetching what is not there."""
        try:
            return self.window(symbol, interval, limit, when)
        except DataNeeded as need:
            await self.provide(*need.request)
            return self.window(symbol, interval, limit, when)

    def average_price(self, symbol: str, when: int) -> float:
        """Return the average price of `symbol` at `when`; raises as `window`."""
        count = self._config.avg_price_candles_count
        _, _, high, low, close, volume = self.window(symbol, "1m", count, when).columns()
        return float(average_prices(high, low, close, volume, count)[-1])

    async def average_price_async(self, symbol: str, when: int) -> float:
        """Return the same as `average_price`, fetching what is not there."""
        await self.window_async(symbol, "1m", self._config.avg_price_candles_count, when)
        return self.average_price(symbol, when)

    async def format(self, what: str, symbol: str, value: float) -> str:
        """Format a price or a quantity as the exchange does, or plainly where it does not say."""
        function = getattr(self._exchange, f"format_{what}")
        if function is None:
            return np.format_float_positional(value, precision=8, trim="-", fractional=True)
        text = function(symbol, value)
        return str(await text if inspect.isawaitable(text) else text)

    async def provide(
        self, symbol: str, interval: str, limit: int, when: int, until: int = 0
    ) -> Segment:
        """Fetch so that `window` can answer at `when` and for some time after, `until` at least."""
        key, step = (symbol, interval), interval_ms(interval)
        limit = self._limits[key] = max(limit, self._limits.get(key, 0))
        last = when // step * step
        since = last - limit * step
        chunk = self._config.candles_per_chunk * step
        reach = max(when, until, min(self._horizon, when + chunk))
        while True:
            # a chunk that ends (or lies) inside a gap looks like the end of the data: look further
            final = reach >= self._horizon
            try:
                segment = await self._load(key, since, reach)
            except DataRangeError:
                if final:
                    raise
            else:
                if segment.stop >= last or final:
                    return segment
            reach = min(self._horizon, reach + chunk)

    async def _load(self, key: tuple[str, str], since: int, until: int) -> Segment:
        segment = await self._store.load(self._exchange, *key, since, until, self._config)
        self._gaps.setdefault(key, GapCount()).add(segment)
        self._segments[key] = segment
        return segment

    async def tape(self, symbol: str, when: int, until: int) -> Tape:
        """Return the 1m market from `when` to `until` at least, or to where the data end.

        The tape's first step is `when` or, where the data begin later, the first candle's close.
        """
        count = self._config.avg_price_candles_count
        segment = self._segments.get((symbol, "1m"))
        known = 0 if segment is None else max(segment.stop, segment.asked)
        if segment is None or segment.stop < when or known < until:
            segment = await self.provide(symbol, "1m", count, when, until)
        average = segment.average(count)
        _, open_, high, low, _, _ = segment.columns
        return Tape(segment.first + MINUTE, average, open_, high, low)

    def gaps(self, until: int) -> tuple[SeriesGaps, ...]:
        """Return the candles filled up to `until`, per series that has any."""
        found = []
        for (symbol, interval), counted in self._gaps.items():
            cut = counted.until(until)
            if cut:
                found.append(SeriesGaps(symbol, interval, sum(gap.count for gap in cut), cut))
        return tuple(found)

    def _check(
        self, symbol: str, interval: str, limit: int, when: int, segment: Segment | None
    ) -> None:
        """Raise what no fetching could mend."""
        step = interval_ms(interval)
        if limit < 1:
            raise ValueError(f"limit={limit!r} must be a whole number, 1 or more")
        if segment is None:
            return
        since = (when // step - limit) * step
        name = f"{symbol} {interval} of exchange {self._exchange.exchange_name!r}"
        if since < segment.first and segment.begins:
            raise DataRangeError(
                f"{limit} candles of {name} at {iso(when)} would begin at {iso(since)}, but the "
                f"data begin at {iso(segment.first)}"
            )
        last = (when // step) * step
        if segment.stop < last and (segment.asked >= last or last > wall_ms()):
            raise DataRangeError(f"{name} at {iso(when)}: the data end at {iso(segment.stop)}")


def _whole(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise ValueError(f"limit={limit!r} must be a whole number, 1 or more")
    return operator.index(limit)

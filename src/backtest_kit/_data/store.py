"""The candles of an engine: series without holes, kept for later runs."""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np

from backtest_kit._data.calendar import closed_candles
from backtest_kit._data.fetch import Cooldown, Fetch
from backtest_kit._data.series import CONTEXT, Closed, Mask, Segment, fill
from backtest_kit._values.candles import Candles, Columns, concatenate
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config
from backtest_kit._values.errors import (
    DataRangeError,
    FetchError,
)
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import interval_ms, iso

if TYPE_CHECKING:
    from logging import Logger

#: The exchange itself: another one may take its name (`replace=True`).
Key = tuple[ExchangeSchema, str, str]
Part = tuple[Columns, Mask]
#: How many candles to look back or ahead one by one, where a range begins or ends inside a gap.
#: Beyond them single pages, ever further away, tell a longer gap from the end of the data.
LOOK_AROUND: Final = 10_000
_NOTHING: Final = Candles([], [], [], [], [], [])
#: Candles kept in memory for later runs over the same data (about 60 bytes each).
KEPT_CANDLES: Final = 1_500_000


class Store:
    """The candles of an engine, by (exchange, symbol, interval)."""

    #: Whether a sync `on_candle_data` is called in a thread.
    _apart = False

    def __init__(
        self,
        logger: Callable[[], Logger],
        cooldown: Cooldown,
        report: Callable[[str, Exception], None],
        clock: Callable[[], Clock],
    ) -> None:
        self._segments: OrderedDict[int, tuple[Key, Segment]] = OrderedDict()
        self._locks: WeakKeyDictionary[Any, dict[Key, asyncio.Lock]] = WeakKeyDictionary()
        self._logger = logger
        self._cooldown = cooldown
        self._report = report
        self._clock = clock

    def now(self) -> int:
        """Return the wall clock (ms) that the store goes by."""
        return self._clock().wall_ms()

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
            DataError: the exchange's calendar can't be had.
        """
        key = (exchange, symbol, interval)
        step = interval_ms(interval)
        since = since // step * step
        closed = min(until, self.now()) // step * step
        async with self._lock(key):
            old = self._nearest(key, since, closed)
            if old is not None and _covers(old, since, closed):
                return old
            name = f"{symbol} {interval} of exchange {exchange.exchange_name!r}"
            fetch = self._fetch(exchange, symbol, interval, config)
            times = closed_times(exchange, step)
            segment = await self._extend(fetch, name, old, since, closed, config, times)
            if segment is None:
                raise DataRangeError(f"{name} has no candles from {iso(since)} to {iso(until)}")
            self._keep(key, segment)
            return segment

    async def pages(
        self,
        exchange: ExchangeSchema,
        symbol: str,
        interval: str,
        since: int,
        until: int,
        config: Config,
    ) -> list[Candles]:
        """Return what the exchange has of [since, until), checked, as it is; nothing is kept.

        Its `on_candle_data` is not called. Raises as `load`, but no DataRangeError.
        """
        silent = msgspec.structs.replace(exchange, callbacks=None)
        fetch = self._fetch(silent, symbol, interval, config)
        return await fetch.pages(since, min(until, self.now() // fetch.step * fetch.step))

    def _lock(self, key: Key) -> asyncio.Lock:
        """Return the running loop's lock of a series: one request serves all that wait for it."""
        loop = asyncio.get_running_loop()
        return self._locks.setdefault(loop, {}).setdefault(key, asyncio.Lock())

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

    def _fetch(self, exchange: ExchangeSchema, symbol: str, interval: str, config: Config) -> Fetch:
        series = exchange, symbol, interval, config
        return Fetch(*series, self._cooldown, self._report, self._clock, apart=self._apart)

    async def _extend(
        self,
        fetch: Fetch,
        name: str,
        old: Segment | None,
        since: int,
        until: int,
        config: Config,
        closed: Closed | None,
    ) -> Segment | None:
        """Return what is known of [since, until): `old` with its missing ends fetched."""
        join = functools.partial(
            fill, step=fetch.step, policy=config.gap_policy, name=name, closed=closed
        )
        whole_of = functools.partial(_segment, step=fetch.step, since=since, closed=closed)
        if old is None:
            pages, asked = await self._onward(fetch, since, until, config, _NOTHING)
            begins, before = await self._before(fetch, pages, since)
            part = join(pages, before=before)
            if part is None:
                return None
            return whole_of([part], begins=begins, asked=asked, context=before)
        parts: list[Part] = [(old.columns, old.filled)]
        begins, asked, context = old.begins, old.asked, old.context
        if since < old.first and not begins:
            pages = await fetch.pages(since, old.first)
            begins, before = await self._before(fetch, pages, since)
            whole = join([*pages, Candles.view(old.columns, 0, 1)], before=before)
            assert whole is not None
            parts.insert(0, (_cut(whole[0], 0, -1), whole[1][:-1]))
            context = before or _NOTHING
        if old.asked < until:
            last = Candles.view(old.columns, old.rows - 1, old.rows)
            newest = old.newest(old.rows)
            pages, asked = await self._onward(fetch, old.stop, until, config, newest)
            part = join(pages, before=last)
            if part is not None:
                parts.append(part)
        return whole_of(parts, begins=begins, asked=asked, context=context)

    async def _onward(
        self, fetch: Fetch, since: int, until: int, config: Config, newest: Candles
    ) -> tuple[list[Candles], int]:
        """Return the pages from `since` to `until` at least, and up to where was asked.

        Where candles are missing before `until`, the next one there is tells a gap from the end of
        the data. `newest` are the candles before `since`, where they are known.
        """
        pages = await fetch.pages(since, until, newest)
        if since >= until or (pages and int(pages[-1].timestamp[-1]) + fetch.step == until):
            return pages, until
        limit = self.now() // fetch.step * fetch.step
        known = fetch.data_range()
        if known is not None:
            limit = min(limit, known[1] // fetch.step * fetch.step)
        sure = known is not None  # that there is a candle before the limit
        end = limit if sure else min(limit, until + LOOK_AROUND * fetch.step)
        newest = (pages[-1] if pages else newest)[-CONTEXT:]
        try:
            while until < end:
                stop = min(until + fetch.size * fetch.step, end)
                if found := await fetch.pages(until, stop, newest):
                    first = found[0][:1]
                    return [*pages, first], int(first.timestamp[0]) + fetch.step
                until = stop
                if until == end and not sure:
                    end = await _probe(fetch, range(until, limit))
                    sure = True
        except FetchError as error:
            self._logger().warning("no candle after %s could be had: %s", iso(until), error)
        return pages, until

    async def _before(
        self, fetch: Fetch, pages: list[Candles], since: int
    ) -> tuple[bool, Candles | None]:
        """Say whether the data begin in `pages`; if not, find the candles that a gap there needs.

        It needs the close that fills it, and those that tell if that is suspicious.
        """
        times = [t for page in pages[:CONTEXT] for t in page.timestamp[:CONTEXT].tolist()]
        times = times[:CONTEXT]
        if times and times == [since + i * fetch.step for i in range(len(times))]:
            return False, None
        before = await self._look_back(fetch, since)
        return before is None, before

    async def _look_back(self, fetch: Fetch, since: int) -> Candles | None:
        """Return the last candles before `since`, or `None` where the data begin after them."""
        known = fetch.data_range()
        least = 0 if known is None else known[0] // fetch.step * fetch.step
        reach = max(LOOK_AROUND, fetch.size) * fetch.step
        sure, until = known is not None, since
        try:
            while until > least:
                begin = max(least, until - reach)
                pages = await fetch.pages(begin, until)
                if pages:
                    return concatenate(pages[-CONTEXT:])[-CONTEXT:]
                if not sure:
                    least, sure = await _probe(fetch, range(begin, 0, -1)), True
                until = begin
        except FetchError as error:
            self._logger().warning("no candle before %s could be had: %s", iso(since), error)
        return None


async def _probe(fetch: Fetch, times: range) -> int:
    """Ask for single pages, twice as far away each time; return how far to go for a candle.

    From the first of `times` (milliseconds) towards the last, forward or back. Where no page has a
    candle it is the first: nothing shows that the data go on.
    """
    size, away = fetch.size * fetch.step, LOOK_AROUND * fetch.step
    ahead = times.step > 0
    while away < len(times):
        near = times[away] // fetch.step * fetch.step
        page = range(near, near + size) if ahead else range(max(0, near - size), near)
        if pages := await fetch.pages(page.start, page.stop):
            return int(pages[0].timestamp[0]) + (fetch.step if ahead else 0)
        away *= 2
    return times.start


def _covers(segment: Segment, since: int, until: int) -> bool:
    head = segment.first <= since or segment.begins
    return head and (segment.stop >= until or segment.asked >= until)


def _cut(columns: Columns, start: int, stop: int | None) -> Columns:
    return tuple(column[start:stop] for column in columns)  # type: ignore[return-value]


def closed_times(exchange: ExchangeSchema, step: int) -> Closed | None:
    """Return what says when an exchange is closed, by candles of `step`; `None`: never."""
    calendar = exchange.calendar
    if calendar is None:
        return None
    return lambda first, filled: closed_candles(calendar, first, step, filled)


def _segment(
    parts: list[Part],
    step: int,
    since: int,
    *,
    begins: bool,
    asked: int,
    closed: Closed | None,
    context: Candles | None,
) -> Segment:
    """Join parts that follow each other, and leave out what lies before `since`.

    The last candle stays in any case: the next part must be joined to it. `context` is that of the
    first part; what is left out becomes part of it.
    """
    rows = sum(len(marks) for _, marks in parts)
    first = next(int(pieces[0][0]) for pieces, marks in parts if len(marks))
    skip = left = max(min((since - first) // step, rows - 1), 0)
    kept: list[Part] = []
    newest = [] if context is None else [context]
    for pieces, marks in parts:
        over = min(left, len(marks))
        left -= over
        if over:
            real = np.flatnonzero(~marks[:over])[-CONTEXT:]
            newest.append(Candles(*(column[real] for column in pieces)))
        kept.append((_cut(pieces, over, None), marks[over:]))
    columns: Columns = tuple(  # type: ignore[assignment]
        np.concatenate(pieces) for pieces in zip(*(part[0] for part in kept), strict=True)
    )
    filled, begins = np.concatenate([part[1] for part in kept]), begins and not skip
    first = int(columns[0][0])
    times = None if closed is None else closed(first, filled)
    return Segment(
        columns,
        filled,
        step,
        first,
        begins=begins,
        asked=asked,
        closed=times,
        context=concatenate(newest)[-CONTEXT:],
    )

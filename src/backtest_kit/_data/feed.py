"""The candles of live runs: series that grow by the minute, requested once for all runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from logging import Logger
from typing import Final

from backtest_kit._data.calendar import load_calendar
from backtest_kit._data.fetch import Cooldown, Fetch
from backtest_kit._data.series import CONTEXT, Segment
from backtest_kit._data.store import Key, Store, closed_times
from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BadCandlesError, DataRangeError, FetchError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import interval_ms, iso

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 8.0


class Feed(Store):
    """The newest candles of an engine's live runs, by (exchange, symbol, interval).

    A candle that is late is requested again, with growing pauses, for up to `feed_wait_ms`. Then
    the candles that have come are returned; a later call requests the rest. A candle counts as
    missing, and is filled, only when a later one has come.
    """

    _apart = True  # no live run stands still because of a callback

    def __init__(
        self,
        logger: Callable[[], Logger],
        cooldown: Cooldown,
        report: Callable[[str, Exception], None],
        clock: Callable[[], Clock],
    ) -> None:
        super().__init__(logger, cooldown, report, clock)
        self._series: dict[Key, Segment] = {}
        self._reach: dict[Key, int] = {}
        self._given_up: dict[Key, int] = {}
        self._spread = random.Random()  # noqa: S311 - spreads requests, hides nothing

    async def load(
        self,
        exchange: ExchangeSchema,
        symbol: str,
        interval: str,
        since: int,
        until: int,
        config: Config,
    ) -> Segment:
        """Return a segment from `since` to `until`, or to the newest candle there is.

        Raises:
            BadCandlesError, GapError, FetchError: as the exchange gave cause, also after waiting.
            DataRangeError: there is no candle at all in the range.
        """
        key = (exchange, symbol, interval)
        step = interval_ms(interval)
        asked, since = until, since // step * step
        until = min(until, self.now()) // step * step
        async with self._lock(key):
            old = self._series.get(key)
            given_up = self._given_up.get(key) == asked
            if old is not None and _covers(old, since, until, given_up=given_up):
                return old
            # keep as much as any run has asked for, so that none makes another fetch it again
            reach = self._reach[key] = max(until - since, self._reach.get(key, 0))
            begin = min(since, until - reach)
            old = None if old is None or old.stop < begin else old.asked_again()
            name = f"{symbol} {interval} of exchange {exchange.exchange_name!r}"
            fetch = self._fetch(exchange, symbol, interval, config)
            await load_calendar(exchange.calendar, begin, until)
            times = closed_times(exchange, step)
            segment = await self._extend(fetch, name, old, begin, until, config, times)
            if segment is None:
                raise DataRangeError(f"{name} has no candles from {iso(begin)} to {iso(until)}")
            self._series[key] = segment
            if segment.stop < until:
                self._given_up[key] = asked  # for this minute; the next one asks again
            return segment

    async def _onward(
        self, fetch: Fetch, since: int, until: int, config: Config, newest: Candles
    ) -> tuple[list[Candles], int]:
        """Return the pages from `since` to `until`, waiting for a late candle."""
        clock = self._clock()
        deadline = clock.monotonic() + config.feed_wait_ms / 1000
        pages: list[Candles] = []
        pause = _FIRST_PAUSE
        while since < until:
            failure: FetchError | BadCandlesError | None = None
            found: list[Candles] = []
            try:
                found = await fetch.pages(since, until, newest)
            except (FetchError, BadCandlesError) as error:
                failure = error  # what an exchange answers wrongly now it may answer well soon
            if found:
                pages += found
                since = int(found[-1].timestamp[-1]) + fetch.step
                newest = concatenate([newest, *found])[-CONTEXT:]
                continue
            left = deadline - clock.monotonic()
            if left <= 0:
                if failure is not None:
                    raise failure
                break
            await clock.sleep(min(pause * self._spread.uniform(0.8, 1.2), left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return pages, until


def _covers(segment: Segment, since: int, until: int, *, given_up: bool) -> bool:
    return (segment.first <= since or segment.begins) and (given_up or segment.stop >= until)

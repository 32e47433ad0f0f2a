"""The market as one run sees it: windows that end at "now"."""

from __future__ import annotations

import asyncio
import inspect
import operator
from typing import Final, SupportsIndex

import msgspec
import numpy as np

from backtest_kit._data.series import CONTEXT, Gap, Segment, average_prices
from backtest_kit._data.store import Store
from backtest_kit._rules.bars import Bars
from backtest_kit._values.candles import Candles
from backtest_kit._values.config import Config
from backtest_kit._values.errors import (
    ArgumentError,
    BeforeDataError,
    DataError,
    DataRangeError,
)
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, interval_ms, iso
from backtest_kit._values.user_code import CandlesNotLoaded

_WEEK: Final = 7 * INTERVALS["1d"]


class GapCount:
    """The gaps of one series over all that a run has loaded of it, each counted once."""

    def __init__(self) -> None:
        self._since = self._stop = 0
        self._step = 1
        self._gaps: list[Gap] = []
        self._rests: list[Gap] = []
        self._suspects: list[int] = []

    def add(self, segment: Segment) -> None:
        """Count what this segment covers and none before did."""
        self._step = segment.step
        if self._since == self._stop:
            self._since = self._stop = segment.first
        before, after = self._since, max(segment.first, self._stop)
        news = (segment.first, before), (after, segment.stop)
        self._since = min(before, segment.first)
        self._stop = max(self._stop, segment.stop)
        self._gaps = self._joined(self._gaps + [g for new in news for g in segment.gaps(*new)])
        self._rests = self._joined(self._rests + [g for new in news for g in segment.rests(*new)])
        self._suspects += [when for new in news for when in segment.suspects(*new)]

    def _joined(self, runs: list[Gap]) -> list[Gap]:
        joined: list[Gap] = []
        for gap in sorted(runs):
            if joined and joined[-1].start + joined[-1].count * self._step == gap.start:
                joined[-1] = Gap(joined[-1].start, joined[-1].count + gap.count)
            else:
                joined.append(gap)
        return joined

    def until(self, until: int, since: int = 0) -> tuple[Gap, ...]:
        """Return the gaps with open times in [since, until), cut there."""
        return self._between(self._gaps, since, until)

    def closed_until(self, until: int, since: int = 0) -> int:
        """Return how many candles in [since, until) were filled in closed times."""
        return sum(rest.count for rest in self._between(self._rests, since, until))

    def suspects(self, since: int, until: int) -> list[int]:
        """Return the open times in [since, until) of the suspicious candles, in order."""
        return sorted(when for when in self._suspects if since <= when < until)

    def candles(self, since: int, until: int) -> int:
        """Return how many candles with open times in [since, until) there should be."""
        begin, end = max(since, self._since), min(until, self._stop)
        return max(0, -((begin - end) // self._step)) - self.closed_until(end, begin)

    def _between(self, runs: list[Gap], since: int, until: int) -> tuple[Gap, ...]:
        cut = []
        for gap in runs:
            first = max(0, -((gap.start - since) // self._step))
            end = min(gap.count, -((gap.start - until) // self._step))
            if first < end:
                cut.append(Gap(gap.start + first * self._step, end - first))
        return tuple(cut)


class SeriesGaps(msgspec.Struct, frozen=True):
    """Missing candles of one series that a run has read as filled.

    `filled` of them in `gaps`, and `closed` while the market was closed, which are no gaps.
    """

    symbol: str
    interval: str
    filled: int
    gaps: tuple[Gap, ...]
    closed: int = 0


class CandleCount(msgspec.Struct, frozen=True):
    """How good the base candles were that a run has stepped over, closed times left out.

    Of `candles` that there should be `missing` were filled; `gaps` says which. `suspicious` are the
    open times (ms) of those with a price far off the closes before.
    """

    candles: int = 0
    missing: int = 0
    gaps: tuple[Gap, ...] = ()
    suspicious: tuple[int, ...] = ()

    @property
    def missing_percent(self) -> float:
        """The share of missing candles, in percent."""
        return 100 * self.missing / self.candles if self.candles else 0.0


class MarketView:
    """The market as one run sees it. Windows end at "now"; what lies behind is not reachable.

    `config` is that of a run, resolved: its `base_interval` is a name, which prices are made of.
    """

    def __init__(
        self, store: Store, exchange: ExchangeSchema, config: Config, horizon: int
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._config = config
        self._base = config.base_interval
        self._chunk = config.candles_per_chunk
        self._hold = config.suspicious_candle == "hold"
        #: No candle that closes later is asked for; a live run moves it on.
        self.horizon = horizon
        self._segments: dict[tuple[str, str], Segment] = {}
        self._limits: dict[tuple[str, str], int] = {}
        self._gaps: dict[tuple[str, str], GapCount] = {}

    def afresh(self) -> MarketView:
        """Return the same market, as it was before the first question; the limits are kept."""
        view = MarketView(self._store, self._exchange, self._config, self.horizon)
        view._limits |= self._limits
        return view

    def window(self, symbol: str, interval: str, limit: int, when: int) -> Candles:
        """Return the last `limit` candles that have closed at `when`, a slice.

        Raises:
            CandlesNotLoaded: they have to be fetched first.
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
        raise CandlesNotLoaded(symbol, interval, limit, when)

    async def window_async(self, symbol: str, interval: str, limit: int, when: int) -> Candles:
        """Return the same as `window`, fetching what is not there."""
        try:
            return self.window(symbol, interval, limit, when)
        except CandlesNotLoaded as need:
            await self.provide(*need.request)
            return self.window(symbol, interval, limit, when)

    def average_price(self, symbol: str, when: int) -> float:
        """Return the average price of `symbol` at `when`; raises as `window`."""
        count = self._config.avg_price_candles_count
        _, _, high, low, close, volume = self.window(symbol, self._base, count, when).columns()
        segment = self._segments[symbol, self._base]
        row = when // segment.step - segment.first_index - 1
        reach = len(segment.context) + row - count + 1
        if self._hold and reach < CONTEXT and not segment.begins:
            # what lies before the window says if its candles are suspicious
            raise CandlesNotLoaded(symbol, self._base, count + CONTEXT, when)
        if not self._hold or segment.suspicious is None:
            return float(average_prices(high, low, close, volume, count)[-1])
        return float(segment.average(count, hold=True)[row])

    def fill_price(self, symbol: str, when: int) -> float:
        """Return the price at which a fill can be had at `when`; raises as `window`."""
        if self._config.fill_price == "average":
            return self.average_price(symbol, when)
        return float(self.window(symbol, self._base, 1, when).close[-1])

    async def average_price_async(self, symbol: str, when: int) -> float:
        """Return the same as `average_price`, fetching what is not there."""
        for _ in range(2):
            try:
                return self.average_price(symbol, when)
            except CandlesNotLoaded as need:
                await self.provide(*need.request)
        return self.average_price(symbol, when)

    async def format(self, what: str, symbol: str, value: float) -> str:
        """Format a price or a quantity as the exchange does, or plainly where it does not say."""
        function = getattr(self._exchange, f"format_{what}")
        if function is None:
            return np.format_float_positional(value, precision=8, trim="-", fractional=True)
        text = function(symbol, value)
        return str(await text if inspect.isawaitable(text) else text)

    async def provide(
        self,
        symbol: str,
        interval: str,
        limit: int,
        when: int,
        until: int = 0,
        since: int | None = None,
    ) -> Segment:
        """Fetch so that `window` can answer at `when` and for some time after, `until` at least.

        From `since` on (all in milliseconds), where that is earlier than the window.
        """
        key, step = (symbol, interval), interval_ms(interval)
        limit = self._limits[key] = max(limit, self._limits.get(key, 0))
        last = when // step * step
        since = min(last - limit * step, last if since is None else since)
        chunk = self._chunk * step
        reach = max(when, until, min(self.horizon, when + chunk))
        while True:
            # a chunk that ends (or lies) inside a gap looks like the end of the data: look further
            final = reach >= self.horizon
            try:
                segment = await self._load(key, since, reach)
            except DataRangeError as error:
                if final:
                    raise await self._no_candle(symbol, interval, since, when, error) from None
            else:
                if segment.stop >= last or final:
                    return segment
            reach = min(self.horizon, reach + chunk)

    async def _no_candle(
        self, symbol: str, interval: str, since: int, when: int, error: DataRangeError
    ) -> DataRangeError:
        """Return why a series has not one candle: its first has not closed, or `error`."""
        if interval == self._base:
            return error
        try:
            base = await self._store.load(
                self._exchange, symbol, self._base, since, when, self._config
            )
        except DataError:
            return error
        return BeforeDataError(str(error)) if base.begins and base.first > since else error

    async def prefetch(self, when: int) -> None:
        """Fetch what closes by `when` of the series that were asked for earlier, all at once.

        What can't be had is left to the one who asks for it.
        """
        late = [
            self.provide(symbol, interval, limit, when)
            for (symbol, interval), limit in self._limits.items()
            if (segment := self._segments.get((symbol, interval))) is None
            or segment.stop < when // interval_ms(interval) * interval_ms(interval)
        ]
        await asyncio.gather(*late, return_exceptions=True)

    async def _load(self, key: tuple[str, str], since: int, until: int) -> Segment:
        segment = await self._store.load(self._exchange, *key, since, until, self._config)
        self._gaps.setdefault(key, GapCount()).add(segment)
        self._segments[key] = segment
        return segment

    async def bars(self, symbol: str, when: int, until: int) -> Bars:
        """Return the market from `when` to `until` at least, or to where the data end.

        The first step is `when` or, if the data begin later, the first candle's close.
        If the market is closed at `until`, the bars go on to the next open step.
        """
        base = interval_ms(self._base)
        until = -(-until // base) * base
        while True:
            segment = await self._base_candles(symbol, when, until)
            next_open = segment.next_open(hold=self._hold)
            if next_open is None or segment.stop < until:
                break
            row = -((segment.first + segment.step - until) // segment.step)
            if row < segment.rows and next_open[max(row, 0)] < segment.rows:
                break
            until = segment.stop + max(_WEEK, segment.step)
        average = segment.average(self._config.avg_price_candles_count, hold=self._hold)
        _, open_, high, low, close, _ = segment.columns
        fill = close if self._config.fill_price == "market" else average
        first, step = segment.first + segment.step, segment.step
        return Bars(first, average, fill, open_, high, low, step, next_open, close)

    async def _base_candles(self, symbol: str, when: int, until: int) -> Segment:
        count = self._config.avg_price_candles_count + CONTEXT * self._hold
        segment = self._segments.get((symbol, self._base))
        known = 0 if segment is None else max(segment.stop, segment.asked)
        if segment is None or segment.stop < when or known < until:
            since = None
            if segment is not None and when - segment.stop <= self._chunk * segment.step:
                since = segment.stop  # what was hopped over counts too
            try:
                segment = await self.provide(symbol, self._base, count, when, until, since)
            except DataRangeError:  # not one candle more: the data end with those that are there
                if segment is None:
                    raise
        return segment

    def loaded(self, symbol: str, interval: str) -> Segment | None:
        """Return the candles of a series that are there; `None` before it was asked for."""
        return self._segments.get((symbol, interval))

    def gaps(self, until: int) -> tuple[SeriesGaps, ...]:
        """Return the candles filled up to `until`, per series that has any, closed times apart."""
        found = []
        for (symbol, interval), counted in self._gaps.items():
            cut, closed = counted.until(until), counted.closed_until(until)
            if cut or closed:
                filled = sum(gap.count for gap in cut)
                found.append(SeriesGaps(symbol, interval, filled, cut, closed))
        return tuple(found)

    def doubtful(self, symbol: str) -> bool:
        """Say whether a base candle that is loaded is missing or suspicious."""
        segment = self._segments.get((symbol, self._base))
        return segment is not None and (
            bool(segment.filled.any()) or segment.suspicious is not None
        )

    def candle_count(self, symbol: str, since: int, until: int) -> CandleCount:
        """Return how good the base candles of the steps from `since` to `until` (ms) were.

        They begin with those of the first step's average price.
        """
        counted = self._gaps.get((symbol, self._base))
        if counted is None:
            return CandleCount()
        first = since - self._config.avg_price_candles_count * interval_ms(self._base)
        gaps = counted.until(until, first)
        return CandleCount(
            counted.candles(first, until),
            sum(gap.count for gap in gaps),
            gaps,
            tuple(counted.suspects(first, until)),
        )

    def _check(
        self, symbol: str, interval: str, limit: int, when: int, segment: Segment | None
    ) -> None:
        """Raise what no fetching could mend."""
        step = interval_ms(interval)
        if limit < 1:
            raise ArgumentError(f"limit={limit!r} must be a whole number, 1 or more")
        if segment is None:
            return
        since = (when // step - limit) * step
        name = f"{symbol} {interval} of exchange {self._exchange.exchange_name!r}"
        if since < segment.first and segment.begins:
            raise BeforeDataError(
                f"{limit} candles of {name} at {iso(when)} would begin at {iso(since)}, but the "
                f"data begin at {iso(segment.first)}"
            )
        last = (when // step) * step
        if segment.stop < last and (segment.asked >= last or last > self._store.now()):
            raise DataRangeError(f"{name} at {iso(when)}: the data end at {iso(segment.stop)}")


def _whole(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise ArgumentError(f"limit={limit!r} must be a whole number, 1 or more")
    return operator.index(limit)

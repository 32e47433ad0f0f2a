"""A seeded random market: no network, no files, the same candles on every run."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.content import digest
from backtest_kit._values.errors import DataRangeError
from backtest_kit._values.time import INTERVALS, MINUTE, interval_ms
from backtest_kit.exchanges._recorded import PAGE, resampled

_MINUTES: Final = 1440
_DAY: Final = _MINUTES * MINUTE
#: Standard deviation of the price within a day, in log price.
_DAILY: Final = 0.028
#: Slow waves of the price level: periods of 1, 2, 4 ... days, each as much larger as its root.
_WAVES: Final = 10
_KEPT_DAYS: Final = 128


class SyntheticExchange:
    """A random market that any minute of can be computed alone, whatever was asked before.

    The log price at midnight is a sum of waves with periods of 1 to 512 days, interpolated between
    random nodes; within a day it is a Brownian bridge between two midnights, with a volatility that
    differs from day to day and from hour to hour. So neighbouring days join without a jump, and no
    day needs the ones before it. Every random number comes from `seed`, the symbol and the day.
    Prices have two decimals, volumes three. There is no trend to find: whatever a strategy earns
    here is luck.

    The same candles on every machine as far as NumPy promises: the generator is Philox, whose bits
    are fixed, but normal and gamma variates may change with a release of NumPy (its policy for
    `Generator`), and `exp` may differ in the last bit between processors, which the rounding to
    cents hides nearly always.
    """

    page_limit: int | None = PAGE
    intervals = tuple(INTERVALS)

    def __init__(
        self, seed: int = 0, exchange_name: str = "synthetic", price: float = 30_000.0
    ) -> None:
        self.exchange_name = exchange_name
        self._seed = seed
        self._price = price
        self._days: OrderedDict[tuple[str, int], Candles] = OrderedDict()
        self._node = functools.lru_cache(maxsize=4096)(self._make_node)

    def __reduce__(self) -> tuple[Any, ...]:
        return SyntheticExchange, (self._seed, self.exchange_name, self._price)

    def content_digest(self) -> str:
        """Return a digest of what makes the candles."""
        return digest(self._seed, self._price, np.__version__)

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the candles of `interval` with open times in the `limit` steps from `since`."""
        step = interval_ms(interval)
        if since < 0:
            raise DataRangeError("the synthetic market begins in 1970")
        read = functools.partial(self._read, symbol)
        until = since + limit * step
        if step == MINUTE:
            return read(since, until)
        first, end = (-(-moment // step) * step for moment in (since, until))
        return resampled(read, MINUTE, interval, first, end)

    def _read(self, symbol: str, since: int, until: int) -> Candles:
        first, last = since // _DAY, (until - 1) // _DAY
        whole = concatenate(self._day(symbol, day) for day in range(first, last + 1))
        begin = (since - first * _DAY) // MINUTE
        return whole[begin : begin + (until - since) // MINUTE]

    def _random(self, symbol: str, *key: int) -> np.random.Generator:
        words = f"{self._seed}|{symbol}|{'|'.join(map(str, key))}".encode()
        digest = hashlib.blake2b(words, digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))

    def _make_node(self, symbol: str, wave: int, index: int) -> float:
        return float(self._random(symbol, wave, index).standard_normal())

    def _level(self, symbol: str, day: int) -> float:
        level = 0.0
        for wave in range(_WAVES):
            index, rest = divmod(day, 1 << wave)
            share = rest / (1 << wave)
            a, b = self._node(symbol, wave, index), self._node(symbol, wave, index + 1)
            level += (a + (b - a) * share) * _DAILY * 0.5 * 2 ** (wave / 2)
        return level

    def _day(self, symbol: str, day: int) -> Candles:
        key = (symbol, day)
        if key not in self._days:
            self._days[key] = self._make_day(symbol, day)
            while len(self._days) > _KEPT_DAYS:
                self._days.popitem(last=False)
        return self._days[key]

    def _make_day(self, symbol: str, day: int) -> Candles:
        random = self._random(symbol, -1, day)
        mood = 0.5 + random.gamma(3.0, 1 / 3.0)
        minute = np.arange(_MINUTES)
        hours = 1.0 + 0.6 * (1.0 - np.abs(minute / 720.0 - 1.0))
        sizes = hours * mood * (_DAILY / np.sqrt(_MINUTES) / 1.3)
        walk = np.cumsum(random.standard_normal(_MINUTES) * sizes)
        start, end = self._level(symbol, day), self._level(symbol, day + 1)
        # a bridge: the walk, tilted so that it ends where the next day begins
        bridge = start + walk + (end - start - walk[-1]) * ((minute + 1) / _MINUTES)
        close = self._round(bridge)
        close[-1] = self._round(np.array([end]))[0]
        opening = np.concatenate((self._round(np.array([start])), close[:-1]))
        reach = np.abs(random.standard_normal((2, _MINUTES))) * sizes * 0.5
        high = np.maximum(
            np.maximum(opening, close), np.round(np.maximum(opening, close) * (1 + reach[0]), 2)
        )
        low = np.minimum(opening, close)
        low = np.maximum(np.minimum(low, np.round(low * (1 - reach[1]), 2)), 0.01)
        moves = 1.0 + np.abs(close - opening) / opening / sizes
        volume = np.round(random.gamma(2.0, 0.5, _MINUTES) * hours * moves * mood * 10, 3)
        return Candles(day * _DAY + minute * MINUTE, opening, high, low, close, volume)

    def _round(
        self, level: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.maximum(np.round(self._price * np.exp(level), 2), 0.01)

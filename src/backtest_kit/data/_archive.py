"""The archive of Binance's candles: a zipped CSV a month, or a day, with a checksum beside each."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from backtest_kit._catalog.layout import SeriesKey, month_of, months
from backtest_kit._catalog.spans import Span, union
from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config
from backtest_kit._values.errors import (
    BacktestKitError,
    BadCandlesError,
    DataRangeError,
    ExchangeRefusedError,
    FetchError,
)
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit.data._source import Answer

ARCHIVE: Final = "https://data.binance.vision"
#: The venues, by their names in ccxt, whose candles it has.
VENUES: Final = ("binance", "binanceusdm", "binancecoinm")
_DAY: Final = INTERVALS["1d"]
#: The file of a month comes some days after its end; until then there are those of its days.
_PUBLISHED: Final = 40 * _DAY
#: Milliseconds of the year 5138: a larger time is in microseconds.
_MICROSECONDS: Final = 10**14
_BUSY: Final = frozenset({418, 429})
_LONGEST_WAIT: Final = 300.0


class Archive:
    """The public archive, by months, and by days where a month is not yet there."""

    name = "binance-archive"

    def __init__(self, config: Config, clock: Callable[[], Clock], base: str = ARCHIVE) -> None:
        try:
            import aiohttp
        except ImportError:
            raise BacktestKitError(
                "the archive needs aiohttp: pip install 'backtest-kit[ccxt]'"
            ) from None
        self._base = base.rstrip("/")
        self._config = config
        self._clock = clock
        self._http: Any = aiohttp
        self._session: Any = None

    async def chunks(self, key: SeriesKey, wanted: Span) -> list[Span]:
        """Return the months that are wanted, cut to days that are over."""
        over = self._clock().wall_ms() // _DAY * _DAY
        since, until = wanted[0] // _DAY * _DAY, min(-(-wanted[1] // _DAY) * _DAY, over)
        found = []
        for month in months(since, until) if since < until else []:
            whole = month.end <= over
            found.append((month.first, month.end) if whole else (max(month.first, since), until))
        return found

    async def read(self, key: SeriesKey, chunk: Span) -> Answer:
        """Return the candles of a month, or of days.

        Raises:
            DataRangeError: there is no such file.
            ExchangeRefusedError: the archive has no such market.
            FetchError: it can't be had.
            BadCandlesError: it is damaged at every try, or breaks a rule of the data.
        """
        since, until = chunk
        month = month_of(since)
        if (since, until) == (month.first, month.end):
            candles = await self._file(key, "monthly", str(month), chunk)
            if candles is not None:
                return Answer(candles, (chunk,))
            if self._clock().wall_ms() - until > _PUBLISHED:
                raise DataRangeError(f"the archive has no file of {key} for {month}")
        days: list[tuple[Span, Candles]] = []
        for begin in range(since, until, _DAY):
            span = (begin, begin + _DAY)
            candles = await self._file(key, "daily", f"{to_datetime(begin):%Y-%m-%d}", span)
            if candles is not None:
                days.append((span, candles))
        if not days:
            raise DataRangeError(f"the archive has no files of {key} for the days of {month} yet")
        return Answer(concatenate(c for _, c in days), tuple(union(span for span, _ in days)))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _file(self, key: SeriesKey, period: str, stamp: str, span: Span) -> Candles | None:
        """Return the candles of a file, `None` where there is none."""
        folder, symbol = _place(key)
        name = f"{symbol}-{key.interval}-{stamp}.zip"
        url = f"{self._base}/data/{folder}/{period}/klines/{symbol}/{key.interval}/{name}"
        attempts = self._config.get_candles_retry_count + 1
        for attempt in range(1, attempts + 1):
            content = await self._get(url)
            if content is None:
                return None
            checksum = await self._get(f"{url}.CHECKSUM")
            try:
                return _candles(content, checksum, key, span)
            except _DamagedError as error:  # perhaps on its way here
                if attempt == attempts:
                    raise BadCandlesError(f"{url}: {error}, {attempts} times") from None
            except BadCandlesError as error:
                raise BadCandlesError(f"{url}: {error}") from None
        raise AssertionError("there is at least one attempt")

    async def _get(self, url: str) -> bytes | None:
        """Return what lies at an address, `None` where nothing does; tried again after a failure.

        Raises:
            FetchError: it can't be had.
        """
        if self._session is None:
            timeout = self._http.ClientTimeout(total=self._config.get_candles_timeout_ms / 1000)
            self._session = self._http.ClientSession(timeout=timeout)
        pause = self._config.get_candles_retry_delay_ms / 1000
        attempts = self._config.get_candles_retry_count + 1
        failure = ""
        for attempt in range(attempts):
            if attempt:
                await self._clock().sleep(min(pause, _LONGEST_WAIT))
                pause *= 2
            try:
                async with self._session.get(url) as response:
                    if response.status in (403, 404):
                        return None
                    if response.status in _BUSY or response.status >= 500:
                        failure = f"HTTP {response.status}"
                        after = response.headers.get("Retry-After", "")
                        pause = max(pause, float(after)) if after.isdecimal() else pause
                        continue
                    response.raise_for_status()
                    content: bytes = await response.read()
                    return content
            except self._http.ClientResponseError as error:
                raise FetchError(f"{url}: HTTP {error.status}") from None
            except (TimeoutError, self._http.ClientError, OSError) as error:
                failure = f"{type(error).__name__}: {error}"
        raise FetchError(f"{url}: failed {attempts} times, last with {failure}")


class _DamagedError(Exception):
    """What came is not what was sent."""


def _place(key: SeriesKey) -> tuple[str, str]:
    """Return the folder and the name of a symbol in the archive.

    Raises:
        ExchangeRefusedError: the archive has no such kind of market.
    """
    pair, _, settled = key.symbol.partition(":")
    base, slash, quoted = pair.partition("/")
    if not settled:
        return "spot", f"{base}{quoted}"
    if slash and settled == quoted:
        return "futures/um", f"{base}{quoted}"
    if slash and settled == base:
        return "futures/cm", f"{base}{quoted}_PERP"
    raise ExchangeRefusedError(f"the archive has no candles of {key.symbol!r}")


def _candles(content: bytes, checksum: bytes | None, key: SeriesKey, span: Span) -> Candles:
    """Return the candles of a zip file, checked.

    Raises:
        _DamagedError: it is not whole, or does not have its checksum.
        BadCandlesError: its candles break a rule, or are not those of the span.
    """
    import pyarrow as pa
    from pyarrow import csv

    if checksum is not None:
        told = checksum.split()[0].decode(errors="replace").lower() if checksum.split() else ""
        if told != hashlib.sha256(content).hexdigest():
            raise _DamagedError(f"its SHA-256 is not the published {told or 'one'}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            text = packed.read(packed.namelist()[0])
    except (zipfile.BadZipFile, IndexError, EOFError) as error:
        raise _DamagedError(f"it is no whole zip file ({error})") from None
    head = int(not text[:1].isdigit())
    names = [f"f{i}" for i in range(text.split(b"\n", 1)[0].count(b",") + 1)]
    try:
        table = csv.read_csv(
            io.BytesIO(text),
            read_options=csv.ReadOptions(column_names=names, skip_rows=head),
            convert_options=csv.ConvertOptions(
                include_columns=names[:6],
                column_types={"f0": pa.int64(), **dict.fromkeys(names[1:6], pa.float64())},
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise BadCandlesError(f"it holds no table of candles: {error}") from None
    times = table.column(0).to_numpy()
    times = np.where(times >= _MICROSECONDS, times // 1000, times)
    candles = Candles(times, *(table.column(i).to_numpy() for i in range(1, 6)))
    check_series(candles, key.step)
    if len(candles) and not (span[0] <= times[0] and times[-1] < span[1]):
        raise BadCandlesError("its candles are not those of its month or day")
    return candles

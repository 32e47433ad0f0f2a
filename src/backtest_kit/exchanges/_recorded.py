"""Recorded candles: one series per symbol, longer intervals resampled from it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import Candles, Columns, concatenate, regroup, spacing
from backtest_kit._values.content import digest, digest_files
from backtest_kit._values.errors import BadCandlesError, DataError, DataRangeError
from backtest_kit._values.time import INTERVALS, interval_ms, interval_name
from backtest_kit.exchanges._layout import NO_VOLUME, Layout, Reading

_log: Final = logging.getLogger("backtest_kit")
#: Candles that one call may ask for: they are in memory or on this machine's disk.
PAGE = 100_000


class Series(Protocol):
    """Recorded candles of one symbol on one interval; times in milliseconds UTC."""

    step: int
    first: int
    end: int

    def read(self, since: int, until: int) -> Candles:
        """Return the candles with open times in [since, until)."""
        ...


class NamedSeries(Series, Protocol):
    """A series with the name of its file, and what its reader assumed."""

    name: str
    notes: tuple[str, ...]


class Loaded:
    """A series held in memory."""

    def __init__(self, candles: Candles, name: str, notes: tuple[str, ...] = ()) -> None:
        self.name = name
        self.notes = notes
        self.step = detect_step(candles, name)
        try:
            check_series(candles, self.step)
        except BadCandlesError as error:
            raise BadCandlesError(f"{name}: {error}") from None
        self._candles = candles
        self._times = candles.timestamp
        self.first = int(self._times[0])
        self.end = int(self._times[-1]) + self.step

    def read(self, since: int, until: int) -> Candles:
        """Return the candles with open times in [since, until), a slice."""
        begin, end = np.searchsorted(self._times, (since, until))
        return self._candles[int(begin) : int(end)]

    @property
    def columns(self) -> Columns:
        """All candles, as columns."""
        return self._candles.columns()


def detect_step(candles: Candles, name: str) -> int:
    """Return the interval of candles in milliseconds: the smallest distance between two.

    Raises:
        BadCandlesError: there are fewer than two candles, or they follow no known interval.
    """
    step = spacing(candles.timestamp)
    if step <= 0:
        what = "fewer than two candles" if len(candles) < 2 else "candles out of order or twice"
        raise BadCandlesError(f"{name} has {what}; run `backtest-kit data check` on it")
    if step not in INTERVALS.values():
        raise BadCandlesError(f"{name} has candles {step / 1000:g} s apart, which is no interval")
    return step


async def answer(series: Series, name: str, interval: str, since: int, limit: int) -> Candles:
    """Return candles of `interval` from a series, as `get_candles` promises.

    Raises:
        DataError: the series is coarser than `interval`.
    """
    step = interval_ms(interval)
    if step == series.step:
        return series.read(since, since + limit * step)
    if step % series.step:
        own = interval_name(series.step)
        raise DataError(f"{name} has {own} candles, of which {interval} can't be made")
    # a bucket is complete where the recording reaches its end
    first = -(-since // step) * step
    until = min(-(-(since + limit * step) // step) * step, series.end // step * step)
    return resampled(series.read, series.step, interval, first, until)


def resampled(
    read: Callable[[int, int], Candles], own: int, interval: str, since: int, until: int
) -> Candles:
    """Return candles of `interval`, made of what `read` returns, a bounded piece at a time."""
    step = interval_ms(interval)
    piece = max(1, PAGE * own // step) * step
    parts = [
        regroup(read(start, min(start + piece, until)), step)
        for start in range(since // step * step, until, piece)
    ]
    return concatenate(parts)


def find_files(path: Path, symbol: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a symbol in a folder: named `SYMBOL` or `SYMBOL` and a delimiter.

    Raises:
        DataRangeError: there is none; the message names the files there are.
    """
    if not path.exists():
        raise DataRangeError(f"{path} does not exist")
    if path.is_file():
        return [path]
    plain = symbol.replace("/", "").replace(":", "")
    files = sorted(p for p in path.iterdir() if p.name.lower().endswith(suffixes))
    found = [p for p in files if _belongs(p.name, symbol) or _belongs(p.name, plain)]
    if not found:
        there = ", ".join(p.name for p in files[:10]) or "no such files"
        raise DataRangeError(f"no {' or '.join(suffixes)} file of {symbol} in {path} ({there})")
    return found


def digest_folder(path: Path, suffixes: tuple[str, ...], given: Layout) -> str:
    """Return the digest of a file, or of a folder's files with these endings, read in this way."""
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.lower().endswith(suffixes))
    content = digest_files(files)
    return digest(content, *msgspec.structs.astuple(given)) if given else content


def oldest_first(reading: Reading) -> Reading:
    """Return candles in the order of time where the newest comes first; else as they are."""
    t = reading.candles.timestamp
    if len(t) < 2 or not (t[1:] < t[:-1]).all():
        return reading
    turned = Candles(*(column[::-1] for column in reading.candles.columns()))
    notes = (*reading.notes, "the newest row comes first")
    rows = np.arange(len(t)) if reading.rows is None else reading.rows
    return Reading(turned, notes, reading.unread, rows[::-1])


def _belongs(name: str, symbol: str) -> bool:
    return name.startswith(symbol) and not name[len(symbol) : len(symbol) + 1].isalnum()


class Recording:
    """Base of the exchanges over recorded candles; subclasses say how a symbol's are opened."""

    page_limit: int | None = PAGE

    def __init__(self, exchange_name: str, calendar: str | None = None) -> None:
        self.exchange_name = exchange_name
        self.calendar = calendar
        self._series: dict[str, Series] = {}
        self._notes: dict[str, tuple[str, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # for a worker: open files can't travel, and it may be in another folder
        state = self.__dict__ | {"_series": {}}
        return {
            name: value.absolute() if isinstance(value, Path) else value
            for name, value in state.items()
        }

    def open(self, symbol: str) -> Series:
        """Return the series of a symbol."""
        raise NotImplementedError

    def note(self, symbol: str, notes: Iterable[str]) -> None:
        """Keep what the reader of a symbol's candles assumed; a missing volume is logged."""
        self._notes[symbol] = kept = tuple(dict.fromkeys(notes))
        for text in kept:
            level = logging.WARNING if text == NO_VOLUME else logging.INFO
            _log.log(level, "%s of exchange %r: %s", symbol, self.exchange_name, text)

    def notes(self, symbol: str) -> tuple[str, ...]:
        """Return what the reader of a symbol's candles assumed, in words."""
        self.series(symbol)
        return self._notes.get(symbol, ())

    def series(self, symbol: str) -> Series:
        """Return the series of a symbol, opened once."""
        if symbol not in self._series:
            self._series[symbol] = self.open(symbol)
        return self._series[symbol]

    async def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> Candles:
        """Return the candles of `interval` with open times in the `limit` steps from `since`."""
        series = self.series(symbol)
        return await answer(series, f"exchange {self.exchange_name!r}", interval, since, limit)

    def content_digest(self) -> str:
        """Return a digest of all that this can answer with; raises OSError."""
        raise NotImplementedError

    def intervals(self, symbol: str) -> list[str]:
        """Return the interval of a symbol's candles, and those that can be made of them."""
        own = self.series(symbol).step
        return [name for name, step in INTERVALS.items() if step % own == 0]

    def data_range(self, symbol: str) -> tuple[int, int] | None:
        """Return the first open time and the end of the data in milliseconds."""
        series = self.series(symbol)
        return series.first, series.end


def join(parts: list[tuple[Path, Candles]]) -> Candles:
    """Join the candles of several files in time order.

    Files of coarser intervals than the finest are left out.

    Raises:
        BadCandlesError: two files overlap.
    """
    if len(parts) == 1:
        return parts[0][1]
    steps = [detect_step(candles, path.name) for path, candles in parts]
    finest = [part for part, step in zip(parts, steps, strict=True) if step == min(steps)]
    finest.sort(key=lambda part: int(part[1].timestamp[0]))
    for (before, a), (after, b) in itertools.pairwise(finest):
        if a.timestamp[-1] >= b.timestamp[0]:
            raise BadCandlesError(f"{before.name} and {after.name} overlap")
    return concatenate(candles for _, candles in finest)

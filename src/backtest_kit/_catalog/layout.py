"""Where things are in a catalog: a folder for each series, a file for each month of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from backtest_kit._values.time import INTERVALS, to_datetime, to_ms

_MONTH: Final = re.compile(r"(\d{4})-(\d\d)\.parquet")


class SeriesKey(NamedTuple):
    """What a series is of."""

    exchange: str
    symbol: str
    interval: str

    @property
    def folder(self) -> str:
        """The folder of the series, in the form that Hive partitions have."""
        parts = zip(("exchange", "symbol", "interval"), self, strict=True)
        return "/".join(f"{name}={quote(text, safe='')}" for name, text in parts)

    @property
    def step(self) -> int:
        """The length of a candle in milliseconds."""
        return INTERVALS[self.interval]

    def __str__(self) -> str:
        return f"{self.symbol} {self.interval} of {self.exchange}"


class Month(NamedTuple):
    """A month of UTC."""

    year: int
    month: int

    @property
    def first(self) -> int:
        """Its first instant, in milliseconds."""
        return to_ms(datetime(self.year, self.month, 1, tzinfo=UTC))

    @property
    def end(self) -> int:
        """The first instant after it, in milliseconds."""
        return self.next.first

    @property
    def next(self) -> Month:
        """The month after it."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def file(self) -> str:
        """The name of its candles."""
        return f"{self}.parquet"

    @property
    def passport(self) -> str:
        """The name of what is known of its candles; readers of Parquet pass over it."""
        return f"_{self}.json"


def month_of(when: int) -> Month:
    """Return the month of an instant in milliseconds."""
    moment = to_datetime(when)
    return Month(moment.year, moment.month)


def months(since: int, until: int) -> list[Month]:
    """Return the months that [since, until) touches; milliseconds."""
    found = []
    month = month_of(since)
    while month.first < until:
        found.append(month)
        month = month.next
    return found


def month_of_file(name: str) -> Month | None:
    """Return the month whose candles a file holds, by its name."""
    match = _MONTH.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= 12:
        return None
    return Month(int(match[1]), int(match[2]))


def key_of_folder(folder: str) -> SeriesKey | None:
    """Return the series of a folder, by its path within the catalog; `None`: it is none."""
    parts = folder.strip("/").split("/")
    names = ("exchange=", "symbol=", "interval=")
    if len(parts) != len(names) or not all(map(str.startswith, parts, names)):
        return None
    words = (unquote(part.partition("=")[2]) for part in parts)
    key = SeriesKey(*words)
    return key if all(key) and key.interval in INTERVALS else None

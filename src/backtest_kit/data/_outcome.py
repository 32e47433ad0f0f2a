"""What a download has done, and what is in a catalog: typed, for people and for machines."""

from __future__ import annotations

import msgspec

from backtest_kit._catalog.layout import SeriesKey
from backtest_kit._catalog.month import Revision
from backtest_kit._catalog.spans import Span
from backtest_kit._values.table import Table, Tabular, table_of


class Problem(msgspec.Struct, frozen=True):
    """A span that could not be had, and why; milliseconds UTC."""

    since: int
    until: int
    message: str


class SeriesDownload(msgspec.Struct, frozen=True, kw_only=True):
    """What a download has done for one series; times in milliseconds UTC.

    `asked` is what was wanted and not yet there, `rows` how many candles came. In what is covered
    now, between `since` and `until`, `missing` candles are missing at the source, in `gaps` runs.
    """

    exchange: str
    symbol: str
    interval: str
    since: int
    until: int
    asked: tuple[Span, ...]
    rows: int
    gaps: int
    missing: int
    revisions: tuple[Revision, ...]
    problems: tuple[Problem, ...]


class Download(Tabular, frozen=True, kw_only=True):
    """What a download has done; `whole` says if all that was wanted is there now."""

    catalog: str
    series: tuple[SeriesDownload, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is left to ask for."""
        return not any(series.problems for series in self.series)

    def table(self) -> Table:
        """Return a row per series."""
        return table_of(self.series, SeriesDownload, "download")


class SeriesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A series of a catalog; times in milliseconds UTC, `size` in bytes.

    `first` and `end` bound its candles, `covered` is for which spans the source has answered.
    """

    exchange: str
    symbol: str
    interval: str
    first: int | None
    end: int | None
    rows: int
    gaps: int
    missing: int
    revisions: int
    covered: tuple[Span, ...]
    size: int
    source: str
    checked_at: int

    @property
    def key(self) -> SeriesKey:
        """What the series is of."""
        return SeriesKey(self.exchange, self.symbol, self.interval)

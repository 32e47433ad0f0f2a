"""The candles of a month, what is known of them, and what becomes of them when more come."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._catalog.layout import Month, SeriesKey
from backtest_kit._catalog.spans import Span, union
from backtest_kit._values.candles import Candles
from backtest_kit._values.content import digest


class Revision(msgspec.Struct, frozen=True):
    """A candle that the source has told twice, differently; the first one is kept.

    `timestamp` in milliseconds; the others are open, high, low, close and volume.
    """

    timestamp: int
    kept: tuple[float, float, float, float, float]
    told: tuple[float, float, float, float, float]


class Passport(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a month of candles; times in milliseconds UTC.

    `covered`: the spans for which the source was asked and has answered: a candle that is missing
    there is missing at the source. `gaps` counts such runs, `missing` their candles.
    `content` is the digest of the candles, whoever wrote them.
    """

    version: int = 1
    exchange: str
    symbol: str
    interval: str
    month: str
    source: str
    downloaded_at: int
    covered: tuple[Span, ...]
    rows: int
    first: int | None
    last: int | None
    gaps: int
    missing: int
    zero_volumes: int
    duplicates: int
    revisions: tuple[Revision, ...]
    content: str


class MonthData(NamedTuple):
    """The candles of a month, ascending, and the spans for which the source was asked."""

    candles: Candles
    covered: tuple[Span, ...]
    duplicates: int = 0
    revisions: tuple[Revision, ...] = ()


EMPTY = MonthData(Candles([], [], [], [], [], []), ())


def merged(old: MonthData, new: Candles, asked: Span) -> MonthData:
    """Return a month with the answer of a source added; candles that it has stay as they are.

    `new` are ascending within `asked`, and within the month. Those that are told again count as
    duplicates, and as revisions where they differ.
    """
    kept, told = old.candles, new
    common, i, j = np.intersect1d(kept.timestamp, told.timestamp, return_indices=True)
    differs = np.zeros(len(common), dtype=np.bool_)
    for one, other in zip(kept.columns()[1:], told.columns()[1:], strict=True):
        differs |= one[i] != other[j]
    revisions = [
        Revision(int(common[n]), _values(kept, i[n]), _values(told, j[n]))
        for n in np.flatnonzero(differs)
    ]
    known = {(revision.timestamp, revision.told) for revision in old.revisions}
    fresh = [r for r in revisions if (r.timestamp, r.told) not in known]
    add = np.ones(len(told), dtype=np.bool_)
    add[j] = False
    columns = [
        np.concatenate((a, b[add])) for a, b in zip(kept.columns(), told.columns(), strict=True)
    ]
    order = np.argsort(columns[0], kind="stable")
    return MonthData(
        Candles(*(column[order] for column in columns)),
        tuple(union((*old.covered, asked))),
        old.duplicates + len(common),
        (*old.revisions, *fresh),
    )


def passport_of(
    key: SeriesKey, month: Month, data: MonthData, source: str, downloaded_at: int
) -> Passport:
    """Return what is known of a month."""
    times = data.candles.timestamp
    gaps, absent = _gaps(times, key.step, data.covered)
    return Passport(
        exchange=key.exchange,
        symbol=key.symbol,
        interval=key.interval,
        month=str(month),
        source=source,
        downloaded_at=downloaded_at,
        covered=data.covered,
        rows=len(times),
        first=int(times[0]) if len(times) else None,
        last=int(times[-1]) if len(times) else None,
        gaps=gaps,
        missing=absent,
        zero_volumes=int((data.candles.volume == 0).sum()),
        duplicates=data.duplicates,
        revisions=data.revisions,
        content=digest(data.candles.columns()),
    )


def _gaps(times: npt.NDArray[np.int64], step: int, covered: tuple[Span, ...]) -> tuple[int, int]:
    """Return how many runs of candles are missing in what is covered, and how many candles."""
    runs = absent = 0
    for since, until in covered:
        grid = np.arange(-(-since // step) * step, until, step, dtype=np.int64)
        gone = ~np.isin(grid, times)
        runs += int((np.diff(gone.astype(np.int8), prepend=0) > 0).sum())
        absent += int(gone.sum())
    return runs, absent


def _values(candles: Candles, row: int) -> tuple[float, float, float, float, float]:
    _, o, h, low, c, v = candles.columns()
    return float(o[row]), float(h[row]), float(low[row]), float(c[row]), float(v[row])

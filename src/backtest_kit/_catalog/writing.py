"""Writing what a source has answered into a catalog, by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey, months
from backtest_kit._catalog.month import MonthData, merged
from backtest_kit._catalog.spans import Span
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import RegistrationError


def write_answer(
    catalog: Catalog,
    key: SeriesKey,
    candles: Candles,
    covered: Sequence[Span],
    source: str,
    now: int,
) -> int:
    """Merge an answer into its months, each written whole; return how many candles are new.

    `covered` are the spans for which `candles` are all there are, `now` is in milliseconds.

    Raises:
        BadCandlesError: a file of the catalog is damaged.
        OSError: it can't be read or written.
    """
    added = 0
    for span in covered:
        for month in months(*span):
            begin, end = max(span[0], month.first), min(span[1], month.end)
            i, j = candles.timestamp.searchsorted((begin, end))
            old: MonthData = catalog.read(key, month)
            new = merged(old, candles[int(i) : int(j)], (begin, end))
            catalog.write(key, month, new, source, now)
            added += len(new.candles) - len(old.candles)
    return added


@contextmanager
def alone(catalog: Catalog) -> Iterator[None]:
    """Hold the catalog's lock, where it is on a disk.

    Raises:
        RegistrationError: another download has it.
        OSError: the folder can't be made or written.
    """
    if "://" in catalog.absolute:
        yield
        return
    root = Path(catalog.absolute)
    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(root / ".lock")
    try:
        with lock.acquire(timeout=0):
            catalog.sweep()
            yield
    except filelock.Timeout:
        raise RegistrationError(
            f"another download is at work in {root}: wait for it, or choose another catalog"
        ) from None

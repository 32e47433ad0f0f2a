"""What is in a catalog."""

from __future__ import annotations

import os

from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey
from backtest_kit._catalog.month import Passport
from backtest_kit._catalog.spans import union
from backtest_kit.data._outcome import SeriesSummary


def describe(catalog: str | os.PathLike[str] = "data") -> tuple[SeriesSummary, ...]:
    """Return the series of a catalog, by exchange, symbol and interval.

    Raises:
        RegistrationError: the address can't be used.
        BadCandlesError: a file is damaged.
        OSError: it can't be read.
    """
    opened = Catalog(catalog)
    return tuple(summary_of(opened, key) for key in opened.series())


def passports_of(catalog: Catalog, key: SeriesKey) -> list[Passport]:
    """Return what is known of each month of a series; raises as `describe`."""
    found = (catalog.passport(key, month) for month in catalog.months(key))
    return [passport for passport in found if passport is not None]


def summary_of(catalog: Catalog, key: SeriesKey) -> SeriesSummary:
    """Return what the passports of a series say; raises as `describe`."""
    passports = passports_of(catalog, key)
    firsts = [passport.first for passport in passports if passport.first is not None]
    lasts = [passport.last for passport in passports if passport.last is not None]
    return SeriesSummary(
        exchange=key.exchange,
        symbol=key.symbol,
        interval=key.interval,
        first=min(firsts, default=None),
        end=max(lasts) + key.step if lasts else None,
        rows=sum(passport.rows for passport in passports),
        gaps=sum(passport.gaps for passport in passports),
        missing=sum(passport.missing for passport in passports),
        revisions=sum(len(passport.revisions) for passport in passports),
        covered=tuple(union(span for passport in passports for span in passport.covered)),
        size=catalog.size(key),
        source=", ".join(sorted({passport.source for passport in passports})),
        checked_at=max((passport.downloaded_at for passport in passports), default=0),
    )

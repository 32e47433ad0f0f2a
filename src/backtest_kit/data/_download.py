"""Filling a catalog: what is missing in it is what is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from backtest_kit import exchanges
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey
from backtest_kit._engine.engine import current_engine
from backtest_kit._values.errors import BacktestKitError, RegistrationError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import Interval, interval_ms, iso, to_instant
from backtest_kit.data._archive import ARCHIVE
from backtest_kit.data._fill import Job, Progress, Sources, fill
from backtest_kit.data._listing import summary_of
from backtest_kit.data._outcome import Download, SeriesDownload
from backtest_kit.data._source import not_in_the_future


def download(
    exchange: str | ExchangeSchema | Any,
    symbols: str | Sequence[str],
    *,
    start: Any,
    end: Any = None,
    interval: Interval = "1m",
    catalog: str | os.PathLike[str] = "data",
    source: Sources = "auto",
    archive: str = ARCHIVE,
    progress: Progress | None = None,
) -> Download:
    """Bring candles of an exchange into a catalog, and return what came and what did not.

    `exchange` is a name that ccxt knows, or an exchange. Only what the catalog lacks from `start`
    to `end` (by default now) is asked for, within the exchange's rate limit, some series at a time.
    Every answer is written whole before the next is asked for: a download that is stopped, or
    killed, goes on where it was. Candles that are there stay as they are; one that is told
    differently is kept beside, as a revision.

    `source`: "venue" asks the exchange's interface, "archive" the files that Binance publishes at
    the address `archive`, "auto" takes whole months from there where `exchange` is "binance", and
    the rest from the venue.

    Raises:
        RegistrationError: an unknown exchange or interval, a range that is empty or in the future,
            or another download that is at work in this catalog.
        OSError: the catalog can't be written.
    """
    now = current_engine().clock.wall_ms()
    names = [symbols] if isinstance(symbols, str) else [*symbols]
    if not names or len({*names}) < len(names) or not all(isinstance(n, str) and n for n in names):
        raise RegistrationError(f"symbols={symbols!r} must name one or several, each once")
    schema = _exchange(exchange)
    step = _step(schema, interval)
    since = to_instant(start, "start")
    until = now if end is None else to_instant(end, "end")
    for name, when in (("start", since), ("end", until)):
        not_in_the_future(name, when, now)
    since, until = -(-since // step) * step, until // step * step
    if since >= until:
        raise RegistrationError(f"there is nothing from {iso(since)} to {iso(until)}")
    jobs = [Job(SeriesKey(schema.exchange_name, name, interval), since, until) for name in names]
    return fill(Catalog(catalog), schema, jobs, source, archive, progress)


def update(
    catalog: str | os.PathLike[str] = "data",
    *,
    source: Sources = "auto",
    archive: str = ARCHIVE,
    exchanges_by_name: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Download:
    """Bring every series of a catalog up to now, from where it begins; see `download`.

    `exchanges_by_name` are those to ask for a venue of the catalog, where it is none of ccxt.

    Raises:
        RegistrationError: a venue is not known, or another download is at work in this catalog.
        BadCandlesError: a file of the catalog is damaged.
        OSError: the catalog can't be read or written.
    """
    opened = Catalog(catalog)
    now = current_engine().clock.wall_ms()
    venues: dict[str, list[Job]] = {}
    for key in opened.series():
        covered = summary_of(opened, key).covered
        if covered:
            job = Job(key, covered[0][0], now // key.step * key.step)
            venues.setdefault(key.exchange, []).append(job)
    found: list[SeriesDownload] = []
    for venue, jobs in venues.items():
        schema = _exchange((exchanges_by_name or {}).get(venue, venue))
        found += fill(opened, schema, jobs, source, archive, progress).series
    return Download(catalog=opened.address, series=tuple(found))


def _exchange(given: Any) -> ExchangeSchema:
    """Return an exchange as a schema.

    Raises:
        RegistrationError: it is none, and no name that ccxt knows.
    """
    if isinstance(given, ExchangeSchema):
        return given
    if isinstance(given, str):
        try:
            given = exchanges.CcxtExchange(given)
        except BacktestKitError as error:
            raise RegistrationError(str(error)) from None
    if not hasattr(given, "get_candles"):
        raise RegistrationError(f"exchange={given!r} must be an exchange, or a name ccxt knows")
    return ExchangeSchema(
        exchange_name=given.exchange_name,
        get_candles=given.get_candles,
        page_limit=getattr(given, "page_limit", None),
        close=getattr(given, "close", None),
        intervals=getattr(given, "intervals", None),
    )


def _step(schema: ExchangeSchema, interval: str) -> int:
    try:
        step = interval_ms(interval)
    except ValueError as error:
        raise RegistrationError(str(error)) from None
    has = schema.intervals
    if has is not None and not callable(has) and interval not in has:
        raise RegistrationError(
            f"exchange {schema.exchange_name!r} has no {interval} candles; it has: {' '.join(has)}"
        )
    return step

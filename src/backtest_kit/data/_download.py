"""Filling a catalog: what is missing in it is what is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import filelock
import msgspec

from backtest_kit import exchanges
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey, months
from backtest_kit._catalog.month import MonthData, Revision, merged
from backtest_kit._catalog.spans import Span, missing, union, within
from backtest_kit._engine.engine import Engine, current_engine
from backtest_kit._engine.task import run_blocking
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import BacktestKitError, DataError, RegistrationError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, MINUTE, Interval, interval_ms, iso, to_instant
from backtest_kit.data._archive import ARCHIVE, Archive
from backtest_kit.data._listing import summary_of
from backtest_kit.data._outcome import Download, Problem, SeriesDownload
from backtest_kit.data._source import Source, Venue, not_in_the_future

#: Series that are asked for at a time; the exchange's rate limit is one for all of them.
_AT_ONCE: Final = 4
#: Called with the symbol, the candles that are there now, and those that are wanted.
Progress = Callable[[SeriesKey, int, int], None]
Sources = Literal["auto", "venue", "archive"]


class Job(msgspec.Struct, frozen=True):
    """A series to be had from `since` to `until`, milliseconds."""

    key: SeriesKey
    since: int
    until: int


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
    return _fill(Catalog(catalog), schema, jobs, source, archive, progress)


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
        found += _fill(opened, schema, jobs, source, archive, progress).series
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


def _fill(
    catalog: Catalog,
    schema: ExchangeSchema,
    jobs: list[Job],
    source: Sources,
    archive: str,
    progress: Progress | None,
) -> Download:
    engine = Engine()
    engine.clock = current_engine().clock
    config = current_engine().config
    known = schema.exchange_name == "binance"
    if source == "archive" and not known:
        raise RegistrationError("the archive is Binance's: give exchange='binance'")

    async def work() -> Download:
        sources: list[Source] = []
        if source == "archive" or (source == "auto" and known):
            sources.append(Archive(config, lambda: engine.clock, archive))
        if source != "archive":
            sources.append(Venue(schema, config, lambda: engine.clock))
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(job: Job) -> SeriesDownload:
            async with room:
                return await _series(catalog, sources, job, engine, progress)

        async with AsyncExitStack() as stack:
            for each in sources:
                stack.push_async_callback(each.close)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(job)) for job in jobs]
            return Download(catalog=catalog.address, series=tuple(task.result() for task in tasks))

    with _alone(catalog):
        try:
            return run_blocking(work)
        except* OSError as errors:
            raise errors.exceptions[0] from None


async def _series(
    catalog: Catalog, sources: list[Source], job: Job, engine: Engine, progress: Progress | None
) -> SeriesDownload:
    """Ask for what is missing of one series, one source after another."""
    key = job.key
    covered = await asyncio.to_thread(_covered, catalog, job)
    asked = missing(covered, job.since, job.until)
    rows, problems = 0, []
    total = (job.until - job.since) // key.step

    def tell(now_covered: list[Span]) -> None:
        if progress is not None:
            there = within(now_covered, job.since, job.until)
            progress(key, sum(b - a for a, b in there) // key.step, total)

    tell(covered)
    for i, source in enumerate(sources):
        last = i == len(sources) - 1
        chunks = [
            chunk
            for span in missing(covered, job.since, job.until)
            if last or span[1] - span[0] >= 2 * INTERVALS["1d"]
            for chunk in await source.chunks(key, span)
        ]
        for chunk in dict.fromkeys(chunks):
            if not missing(covered, max(chunk[0], job.since), min(chunk[1], job.until)):
                continue
            try:
                answer = await source.read(key, chunk)
            except DataError as error:
                if last:
                    problems.append(Problem(*chunk, str(error)))
                continue
            added = await asyncio.to_thread(
                _write, catalog, key, answer.candles, answer.covered, source.name, engine
            )
            rows += added
            covered = union((*covered, *answer.covered))
            tell(covered)
    left = missing(covered, job.since, job.until)
    told = union((p.since, p.until) for p in problems)
    settling = engine.clock.wall_ms() - 10 * MINUTE  # the newest candles come with the next update
    problems += [
        Problem(a, b, "the source did not say")
        for since, until in left
        for a, b in missing(told, since, until)
        if a < settling
    ]
    summary = await asyncio.to_thread(summary_of, catalog, key)
    return SeriesDownload(
        exchange=key.exchange,
        symbol=key.symbol,
        interval=key.interval,
        since=job.since,
        until=job.until,
        asked=tuple(asked),
        rows=rows,
        gaps=summary.gaps,
        missing=summary.missing,
        revisions=await asyncio.to_thread(_revisions, catalog, key),
        problems=tuple(problems),
    )


def _covered(catalog: Catalog, job: Job) -> list[Span]:
    there = set(catalog.months(job.key))
    found = (
        span
        for month in months(job.since, job.until)
        if month in there
        for span in catalog.covered(job.key, month)
    )
    return union(found)


def _write(
    catalog: Catalog,
    key: SeriesKey,
    candles: Candles,
    covered: tuple[Span, ...],
    source: str,
    engine: Engine,
) -> int:
    """Merge an answer into its months, each written whole; return how many candles are new."""
    added = 0
    for span in covered:
        for month in months(*span):
            begin, end = max(span[0], month.first), min(span[1], month.end)
            i, j = candles.timestamp.searchsorted((begin, end))
            old: MonthData = catalog.read(key, month)
            new = merged(old, candles[int(i) : int(j)], (begin, end))
            catalog.write(key, month, new, source, engine.clock.wall_ms())
            added += len(new.candles) - len(old.candles)
    return added


def _revisions(catalog: Catalog, key: SeriesKey) -> tuple[Revision, ...]:
    passports = (catalog.passport(key, month) for month in catalog.months(key))
    return tuple(revision for passport in passports if passport for revision in passport.revisions)


@contextmanager
def _alone(catalog: Catalog) -> Iterator[None]:
    """Hold the catalog's lock, where it is on a disk.

    Raises:
        RegistrationError: another download has it.
    """
    if "://" in catalog.absolute:
        yield
        return
    root = Path(catalog.absolute)
    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(root / ".lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except filelock.Timeout:
        raise RegistrationError(
            f"another download is at work in {root}: wait for it, or choose another catalog"
        ) from None

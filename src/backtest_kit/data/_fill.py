"""Bringing what a catalog lacks from its sources, whole at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Literal

import msgspec

from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey, months
from backtest_kit._catalog.spans import Span, missing, union, within
from backtest_kit._catalog.writing import alone, write_answer
from backtest_kit._engine.engine import Engine, current_engine
from backtest_kit._engine.task import run_blocking
from backtest_kit._values.errors import (
    DataError,
    DataRangeError,
    ExchangeRefusedError,
    RegistrationError,
)
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, MINUTE
from backtest_kit.data._archive import VENUES, Archive
from backtest_kit.data._listing import passports_of
from backtest_kit.data._outcome import Download, Problem, SeriesDownload
from backtest_kit.data._source import Source, Venue

#: Series that are asked for at a time; the exchange's rate limit is one for all of them.
_AT_ONCE: Final = 4
#: Chunks that may fail one after another, each with its retries; then the source is given up.
_FAILURES: Final = 3
#: The newest candles may be missing for so long; they come with the next update.
_SETTLING: Final = 10 * MINUTE
#: Called with the series, the candles that are there now, and those that are wanted.
Progress = Callable[[SeriesKey, int, int], None]
Sources = Literal["auto", "venue", "archive"]


class Job(msgspec.Struct, frozen=True):
    """A series to be had from `since` to `until`, milliseconds."""

    key: SeriesKey
    since: int
    until: int


def fill(
    catalog: Catalog,
    schema: ExchangeSchema,
    jobs: Sequence[Job],
    source: Sources,
    archive: str,
    progress: Progress | None,
) -> Download:
    """Ask for what is missing of several series, some at a time; see `data.download`.

    Raises:
        RegistrationError: another download is at work in this catalog, or there is no archive.
        OSError: the catalog can't be read or written.
    """
    engine = Engine()
    engine.clock = current_engine().clock
    config = current_engine().config
    known = schema.exchange_name in VENUES
    if source == "archive" and not known:
        raise RegistrationError(f"the archive has candles of {', '.join(VENUES)} alone")

    async def work() -> Download:
        sources: list[Source] = []
        if source == "archive" or (source == "auto" and known):
            sources.append(Archive(config, lambda: engine.clock, archive))
        if source != "archive":
            sources.append(Venue(schema, config, lambda: engine.clock))
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(job: Job) -> SeriesDownload:
            async with room:
                return await _Filling(catalog, job, engine, progress).run(sources)

        async with AsyncExitStack() as stack:
            for each in sources:
                stack.push_async_callback(each.close)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(job)) for job in jobs]
            return Download(catalog=catalog.address, series=tuple(task.result() for task in tasks))

    with alone(catalog):
        try:
            return run_blocking(work)
        except ExceptionGroup as errors:  # the first one ended the others
            raise errors.exceptions[0] from None


class _Filling:
    """One series that is being brought: what is there, and what could not be had."""

    def __init__(
        self, catalog: Catalog, job: Job, engine: Engine, progress: Progress | None
    ) -> None:
        self._catalog = catalog
        self._job = job
        self._engine = engine
        self._progress = progress
        self._covered: list[Span] = []
        self._problems: list[Problem] = []
        self._rows = 0

    async def run(self, sources: Sequence[Source]) -> SeriesDownload:
        """Ask one source after another for what is still missing."""
        job, key = self._job, self._job.key
        try:
            self._covered = await asyncio.to_thread(_covered, self._catalog, job)
            asked = missing(self._covered, job.since, job.until)
            self._tell()
            for source in sources:
                await self._ask(source, last=source is sources[-1])
            self._tell_what_is_left()
            passports = await asyncio.to_thread(passports_of, self._catalog, key)
        except DataError as error:  # a file of the catalog is damaged
            asked, passports = [], []
            self._problems = [Problem(job.since, job.until, str(error))]
        return SeriesDownload(
            exchange=key.exchange,
            symbol=key.symbol,
            interval=key.interval,
            since=job.since,
            until=job.until,
            asked=tuple(asked),
            rows=self._rows,
            gaps=sum(passport.gaps for passport in passports),
            missing=sum(passport.missing for passport in passports),
            revisions=tuple(told for passport in passports for told in passport.revisions),
            problems=tuple(self._problems),
        )

    async def _ask(self, source: Source, *, last: bool) -> None:
        job, failures = self._job, 0
        for span in missing(self._covered, job.since, job.until):
            if not last and span[1] - span[0] < 2 * INTERVALS["1d"]:
                continue  # less than the archive has in a file
            try:
                chunks = await source.chunks(job.key, span)
            except DataError as error:
                self._failed(span, error, told=last)
                return
            for chunk in chunks:
                wanted = max(chunk[0], job.since), min(chunk[1], job.until)
                if not missing(self._covered, *wanted):
                    continue
                try:
                    answer = await source.read(job.key, chunk)
                except DataError as error:
                    self._failed(wanted, error, told=last)
                    refused = isinstance(error, ExchangeRefusedError)
                    failures += not isinstance(error, DataRangeError)
                    if refused or failures == _FAILURES:
                        self._failed((wanted[1], job.until), error, told=last)
                        return
                    continue
                failures = 0
                self._rows += await asyncio.to_thread(
                    write_answer,
                    self._catalog,
                    job.key,
                    answer.candles,
                    answer.covered,
                    source.name,
                    self._engine.clock.wall_ms(),
                )
                self._covered = union((*self._covered, *answer.covered))
                self._tell()

    def _failed(self, span: Span, error: DataError, *, told: bool) -> None:
        """Keep why a span could not be had; what another source may have is not told yet."""
        if told:
            self._problems += [
                Problem(since, until, str(error)) for since, until in missing(self._covered, *span)
            ]

    def _tell_what_is_left(self) -> None:
        job = self._job
        told = union((problem.since, problem.until) for problem in self._problems)
        settling = self._engine.clock.wall_ms() - _SETTLING
        self._problems += [
            Problem(since, until, "the source did not say")
            for since, until in missing((*self._covered, *told), job.since, job.until)
            if since < settling
        ]

    def _tell(self) -> None:
        if self._progress is not None:
            job, step = self._job, self._job.key.step
            there = within(self._covered, job.since, job.until)
            count = sum(until - since for since, until in there) // step
            self._progress(job.key, count, (job.until - job.since) // step)


def _covered(catalog: Catalog, job: Job) -> list[Span]:
    there = set(catalog.months(job.key))
    found = (
        span
        for month in months(job.since, job.until)
        if month in there
        for span in catalog.covered(job.key, month)
    )
    return union(found)

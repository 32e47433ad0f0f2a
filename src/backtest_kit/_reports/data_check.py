"""Look at a file of candles before trusting it, and convert it to Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey
from backtest_kit._data.calendar import check_calendar, closed_candles
from backtest_kit._data.series import Gap, runs
from backtest_kit._reports.data_export import write_parts
from backtest_kit._reports.data_suspicions import Suspicion, Suspicions
from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.errors import BadCandlesError, DataError
from backtest_kit._values.time import INTERVALS, interval_ms
from backtest_kit.exchanges._layout import Layout, Reading
from backtest_kit.exchanges._parts import batches, file_parts, read_file


class DataReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of candles holds; times in milliseconds UTC.

    `missing` counts the candles of the file's own interval that are not there between the first and
    the last, closed times left out: a run over the whole file fills as many. `notes` say what the
    reader assumed.
    """

    path: str
    rows: int
    interval: str | None
    first: int | None
    last: int | None
    gaps: tuple[Gap, ...]
    missing: int
    duplicates: int
    out_of_order: int
    zero_volumes: int
    closed: int
    invalid: str | None
    suspicions: tuple[Suspicion, ...]
    notes: tuple[str, ...] = ()

    @property
    def missing_percent(self) -> float:
        """The share of candles that are missing, of those that there should be, in percent."""
        whole = self.rows - self.duplicates + self.missing
        return 100 * self.missing / whole if whole else 0.0

    @property
    def usable(self) -> bool:
        """Whether the engine would take these candles (gaps and suspicions it takes)."""
        return self.rows > 1 and self.invalid is None


def inspect(
    path: Path,
    interval: str | None = None,
    calendar: str | None = None,
    given: Layout = Layout(),  # noqa: B008 - it is frozen
) -> DataReport:
    """Return what a file holds and what is wrong with it; raises as `read_file`.

    `interval` is found from the candles where it is not given (their smallest distance).
    `calendar`, as in `ExchangeSchema`: candles that are missing while the market is closed are no
    gaps, and counted as `closed`.

    Raises:
        ValueError: the interval is unknown.
        BacktestKitError: the calendar is unknown, or needs what is not installed.
    """
    check_calendar(calendar)
    return survey(path, given, interval, calendar)[0]


def survey(
    path: Path, given: Layout, interval: str | None = None, calendar: str | None = None
) -> tuple[DataReport, Callable[[], Iterator[Candles]]]:
    """Return what `inspect` does, and what reads the candles in pieces, oldest first.

    Memory does not grow with a file whose rows are in order, and whose times are each known for
    itself; others are read whole. Raises as `inspect`.
    """
    step = None if interval is None else interval_ms(interval)
    try:
        parts = file_parts(path, given)
        if parts is not None:
            found = _survey(path, parts, step, calendar, whole=False)
            return found, lambda: (part.candles for part in parts())
    except (_OrderError, BadCandlesError):
        pass  # read whole, it may be put in order, or its first mistake named
    reading = read_file(path, given)
    found = _survey(path, lambda: iter((reading,)), step, calendar, whole=True)
    return found, lambda: iter((reading.candles,))


def inspect_catalog(address: str, calendar: str | None = None) -> list[DataReport]:
    """Return what each series of a catalog holds; a damaged file is what is `invalid` of it.

    Raises:
        RegistrationError: the address can't be used.
        OSError: it can't be read.
    """
    check_calendar(calendar)
    catalog = Catalog(address)
    found = []
    for key in catalog.series():

        def months(key: SeriesKey = key) -> Iterator[Reading]:
            for month in catalog.months(key):
                yield Reading(catalog.read(key, month).candles)

        name = Path(address) / key.folder
        try:
            found.append(_survey(name, months, key.step, calendar, whole=False))
        except BadCandlesError as error:
            report = _survey(name, lambda: iter(()), key.step, calendar, whole=False)
            found.append(msgspec.structs.replace(report, invalid=str(error)))
    return found


class _OrderError(Exception):
    """A row is earlier than the one before it."""


def _survey(
    path: Path,
    parts: Callable[[], Iterator[Reading]],
    step: int | None,
    calendar: str | None,
    *,
    whole: bool,
) -> DataReport:
    """Return a report of parts in the order of time; of one that is `whole`, in any order."""
    found = _Survey(step)
    while not found.read(parts(), whole=whole):
        found = _Survey(found.shorter)  # all that was counted by the longer step is not so
        found.guessed = True
    return found.report(path, calendar)


class _Survey:
    """Counts what is in candles that come a piece at a time."""

    def __init__(self, step: int | None) -> None:
        self.step = step
        self.guessed = step is None
        self.shorter: int | None = None
        self._rows = self._duplicates = self._out_of_order = self._zero_volumes = 0
        self._first: int | None = None
        self._last: int | None = None
        self._gaps: list[Gap] = []
        self._invalid: str | None = None
        self._suspicions = Suspicions()
        self._newest = concatenate([])
        self._notes: dict[str, None] = {}

    def read(self, parts: Iterator[Reading], *, whole: bool) -> bool:
        """Count all; false: two candles are nearer than the step, which is then `shorter`."""

        def candles() -> Iterator[Candles]:
            for part in parts:
                self._notes |= dict.fromkeys(part.notes)
                yield part.candles

        for piece in candles() if whole else batches(candles()):
            if len(piece) and not self._count(piece, whole=whole):
                return False
        self._suspicions.look(concatenate([]), last=True)
        return True

    def _count(self, piece: Candles, *, whole: bool) -> bool:
        t = piece.timestamp
        joined = t if self._last is None else np.concatenate(((self._last,), t))
        distances = np.diff(joined)
        out_of_order = int((distances < 0).sum())
        if out_of_order and not whole:
            raise _OrderError
        ahead = distances[distances > 0]
        if self.guessed and len(ahead):
            least = int(ahead.min())
            if self.step is not None and least < self.step:
                self.shorter = least
                return False
            self.step = self.step or least
        ordered = np.unique(joined)
        step = self.step
        if step:
            holes = np.flatnonzero(np.diff(ordered) > step).tolist()
            between = ((int(ordered[i]), int(ordered[i + 1])) for i in holes)
            self._gaps += [Gap(a + step, (b - a) // step - 1) for a, b in between]
        self._duplicates += len(joined) - len(ordered)
        self._out_of_order += out_of_order
        self._zero_volumes += int((piece.volume == 0).sum())
        self._first = int(ordered[0]) if self._first is None else self._first
        self._last = int(ordered[-1])
        self._check(piece)
        self._suspicions.look(piece, last=False)
        self._rows += len(piece)
        return True

    def _check(self, piece: Candles) -> None:
        """Keep the first rule that is broken, across the border of two pieces too."""
        joined = concatenate([self._newest, piece])
        row = self._rows - len(self._newest)
        self._newest = joined[-2:]
        step = self.step
        if self._invalid is None and step is not None and step in INTERVALS.values():
            try:
                check_series(joined, step, row)
            except BadCandlesError as error:
                self._invalid = str(error)

    def report(self, path: Path, calendar: str | None) -> DataReport:
        """Return what was counted."""
        step, gaps, closed, invalid = self.step or 0, self._gaps, 0, self._invalid
        if calendar is not None:
            missing = sum(gap.count for gap in gaps)
            gaps = [part for gap in gaps for part in _open_parts(gap, step, calendar)]
            closed = missing - sum(gap.count for gap in gaps)
        interval = next((name for name, ms in INTERVALS.items() if ms == step), None)
        if interval is None and self._rows > 1:
            invalid = f"candles are {step / 1000:g} s apart, which is no interval"
        return DataReport(
            path=str(path),
            rows=self._rows,
            interval=interval,
            first=self._first,
            last=self._last,
            gaps=tuple(gaps),
            missing=sum(gap.count for gap in gaps),
            duplicates=self._duplicates,
            out_of_order=self._out_of_order,
            zero_volumes=self._zero_volumes,
            closed=closed,
            invalid=invalid,
            suspicions=tuple(self._suspicions.found),
            notes=tuple(self._notes),
        )


def _open_parts(gap: Gap, step: int, calendar: str) -> list[Gap]:
    """Return the parts of a gap in which the market was open."""
    open_ = ~closed_candles(calendar, gap.start, step, np.ones(gap.count, dtype=np.bool_))
    return [Gap(gap.start + a * step, b - a) for a, b in runs(open_)]


def convert(
    source: Path,
    target: Path,
    given: Layout = Layout(),  # noqa: B008 - it is frozen
    *,
    force: bool = False,
) -> int:
    """Write a file of candles as Parquet, whole or not at all, and return the number of rows.

    Raises:
        BadCandlesError: the candles break a rule; nothing is written.
        DataError: the target exists and `force` is false, or the source can't be read.
        OSError: the target can't be written.
    """
    if target.exists() and not force:
        raise DataError(f"{target} exists; use --force to replace it")
    report, candles = survey(source, given)
    if not report.usable:
        raise BadCandlesError(f"{source}: {report.invalid or 'fewer than two candles'}")
    return write_parts(batches(candles()), target)

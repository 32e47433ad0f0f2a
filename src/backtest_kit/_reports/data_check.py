"""Look at a file of candles before trusting it, and convert it to Parquet."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from backtest_kit._data.calendar import check_calendar, closed_candles
from backtest_kit._data.series import Gap, runs
from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import COLUMNS, Candles
from backtest_kit._values.errors import BadCandlesError, DataError
from backtest_kit._values.time import INTERVALS, interval_ms
from backtest_kit.exchanges._csv import SUFFIXES, read_csv
from backtest_kit.exchanges._layout import Layout, Reading
from backtest_kit.exchanges._parquet import PARQUET, ParquetFile, read_feather
from backtest_kit.exchanges._parquet import SUFFIXES as TABLES

#: A price this many times off its neighbourhood for a few candles is a bad print.
_PRINT: Final = 10.0
#: Candles on either side that make the neighbourhood.
_NEIGHBOURS: Final = 15
#: Ratios of splits, old shares to new or the other way round, and how exactly they are met.
_SPLITS: Final = (1.5, *map(float, range(2, 21)), 25.0, 50.0, 100.0)
_EXACT: Final = 0.04
_SHOWN: Final = 20
#: With fewer candles than this on one side of a jump, that side is not conclusive.
_FEW: Final = 3


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A candle whose price is hard to believe; `ratio` to the prices around it."""

    timestamp: int
    kind: Literal["bad print", "split"]
    ratio: float


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


def read_file(
    path: Path,
    given: Layout = Layout(),  # noqa: B008 - it is frozen
    *,
    lenient: bool = False,
) -> Reading:
    """Return the candles of a Parquet, Feather or CSV file, oldest first, not checked.

    `lenient` is that of `read_csv`.

    Raises:
        BadCandlesError: the file can't be read as candles.
        DataError: it does not exist, or its kind is not known.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    name = path.name.lower()
    if name.endswith(PARQUET):
        return ParquetFile(path, given, check=False).read_all()
    if name.endswith(TABLES):
        return read_feather(path, given)
    if name.endswith(SUFFIXES):
        return read_csv(path, given, lenient=lenient)
    raise DataError(f"{path}: expected a .parquet, .feather, .arrow, .csv, .csv.gz or .zip file")


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
    return _report(path, read_file(path, given), interval, calendar)


def _report(
    path: Path, reading: Reading, interval: str | None, calendar: str | None = None
) -> DataReport:
    candles = reading.candles
    t = candles.timestamp
    distances = np.diff(t)
    ahead = distances[distances > 0]
    step = int(ahead.min()) if len(ahead) else 0
    if interval is not None:
        step = interval_ms(interval)
    interval = next((name for name, ms in INTERVALS.items() if ms == step), None)
    ordered = np.unique(t)
    holes = np.flatnonzero(np.diff(ordered) > step) if step else np.array([], dtype=np.int64)
    gaps = [
        Gap(int(ordered[i]) + step, int(ordered[i + 1] - ordered[i]) // step - 1) for i in holes
    ]
    closed = 0
    if calendar is not None:
        missing = sum(gap.count for gap in gaps)
        gaps = [part for gap in gaps for part in _open_parts(gap, step, calendar)]
        closed = missing - sum(gap.count for gap in gaps)
    invalid = None
    if interval is not None:
        try:
            check_series(candles, step)
        except BadCandlesError as error:
            invalid = str(error)
    elif len(candles) > 1:
        invalid = f"candles are {step / 1000:g} s apart, which is no interval"
    return DataReport(
        path=str(path),
        rows=len(candles),
        interval=interval,
        first=int(t.min()) if len(t) else None,
        last=int(t.max()) if len(t) else None,
        gaps=tuple(gaps),
        missing=sum(gap.count for gap in gaps),
        duplicates=len(t) - len(ordered),
        out_of_order=int((distances < 0).sum()),
        zero_volumes=int((candles.volume == 0).sum()),
        closed=closed,
        invalid=invalid,
        suspicions=tuple(_suspicions(candles)),
        notes=reading.notes,
    )


def _open_parts(gap: Gap, step: int, calendar: str) -> list[Gap]:
    """Return the parts of a gap in which the market was open."""
    open_ = ~closed_candles(calendar, gap.start, step, np.ones(gap.count, dtype=np.bool_))
    return [Gap(gap.start + a * step, b - a) for a, b in runs(open_)]


def _suspicions(candles: Candles) -> list[Suspicion]:
    """Return bad prints and splits, in order, the first ones of many."""
    _, opening, high, low, close, _ = candles.columns()
    n = len(candles)
    found: list[Suspicion] = []
    if n < 3:
        return found
    with np.errstate(all="ignore"):
        # a jump is a candle (or the step between two) across which the price changes 1.4-fold
        previous = np.concatenate(((np.median(close[1 : 1 + _NEIGHBOURS]),), close[:-1]))
        extreme = np.maximum(high / previous, previous / low)
        candidates = np.flatnonzero(extreme > 1.4)
    place = 0
    for i in candidates.tolist():
        before = np.median(close[max(0, i - _NEIGHBOURS) : i]) if i else opening[0]
        after = np.median(close[i + 1 : i + 1 + _NEIGHBOURS]) if i + 1 < n else close[i]
        moved = float(after / before)
        prices = np.array([opening[i], high[i], low[i], close[i]])
        # at either end of the data only the other side shows what is usual
        at_end = i < _FEW or n - 1 - i < _FEW
        level = after if i < _FEW else before if at_end else np.sqrt(before * after)
        off = prices / level
        worst = float(off[np.argmax(np.abs(np.log(np.maximum(off, 1e-300))))])
        stays = max(moved, 1 / moved)
        ratio = min(_SPLITS, key=lambda s: abs(s / stays - 1))
        when = int(candles.timestamp[i])
        near = bool(found) and i - place < _FEW
        if (at_end or stays < 1.4) and max(worst, 1 / max(worst, 1e-300)) >= _PRINT:
            # the few candles of one bad print are reported once
            if not (near and found[-1].kind == "bad print"):
                place = i
                found.append(Suspicion(timestamp=when, kind="bad print", ratio=worst))
        elif i and stays >= 1.4 and abs(ratio / stays - 1) <= _EXACT:  # a split is between two
            jump = float(close[i] / previous[i])
            crossed = max(jump, 1 / jump) >= 1.4
            reported = bool(found) and found[-1].kind == "split" and i - place < _NEIGHBOURS
            if crossed and not reported and not near:
                place = i
                found.append(Suspicion(timestamp=when, kind="split", ratio=moved))
        if len(found) >= _SHOWN:
            break
    return found


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
    reading = read_file(source, given)
    candles, report = reading.candles, _report(source, reading, None)
    if not report.usable:
        raise BadCandlesError(f"{source}: {report.invalid or 'fewer than two candles'}")
    write_candles(candles, target)
    return len(candles)


def write_candles(candles: Candles, target: Path) -> None:
    """Write candles as Parquet, or as CSV where the name ends in .csv, whole or not at all.

    Raises:
        OSError: the target can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    table = pa.table(dict(zip(COLUMNS, candles.columns(), strict=True)))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
    os.close(handle)
    try:
        if target.suffix.lower() == ".csv":
            csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary, compression="zstd", row_group_size=100_000)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

"""Candles from Parquet files, read one row group at a time, and from Feather files."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import Candles, Ints, concatenate
from backtest_kit._values.errors import BadCandlesError
from backtest_kit._values.time import iso
from backtest_kit.exchanges._layout import (
    NAIVE,
    NO_VOLUME,
    AmbiguousTime,
    Layout,
    Reading,
    find_places,
    layout,
)
from backtest_kit.exchanges._recorded import (
    Loaded,
    NamedSeries,
    Recording,
    Series,
    detect_step,
    digest_folder,
    find_files,
)
from backtest_kit.exchanges._tables import table_reading
from backtest_kit.exchanges._times import epoch_ms

PARQUET: Final = (".parquet", ".pq")
SUFFIXES: Final = (*PARQUET, ".feather", ".arrow")
#: Decoded row groups that a file keeps in memory.
KEPT_GROUPS = 4
#: Candles that they may be together, where row groups are large.
KEPT_ROWS = 1_000_000
#: Candles that are looked at to find a file's interval.
_ENOUGH = 10_000
#: Candles that are read at a time from a row group, however large it is.
_PIECE: Final = 65_536


class ParquetExchange(Recording):
    """Candles of Parquet and Feather files with the columns `timestamp open high low close volume`.

    `path` is one file, which serves any symbol, or a folder of files named after symbols
    (`BTCUSDT.parquet`, `BTCUSDT-1m-2023.parquet`); several of one symbol are joined, those of
    coarser intervals than the finest left out. The time may also be the index of a pandas frame,
    and names may be those that `CsvExchange` knows, or yfinance's, which are paired with a symbol.
    Times are s, ms, us or ns since the epoch, Arrow timestamps (without a zone: of `timezone`, or
    UTC), or text. Files are read by row group, so that a long history does not have to fit into
    memory; those whose newest row comes first, whose times are text or in a `timezone`, and Feather
    files are read whole. `calendar` is that of `ExchangeSchema`; the other options are those of
    `CsvExchange`.

    Raises:
        ConfigError: an option has no meaning.
    """

    def __init__(
        self,
        path: str | Path,
        exchange_name: str = "parquet",
        *,
        calendar: str | None = None,
        columns: Mapping[str, str] | None = None,
        timezone: str | None = None,
        date_format: str | None = None,
        ambiguous_time: AmbiguousTime = "raise",
    ) -> None:
        super().__init__(exchange_name, calendar)
        self._path = Path(path)
        self._layout = layout(columns, timezone, date_format, ambiguous_time)

    def open(self, symbol: str) -> Series:
        """Return the files of a symbol as one series."""
        files: list[NamedSeries] = []
        notes: list[str] = []
        for path in find_files(self._path, symbol, SUFFIXES):
            opened = self._opened(path)
            files.append(opened)
            notes += opened.notes
        self.note(symbol, notes)
        if len(files) == 1:
            return files[0]
        finest = min(file.step for file in files)
        return Joined([file for file in files if file.step == finest])

    def _opened(self, path: Path) -> NamedSeries:
        if path.name.lower().endswith(PARQUET):
            file = ParquetFile(path, self._layout)
            if file.by_groups:
                return file
            reading = file.read_all()
        else:
            reading = read_feather(path, self._layout)
        return Loaded(reading.candles, path.name, reading.notes)

    def content_digest(self) -> str:
        """Return a digest of the files and of how they are read; raises OSError."""
        return digest_folder(self._path, SUFFIXES, self._layout)


class ParquetFile:
    """One Parquet file of candles."""

    def __init__(
        self,
        path: Path,
        given: Layout = Layout(),  # noqa: B008 - it is frozen
        *,
        check: bool = True,
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = path.name
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadCandlesError(f"{path} can't be read as Parquet: {error}") from None
        schema = self._file.schema_arrow
        self._layout = given
        places = find_places(schema.names, given, str(path))
        self._names = [schema.names[i] for i in (*places.time, *places.values)]
        self.notes: tuple[str, ...] = () if places.volume is not None else (NO_VOLUME,)
        self._groups: OrderedDict[int, Candles] = OrderedDict()
        kind = schema.field(places.time[0]).type
        if pa.types.is_timestamp(kind) and kind.tz is None:
            self.notes = (*self.notes, NAIVE)
        #: Whether it can be read by row groups.
        self.by_groups = (
            len(places.time) == 1
            and (pa.types.is_integer(kind) or pa.types.is_timestamp(kind))
            and not (given.timezone and getattr(kind, "tz", "") is None)
        )
        if check and self.by_groups:
            self._survey(path)

    def _survey(self, path: Path) -> None:
        """Find where each row group begins and ends."""
        bounds = [self._bounds(i) for i in range(self._file.num_row_groups)]
        self._index = [i for i, bound in enumerate(bounds) if bound is not None]
        self._first = [bound[0] for bound in bounds if bound is not None]
        self._last = [bound[1] for bound in bounds if bound is not None]
        if not self._first:
            raise BadCandlesError(f"{path} has no candles")
        if self._newest_first():
            self.by_groups = False
            return
        if any(a >= b for a, b in zip(self._last, self._first[1:], strict=False)):
            raise BadCandlesError(f"{path} is not sorted by time; see `backtest-kit data repair`")
        self.first = self._first[0]
        head: list[Candles] = []
        for place in self._index:
            head.append(self._decode(place))
            if sum(map(len, head)) >= _ENOUGH:
                break
        seen = concatenate(head)
        back = np.flatnonzero(np.diff(seen.timestamp) <= 0)
        if len(back):
            i = int(back[0]) + 1
            raise BadCandlesError(
                f"{path}: candle {i} ({iso(int(seen.timestamp[i]))}) is not after the one before it"
            )
        self.step = detect_step(seen, path.name)
        self.end = self._last[-1] + self.step

    def read(self, since: int, until: int) -> Candles:
        """Return the candles with open times in [since, until)."""
        begin = int(np.searchsorted(self._last, since))
        end = int(np.searchsorted(self._first, until))
        return concatenate([self._rows(i, since, until) for i in range(begin, end)])

    def read_all(self) -> Reading:
        """Return all candles, oldest first, not checked."""
        try:
            table = self._file.read(columns=self._names)
        except OSError as error:
            # by groups, one of which can't be read either: its number is in the message
            for i in range(self._file.num_row_groups):
                self._read(i, self._names)
            raise BadCandlesError(f"{self._path}: {error}") from None
        return table_reading(table, self._layout, str(self._path))

    def parts(self) -> Iterator[Reading]:
        """Yield the candles a piece at a time, not checked, where `by_groups`."""
        import pyarrow as pa

        try:
            for batch in self._file.iter_batches(_PIECE, columns=self._names):
                table = pa.Table.from_batches([batch])
                yield table_reading(table, self._layout, str(self._path))
        except OSError as error:
            raise BadCandlesError(f"{self._path}: {error}") from None

    def _newest_first(self) -> bool:
        """Say whether the first row group shows that the newest row comes first."""
        t = self._decode(self._index[0]).timestamp
        return len(t) > 1 and bool((t[1:] < t[:-1]).all())

    def group(self, place: int) -> Candles:
        """Return the candles of one row group."""
        if place in self._groups:
            self._groups.move_to_end(place)
            return self._groups[place]
        candles = self._decode(self._index[place])
        metadata = self._file.metadata
        row = sum(metadata.row_group(i).num_rows for i in range(self._index[place]))
        try:
            check_series(candles, self.step, row)
        except BadCandlesError as error:
            raise BadCandlesError(f"{self._path}: {error}") from None
        self._groups[place] = candles
        while len(self._groups) > KEPT_GROUPS or (
            len(self._groups) > 1 and sum(map(len, self._groups.values())) > KEPT_ROWS
        ):
            self._groups.popitem(last=False)
        return candles

    def _rows(self, place: int, since: int, until: int) -> Candles:
        candles = self.group(place)
        begin, end = np.searchsorted(candles.timestamp, (since, until))
        return candles[int(begin) : int(end)]

    def _decode(self, group: int) -> Candles:
        table = self._read(group, self._names)
        try:
            time, *values = (table.column(name) for name in self._names)
            columns = [column.to_numpy() for column in values]
            if NO_VOLUME in self.notes:
                columns.append(np.zeros(table.num_rows))
            return Candles(_time(time), *columns)
        except BadCandlesError as error:
            raise BadCandlesError(f"{self._path}, row group {group}: {error}") from None

    def _read(self, group: int, names: list[str]) -> Any:
        try:
            return self._file.read_row_group(group, columns=names)
        except OSError as error:  # Arrow's own errors of broken pages are OSErrors too
            raise BadCandlesError(f"{self._path}, row group {group}: {error}") from None

    def _bounds(self, group: int) -> tuple[int, int] | None:
        """Return the first and last time of a row group, from its statistics where it has any."""
        meta = self._file.metadata.row_group(group)
        if meta.num_rows == 0:
            return None
        place = self._file.schema_arrow.names.index(self._names[0])
        stats = meta.column(place).statistics
        if stats is not None and stats.has_min_max and isinstance(stats.min, int):
            first, last = epoch_ms(np.array([stats.min, stats.max], dtype=np.int64)).tolist()
            return first, last
        column = self._read(group, self._names[:1]).column(0)
        if column.null_count:
            raise BadCandlesError(f"{self._path}, row group {group}: a timestamp is missing")
        t = _time(column)
        return int(t.min()), int(t.max())


class Joined:
    """Several files of one symbol, in time order."""

    def __init__(self, files: Sequence[NamedSeries]) -> None:
        self._files = sorted(files, key=lambda file: file.first)
        for before, after in itertools.pairwise(self._files):
            if before.end > after.first:
                raise BadCandlesError(f"{before.name} and {after.name} overlap")
        self.step = files[0].step
        self.first = self._files[0].first
        self.end = self._files[-1].end

    def read(self, since: int, until: int) -> Candles:
        """Return the candles with open times in [since, until)."""
        touched = [f for f in self._files if f.first < until and since < f.end]
        return concatenate([f.read(since, until) for f in touched])


def read_feather(path: Path, given: Layout) -> Reading:
    """Return the candles of a Feather or Arrow file, oldest first, not checked.

    Raises:
        BadCandlesError: the file can't be read, or is no table of candles.
    """
    import pyarrow as pa
    from pyarrow import feather

    try:
        table = feather.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadCandlesError(f"{path} can't be read as Feather: {error}") from None
    return table_reading(table, given, str(path))


def _time(column: Any) -> Ints:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        counts = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
        return np.asarray(counts.to_numpy(), dtype=np.int64)
    if column.null_count:
        raise BadCandlesError("a timestamp is missing")
    return epoch_ms(column.to_numpy())

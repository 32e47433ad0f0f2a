"""Candles from Parquet files, read one row group at a time."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest_kit._values.candle_rules import check_series
from backtest_kit._values.candles import COLUMNS, Candles, concatenate
from backtest_kit._values.errors import BadCandlesError
from backtest_kit._values.time import iso
from backtest_kit.exchanges._recorded import (
    Recording,
    Series,
    detect_step,
    digest_folder,
    find_files,
)

SUFFIXES: Final = (".parquet", ".pq")
#: Decoded row groups that a file keeps in memory.
KEPT_GROUPS = 4
#: Candles that they may be together, where row groups are large.
KEPT_ROWS = 1_000_000
#: Candles that are looked at to find a file's interval.
_ENOUGH = 10_000


class ParquetExchange(Recording):
    """Candles of Parquet files with the columns `timestamp open high low close volume`.

    `path` is one file, which serves any symbol, or a folder of files named after symbols
    (`BTCUSDT.parquet`, `BTCUSDT-1m-2023.parquet`); several of one symbol are joined, those of
    coarser intervals than the finest left out. Times are
    integer milliseconds or Arrow timestamps (without a zone: UTC). Files are read by row group, so
    that a long history does not have to fit into memory. `calendar` is that of `ExchangeSchema`.
    """

    def __init__(
        self, path: str | Path, exchange_name: str = "parquet", *, calendar: str | None = None
    ) -> None:
        super().__init__(exchange_name, calendar)
        self._path = Path(path)

    def open(self, symbol: str) -> Series:
        """Return the files of a symbol as one series."""
        files = [ParquetFile(p) for p in find_files(self._path, symbol, SUFFIXES)]
        if len(files) == 1:
            return files[0]
        finest = min(file.step for file in files)
        return Joined([file for file in files if file.step == finest])

    def content_digest(self) -> str:
        """Return a digest of the files; raises OSError."""
        return digest_folder(self._path, SUFFIXES)


class ParquetFile:
    """One Parquet file of candles."""

    def __init__(self, path: Path, *, check: bool = True) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = path.name
        self._path = path
        try:
            self._file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BadCandlesError(f"{path} can't be read as Parquet: {error}") from None
        names = {name.lower(): name for name in self._file.schema_arrow.names}
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            have = ", ".join(self._file.schema_arrow.names)
            raise BadCandlesError(f"{path} has no column {', '.join(missing)}; it has: {have}")
        self._names = [names[name] for name in COLUMNS]
        self._groups: OrderedDict[int, Candles] = OrderedDict()
        if check:
            self._survey(path)

    def _survey(self, path: Path) -> None:
        """Find where each row group begins and ends."""
        bounds = [self._bounds(i) for i in range(self._file.num_row_groups)]
        self._index = [i for i, bound in enumerate(bounds) if bound is not None]
        self._first = [bound[0] for bound in bounds if bound is not None]
        self._last = [bound[1] for bound in bounds if bound is not None]
        if not self._first:
            raise BadCandlesError(f"{path} has no candles")
        if any(a >= b for a, b in zip(self._last, self._first[1:], strict=False)):
            raise BadCandlesError(f"{path} is not sorted by time; see `backtest-kit data import`")
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

    def read_all(self) -> Candles:
        """Return all candles, not checked."""
        return concatenate([self._decode(i) for i in range(self._file.num_row_groups)])

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
            return Candles(*(_column(table.column(name)) for name in self._names))
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
        place = self._file.schema_arrow.get_field_index(self._names[0])
        stats = meta.column(place).statistics
        if stats is not None and stats.has_min_max and isinstance(stats.min, int):
            return int(stats.min), int(stats.max)
        column = self._read(group, self._names[:1]).column(0)
        if column.null_count:
            raise BadCandlesError(f"{self._path}, row group {group}: a timestamp is missing")
        t = _column(column)
        return int(t.min()), int(t.max())


class Joined:
    """Several files of one symbol, in time order."""

    def __init__(self, files: Sequence[ParquetFile]) -> None:
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


def _column(column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    return column.to_numpy()

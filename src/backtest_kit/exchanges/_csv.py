"""Candles from CSV files, the Binance Vision archive's among them."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import COLUMNS, Candles
from backtest_kit._values.errors import BadCandlesError
from backtest_kit.exchanges._recorded import (
    Loaded,
    Recording,
    Series,
    digest_folder,
    find_files,
    join,
)

SUFFIXES: Final = (".csv", ".csv.gz", ".zip")
_TIME_NAMES: Final = ("timestamp", "open_time", "opentime", "time", "date", "datetime", "ts")
#: From this many on, a time since the epoch is in microseconds (in ms it would be the year 5138).
_MICROSECONDS: Final = 10**14


class CsvExchange(Recording):
    """Candles of CSV files, plain, gzipped or zipped, with or without a header.

    Without a header the columns are time, open, high, low, close, volume, and any that follow are
    left alone (the layout of the Binance Vision archive). With one, they are found by name in any
    order. Times are seconds, milliseconds or microseconds since the epoch, or ISO 8601 (without a
    zone: UTC). `path` is one file, which serves any symbol, or a folder of files named after
    symbols; several of one symbol are joined.
    """

    def __init__(self, path: str | Path, exchange_name: str = "csv") -> None:
        super().__init__(exchange_name)
        self._path = Path(path)

    def open(self, symbol: str) -> Series:
        """Return the files of a symbol as one series."""
        files = find_files(self._path, symbol, SUFFIXES)
        name = files[0].name if len(files) == 1 else f"{symbol} in {self._path.name}"
        return Loaded(join([(path, read_csv(path)) for path in files]), name)

    def content_digest(self) -> str:
        """Return a digest of the files; raises OSError."""
        return digest_folder(self._path, SUFFIXES)


def read_csv(path: Path) -> Candles:
    """Return the candles of a CSV file in the file's order, not checked.

    Raises:
        BadCandlesError: the file is no table of candles; the message names it.
    """
    import pyarrow as pa
    from pyarrow import csv

    data = _bytes(path)
    head = data.split(b"\n", 1)[0].decode(errors="replace").strip().lstrip("\ufeff")
    cells = [cell.strip().strip('"') for cell in head.split(",")]
    if len(cells) < 6:
        raise BadCandlesError(
            f"{path}: the first line has {len(cells)} columns; expected 6: {head!r}"
        )
    headed = not _is_number(cells[1])
    places = _places(path, cells) if headed else range(6)
    # columns go by their place, so that blanks around a name in the header do no harm
    names = [f"f{i}" for i in places]

    def read(threads: bool) -> Any:
        return csv.read_csv(
            io.BytesIO(data),
            read_options=csv.ReadOptions(
                use_threads=threads,
                skip_rows=int(headed),
                column_names=[f"f{i}" for i in range(len(cells))],
            ),
            convert_options=csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names[1:], pa.float64()),
                timestamp_parsers=[csv.ISO8601],
            ),
        )

    try:
        table = read(threads=True)
    except pa.ArrowInvalid:
        try:
            table = read(threads=False)  # only a reader without threads can tell the row
        except pa.ArrowInvalid as error:
            raise BadCandlesError(f"{path}: {error}") from None
    times = _times(path, table.column(names[0]))
    return Candles(times, *(table.column(name).to_numpy() for name in names[1:]))


def _bytes(path: Path) -> bytes:
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                inside = [n for n in archive.namelist() if n.lower().endswith(".csv")]
                if len(inside) != 1:
                    raise BadCandlesError(f"{path} holds {len(inside)} CSV files; expected one")
                return archive.read(inside[0])
        return path.read_bytes()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise BadCandlesError(f"{path} can't be read: {error}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _places(path: Path, cells: list[str]) -> list[int]:
    known = {cell.lower().replace(" ", "_"): i for i, cell in enumerate(cells)}
    time = next((known[name] for name in _TIME_NAMES if name in known), None)
    missing = [name for name in COLUMNS[1:] if name not in known]
    if time is None or missing:
        lacking = ["a time"] * (time is None) + missing
        raise BadCandlesError(
            f"{path} has no column {', '.join(lacking)}; it has: {', '.join(cells)}"
        )
    return [time, *(known[name] for name in COLUMNS[1:])]


def _times(path: Path, column: Any) -> npt.NDArray[np.int64]:
    import pyarrow as pa

    if not len(column):
        return np.zeros(0, dtype=np.int64)
    if column.null_count:
        row = column.is_null().combine_chunks().to_numpy(zero_copy_only=False).argmax()
        raise BadCandlesError(f"{path}: candle {int(row)} has no time")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        cast = column.cast(pa.timestamp("us")).cast(pa.int64())
        return np.asarray(cast.to_numpy(), dtype=np.int64) // 1000
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise BadCandlesError(f"{path}: times such as {column[0]} are neither numbers nor ISO 8601")
    times: npt.NDArray[Any] = column.to_numpy()
    largest = float(np.abs(times).max())
    if largest >= _MICROSECONDS:
        # each for itself: the archive changed from ms to us at a new year
        whole = times.astype(np.int64)
        return np.where(whole >= _MICROSECONDS, whole // 1000, whole)
    if largest < 10**11:
        return (times * 1000).astype(np.int64)
    return times.astype(np.int64)

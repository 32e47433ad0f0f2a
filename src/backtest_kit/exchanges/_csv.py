"""Candles from CSV files, the Binance Vision archive's among them."""

from __future__ import annotations

import gzip
import importlib
import io
import re
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
#: A date as its midnight in some zone, as yfinance writes the time of a daily candle.
_MIDNIGHT: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]00:00:00[+-]\d\d:?\d\d")


class CsvExchange(Recording):
    """Candles of CSV files, plain, gzipped or zipped, with or without a header.

    Without a header the columns are time, open, high, low, close, volume, and any that follow are
    left alone (the layout of the Binance Vision archive). With one, they are found by name in any
    order. Times are seconds, milliseconds or microseconds since the epoch, or ISO 8601 (without a
    zone: UTC). `path` is one file, which serves any symbol, or a folder of files named after
    symbols; several of one symbol are joined. `calendar` is that of `ExchangeSchema`.

    Yahoo's files are known too, as downloaded or as yfinance writes them. Open, high, low and close
    are taken as they stand there, and `Adj Close` is left alone: a close that is adjusted for
    dividends does not belong to an open, high and low that are not.
    """

    def __init__(
        self, path: str | Path, exchange_name: str = "csv", *, calendar: str | None = None
    ) -> None:
        super().__init__(exchange_name, calendar)
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
    lines = [line.decode(errors="replace").strip() for line in data.split(b"\n", 4)[:4]]
    head = lines[0].lstrip("\ufeff")
    cells = _cells(head)
    if len(cells) < 6:
        raise BadCandlesError(
            f"{path}: the first line has {len(cells)} columns; expected 6: {head!r}"
        )
    headed = int(not _is_number(cells[1]))
    if len(lines) > 2 and _cells(lines[1])[0] == "Ticker":
        headed, cells = 3, _yfinance(path, cells, *map(_cells, lines[1:3]))
    places = _places(path, cells) if headed else range(6)
    # read as text first, where the first row's time is a midnight somewhere
    first = _cells(lines[headed]) if len(lines) > headed else []
    local = len(first) == len(cells) and bool(_MIDNIGHT.fullmatch(first[places[0]]))
    # columns go by their place, so that blanks around a name in the header do no harm
    names = [f"f{i}" for i in places]

    def read(threads: bool) -> Any:
        return csv.read_csv(
            io.BytesIO(data),
            read_options=csv.ReadOptions(
                use_threads=threads,
                skip_rows=headed,
                column_names=[f"f{i}" for i in range(len(cells))],
            ),
            convert_options=csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names[1:], pa.float64())
                | dict.fromkeys(names[:1] if local else (), pa.string()),
                timestamp_parsers=[csv.ISO8601],
            ),
        )

    try:
        table = read(threads=True)
    except pa.ArrowInvalid:
        try:
            table = read(threads=False)  # only a reader without threads names the row
        except pa.ArrowInvalid as error:
            raise BadCandlesError(f"{path}: {error}") from None
    if table.num_rows and table.column(names[1]).null_count:
        table = _without_empty(table, names[1:])
    column = table.column(names[0])
    times = _times(path, _dates(column) if local else column)
    return Candles(times, *(table.column(name).to_numpy() for name in names[1:]))


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(",")]


def _yfinance(path: Path, kinds: list[str], tickers: list[str], third: list[str]) -> list[str]:
    """Return the names of the columns under the three lines of a header by yfinance."""
    symbols = sorted({*tickers[1:]})
    if len(symbols) > 1:
        raise BadCandlesError(
            f"{path} holds the candles of {', '.join(symbols)}; give each a file of its own"
        )
    return [third[0], *kinds[1:]]


def _dates(column: Any) -> Any:
    """Return texts as times; where all are midnights somewhere, those of their dates in UTC.

    A daily candle is that of a date, whatever the hour at which its day began in UTC.
    """
    import pyarrow as pa

    pc: Any = importlib.import_module("pyarrow.compute")  # which makes its functions at run time
    local = pc.all(pc.match_substring_regex(column, f"^{_MIDNIGHT.pattern}$")).as_py()
    if local:
        return pc.utf8_slice_codeunits(column, 0, 10).cast(pa.date32())
    return column.cast(pa.timestamp("ms", "UTC"))


def _without_empty(table: Any, names: list[str]) -> Any:
    """Leave out rows without any value, which is how Yahoo writes that there is no candle."""
    pc: Any = importlib.import_module("pyarrow.compute")
    empty = pc.is_null(table.column(names[0]))
    for name in names[1:]:
        empty = pc.and_(empty, pc.is_null(table.column(name)))
    return table.filter(pc.invert(empty))


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

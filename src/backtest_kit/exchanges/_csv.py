"""Candles from CSV files, as exchanges, terminals and spreadsheets write them."""

from __future__ import annotations

import codecs
import gzip
import importlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import BadCandlesError
from backtest_kit.exchanges._dialect import HEAD, Dialect, detect
from backtest_kit.exchanges._layout import NO_VOLUME, AmbiguousTime, Layout, Reading, layout
from backtest_kit.exchanges._recorded import (
    Loaded,
    Recording,
    Series,
    digest_folder,
    find_files,
    join,
    oldest_first,
)
from backtest_kit.exchanges._times import Times

SUFFIXES: Final = (".csv", ".csv.gz", ".tsv", ".txt", ".zip")


class CsvExchange(Recording):
    """Candles of CSV files, plain, gzipped or zipped, with or without a header.

    `path` is one file, which serves any symbol, or a folder of files named after symbols; several
    of one symbol are joined. `calendar` is that of `ExchangeSchema`.

    Found by itself: the separator (comma, semicolon, tab, pipe), decimal commas, lines before the
    header, columns by their usual names in any order, UTF-16, the newest row first. Without a
    header the columns are time (or date and time), open, high, low, close, volume, and any that
    follow are left alone. So the files of the Binance Vision archive, MetaTrader 4 and 5,
    CryptoDataDownload, Dukascopy, HistData, Stooq and Yahoo are read as they come; of the latter,
    `Adj Close` is left alone, since it does not belong to the open, high and low.

    Times are s, ms, us or ns since the epoch, ISO 8601, or dates and clocks in figures. What a file
    can't say: `timezone` of times without a zone (UTC where it is not given), `ambiguous_time`
    ("earlier", "later", "in_order": by the order of the rows) where clocks go back, `date_format`
    ("dmy", "mdy", or a format of `strptime`), and `columns` with names of their own, such as
    `{"open": "o", "timestamp": "Day+Hour"}`, or numbers from 1 where there is no header. A file
    without a volume has 0 everywhere, which is logged.

    Raises:
        ConfigError: an option has no meaning.
    """

    def __init__(
        self,
        path: str | Path,
        exchange_name: str = "csv",
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
        files = find_files(self._path, symbol, SUFFIXES)
        read = [(path, read_csv(path, self._layout)) for path in files]
        self.note(symbol, (note for _, reading in read for note in reading.notes))
        name = files[0].name if len(files) == 1 else f"{symbol} in {self._path.name}"
        return Loaded(join([(path, reading.candles) for path, reading in read]), name)

    def content_digest(self) -> str:
        """Return a digest of the files and of how they are read; raises OSError."""
        return digest_folder(self._path, SUFFIXES, self._layout)


def read_csv(path: Path, given: Layout = Layout()) -> Reading:  # noqa: B008 - it is frozen
    """Return the candles of a CSV file, oldest first, not checked.

    Raises:
        BadCandlesError: the file is no table of candles, or does not say what is needed to read it;
            the message names it and the option that says so.
    """
    data = _text(_bytes(path))
    # a line that is cut says nothing
    head = data[:HEAD] if len(data) <= HEAD else data[:HEAD].rpartition(b"\n")[0]
    dialect = detect(head.decode(errors="replace"), given, str(path))
    table = _parse(path, data, dialect)
    columns = [table.column(f"f{i}") for i in dialect.places.values]
    if table.num_rows and columns[0].null_count:
        table = _without_empty(table, columns)
        columns = [table.column(f"f{i}") for i in dialect.places.values]
    times = Times(given, str(path))
    moments = times.read(_joined([table.column(f"f{i}") for i in dialect.places.time]))
    values = [column.to_numpy() for column in columns]
    notes = [*times.notes]
    if dialect.places.volume is None:
        values.append(np.zeros(len(moments)))
        notes.append(NO_VOLUME)
    if dialect.banner:
        notes.append(f"{dialect.banner} lines before the header are left out")
    return oldest_first(Reading(Candles(moments, *values), tuple(notes)))


def _parse(path: Path, data: bytes, dialect: Dialect) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    kinds = {"whole": pa.int64(), "fraction": pa.float64(), "text": pa.string()}
    values = [f"f{i}" for i in dialect.places.values]
    times = [f"f{i}" for i in dialect.places.time]

    def read(*, threads: bool) -> Any:
        return csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(
                use_threads=threads,
                skip_rows=dialect.skip,
                column_names=[f"f{i}" for i in range(dialect.width)],
            ),
            parse_options=csv.ParseOptions(delimiter=dialect.separator),
            convert_options=csv.ConvertOptions(
                include_columns=[*times, *values],
                column_types=dict.fromkeys(values, pa.float64())
                | dict.fromkeys(times, kinds[dialect.time_is]),
                decimal_point=dialect.decimal,
                strings_can_be_null=True,
            ),
        )

    try:
        return read(threads=True)
    except pa.ArrowInvalid:
        try:
            return read(threads=False)  # only a reader without threads names the row
        except pa.ArrowInvalid as error:
            raise BadCandlesError(f"{path}: {error}") from None


def _joined(columns: list[Any]) -> Any:
    """Return a time as one column, where date and clock are two."""
    if len(columns) == 1:
        return columns[0]
    pc: Any = importlib.import_module("pyarrow.compute")
    return pc.binary_join_element_wise(*columns, " ")


def _without_empty(table: Any, columns: list[Any]) -> Any:
    """Leave out rows without any value, which is how Yahoo writes that there is no candle."""
    pc: Any = importlib.import_module("pyarrow.compute")
    empty = pc.is_null(columns[0])
    for column in columns[1:]:
        empty = pc.and_(empty, pc.is_null(column))
    return table.filter(pc.invert(empty))


def _text(data: bytes) -> bytes:
    """Return a file's bytes as UTF-8 without a byte order mark."""
    if data.startswith(codecs.BOM_UTF8):
        return data[len(codecs.BOM_UTF8) :]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace").encode()
    if len(data) > 1 and 0 in data[:2]:  # UTF-16 without a mark: every second byte is 0
        order = "utf-16-be" if data[0] == 0 else "utf-16-le"
        return data.decode(order, errors="replace").encode()
    return data


def _bytes(path: Path) -> bytes:
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                return stream.read()
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                inside = [n for n in archive.namelist() if n.lower().endswith((".csv", ".txt"))]
                if len(inside) != 1:
                    raise BadCandlesError(f"{path} holds {len(inside)} CSV files; expected one")
                return archive.read(inside[0])
        return path.read_bytes()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise BadCandlesError(f"{path} can't be read: {error}") from None

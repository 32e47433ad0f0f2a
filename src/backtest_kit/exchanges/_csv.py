"""Candles from CSV files, as exchanges, terminals and spreadsheets write them."""

from __future__ import annotations

import codecs
import contextlib
import functools
import gzip
import importlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Candles, Ints
from backtest_kit._values.errors import BadCandlesError
from backtest_kit.exchanges._dialect import HEAD, Dialect, detect
from backtest_kit.exchanges._layout import NO_VOLUME, AmbiguousTime, Layout, Reading, Unread, layout
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
#: Bytes that are read at a time.
_BLOCK: Final = 4_000_000
_IN_UTC: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?Z?")


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


def read_csv(
    path: Path,
    given: Layout = Layout(),  # noqa: B008 - it is frozen
    *,
    lenient: bool = False,
) -> Reading:
    """Return the candles of a CSV file, oldest first, not checked.

    `lenient`: what is no number is NaN, and rows without a time or with another number of columns
    are left out, and named.

    Raises:
        BadCandlesError: the file is no table of candles, or does not say what is needed to read it;
            the message names it and the option that says so.
    """
    data = _text(_bytes(path))
    # a line that is cut says nothing
    head = data[:HEAD] if len(data) <= HEAD else data[:HEAD].rpartition(b"\n")[0]
    dialect = detect(head.decode(errors="replace"), given, str(path))
    unread: list[Unread] = []
    rows = None
    if lenient:
        texts = _parse(path, data, dialect, unread)
        rows = np.arange(texts.num_rows + len(unread))
        rows = np.delete(rows, [skipped.row for skipped in unread])
        table, good = _readable(texts, rows, dialect, unread)
        rows = rows[good]
    else:
        table = _parse(path, data, dialect)
    reading = _reading(table, dialect, given, path, skip_empty=not lenient)
    return oldest_first(msgspec.structs.replace(reading, unread=tuple(unread), rows=rows))


def csv_parts(path: Path, given: Layout) -> Callable[[], Iterator[Reading]] | None:
    """Return what reads a CSV file a piece at a time, not checked, in the order of its rows.

    `None`: it has to be read whole, since a time can't be known without the others.

    Raises:
        BadCandlesError: as `read_csv`, also while it is read.
    """
    with _opened(path) as stream:
        data = stream.read(HEAD + 1)
    if _text(data) is not data and not data.startswith(codecs.BOM_UTF8):
        return None  # UTF-16
    text = _text(data)
    head = text if len(data) <= HEAD else text.rpartition(b"\n")[0]
    dialect = detect(head.decode(errors="replace"), given, str(path))
    if dialect.time_is == "text" and not _each_for_itself(head, dialect, given):
        return None
    return functools.partial(_stream, path, dialect, given)


def _stream(path: Path, dialect: Dialect, given: Layout) -> Iterator[Reading]:
    import pyarrow as pa
    from pyarrow import csv

    options = _options(dialect, pa.float64(), _time_type(dialect), threads=True)
    options["read_options"].block_size = _BLOCK
    try:
        with _opened(path) as stream, csv.open_csv(stream, **options) as batches:
            for batch in batches:
                table = pa.Table.from_batches([batch])
                yield _reading(table, dialect, given, path, skip_empty=True)
    except pa.ArrowInvalid as error:
        raise BadCandlesError(f"{path}: {error}") from None


def _each_for_itself(head: bytes, dialect: Dialect, given: Layout) -> bool:
    """Say whether a time as text can be known without the others: year first, and in UTC."""
    if given.timezone is not None or given.date_format not in (None, "ymd"):
        return False
    lines = head.decode(errors="replace").splitlines()[dialect.skip :]
    place = dialect.places.time
    cells = (lines[0] if lines else "").split(dialect.separator)
    return len(place) == 1 and _IN_UTC.fullmatch(cells[place[0]].strip(' "')) is not None


def _reading(
    table: Any, dialect: Dialect, given: Layout, path: Path, *, skip_empty: bool
) -> Reading:
    """Return the candles of a table, in the order of its rows."""
    columns = [table.column(f"f{i}") for i in dialect.places.values]
    if table.num_rows and skip_empty and columns[0].null_count:
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
    return Reading(Candles(moments, *values), tuple(notes))


def _time_type(dialect: Dialect) -> Any:
    import pyarrow as pa

    return {"whole": pa.int64(), "fraction": pa.float64(), "text": pa.string()}[dialect.time_is]


def _parse(path: Path, data: bytes, dialect: Dialect, unread: list[Unread] | None = None) -> Any:
    """Return a table; with `unread`, of texts, without the rows that are no rows."""
    import pyarrow as pa
    from pyarrow import csv

    number, time = pa.float64(), _time_type(dialect)
    if unread is not None:
        number = time = pa.string()

    def skip(row: Any) -> str:
        assert unread is not None
        reason = f"{row.actual_columns} columns, expected {row.expected_columns}"
        unread.append(Unread((row.number or dialect.skip + 1) - dialect.skip - 1, reason, row.text))
        return "skip"

    def read(*, threads: bool) -> Any:
        options = _options(dialect, number, time, threads=threads)
        if unread is not None:
            options["parse_options"].invalid_row_handler = skip
        return csv.read_csv(pa.BufferReader(data), **options)

    try:
        return read(threads=unread is None)
    except pa.ArrowInvalid:
        try:
            return read(threads=False)  # only a reader without threads names the row
        except pa.ArrowInvalid as error:
            raise BadCandlesError(f"{path}: {error}") from None


def _options(dialect: Dialect, number: Any, time: Any, *, threads: bool) -> dict[str, Any]:
    """Return how Arrow reads rows of a dialect, with columns of these types."""
    from pyarrow import csv

    values = [f"f{i}" for i in dialect.places.values]
    times = [f"f{i}" for i in dialect.places.time]
    return {
        "read_options": csv.ReadOptions(
            use_threads=threads,
            skip_rows=dialect.skip,
            column_names=[f"f{i}" for i in range(dialect.width)],
        ),
        "parse_options": csv.ParseOptions(delimiter=dialect.separator),
        "convert_options": csv.ConvertOptions(
            include_columns=[*times, *values],
            column_types=dict.fromkeys(values, number) | dict.fromkeys(times, time),
            decimal_point=dialect.decimal,
            strings_can_be_null=True,
        ),
    }


def _readable(
    table: Any, rows: Ints, dialect: Dialect, unread: list[Unread]
) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Return texts as numbers and times, as `read_csv` says, and which rows have a time."""
    import pyarrow as pa

    pc: Any = importlib.import_module("pyarrow.compute")
    times = [f"f{i}" for i in dialect.places.time]
    good = np.ones(table.num_rows, dtype=np.bool_)
    for name in times:
        column = table.column(name)
        alike = pc.match_substring_regex(column, _shape(column, dialect.time_is))
        good &= np.asarray(pc.fill_null(alike, fill_value=False).to_numpy(), dtype=np.bool_)
    for i in np.flatnonzero(~good).tolist():
        text = dialect.separator.join(str(column[i].as_py() or "") for column in table.columns)
        unread.append(Unread(int(rows[i]), "no time", text))
    table = table.filter(pa.array(good))
    numbers = {"text": pa.string(), "whole": pa.int64(), "fraction": pa.float64()}
    columns = {name: table.column(name).cast(numbers[dialect.time_is]) for name in times}
    for i in dialect.places.values:
        texts = table.column(f"f{i}")
        plain = pc.replace_substring(pc.utf8_trim_whitespace(texts), dialect.decimal, ".")
        is_number = pc.match_substring_regex(plain, r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        known = pc.if_else(pc.fill_null(is_number, fill_value=False), plain, "nan")
        columns[f"f{i}"] = known.cast(pa.float64())
    return pa.table(columns), good


def _shape(column: Any, time_is: str) -> str:
    """Return what a time looks like, as the first one does: figures between the same signs."""
    if time_is != "text":
        return r"^\d+$" if time_is == "whole" else r"^[\d.eE+]+$"
    first = next((text for text in column.to_pylist() if text), "")
    return "^" + r"\d+".join(re.escape(part) for part in re.split(r"\d+", first)) + "$"


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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file's text, unpacked; what goes wrong while it is read is a BadCandlesError."""
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix.lower() == ".gz":
                yield stack.enter_context(gzip.open(path))
            elif path.suffix.lower() == ".zip":
                archive = stack.enter_context(zipfile.ZipFile(path))
                inside = [n for n in archive.namelist() if n.lower().endswith((".csv", ".txt"))]
                if len(inside) != 1:
                    raise BadCandlesError(f"{path} holds {len(inside)} CSV files; expected one")
                yield stack.enter_context(archive.open(inside[0]))
            else:
                yield stack.enter_context(path.open("rb"))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise BadCandlesError(f"{path} can't be read: {error}") from None


def _bytes(path: Path) -> bytes:
    with _opened(path) as stream:
        data: bytes = stream.read()
        return data

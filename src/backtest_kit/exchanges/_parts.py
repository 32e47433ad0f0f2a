"""Candles of a file a piece at a time, where that gives the same as reading it whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from backtest_kit._values.candle_rules import BATCH
from backtest_kit._values.candles import Candles, concatenate
from backtest_kit._values.errors import DataError
from backtest_kit.exchanges._csv import SUFFIXES, CsvExchange, csv_parts, read_csv
from backtest_kit.exchanges._layout import Layout, Reading
from backtest_kit.exchanges._parquet import PARQUET, ParquetExchange, ParquetFile, read_feather
from backtest_kit.exchanges._parquet import SUFFIXES as TABLES


def reader_of(path: Path) -> type[ParquetExchange | CsvExchange]:
    """Return the exchange that reads a file or the files of a folder, by their names."""
    names = [path.name] if path.is_file() else [p.name for p in path.iterdir()]
    tables = any(name.lower().endswith(TABLES) for name in names)
    return ParquetExchange if tables else CsvExchange


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
    kind = _kind(path)
    if kind == PARQUET:
        return ParquetFile(path, given, check=False).read_all()
    if kind == TABLES:
        return read_feather(path, given)
    return read_csv(path, given, lenient=lenient)


def file_parts(path: Path, given: Layout) -> Callable[[], Iterator[Reading]] | None:
    """Return what reads a file in the order of its rows, again at each call.

    `None`: it has to be read whole, since a time can't be known without the others. Raises as
    `read_file`, also while it is read.
    """
    kind = _kind(path)
    if kind == PARQUET:
        file = ParquetFile(path, given, check=False)
        return file.parts if file.by_groups else None
    return csv_parts(path, given) if kind == SUFFIXES else None


def batches(parts: Iterator[Candles]) -> Iterator[Candles]:
    """Return the same candles in pieces of one size, the last one excepted; one at least."""
    held: list[Candles] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) > BATCH:
            whole = concatenate(held)
            last = (len(whole) - 1) // BATCH * BATCH  # what is left is not empty
            for begin in range(0, last, BATCH):
                yield whole[begin : begin + BATCH]
            held = [whole[last:]]
    yield concatenate(held)


def _kind(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    name = path.name.lower()
    for kind in (PARQUET, TABLES, SUFFIXES):
        if name.endswith(kind):
            return kind
    raise DataError(f"{path}: expected a .parquet, .feather, .arrow, .csv, .csv.gz or .zip file")

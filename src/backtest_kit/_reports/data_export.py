"""Write candles to a file, a piece at a time: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from backtest_kit._values.candles import COLUMNS, Candles
from backtest_kit._values.errors import DataError, DataRangeError
from backtest_kit._values.time import interval_ms, interval_name, iso
from backtest_kit.exchanges._recorded import PAGE, Recording, resampled

#: Rows of a Parquet file that are read together.
_GROUP: Final = 100_000


def export(
    exchange: Recording,
    symbol: str,
    target: Path,
    *,
    interval: str | None = None,
    since: int | None = None,
    until: int | None = None,
    force: bool = False,
) -> int:
    """Write the candles of a symbol to a CSV or Parquet file, and return their number.

    `interval` is by default that of the series; `since` and `until`, in milliseconds, bound the
    open times. Memory does not grow with the number of candles.

    Raises:
        DataError: the target exists and `force` is false, or there are no such candles.
        OSError: the target can't be written.
    """
    if target.exists() and not force:
        raise DataError(f"{target} exists; use --force to replace it")
    series = exchange.series(symbol)
    name = interval or interval_name(series.step)
    step = interval_ms(name)
    if step % series.step:
        own = interval_name(series.step)
        raise DataError(f"{symbol} has {own} candles, of which {name} can't be made")
    first = -(-max(series.first, since or 0) // step) * step
    end = series.end if until is None else min(series.end, until)
    end = end // step * step
    if first >= end:
        has = f"it has {iso(series.first)} to {iso(series.end)}"
        raise DataRangeError(f"{symbol} has no candles of {name} there; {has}")
    piece = PAGE * series.step // step * step or step
    return write_parts(
        (
            resampled(series.read, series.step, name, at, min(at + piece, end))
            for at in range(first, end, piece)
        ),
        target,
    )


def write_parts(parts: Iterable[Candles], target: Path) -> int:
    """Write candles as Parquet, or as CSV where the name ends in .csv, whole or not at all.

    They are written as they come; what `parts` raises leaves no file. Returns their number.

    Raises:
        OSError: the target can't be written.
    """
    import pyarrow as pa

    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
    os.close(handle)
    rows = 0
    try:
        with _writer(target, temporary) as writer:
            for part in parts:
                table = pa.table(dict(zip(COLUMNS, part.columns(), strict=True)))
                writer.write_table(table, _GROUP)
                rows += len(part)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    return rows


def _writer(target: Path, temporary: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    kinds = [(COLUMNS[0], pa.int64()), *((name, pa.float64()) for name in COLUMNS[1:])]
    schema = pa.schema(kinds)
    if target.suffix.lower() == ".csv":
        return csv.CSVWriter(temporary, schema)
    return pq.ParquetWriter(temporary, schema, compression="zstd")

"""Ten years of minutes of five symbols: memory of import, check and reading, rows per second.

    python -m benchmarks.catalog FOLDER [YEARS]

Fills FOLDER (2 GB of free space) once, and measures each step in a process of its own, so that its
peak of memory is its own. Beside polars and DuckDB, where they are installed, on the same files.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np

import backtest_kit as bk
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.layout import SeriesKey, months
from backtest_kit._catalog.writing import write_answer
from backtest_kit._reports.data_check import convert, inspect, inspect_catalog
from backtest_kit._reports.data_export import export
from backtest_kit._values.time import MINUTE, to_instant

SYMBOLS = ("A/USDT", "B/USDT", "C/USDT", "D/USDT", "E/USDT")
BEGIN = to_instant("2014-01-01")
VENUE = "made"


def fill(folder: Path, years: int) -> int:
    """Write a random walk into a catalog, month by month, and one symbol of it as CSV."""
    catalog, rows = Catalog(folder / "data"), 0
    end = to_instant(f"{2014 + years}-01-01")
    for number, symbol in enumerate(SYMBOLS):
        rng, price = np.random.default_rng(number), 1000.0
        key = SeriesKey(VENUE, symbol, "1m")
        for month in months(BEGIN, end):
            times = np.arange(month.first, month.end, MINUTE)
            close = np.round(price * np.exp(np.cumsum(rng.normal(0, 3e-4, len(times)))), 2)
            opening = np.concatenate(((price,), close[:-1]))
            high, low = np.maximum(opening, close) + 0.5, np.minimum(opening, close) - 0.5
            volume = np.round(rng.gamma(2.0, 3.0, len(times)), 3)
            candles = bk.Candles(times, opening, high, low, close, volume)
            write_answer(catalog, key, candles, ((month.first, month.end),), VENUE, month.end)
            price, rows = float(close[-1]), rows + len(times)
    exchange = bk.exchanges.CatalogExchange(folder / "data")
    export(exchange, SYMBOLS[0], folder / "one.csv", force=True)
    return rows


def read(folder: Path) -> int:
    """Read every candle of every symbol, a month at a time."""
    exchange = bk.exchanges.CatalogExchange(folder / "data")
    rows = 0
    for symbol in SYMBOLS:
        series = exchange.series(symbol)
        for month in months(series.first, series.end):
            rows += len(series.read(month.first, month.end))
    return rows


def read_polars(folder: Path) -> int:
    """Decode every column of every file, a file at a time."""
    import polars as pl

    return sum(pl.read_parquet(path).height for path in (folder / "data").rglob("*.parquet"))


def read_duckdb(folder: Path) -> int:
    """Hand every file over as Arrow, a file at a time."""
    import duckdb

    paths = (folder / "data").rglob("*.parquet")
    return sum(duckdb.read_parquet(str(path)).to_arrow_table().num_rows for path in paths)


def sum_ours(folder: Path) -> int:
    """Add up the closes of all symbols (what an engine of queries does without handing over)."""
    exchange = bk.exchanges.CatalogExchange(folder / "data")
    rows = 0
    for symbol in SYMBOLS:
        series, total = exchange.series(symbol), 0.0
        for month in months(series.first, series.end):
            close = series.read(month.first, month.end).close
            total += float(close.sum())
            rows += len(close)
    return rows


def sum_polars(folder: Path) -> int:
    """As `sum_ours`, over all files at once."""
    import polars as pl

    files = pl.scan_parquet(folder / "data/**/*.parquet", hive_partitioning=True)
    query = files.group_by("symbol").agg(pl.col("close").sum(), pl.len().alias("rows"))
    return int(query.collect()["rows"].sum())


def sum_duckdb(folder: Path) -> int:
    """As `sum_ours`, over all files at once."""
    import duckdb

    source = f"read_parquet('{folder}/data/**/*.parquet', hive_partitioning=true)"
    found = duckdb.sql(f"select symbol, sum(close), count(*) from {source} group by symbol")
    return sum(row[2] for row in found.fetchall())


def check(folder: Path) -> int:
    """What `data check` does with the catalog."""
    return sum(report.rows for report in inspect_catalog(str(folder / "data")))


def check_csv(folder: Path) -> int:
    """What `data check` does with a CSV file of one symbol."""
    return inspect(folder / "one.csv").rows


def import_csv(folder: Path) -> int:
    """What `data import` does with it."""
    return convert(folder / "one.csv", folder / "one.parquet", force=True)


def idle(symbol: str, when: object) -> None:
    """Never trade."""


def walk(folder: Path) -> int:
    """A backtest over all candles of each symbol, of a strategy that never trades."""
    exchange, rows = bk.exchanges.CatalogExchange(folder / "data"), 0
    for symbol in SYMBOLS:
        bk.backtest(exchange, idle, symbol=symbol, interval="1d")
        series = exchange.series(symbol)
        rows += (series.end - series.first) // MINUTE
    return rows


STEPS: dict[str, Callable[[Path], int]] = {
    step.__name__: step
    for step in (
        read,
        read_polars,
        read_duckdb,
        sum_ours,
        sum_polars,
        sum_duckdb,
        check,
        check_csv,
        import_csv,
        walk,
    )
}


def measure(name: str, folder: Path) -> None:
    """Print what one step takes as a line of JSON."""
    began = time.perf_counter()
    rows = STEPS[name](folder)
    seconds = time.perf_counter() - began
    peak = getrusage(RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "peak": peak}))


def main() -> None:
    """Fill the folder where it is empty, and print a line for each step."""
    folder = Path(sys.argv[1])
    if sys.argv[2:3] and sys.argv[2] in STEPS:
        measure(sys.argv[2], folder)
        return
    if not (folder / "one.csv").exists():
        began = time.perf_counter()
        rows = fill(folder, int(sys.argv[2]) if sys.argv[2:] else 10)
        print(f"fill: {rows:,} rows in {time.perf_counter() - began:.0f} s")
    print(f"{'step':<12}{'rows':>14}{'seconds':>10}{'rows/s':>14}{'peak MB':>10}")
    for name in STEPS:
        command = [sys.executable, "-m", "benchmarks.catalog", str(folder), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:<12}{done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout)
        rate = found["rows"] / found["seconds"]
        print(
            f"{name:<12}{found['rows']:>14,}{found['seconds']:>10.1f}{rate:>14,.0f}"
            f"{found['peak']:>10.0f}"
        )


if __name__ == "__main__":
    main()

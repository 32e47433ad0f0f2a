"""The rows of a ranking that nobody registered: what the best is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from backtest_kit._reports.table import number
from backtest_kit._statistics.benchmarks import BenchmarkRow
from backtest_kit._statistics.ranking import FIRST_ROWS, WalkerData

Row = TypeVar("Row")


def beside(
    data: WalkerData, rows: Sequence[Row], shown: Callable[[BenchmarkRow], Row]
) -> list[Row]:
    """Return the rows of a ranking, in its order, with the benchmarks at their places by value.

    None comes after the first `FIRST_ROWS`. `shown` makes the row of one.
    """
    found = [*rows]
    for benchmark in reversed(data.benchmarks):
        value = benchmark.metric_value
        better = [
            row
            for row in data.ranking
            if row.metric_value is not None and (value is None or row.metric_value >= value)
        ]
        found.insert(min(len(better), FIRST_ROWS - 1, len(rows)), shown(benchmark))
    return found


def title_of(row: BenchmarkRow) -> str:
    """Return what a benchmark is called in a ranking."""
    return f"benchmark: {row.name}{', median' * (row.kind == 'random')}"


def cells_of(data: WalkerData, columns: Sequence[str], row: BenchmarkRow) -> tuple[str, ...]:
    """Return the row of a benchmark under these titles, of which it fills those that it knows."""
    known = {
        "Strategy": title_of(row),
        data.metric: number(row.metric_value, 3),
        "Trades": str(row.trades),
    }
    return tuple(known.get(column, "") for column in columns)


def benchmark_lines(data: WalkerData) -> list[str]:
    """Return what the benchmarks say, in a sentence each."""
    return [_line(data, row) for row in data.benchmarks]


def _line(data: WalkerData, row: BenchmarkRow) -> str:
    if row.error is not None:
        return f"No {row.name} to compare with: {row.error}."
    if row.kind == "hold":
        earned = f"Buying and holding earned {number(row.total_pnl)} % after costs"
        if row.trades <= len(data.symbols):  # one part each: nothing is cut
            return f"{earned}."
        return (
            f"{earned}; it is cut into {row.trades:,} equal parts, as many as the best has trades."
        )
    if row.percentile_95 is None:
        return f"Random entries with the brackets of the best have no {data.metric}."
    beaten = ""
    if row.share_below is not None:
        beaten = f"; the best beats {row.share_below * 100:.1f} % of them"
        chosen = sum(each.metric_value is not None for each in data.ranking)
        if chosen > 1:
            beaten += f", but was chosen out of {chosen:,}"
    return (
        f"Random entries with the brackets, sides and number of trades of the best, {row.draws} "
        f"draws: median {number(row.metric_value, 3)}, 95th percentile "
        f"{number(row.percentile_95, 3)}{beaten}."
    )

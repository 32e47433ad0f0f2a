"""Performance: how long things took."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.table import markdown_table, number, plain
from backtest_kit._values.table import Table, Tabular, table_of


class MetricTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of one metric type in milliseconds.

    Count, total and mean are of all; the others of `samples` of them (of frames that nobody
    watches, only one average per block is kept). Percentiles are interpolated linearly (type 7 of
    Hyndman and Fan, 1996).
    """

    metric_type: str
    count: int
    total: float
    mean: float
    samples: int
    minimum: float
    median: float
    p95: float
    p99: float
    maximum: float


class PerformanceData(Tabular, frozen=True, kw_only=True):
    """Durations by metric type, over all frames named."""

    symbol: str
    strategy_name: str
    frame_names: tuple[str, ...]
    metrics: tuple[MetricTimes, ...]

    def table(self) -> Table:
        """Return the durations as columns."""
        return table_of(self.metrics, MetricTimes, "durations")


def performance_data(records: Sequence[RunRecord]) -> PerformanceData:
    """Return the durations that these runs have measured."""
    kinds = dict.fromkeys(
        kind for record in records for kind, timings in record.timings.items() if timings.count
    )
    metrics = []
    for kind in kinds:
        timings = [record.timings[kind] for record in records if kind in record.timings]
        samples = np.concatenate([timing.samples for timing in timings])
        count, total = sum(t.count for t in timings), sum(t.total for t in timings)
        low, median, p95, p99, high = np.percentile(samples, (0, 50, 95, 99, 100)).tolist()
        metrics.append(
            MetricTimes(
                metric_type=kind,
                count=count,
                total=total,
                mean=total / count,
                samples=len(samples),
                minimum=low,
                median=median,
                p95=p95,
                p99=p99,
                maximum=high,
            )
        )
    return PerformanceData(
        symbol=", ".join(dict.fromkeys(record.symbol for record in records)),
        strategy_name=records[0].strategy_name,
        frame_names=tuple(dict.fromkeys(r.frame_name for r in records if r.frame_name)),
        metrics=tuple(metrics),
    )


def performance_report(data: PerformanceData) -> str:
    """Return the report as Markdown."""
    columns = (
        "Metric",
        "Count",
        "Total ms",
        "Mean ms",
        "Samples",
        "Min",
        "Median",
        "p95",
        "p99",
        "Max",
    )
    rows = [
        (
            m.metric_type,
            m.count,
            number(m.total, 1),
            number(m.mean, 4),
            m.samples,
            number(m.minimum, 4),
            number(m.median, 4),
            number(m.p95, 4),
            number(m.p99, 4),
            number(m.maximum, 4),
        )
        for m in data.metrics
    ]
    title = f"# Performance of {plain(data.strategy_name)} on {plain(data.symbol)}"
    if not rows:
        return f"{title}\n\nNothing was measured.\n"
    frames = f"Frames: {plain(', '.join(data.frame_names))}.\n\n" if data.frame_names else ""
    return f"{title}\n\n{frames}{markdown_table(columns, rows)}\n"

"""Heat: one strategy over several symbols, and the portfolio of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.backtest import statistics_of
from backtest_kit._reports.table import markdown_table, number, plain, span
from backtest_kit._statistics.figures import Statistics
from backtest_kit._values.table import Table, Tabular, table_of


class HeatRow(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol's statistics."""

    symbol: str
    exchange_name: str
    frame_name: str | None
    statistics: Statistics


class HeatData(Tabular, frozen=True, kw_only=True):
    """One row per run, by Sharpe ratio, best first.

    The portfolio pools the trades of all rows in the order of closing; a symbol that has run on
    several frames counts with each (narrow them down with `frame_name`).
    """

    strategy_name: str
    since: int
    until: int
    rows: tuple[HeatRow, ...]
    portfolio: Statistics

    def table(self) -> Table:
        """Return a row per run as columns."""
        return table_of(self.rows, HeatRow, self.strategy_name)


def heat_data(records: Sequence[RunRecord]) -> HeatData:
    """Return the statistics of each run, and of all trades together."""
    rows = [
        HeatRow(
            symbol=record.symbol,
            exchange_name=record.exchange_name,
            frame_name=record.frame_name,
            statistics=statistics_of(record.closed, (record.since, record.until)),
        )
        for record in records
    ]
    whole = (min(r.since for r in records), max(r.until for r in records))
    pooled = sorted(
        (tick for record in records for tick in record.closed),
        key=lambda tick: (tick.close_timestamp, tick.symbol),
    )

    def rank(row: HeatRow) -> tuple[bool, float, str]:
        sharpe = row.statistics.sharpe_ratio
        return sharpe is None, -(sharpe or 0.0), row.symbol

    return HeatData(
        strategy_name=records[0].strategy_name,
        since=whole[0],
        until=whole[1],
        rows=tuple(sorted(rows, key=rank)),
        portfolio=statistics_of(pooled, whole),
    )


def heat_report(data: HeatData) -> str:
    """Return the report as Markdown."""
    columns = (
        "Symbol",
        "Exchange",
        "Frame",
        "Trades",
        "Total profit",
        "Average",
        "Win rate",
        "Sharpe",
        "Profit factor",
        "Max drawdown",
        "Exposure",
        "Total by cost",
    )
    by_cost = data.portfolio.total_pnl_by_cost is not None
    rows = [
        _row(row.symbol, row.exchange_name, row.frame_name or "", row.statistics)
        for row in data.rows
    ]
    rows.append(_row("**Portfolio**", "", "", data.portfolio))
    return (
        f"# Heat of {plain(data.strategy_name)}\n\n{span(data.since, data.until)}. "
        "The portfolio's figures are of all trades together, in the order of closing.\n\n"
        f"{markdown_table(columns[: 11 + by_cost], [row[: 11 + by_cost] for row in rows])}\n"
    )


def _row(name: str, exchange: str, frame: str, s: Statistics) -> tuple[str, ...]:
    return (
        name,
        exchange,
        frame,
        str(s.total_signals),
        number(s.total_pnl, 2, " %"),
        number(s.avg_pnl, 3, " %"),
        number(s.win_rate, 1, " %"),
        number(s.sharpe_ratio, 3),
        number(s.profit_factor, 2),
        number(s.max_drawdown_percent, 2, " %"),
        number(s.exposure_percent, 1, " %"),
        number(s.total_pnl if s.total_pnl_by_cost is None else s.total_pnl_by_cost, 2, " %"),
    )

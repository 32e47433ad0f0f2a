"""The report of a walk: who is best, by how much, and how likely that is luck."""

from __future__ import annotations

from backtest_kit._ranking import RankRow, WalkerData
from backtest_kit._reports.table import markdown_table, minutes, number, plain, span


def walker_report(data: WalkerData) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Walk {plain(data.walker_name)} on {plain(', '.join(data.symbols))}",
        _what(data),
        "## What it is worth",
        _worth(data),
        f"## Ranking by {data.metric}",
        _ranking(data),
        "## All metrics",
        _metrics(data),
    ]
    if len(data.symbols) > 1:
        parts += ["## By symbol", _by_symbol(data)]
    failed = [row for row in data.ranking if row.error is not None]
    if failed:
        table = markdown_table(("Strategy", "Error"), [(r.strategy_name, r.error) for r in failed])
        parts += ["## Strategies that failed", table]
    return "\n\n".join(parts) + "\n"


def _what(data: WalkerData) -> str:
    where = f"Exchange {plain(data.exchange_name)}, frame {plain(data.frame_name)}"
    lines = [
        f"- {where}: {span(data.since, data.until)}",
        f"- {data.strategies_tested} of {data.total_strategies} strategies",
    ]
    if not data.complete:
        lines.append("- **The walk did not reach its end**: the rest was not tried.")
    return "\n".join(lines)


def _worth(data: WalkerData) -> str:
    lines = [f"**{plain(data.verdict.sentence)}**", ""]
    lines.append(f"- Trials on these data, as far as is known: {data.trials}.")
    if data.overfitting is None:
        lines.append("- Probability of backtest overfitting: too few trades, or one strategy.")
    else:
        lines.append(
            f"- Probability of backtest overfitting: {number(data.overfitting.probability)} (the "
            "best of one half of the time is below the median in the other; "
            f"{data.overfitting.combinations:,} splits). About 0.5 is picking at random."
        )
    gaps = max((row.gaps_filled for row in data.ranking), default=0)
    ambiguous = sum(row.ambiguous_closes for row in data.ranking)
    lines.append(f"- Missing candles filled: {gaps}. Ambiguous closes: {ambiguous}.")
    lines += [
        f"- {plain(row.strategy_name)}: {row.error_count} errors, the first "
        f"{plain(row.first_error or '')}"
        for row in data.ranking
        if row.error is None and row.error_count
    ]
    return "\n".join(lines)


def _ranking(data: WalkerData) -> str:
    columns = (
        "Rank",
        "Strategy",
        data.metric,
        "95 % interval",
        "Deflated Sharpe",
        "Trades",
        "Trades needed",
    )
    return markdown_table(columns, [_rank_cells(row) for row in data.ranking])


def _rank_cells(row: RankRow) -> tuple[str, ...]:
    trades = row.statistics.total_signals if row.statistics is not None else 0
    if row.error is not None:
        interval = "failed"
    elif row.interval is None:
        interval = "too few trades" if trades < 30 else "n/a"
    else:
        interval = f"{number(row.interval.lower, 3)} to {number(row.interval.upper, 3)}"
    return (
        "" if row.rank is None else str(row.rank),
        row.strategy_name,
        number(row.metric_value, 3),
        interval,
        number(row.deflated_sharpe, 3),
        str(trades),
        number(row.minimum_trades, 0),
    )


def _metrics(data: WalkerData) -> str:
    columns = (
        "Strategy",
        "Trades",
        "Win rate %",
        "Average %",
        "Total %",
        "Sharpe",
        "Sharpe, year",
        "Certainty",
        "Yearly %",
        "Sortino",
        "Profit factor",
        "Drawdown %",
        "Duration",
    )
    rows = []
    for row in data.ranking:
        s = row.statistics
        if s is None:
            continue
        rows.append(
            (
                row.strategy_name,
                str(s.total_signals),
                number(s.win_rate, 1),
                number(s.avg_pnl, 3),
                number(s.total_pnl),
                number(s.sharpe_ratio, 3),
                number(s.annualized_sharpe_ratio),
                number(s.certainty_ratio),
                number(s.expected_yearly_returns, 1),
                number(s.sortino_ratio, 3),
                number(s.profit_factor),
                number(s.max_drawdown_percent),
                minutes(s.avg_duration_minutes),
            )
        )
    return markdown_table(columns, rows) if rows else "No strategy has any figure."


def _by_symbol(data: WalkerData) -> str:
    rows = [
        (row.strategy_name, *(number(value, 3) for value in row.metric_by_symbol))
        for row in data.ranking
        if row.by_symbol
    ]
    return markdown_table(("Strategy", *data.symbols), rows)

"""The report of a walk: who is best, by how much, and how likely that is luck."""

from __future__ import annotations

from backtest_kit._reports.table import markdown_table, minutes, number, plain, span
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.ranking import RankRow, WalkerData
from backtest_kit._statistics.walk_forward import WalkForward


def walker_report(data: WalkerData) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Walk {plain(data.walker_name)} on {plain(', '.join(data.symbols))}",
        _what(data),
        "## What it is worth",
        worth_text(data),
        f"## Ranking by {data.metric}",
        _ranking(data),
        "## All metrics",
        _metrics(data),
    ]
    if len(data.symbols) > 1:
        parts += ["## By symbol", _by_symbol(data)]
    if data.walk_forward is not None:
        parts += ["## Walk-forward", forward_section(data.walk_forward)]
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
    if data.base_interval:
        lines.append(f"- Base interval: {data.base_interval}")
    if not data.complete:
        lines.append("- **The walk did not reach its end**: the rest was not tried.")
    return "\n".join(lines)


def conclusion(data: WalkerData) -> str:
    """Return what a walk comes to in a sentence; where every strategy failed, with what."""
    errors = [row.error for row in data.ranking if row.error is not None]
    if not errors or len(errors) < len(data.ranking):
        return data.verdict.sentence
    if len(errors) == 1:
        return f"The strategy failed: {errors[0]}"
    return f"All {len(errors)} strategies failed, the first with: {errors[0]}"


def worth_text(data: WalkerData) -> str:
    """Return what the ranking is worth, as Markdown."""
    lines = [f"**{plain(conclusion(data))}**", ""]
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
    return markdown_table(columns, [rank_cells(row) for row in data.ranking])


def rank_cells(row: RankRow) -> tuple[str, ...]:
    """Return rank, name, metric, interval, deflated Sharpe ratio, trades and trades needed."""
    trades = row.statistics.total_signals if row.statistics is not None else 0
    return (
        "" if row.rank is None else str(row.rank),
        row.strategy_name,
        number(row.metric_value, 3),
        interval_text(row),
        number(row.deflated_sharpe, 3),
        str(trades),
        number(row.minimum_trades, 0),
    )


def interval_text(row: RankRow) -> str:
    """Return the ends of a row's interval, or why there is none."""
    if row.error is not None:
        return "failed"
    if row.interval == "not computed":
        return "not computed"
    if row.interval is None:
        trades = row.statistics.total_signals if row.statistics is not None else 0
        return "too few trades" if trades < MIN_TRADES else "n/a"
    return f"{number(row.interval.lower, 3)} to {number(row.interval.upper, 3)}"


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
                number(s.sharpe_ratio_yearly),
                number(s.certainty_ratio),
                number(s.expected_yearly_returns, 1),
                number(s.sortino_ratio, 3),
                number(s.profit_factor),
                number(s.max_drawdown_percent),
                minutes(s.avg_duration_minutes),
            )
        )
    return markdown_table(columns, rows) if rows else "No strategy has any figure."


def out_of_sample_text(data: WalkForward) -> str:
    """Return the metric over the test windows together, with its trades and its interval."""
    trades = data.statistics.total_signals
    if data.out_of_sample is None:
        outside = f"too few trades ({trades})" if trades < MIN_TRADES else "n/a"
    else:
        outside = f"{number(data.out_of_sample, 3)} over {trades} trades"
    if data.interval is not None:
        outside += f" (95 %: {number(data.interval.lower, 3)} to {number(data.interval.upper, 3)})"
    return outside


def forward_section(data: WalkForward) -> str:
    """Return the windows of a walk-forward and what they amount to, as Markdown."""
    chosen = {window.strategy_name for window in data.windows if window.strategy_name}
    lines = [
        "The best of each train window, judged on the test window after it.",
        "",
        f"- In sample, mean of the windows: {data.metric} {number(data.in_sample, 3)}.",
        f"- Out of sample, stitched together: **{out_of_sample_text(data)}**.",
        f"- Efficiency, profit a day out of sample over in sample: {number(data.efficiency)}.",
        f"- {len(data.windows)} windows chose {len(chosen)} different strategies.",
    ]
    columns = (
        *("Train", "Test", "Chosen", "In sample", "Trades", "Purged", "Out of sample"),
        *("Trades", "Total %", "Overlapping"),
    )
    rows = [
        (
            span(window.train_since, window.train_until),
            span(window.test_since, window.test_until),
            window.strategy_name or "none: too few trades",
            number(window.in_sample, 3),
            str(window.in_sample_trades),
            str(window.purged),
            "too few trades"
            if window.out_of_sample_trades < MIN_TRADES
            else number(window.out_of_sample, 3),
            str(window.out_of_sample_trades),
            number(window.out_of_sample_total),
            str(window.overlapping),
        )
        for window in data.windows
    ]
    return "\n".join(lines) + "\n\n" + markdown_table(columns, rows)


def _by_symbol(data: WalkerData) -> str:
    rows = [
        (row.strategy_name, *(number(value, 3) for value in row.metric_by_symbol))
        for row in data.ranking
        if row.by_symbol
    ]
    return markdown_table(("Strategy", *data.symbols), rows)

"""The report of a walk: who is best, by how much, and how likely that is luck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backtest_kit._reports.benchmarks import benchmark_lines, beside, cells_of
from backtest_kit._reports.table import Cell, markdown_table, number, plain, span
from backtest_kit._reports.table import minutes as duration
from backtest_kit._reports.walk_accounts import COLUMNS, account_lines, account_rows, by_symbol
from backtest_kit._reports.windows import (
    as_list,
    cross_validation_lines,
    forward_lines,
    paths_table,
    splits_table,
)
from backtest_kit._statistics.inference import ConfidenceInterval
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.ranking import FIRST_ROWS, RankRow, WalkerData
from backtest_kit._statistics.walk_forward import ForwardWindow, WalkForward
from backtest_kit._values.schemas import Benchmark
from backtest_kit._values.time import MINUTE

#: How many strategies a line names before it counts the others.
_NAMES: Final = 5
#: What the figures of a row are, and are not.
EXPLAINED: Final = (
    "The interval is not corrected for a strategy's having been chosen. Adjusted p: how often luck "
    "would make one of all trials look as good; the sentence goes by it. Deflated Sharpe: the "
    "probability that the Sharpe ratio is above what the best of as many effective trials has by "
    "luck. PSR: that it is above 0, as if it had been the only trial. Trades needed: for a "
    "deflated Sharpe ratio of 0.95."
)
_AGAINST: Final[dict[Benchmark, str]] = {
    0: "no profit",
    "hold": "buying and holding",
    "random": "random entries with the same exits",
}

Rows = tuple[Sequence[str], Sequence[Sequence[Cell]]]


def walker_report(data: WalkerData, *, folded: bool = True) -> str:
    """Return the report as Markdown.

    Of each table the first `FIRST_ROWS` are shown; the others are `folded` (a `<details>` element),
    or counted.
    """
    parts = [
        f"# Walk {plain(data.walker_name)} on {plain(', '.join(data.symbols))}",
        _what(data),
        "## What it is worth",
        worth_text(data),
        f"## Ranking by {data.metric}",
        _table(*_ranking(data), folded=folded),
        *([as_list(benchmark_lines(data))] if data.benchmarks else []),
        EXPLAINED,
        "## All metrics",
        _table(*_metrics(data), folded=folded),
    ]
    if data.account is not None:
        parts += ["## Account", as_list(account_lines(data))]
        parts += [_table(COLUMNS, account_rows(data), folded=folded)]
    if len(data.symbols) > 1:
        title, values = by_symbol(data)
        parts += [f"## {title}", _table(("Strategy", *data.symbols), values, folded=folded)]
    if data.walk_forward is not None:
        parts += ["## Walk-forward", forward_section(data.walk_forward, folded=folded)]
    if (crossed := data.cross_validation) is not None:
        parts += ["## Cross-validation", as_list(cross_validation_lines(crossed))]
        parts += [_table(*paths_table(crossed), folded=folded)]
        parts += [_table(*splits_table(crossed), folded=folded)]
    failed = [(row.strategy_name, row.error) for row in data.ranking if row.error is not None]
    if failed:
        table = _table(("Strategy", "Error"), failed, folded=folded)
        parts += ["## Strategies that failed", table]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, folded: bool) -> str:
    """Return a table of the first rows, and the others folded or counted."""
    if not rows:
        return "None."
    first, rest = markdown_table(columns, rows[:FIRST_ROWS]), rows[FIRST_ROWS:]
    if not rest:
        return first
    if not folded:
        return f"{first}\n\nAnd {len(rest):,} more, which the JSON of the walk has."
    return (
        f"{first}\n\n<details>\n<summary>{len(rest):,} more</summary>\n\n"
        f"{markdown_table(columns, rest)}\n\n</details>"
    )


def _what(data: WalkerData) -> str:
    where = f"Exchange {plain(data.exchange_name)}, frame {plain(data.frame_name)}"
    lines = [
        f"- {where}: {span(data.since, data.until)}",
        f"- {data.strategies_tested:,} of {data.total_strategies:,} strategies",
    ]
    if data.base_interval:
        lines.append(f"- Base interval: {data.base_interval}")
    lines += [f"- {plain(line)}" for line in warming_lines(data)]
    if not data.complete:
        lines.append("- **The walk did not reach its end**: the rest was not tried.")
    return "\n".join(lines)


def warming_lines(data: WalkerData) -> list[str]:
    """Return one line on the steps that came before the candles, and one on who was never asked."""
    warmed = [row for row in data.ranking if row.warming and row.calls]
    never = [row.strategy_name for row in data.ranking if row.warming and not row.calls]
    lines = []
    if warmed:
        least, most = (each(row.warming for row in warmed) for each in (min, max))
        steps = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        lines.append(
            f"Warming up: {steps} steps at the start, until the data reached back far enough "
            f"({_of_all(len(warmed), data)})."
        )
    if never:
        lines.append(
            f"Never asked, since the data never reached back far enough: {listed(never)} "
            f"({_of_all(len(never), data)})."
        )
    return lines


def listed(names: Sequence[str]) -> str:
    """Return a few names, and how many more there are."""
    left = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {left:,} more" if left > 0 else "")


def _of_all(count: int, data: WalkerData) -> str:
    return f"{count:,} of {data.strategies_tested:,} strategies"


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
    lines.append(f"- Trials on these data, as far as is known: {data.trials:,}.")
    lines += [f"- {line}" for line in test_lines(data)]
    lines.append(f"- {overfitting_text(data)}")
    gaps = max((row.gaps_filled for row in data.ranking), default=0)
    ambiguous = sum(row.ambiguous_closes for row in data.ranking)
    lines.append(f"- Missing candles filled: {gaps:,}. Ambiguous closes: {ambiguous:,}.")
    if data.unseen:
        lines.append(
            f"- Stored results don't show whether what strategies read has changed: "
            f"{plain(listed(data.unseen))}."
        )
    raised = [row for row in data.ranking if row.error is None and row.error_count]
    lines += [
        f"- {plain(row.strategy_name)}: {row.error_count:,} "
        f"error{'s' * (row.error_count > 1)}, the first {plain(row.first_error or '')}"
        for row in raised[:_NAMES]
    ]
    if len(raised) > _NAMES:
        errors = sum(row.error_count for row in raised)
        lines.append(f"- Errors in all: {errors:,}, of {_of_all(len(raised), data)}.")
    return "\n".join(lines)


def test_lines(data: WalkerData) -> list[str]:
    """Return what the sentence rests on, and the interval of the best, corrected for the choice."""
    test, lines = data.test, []
    if test is not None:
        blocks = (
            f"in blocks of {number(test.block, 1)} on average" if test.block > 1 else "one by one"
        )
        line = (
            f"Tested against {_AGAINST[test.benchmark]}, on {test.bins:,} bins of time of "
            f"{duration(test.bin_length / MINUTE)} each, resampled {blocks}."
        )
        judged = test.known_trials + test.unknown_trials
        if judged > 1:
            line += (
                f" The {judged:,} trials that can be judged count as about "
                f"{number(test.effective_trials, 1)} independent trials."
            )
        lines.append(line)
        best_of, whose = f"the best of the {test.known_trials:,} known trials", "their"
        if test.known_trials == 1:
            best_of, whose = "the one known trial", "its"
        lines.append(
            f"How often luck does as well as {best_of}, by {whose} trades as they are: reality "
            f"check p = {number(test.reality_check, 3)}, superior predictive ability p = "
            f"{number(test.superior_ability, 3)}."
        )
    best = data.ranking[0] if data.best_strategy is not None else None
    interval = None if best is None else best.selection_interval
    if interval is not None and interval != "not computed":
        lines.append(
            f"95 % interval of the best, corrected for its having been chosen: {data.metric} "
            f"{number(interval.lower, 3)} to {number(interval.upper, 3)}."
        )
    return lines


def overfitting_text(data: WalkerData) -> str:
    """Return the probability of overfitting, and what it says where every strategy loses."""
    if data.overfitting is None:
        return "Probability of backtest overfitting: too few trades, or one strategy."
    odds = number(data.overfitting.probability)
    if all_lose(data):
        return (
            f"Probability of backtest overfitting: {odds}. Every strategy loses, so that this only "
            "says whether the same ones lose least in both halves of the time."
        )
    return (
        f"Probability of backtest overfitting: {odds} (the best of one half of the time is below "
        f"the median in the other; {data.overfitting.combinations:,} splits). About 0.5 is picking "
        "at random."
    )


def all_lose(data: WalkerData) -> bool:
    """Say whether no strategy that traded has made a profit."""
    totals = [row.statistics.total_pnl for row in data.ranking if row.statistics is not None]
    known = [total for total in totals if total is not None]
    return bool(known) and max(known) <= 0


def _ranking(data: WalkerData) -> Rows:
    columns = (
        "Rank",
        "Strategy",
        data.metric,
        "95 % interval",
        "Adjusted p",
        "Deflated Sharpe",
        "PSR",
        "Trades",
        "Trades needed",
    )
    rows = [rank_cells(row) for row in data.ranking]
    return columns, beside(data, rows, lambda row: cells_of(data, columns, row))


def rank_cells(row: RankRow) -> tuple[str, ...]:
    """Return the cells of a row.

    Rank, name, metric, interval, adjusted p, deflated and probabilistic Sharpe ratio, trades, and
    trades needed.
    """
    trades = row.statistics.total_signals if row.statistics is not None else 0
    return (
        "" if row.rank is None else str(row.rank),
        row.strategy_name,
        number(row.metric_value, 3),
        interval_text(row),
        number(row.adjusted_p_value, 3),
        number(row.deflated_sharpe, 3),
        number(row.probabilistic_sharpe, 3),
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
    return _ends(row.interval)


def chosen_interval_text(row: RankRow) -> str:
    """Return the ends of the interval that holds for a chosen row, or why there is none."""
    interval = row.selection_interval
    if isinstance(interval, ConfidenceInterval):
        return f"{_ends(interval)}, corrected for the choice"
    text = interval_text(row)
    return (
        text if row.interval is None or row.interval == "not computed" else f"{text}, if not chosen"
    )


def _ends(interval: ConfidenceInterval) -> str:
    return f"{number(interval.lower, 3)} to {number(interval.upper, 3)}"


def _metrics(data: WalkerData) -> Rows:
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
                duration(s.avg_duration_minutes),
            )
        )
    return columns, rows


def forward_section(data: WalkForward, *, folded: bool = True) -> str:
    """Return the windows of a walk-forward and what they amount to, as Markdown."""
    lines = ["The best of each train window, judged on the test window after it.", ""]
    lines += [f"- {line}" for line in forward_lines(data)]
    columns = (
        *("Train", "Test", "Chosen", "In sample", "Trades", "Purged", "Out of sample"),
        *("Trades", "Total %", "Overlapping"),
    )
    rows = [window_cells(window) for window in data.windows]
    return "\n".join(lines) + "\n\n" + _table(columns, rows, folded=folded)


def window_cells(window: ForwardWindow) -> tuple[str, ...]:
    """Return a window's spans and choice, and its figures in sample and out of sample."""
    return (
        span(window.train_since, window.train_until),
        span(window.test_since, window.test_until),
        _chosen(window),
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


def _chosen(window: ForwardWindow) -> str:
    name, why = window.strategy_name, window.aside
    if name is None:
        return f"none: {why or 'too few trades'}"
    return name if why is None else f"{name} (stood aside: {why})"

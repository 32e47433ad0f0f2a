"""The page of a walk: who is best, what its surroundings are worth, and how much is luck."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

import numpy as np

from backtest_kit._pages.heat_map import heat_map, neighbours_table
from backtest_kit._pages.page import (
    TABLE,
    chart,
    folded,
    header,
    html_page,
    markdown,
    require_bokeh,
    section,
    tiles,
)
from backtest_kit._pages.walk_charts import curves_chart, windows_chart
from backtest_kit._reports.benchmarks import benchmark_lines, beside, title_of
from backtest_kit._reports.portfolio_data import money
from backtest_kit._reports.table import number
from backtest_kit._reports.walk_accounts import COLUMNS, account_lines, account_rows
from backtest_kit._reports.walker import (
    EXPLAINED,
    all_lose,
    chosen_interval_text,
    conclusion,
    interval_text,
    warming_lines,
    worth_text,
)
from backtest_kit._reports.windows import cross_validation_lines, forward_lines, paths_table
from backtest_kit._statistics.benchmarks import BenchmarkRow
from backtest_kit._statistics.cross_validation import CrossValidation
from backtest_kit._statistics.inference import ConfidenceInterval
from backtest_kit._statistics.plateau import grid_points, plateau
from backtest_kit._statistics.ranking import RankRow, WalkerData
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._statistics.walk_forward import WalkForward
from backtest_kit._values.time import iso

#: Points of all curves together; each has its last one.
_POINTS: Final = 120_000
_LEAST_POINTS: Final = 20
_DEFLATED: Final = 15
#: A probability below this is shown as none.
_LEAST_SHOWN: Final = 0.001


def walk_page(data: WalkerData, trials: Sequence[TrialResult] = ()) -> str:
    """Return a self-contained HTML page; without `trials` it has no curves.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    curves = _curves(data, trials)
    charts: dict[str, Any] = {}
    parts = [tiles(_figures(data)), f'<p class="verdict">{escape(conclusion(data))}</p>']
    if curves:
        charts["curves"] = curves_chart(
            (data.since, max(data.until, data.since + 1)), _reach(curves)
        )
        parts.append(_curves_section(len(curves)))
    compared = "".join(f"<li>{escape(line)}</li>" for line in benchmark_lines(data))
    compared = f"<ul>{compared}</ul><p>{EXPLAINED}</p>" if compared else f"<p>{EXPLAINED}</p>"
    parts.append(section(f"Ranking by {data.metric}", TABLE + compared, "ranking"))
    points, around = grid_points(data), plateau(data)
    if len(points) > 1:
        content = heat_map(points, data.metric) + neighbours_table(around, data.metric)
        parts.append(section("Parameters, and what is left beside the best", content, "grid"))
    if data.account is not None:
        parts.append(_account_section(data))
    if data.walk_forward is not None:
        charts["windows"] = windows_chart(data.walk_forward)
        parts.append(_forward_section(data.walk_forward))
    if (crossed := data.cross_validation) is not None:
        parts.append(_crossed_section(crossed))
    deflated = _deflation(data)
    if deflated:
        parts.append(section("What trying many took away", deflated, "deflation"))
    parts.append(section("What it is worth", markdown(worth_text(data)), "worth"))
    failed = [(row.strategy_name, row.error) for row in data.ranking if row.error is not None]
    if failed:
        content = folded(("Strategy", "Error"), failed)
        parts.append(section("Strategies that failed", content, "failed"))
    span = f"{iso(data.since)} to {iso(data.until)}"
    facts = [", ".join(data.symbols), span, f"{data.exchange_name}, {data.frame_name}"]
    facts += warming_lines(data)
    body = (
        header("Walk", data.walker_name, facts)
        + f'<main id="main">{"".join(parts)}</main>'
        + "<footer>Made by backtest-kit. All times are UTC. Past results say little of future "
        "ones.</footer>"
    )
    rows = beside(data, [_row(row) for row in data.ranking], _benchmark)
    page_data = {"rows": rows, "curves": curves}
    return html_page(data.walker_name, body, data=page_data, charts=charts, script="walk.js")


def _figures(data: WalkerData) -> list[tuple[str, str, str]]:
    best = data.ranking[0] if data.best_strategy is not None else None
    interval = "no interval" if best is None else f"95 %: {chosen_interval_text(best)}"
    odds = None if data.overfitting is None else data.overfitting.probability
    trades = best.statistics.total_signals if best is not None and best.statistics else 0
    tried = f"{data.strategies_tested} of {data.total_strategies}"
    figures = [
        ("Best strategy", data.best_strategy or "none", f"of {tried}"),
        (data.metric, number(data.best_metric, 3), interval),
        ("Trades of the best", f"{trades:,}", _needed(best)),
        (
            "Chance of overfitting",
            number(odds, 2),
            "but every strategy loses" if all_lose(data) else "about 0.5 is picking at random",
        ),
    ]
    if data.account is not None:
        s = None if best is None else best.account
        equity = "n/a" if s is None else money(s.final_equity)
        begun = f"{data.account.currency}, from {money(data.account.balance)}"
        figures.append(("Final equity of the best", equity, begun))
    return figures


def _needed(best: RankRow | None) -> str:
    if best is None or best.minimum_trades is None:
        return "how many it needs is not known"
    return f"{number(best.minimum_trades, 0)} needed for a deflated Sharpe ratio of 0.95"


def _curves(data: WalkerData, trials: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """Return the sums of profits in percent by strategy, in the order of the ranking."""
    known = {trial.strategy_name: trial for trial in trials}
    rows = [known[r.strategy_name] for r in data.ranking if r.strategy_name in known]
    room = max(_POINTS // max(len(rows), 1), _LEAST_POINTS)
    curves = []
    for trial in rows:
        total = np.cumsum(trial.trades.r)
        even = np.linspace(0, max(len(total) - 1, 0), room)
        keep = np.unique(even.astype(np.int64))[: len(total)]
        end = max(data.until, data.since + 1)
        last = float(total[-1]) if len(total) else 0.0
        curves.append(
            {
                "name": trial.strategy_name,
                "x": [data.since, *trial.trades.closed_at[keep].tolist(), end],
                "y": [0.0, *(round(y, 4) for y in total[keep].tolist()), round(last, 4)],
            }
        )
    return curves


def _reach(curves: list[dict[str, Any]]) -> tuple[float, float]:
    values = [value for curve in curves for value in curve["y"]]
    return min(values), max(values)


def _curves_section(count: int) -> str:
    label = f"Sum of profits in percent over time of {count} strategies, the best in a thick line"
    return section(
        "Profit of all strategies",
        f'<div class="framed">{chart("curves", label, 360)}'
        '<ul class="legend"><li><b class="accent" aria-hidden="true">\u2501</b> the best</li>'
        '<li><b class="warn" aria-hidden="true">\u2505</b> <span id="curve">chosen in the table'
        '</span></li><li><b class="muted" aria-hidden="true">\u2500</b> the others</li></ul></div>',
        "profits",
    )


def _forward_section(data: WalkForward) -> str:
    label = (
        f"{data.metric} of {len(data.windows)} windows: in sample (circles) and out of sample "
        "(squares)"
    )
    columns = ("Train", "Test", "Chosen", "In sample", "Out of sample", "Trades out of sample")
    rows = [
        (
            f"{_day(w.train_since)} to {_day(w.train_until)}",
            f"{_day(w.test_since)} to {_day(w.test_until)}",
            w.strategy_name or "none",
            number(w.in_sample, 3),
            number(w.out_of_sample, 3),
            str(w.out_of_sample_trades),
        )
        for w in data.windows
    ]
    text = "".join(f"<li>{escape(line)}</li>" for line in forward_lines(data))
    return section(
        "In sample beside out of sample",
        f'<ul>{text}</ul><div class="framed">{chart("windows", label, 240)}'
        '<ul class="legend"><li><b class="muted" aria-hidden="true">\u25cb</b> in sample</li>'
        '<li><b class="accent" aria-hidden="true">\u25a0</b> out of sample</li></ul></div>'
        f"{folded(columns, rows, right=(3, 4, 5))}",
        "forward",
    )


def _account_section(data: WalkerData) -> str:
    text = "".join(f"<li>{escape(line)}</li>" for line in account_lines(data))
    table = folded(COLUMNS, account_rows(data), right=range(1, len(COLUMNS)))
    return section("What the money came to", f"<ul>{text}</ul>{table}", "account")


def _crossed_section(data: CrossValidation) -> str:
    text = "".join(f"<li>{escape(line)}</li>" for line in cross_validation_lines(data))
    columns, rows = paths_table(data)
    paths = folded(columns, rows, right=range(1, len(columns)))
    return section("Groups that were tested", f"<ul>{text}</ul>{paths}", "crossed")


def _deflation(data: WalkerData) -> str:
    """Return the probability of skill, had it been the only trial, beside what is left of it."""
    rows = [row for row in data.ranking if row.deflated_sharpe is not None][:_DEFLATED]
    lines = []
    for row in rows:
        name, left = row.strategy_name, row.deflated_sharpe or 0.0
        alone = row.probabilistic_sharpe
        before = left if alone is None else alone
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="number">{before:.0%}</td>'
            f'<td class="number">{left:.0%}</td><td><div class="taken" aria-hidden="true" '
            f'style="--left:{left:.4f};--before:{before:.4f}"><i></i><b></b></div></td></tr>'
        )
    if not lines:
        return ""
    if all((row.deflated_sharpe or 0.0) < _LEAST_SHOWN for row in rows):
        return (
            f'<p class="remark">Nothing is left: of the best of {data.trials:,} that were tried, '
            "luck alone gives a higher Sharpe ratio than any of these has.</p>"
        )
    return (
        '<p class="remark">The probability that the Sharpe ratio is above what luck gives: for one '
        f"strategy alone, and for the best of {data.trials:,} that were tried. What the bar "
        'loses (hatched) is what the search for the best took.</p><div class="scroll">'
        '<table class="deflation"><thead><tr><th scope="col">Strategy</th><th scope="col" '
        'class="number">Alone</th><th scope="col" class="number">Of all</th><th scope="col">'
        f"From 0 to 100 %</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _row(row: RankRow) -> dict[str, Any]:
    s = row.statistics
    interval = row.interval if isinstance(row.interval, ConfidenceInterval) else None
    return {
        "rank": row.rank,
        "name": row.strategy_name,
        "metric": row.metric_value,
        "lower": None if interval is None else interval.lower,
        "upper": None if interval is None else interval.upper,
        "interval": interval_text(row),
        "p": row.adjusted_p_value,
        "deflated": row.deflated_sharpe,
        "psr": row.probabilistic_sharpe,
        "needed": row.minimum_trades,
        "trades": 0 if s is None else s.total_signals,
        "total": None if s is None else s.total_pnl,
        "drawdown": None if s is None else s.max_drawdown_percent,
        "equity": None if row.account is None else row.account.final_equity,
        "fall": None if row.account is None else row.account.max_drawdown_percent,
    }


def _benchmark(row: BenchmarkRow) -> dict[str, Any]:
    """Return the row of a benchmark, which has few of the figures of a strategy."""
    unknown = dict.fromkeys(
        ("rank", "lower", "upper", "p", "deflated", "psr", "needed", "drawdown", "equity", "fall")
    )
    return unknown | {
        "name": title_of(row),
        "metric": row.metric_value,
        "interval": "",
        "trades": row.trades,
        "total": row.total_pnl,
    }


def _day(ms: int) -> str:
    return iso(ms)[:10]

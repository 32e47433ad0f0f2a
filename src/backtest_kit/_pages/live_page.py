"""The page of live runs: what they hold, a timeline of what they did, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backtest_kit._pages.live_charts import timeline_chart, total_chart
from backtest_kit._pages.page import (
    TABLE,
    chart,
    header,
    html_page,
    markdown,
    require_bokeh,
    section,
    table,
    tiles,
)
from backtest_kit._pages.trade_data import trade_columns
from backtest_kit._reports.live import LiveData, trust_text, what_text
from backtest_kit._reports.table import number, price
from backtest_kit._reports.trades import outcomes_of
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.results import TickClosed
from backtest_kit._values.time import iso

_LEGEND: Final = (
    '<ul class="legend"><li><b class="up" aria-hidden="true">\u25a0</b> closed with a profit</li>'
    '<li><b class="down" aria-hidden="true">\u25a8</b> closed with a loss (hatched)</li>'
    '<li><b class="accent" aria-hidden="true">\u25a0</b> open now</li>'
    '<li><b class="muted" aria-hidden="true">\u25a1</b> waited for its price</li></ul>'
)


def live_page(runs: Sequence[LiveData]) -> str:
    """Return a self-contained HTML page of live runs, at least one, as far as they have come.

    Raises:
        BacktestKitError: Bokeh is missing.
        ArgumentError: there are no runs.
    """
    require_bokeh()
    if not runs:
        raise ArgumentError("a page of live runs needs at least one")
    span = (min(run.since for run in runs), max(run.until for run in runs))
    span = (span[0], max(span[1], span[0] + 1))
    closed = sorted((t for run in runs for t in run.signals), key=lambda t: t.close_timestamp)
    height = 70 + 34 * len(runs)
    label = f"When each of {len(runs)} runs held a position or waited, from {iso(span[0])} on"
    parts = [tiles(_figures(runs, closed)), section("Runs", _runs(runs), "runs")]
    timeline = f'<div class="framed">{chart("timeline", label, height)}'
    total = chart("total", "Sum of profits of all runs in percent over time", 170)
    parts.append(section("Timeline", f"{timeline}{total}{_LEGEND}</div>", "times"))
    parts += [_run_section(i, run) for i, run in enumerate(runs, 1)]
    parts.append(section("Trades", TABLE, "trades"))
    profits, _, at = outcomes_of(closed)
    charts = {
        "timeline": timeline_chart(runs, span, height),
        "total": total_chart(span, at, profits),
    }
    names = {(r.symbol, r.strategy_name, r.exchange_name): i for i, r in enumerate(runs, 1)}
    page_data: dict[str, Any] = {
        "trades": trade_columns(closed),
        "runs": [names[t.symbol, t.strategy_name, t.exchange_name] for t in closed],
    }
    facts = [
        f"{iso(span[0])} to {iso(span[1])}",
        "1 run" if len(runs) == 1 else f"{len(runs)} runs",
    ]
    body = (
        header("Live", _title(runs), facts)
        + f'<main id="main">{"".join(parts)}</main>'
        + "<footer>Made by backtest-kit from the state as it was stored; make it again to see what "
        "came since. All times are UTC.</footer>"
    )
    return html_page(_title(runs), body, data=page_data, charts=charts, script="live.js")


def _title(runs: Sequence[LiveData]) -> str:
    if len(runs) == 1:
        return f"{runs[0].strategy_name} on {runs[0].symbol}"
    strategies = sorted({run.strategy_name for run in runs})
    return strategies[0] if len(strategies) == 1 else f"{len(strategies)} strategies"


def _figures(runs: Sequence[LiveData], closed: Sequence[TickClosed]) -> list[tuple[str, str, str]]:
    total = sum(tick.pnl.pnl_percentage for tick in closed)
    meaning = "sum of trades, after assumed costs"
    if any(tick.cost != 1 for tick in closed):
        by_cost = sum(tick.pnl.pnl_percentage * tick.cost for tick in closed)
        meaning += f"; {number(by_cost, 2, ' %')} by cost, in percent of first entries"
    won = sum(tick.pnl.pnl_percentage > 0 for tick in closed)
    held = sum(run.signal is not None and run.signal.pending_at is not None for run in runs)
    waiting = sum(run.signal is not None and run.signal.pending_at is None for run in runs)
    missed = sum(run.missed for run in runs)
    return [
        ("Total profit", number(total, 2, " %"), meaning),
        ("Trades", f"{len(closed):,}", f"{won:,} won, {len(closed) - won:,} not"),
        ("Open now", f"{held:,}", f"{waiting:,} more wait for their price"),
        ("Steps missed", f"{missed:,}", "an open position was followed through them"),
    ]


def _runs(runs: Sequence[LiveData]) -> str:
    columns = (
        "#",
        "Symbol",
        "Strategy",
        "Exchange",
        "Now",
        "Newest step",
        "Trades",
        "Sum",
        "Missed",
    )
    rows = [
        (
            str(i),
            run.symbol,
            run.strategy_name,
            run.exchange_name,
            _now(run),
            iso(run.until),
            f"{run.statistics.total_signals:,}",
            number(run.statistics.total_pnl, 2, " %"),
            f"{run.missed:,}",
        )
        for i, run in enumerate(runs, 1)
    ]
    return f'<div class="scroll">{table(columns, rows, right=(0, 6, 7, 8))}</div>'


def _now(run: LiveData) -> str:
    row = run.signal
    if row is None:
        return "nothing"
    if row.pending_at is None:
        return f"{row.position} waits for {price(row.price_open)}"
    return f"{row.position} at {price(row.price_open)} since {iso(row.pending_at)}"


def _run_section(place: int, run: LiveData) -> str:
    title = f"{place}. {run.strategy_name} on {run.symbol}, {run.exchange_name}"
    return section(title, markdown(f"{what_text(run)}\n{trust_text(run)}"), f"run-{place}")

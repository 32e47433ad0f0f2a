"""The page of one backtest: its candles and trades, what came out, and how far to trust it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np

from backtest_kit._pages.candle_data import packed_candles
from backtest_kit._pages.charts import curve_chart, drawdown_chart, held_curve, histogram_chart
from backtest_kit._pages.costs_section import costs_charts, costs_section
from backtest_kit._pages.months import monthly, months_table
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
from backtest_kit._pages.price_chart import EXITS, price_chart
from backtest_kit._pages.trade_data import trade_columns
from backtest_kit._reports.backtest import (
    FEW_TRADES,
    BacktestData,
    statistics_rows,
    trust_text,
    what_text,
)
from backtest_kit._reports.table import number
from backtest_kit._reports.trades import outcomes_of
from backtest_kit._statistics.sensitivity import Sensitivity
from backtest_kit._values.candles import Candles, Floats
from backtest_kit._values.results import TickClosed
from backtest_kit._values.time import iso

_TRADE_HINT: Final = (
    '<p class="remark">A click on a head sorts; a click on a row (or Enter) shows the trade on '
    "the chart.</p>"
)
_SHAPES: Final = {
    "circle": "\u25cf",
    "x": "\u2715",
    "square": "\u25a0",
    "diamond": "\u25c6",
    "star": "\u2605",
    "hex": "\u2b22",
}


def backtest_page(
    data: BacktestData, candles: Candles | None = None, depends: Sensitivity | None = None
) -> str:
    """Return a self-contained HTML page.

    Without `candles` (of any interval) it has no chart of prices, without `depends` nothing on
    what the profit depends on.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    span = (data.since, max(data.until, data.since + 1))
    profits, _, closed_at = outcomes_of(data.signals)
    shown = None if candles is None else _within(candles, data)
    drawn = shown is not None and len(shown) > 0
    charts: dict[str, Any] = {}
    prices, held = None, None
    if drawn and shown is not None:
        prices = charts["price"] = price_chart(*span)
        held = held_curve(shown)
    curve = curve_chart(span, closed_at, profits, held, prices)
    if prices is not None:  # one document, since one chart moves the other
        from bokeh.layouts import column

        del charts["price"]
        lower = [curve, drawdown_chart(span, closed_at, profits)]
        charts["price"] = column(prices, *lower, sizing_mode="stretch_width")
    else:
        charts["curve"] = curve
        charts["drawdown"] = drawdown_chart(span, closed_at, profits)
    parts = [tiles(_figures(data, held, depends)), _first_doubts(data)]
    parts.append(_price_section(data) if drawn else _curve_section())
    parts.append(section("How far to trust this", markdown(trust_text(data)), "trust"))
    if data.signals:
        charts["histogram"] = histogram_chart(profits)
        parts.append(
            section("Profit by month, %", months_table(monthly(closed_at, profits)), "months")
        )
        parts.append(_outcome_section(data, profits))
    if depends is not None and data.signals:
        charts |= costs_charts(depends)
        parts.append(costs_section(depends))
    parts.append(section("Trades", _TRADE_HINT + TABLE, "trades"))
    parts.append(section("All statistics", _statistics(data), "statistics"))
    parts.append(section("What was run", markdown(what_text(data)), "run"))
    facts = [data.symbol, f"{iso(data.since)} to {iso(data.until)}", data.exchange_name]
    body = (
        header("Backtest", f"{data.strategy_name} on {data.symbol}", facts)
        + f'<main id="main">{"".join(parts)}</main>'
        + "<footer>Made by backtest-kit. All times are UTC. Past results say little of future "
        "ones.</footer>"
    )
    page_data = {
        "trades": trade_columns(data.signals),
        "candles": packed_candles(shown) if drawn and shown is not None else None,
    }
    title = f"{data.strategy_name} on {data.symbol}"
    return html_page(title, body, data=page_data, charts=charts, script="backtest.js")


def _within(candles: Candles, data: BacktestData) -> Candles:
    """Return the candles of the run's range, up to the last close."""
    last = max([data.until, *(tick.close_timestamp for tick in data.signals[-1:])])
    t = candles.timestamp
    return candles[int(np.searchsorted(t, data.since)) : int(np.searchsorted(t, last))]


def _figures(
    data: BacktestData, held: tuple[Floats, Floats] | None, depends: Sensitivity | None
) -> list[tuple[str, str, str]]:
    s = data.statistics
    entries = [
        ("Total profit", number(s.total_pnl, 2, " %"), "sum of trades, after costs"),
        ("Trades", f"{s.total_signals:,}", f"{s.win_count:,} won, {s.loss_count:,} lost"),
        ("Win rate", number(s.win_rate, 1, " %"), "share of trades with a profit"),
        ("Average profit", number(s.avg_pnl, 3, " %"), "per trade, after costs"),
        ("Max drawdown", number(s.max_drawdown_percent, 2, " %"), "of the compounded equity"),
        ("Profit factor", number(s.profit_factor, 2), "gross profit over gross loss"),
    ]
    if depends is not None:
        before = number(depends.compounded_before_costs, 2, " %")
        value = number(depends.compounded, 2, " %")
        entries.append(("Compounded", value, f"before costs {before}"))
    else:
        value = number(s.sharpe_ratio, 3)
        entries.append(("Sharpe ratio", value, "average over deviation, per trade"))
    if held is not None:
        value = number(float(held[1][-1]), 2, " %")
        entries.append(("Buy and hold", value, "from the first open, before costs"))
    else:
        entries.append(("Exposure", number(s.exposure_percent, 1, " %"), "time with a position"))
    return entries


def _first_doubts(data: BacktestData) -> str:
    """Return the doubts that nobody should miss, in words, above everything else."""
    n, found = data.statistics.total_signals, []
    if n < FEW_TRADES:
        found.append(f"Too few trades to say anything about the strategy: {n}.")
    if not data.complete:
        found.append("The run did not reach its end.")
    if data.error_count:
        found.append(f"{data.error_count:,} errors happened; see how far to trust this.")
    if not found:
        return ""
    lines = "".join(f"<li>{line}</li>" for line in found)
    return f'<ul class="doubts" role="note">{lines}</ul>'


def _price_section(data: BacktestData) -> str:
    n = len(data.signals)
    buttons = "".join(
        f'<button type="button" data-do="{action}" aria-label="{label}"'
        f"{' disabled' if not n and action in ('previous', 'next') else ''}>{text}</button>"
        for action, text, label in (
            ("all", "All", "Show the whole run"),
            ("month", "Month", "Show a month"),
            ("week", "Week", "Show a week"),
            ("day", "Day", "Show a day"),
            ("out", "\u2212", "Zoom out"),
            ("in", "+", "Zoom in"),
            ("previous", "\u2190 trade", "Previous trade"),
            ("next", "trade \u2192", "Next trade"),
        )
    )
    hint = "Choose a trade: here, in the chart or in the table." if n else "There was no trade."
    used = Counter(map(_reason, data.signals))
    ends = [(_SHAPES[shape], color, text) for r, (shape, color, text) in EXITS.items() if used[r]]
    shapes = [("\u25b2", "accent", "long entry"), ("\u25bc", "accent", "short entry"), *ends]
    legend = "".join(
        f'<li><b class="{color}" aria-hidden="true">{shape}</b> {text}</li>'
        for shape, color, text in shapes
    )
    label = (
        f"Candles with {n} trades, below them the sum of profits and the drawdown. Keys: left and "
        "right move, plus and minus zoom, n and p go to the next and the previous trade, 0 shows "
        "all. The table of trades holds the same."
    )
    return section(
        "Prices and trades",
        f'<div class="bar" id="controls">{buttons}</div><p id="trade" aria-live="polite">'
        f'{hint}</p><div class="framed">'
        '<p class="reading"><span id="candle"></span><span id="thinning"></span></p>'
        '<div class="chart" id="price" role="application" tabindex="0" '
        f'aria-label="{label}" style="min-height:720px"></div>'
        f'<ul class="legend">{legend}<li>shaded: from entry to take-profit and to stop-loss</li>'
        "</ul></div>"
        '<p class="caption">Below the prices: the sum of profits in percent (dashed: buy and hold; '
        "drag the frame to move), then the drawdown of the compounded equity in percent.</p>",
        "prices",
    )


def _curve_section() -> str:
    return section(
        "Profit and drawdown",
        '<p class="remark">Made without candles, so there is no chart of prices.</p>'
        '<div class="framed">'
        + chart("curve", "Sum of profits in percent over time", 170)
        + chart("drawdown", "Drawdown of the compounded equity in percent over time", 110)
        + "</div>",
        "prices",
    )


def _outcome_section(data: BacktestData, profits: Floats) -> str:
    won = int((profits > 0).sum())
    label = (
        f"How profits are spread: {won} of {len(profits)} trades with a profit, the rest hatched"
    )
    spread = section("How profits are spread", chart("histogram", label, 240), "spread")
    reasons = section("Why trades closed", _reasons(data), "reasons")
    return f'<div class="halves">{spread}{reasons}</div>'


def _reasons(data: BacktestData) -> str:
    counts = Counter(map(_reason, data.signals))
    sums: dict[str, float] = {}
    for tick in data.signals:
        sums[tick.close_reason] = sums.get(tick.close_reason, 0.0) + tick.pnl.pnl_percentage
    rows = [
        (EXITS[r][2], f"{n:,}", number(sums[r] / n, 3, " %"), number(sums[r], 2, " %"))
        for r, n in counts.most_common()
    ]
    columns = ("Closed by", "Trades", "Average profit", "Sum")
    return f'<div class="scroll">{table(columns, rows, right=(1, 2, 3))}</div>'


def _reason(tick: TickClosed) -> str:
    return tick.close_reason


def _statistics(data: BacktestData) -> str:
    rows = statistics_rows(data.statistics)
    return f'<div class="scroll">{table(("Statistic", "Value", "Meaning"), rows, right=(1,))}</div>'

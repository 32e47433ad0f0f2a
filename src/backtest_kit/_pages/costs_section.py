"""The part of a page that says what a profit depends on: costs, delays, ambiguity, a few trades."""

from __future__ import annotations

from typing import Any

from backtest_kit._pages.charts import line_chart
from backtest_kit._pages.page import chart, section, table
from backtest_kit._reports.table import number
from backtest_kit._statistics.sensitivity import Sensitivity


def costs_section(found: Sensitivity) -> str:
    """Return the section as HTML; `costs_charts` belong into it."""
    rows = [
        (
            "Compounded",
            number(found.compounded, 2, " %"),
            "what an account would have made that puts all it has into each trade",
        ),
        (
            "Compounded, before costs",
            number(found.compounded_before_costs, 2, " %"),
            "the same without fee and slippage",
        ),
        ("Sum before costs", number(found.total_before_costs, 2, " %"), "of all trades"),
        (
            "The best trade" if found.best_count == 1 else f"The best {found.best_count} trades",
            number(found.best, 2, " %"),
            f"without them the sum is {number(found.without_best, 2, ' %')}",
        ),
        ("Break-even slippage", *_break_even(found)),
    ]
    if found.buy_and_hold is not None:
        meaning = "from the first open to the last close, before costs"
        rows.insert(2, ("Buy and hold", number(found.buy_and_hold, 2, " %"), meaning))
    if found.bounds is not None:
        low, high = number(found.bounds.pessimistic), number(found.bounds.optimistic, 2, " %")
        n = found.bounds.ambiguous
        meaning = f"{n:,} candles reached both levels: all lost, or all won"
        if n:
            rows.append(("With either rule for them", f"{low} to {high}", meaning))
        else:
            rows.append(("Ambiguous candles", "none", "no candle reached both levels of a trade"))
    content = f'<div class="scroll">{table(("What", "Value", "Meaning"), rows, right=(1,))}</div>'
    slippage = _half("Profit against slippage", "slippage", _slippage_label(found))
    halves = slippage + (
        _half("Profit against delay", "delay", _label(found)) if _late(found) else ""
    )
    remark = (
        '<p class="remark">Dotted: the slippage that was assumed. Costs change what a trade makes, '
        "not when it ends: these figures are exact. Delays and the other rule are replays of what "
        "was proposed. They hold up to where a trade ends at another instant than in the run: from "
        "there on the strategy might have proposed something else.</p>"
    )
    return section(
        "What the profit depends on",
        f'{content}<div class="halves">{halves}</div>{remark if _late(found) else ""}',
        "costs",
    )


def costs_charts(found: Sensitivity) -> dict[str, Any]:
    """Return the charts of the section, by the ids of their places."""
    points = found.slippage
    charts = {
        "slippage": line_chart(
            [point.percent_slippage for point in points],
            [point.total_pnl for point in points],
            ("slippage on each price, %", "sum of profits, %"),
            found.percent_slippage,
        )
    }
    if _late(found):
        charts["delay"] = line_chart(
            [float(point.minutes) for point in found.delays],
            [point.total_pnl for point in found.delays],
            ("entry later by, minutes", "sum of profits, %"),
            None,
        )
    return charts


def _late(found: Sensitivity) -> bool:
    return len(found.delays) > 1


def _half(title: str, ident: str, label: str) -> str:
    return f"<div><h3>{title}</h3>{chart(ident, label, 240)}</div>"


def _break_even(found: Sensitivity) -> tuple[str, str]:
    if found.break_even_slippage is None:
        return "n/a", "it loses without slippage already" if found.total_pnl <= 0 else "n/a"
    share = f"on each price; assumed were {number(found.percent_slippage, 3, ' %')}"
    return number(found.break_even_slippage, 3, " %"), share


def _slippage_label(found: Sensitivity) -> str:
    first, last = found.slippage[0], found.slippage[-1]
    return (
        f"Sum of profits from {number(first.total_pnl, 2, ' %')} without slippage to "
        f"{number(last.total_pnl, 2, ' %')} at {number(last.percent_slippage, 3, ' %')}; dotted: "
        "what was assumed"
    )


def _label(found: Sensitivity) -> str:
    words = (f"{p.minutes} min: {number(p.total_pnl, 2, ' %')}" for p in found.delays)
    return "Sum of profits, had each entry been later: " + ", ".join(words)

"""The page of runs that share an account: its equity, its months, who earned it, its trades."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from backtest_kit._pages.equity_charts import portfolio_figure
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
from backtest_kit._reports.backtest import trust_text
from backtest_kit._reports.portfolio import (
    PART_COLUMNS,
    REFUSAL_COLUMNS,
    account_text,
    part_rows,
    refusal_counts,
    refusal_rows,
    statistics_rows,
    what_text,
)
from backtest_kit._reports.portfolio_data import MONTHS, PortfolioData, doubts, key_figures, money
from backtest_kit._reports.table import number
from backtest_kit._values.time import iso

_LEGEND: Final = (
    '<ul class="legend"><li><b class="accent" aria-hidden="true">\u2501</b> equity</li>'
    '<li><b class="muted" aria-hidden="true">\u2505</b> buying and holding the same symbols</li>'
    '<li><b class="muted" aria-hidden="true">\u2508</b> what the account began with</li></ul>'
)


def portfolio_page(data: PortfolioData) -> str:
    """Return a self-contained HTML page.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    parts = [tiles(key_figures(data)), _doubts(data), _curve_section(data)]
    parts.append(section("How far to trust this", _trust(data), "trust"))
    parts.append(section("Returns by month, %", _months(data), "months"))
    parts.append(_earners_section(data))
    if len(data.runs) > 1:
        remark = '<p class="remark">Of the daily profits of the runs, realised and open.</p>'
        parts.append(section("Correlations", remark + _correlations(data), "correlations"))
    if refusal_counts(data.statistics):
        parts.append(section("Refused and skipped", _refusals(data), "refusals"))
    parts.append(section("Trades", TABLE, "trades"))
    parts.append(section("All statistics", _statistics(data), "statistics"))
    parts.append(section("What was run", markdown(what_text(data)), "run"))
    runs = "1 run" if len(data.runs) == 1 else f"{len(data.runs)} runs"
    facts = [runs, f"{iso(data.since)} to {iso(data.until)}", data.exchange_name]
    body = (
        header("Account", data.account.account_name, facts)
        + f'<main id="main">{"".join(parts)}</main>'
        + "<footer>Made by backtest-kit. All times are UTC. Past results say little of future "
        "ones.</footer>"
    )
    return html_page(
        f"Account {data.account.account_name}",
        body,
        data={"trades": _trade_columns(data), "currency": data.account.currency},
        charts={"equity": portfolio_figure(data)},
        script="portfolio.js",
    )


def _doubts(data: PortfolioData) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in doubts(data))
    return f'<ul class="doubts" role="note">{lines}</ul>' if lines else ""


def _curve_section(data: PortfolioData) -> str:
    s, currency = data.statistics, data.account.currency
    label = (
        f"Equity from {money(s.balance)} to {money(s.final_equity)} {currency}, beside buying and "
        "holding; below it the drawdown in percent"
    )
    caption = '<p class="caption">Below: how far the equity is under its highest so far, %.</p>'
    content = f'<div class="framed">{chart("equity", label, 430)}{_LEGEND}</div>{caption}'
    return section(f"Equity, {currency}", content, "curve")


def _trust(data: PortfolioData) -> str:
    runs = (
        f"<h3>{escape(f'{run.strategy_name} on {run.symbol}')}</h3>{markdown(trust_text(run))}"
        for run in data.runs
    )
    return markdown(account_text(data)) + "".join(runs)


def _months(data: PortfolioData) -> str:
    years, values = data.months()
    return _heat(
        "Returns by month",
        ("Year", *MONTHS, "Year"),
        [str(year) for year in years],
        [[None if np.isnan(v) else v for v in row] for row in values.tolist()],
    )


def _earners_section(data: PortfolioData) -> str:
    """Return realised profit by strategy and symbol as a heat map, and the parts as a table."""
    symbols = [*dict.fromkeys(symbol for _, symbol in data.names)]
    strategies = [*dict.fromkeys(strategy for strategy, _ in data.names)]
    profits = dict(zip(data.names, data.profits, strict=True))
    heat = _heat(
        "Profit by strategy and symbol",
        (f"{data.account.currency}", *symbols),
        strategies,
        [[profits.get((strategy, symbol)) for symbol in symbols] for strategy in strategies],
        "grid",
    )
    rows = table(PART_COLUMNS, part_rows(data), right=(2, 3, 4, 5))
    return section("Who earned it", f'{heat}<br><div class="scroll">{rows}</div>', "earners")


def _correlations(data: PortfolioData) -> str:
    names = [f"{strategy} on {symbol}" for strategy, symbol in data.names]
    return _heat("Correlations", ("", *names), names, data.correlations, "grid")


def _refusals(data: PortfolioData) -> str:
    counts = [(what, why, f"{n:,}") for what, why, n in refusal_counts(data.statistics)]
    parts = [f'<div class="scroll">{table(("What", "Reason", "Count"), counts, right=(2,))}</div>']
    if data.refusals:
        rows = table(REFUSAL_COLUMNS, refusal_rows(data.refusals))
        parts.append(f'<h3>The newest</h3><div class="scroll long">{rows}</div>')
    return "".join(parts)


def _statistics(data: PortfolioData) -> str:
    rows = table(("Statistic", "Value", "Meaning"), statistics_rows(data), right=(1,))
    return f'<div class="scroll">{rows}</div>'


def _heat(
    label: str,
    heads: Iterable[str],
    names: Sequence[str],
    rows: Sequence[Sequence[float | None]],
    kind: str = "",
) -> str:
    """Return a table of figures; the deeper the colour, the larger the figure."""
    largest = max((abs(value) for row in rows for value in row if value is not None), default=0)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f"{''.join(_cell(value, largest or 1.0) for value in row)}</tr>"
        for name, row in zip(names, rows, strict=True)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="months {kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _cell(value: float | None, largest: float) -> str:
    if value is None:
        return "<td></td>"
    tone = "down" if value < 0 else "up"
    share = f"--share:{abs(value) / largest:.3f}"
    return f'<td class="{tone}" style="{share}">{number(value)}</td>'


def _trade_columns(data: PortfolioData) -> dict[str, list[Any]]:
    trades = data.table()
    return {name: trades[name].tolist() for name in trades.columns}

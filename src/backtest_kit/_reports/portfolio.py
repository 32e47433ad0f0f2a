"""The report of runs that share an account: what its money came to, and how far to trust that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from backtest_kit._reports.backtest import trust_text
from backtest_kit._reports.portfolio_data import MONTHS, PortfolioData, doubts, key_figures, money
from backtest_kit._reports.table import markdown_table, minutes, number, plain, span
from backtest_kit._statistics.equity import AccountStatistics
from backtest_kit._values.account import Market
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.table import Table
from backtest_kit._values.time import iso

_PERCENT: Final = " %"
TRADE_COLUMNS: Final = (
    *("Opened", "Closed", "Strategy", "Symbol", "Side", "Quantity", "Cost", "Fees", "Slippage"),
    *("Profit", "Of the cost", "Reason"),
)
_NAMES: Final = ("strategy_name", "symbol", "position")
_AMOUNTS: Final = ("cost", "fees", "slippage", "profit")
PART_COLUMNS: Final = ("Kind", "Name", "Trades", "Profit", "Fees", "In the max drawdown")
REFUSAL_COLUMNS: Final = ("Time", "Strategy", "Symbol", "Side", "Reason", "Figures")
Row = tuple[str, ...]


def portfolio_report(data: PortfolioData) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Account {plain(data.account.account_name)}",
        *(f"**{plain(line)}**" for line in doubts(data)),
        what_text(data),
        "## How far to trust this",
        account_text(data),
    ]
    for run in data.runs:
        parts += [f"### {plain(run.strategy_name)} on {plain(run.symbol)}", trust_text(run)]
    parts += ["## Statistics", _table(("Statistic", "Value", "Meaning"), statistics_rows(data))]
    parts += ["## Returns by month, %", _table(("Year", *MONTHS, "Year"), months_rows(data))]
    parts += ["## By symbol, strategy and side", _table(PART_COLUMNS, part_rows(data))]
    if len(data.runs) > 1:
        parts += ["## Profit by strategy and symbol", _table(*profit_table(data))]
        parts += ["## Correlations of daily profits", _table(*correlation_table(data))]
    counted = refusal_counts(data.statistics)
    if counted:
        parts += ["## Refused and skipped", _table(("What", "Reason", "Count"), counted)]
        if data.refusals:
            parts += ["### The newest", _table(REFUSAL_COLUMNS, refusal_rows(data.refusals))]
    if data.statistics.total_trades:
        parts += ["## Trades", _table(TRADE_COLUMNS, trade_rows(data))]
    return "\n\n".join(parts) + "\n"


def what_text(data: PortfolioData) -> str:
    """Return what was run, as a Markdown list."""
    account = data.account
    runs = ", ".join(f"{strategy} on {symbol}" for strategy, symbol in data.names)
    frame = "live" if data.frame_name is None else f"frame {plain(data.frame_name)}"
    return "\n".join(
        [
            f"- Exchange {plain(data.exchange_name)}, {frame}: {span(data.since, data.until)}",
            f"- {money(account.balance)} {plain(account.currency)}, leverage {account.leverage:g}",
            f"- Runs: {plain(runs)}",
        ]
    )


def account_text(data: PortfolioData) -> str:
    """Return how far to trust the figures of the account, as a Markdown list."""
    lines = [
        *(f"- {line}" for line in _not_modelled(data)),
        *(f"- {line}" for line in _market_lines(data.markets, data.account.currency)),
    ]
    s = data.statistics
    if s.not_charged:
        lines.append(
            f"- Losses beyond the collateral, {money(s.not_charged)} "
            f"{plain(data.account.currency)}, were not charged: a venue's insurance bears them."
        )
    if data.added:
        what = "added" if data.added > 0 else "taken out"
        lines.append(
            f"- {money(abs(data.added))} {plain(data.account.currency)} were {what} by hand since "
            "it began; they are in none of these figures."
        )
    if s.reductions:
        lines.append(f"- Entries that were reduced for want of cash: {s.reductions:,}.")
    lines.append("- Open positions are marked at the last close, before the costs of closing them.")
    return "\n".join(lines)


def _not_modelled(data: PortfolioData) -> Iterable[str]:
    short, leveraged = bool((data.sums.side < 0).any()), data.account.leverage > 1
    if short or leveraged:
        yield "Not modelled: funding of perpetual futures, interest on what is borrowed."
    if leveraged:
        yield (
            "Not modelled: margin tiers and cross margin; each position has its own collateral, "
            f"and {data.account.maintenance_percent:g} % of its value as maintenance margin."
        )
    if short:
        yield "Short positions cost fees alone. A spot market does not have them."


def _market_lines(markets: Mapping[str, Market | None], currency: str) -> Iterable[str]:
    unknown = [symbol for symbol, market in markets.items() if market is None]
    known = {symbol: market for symbol, market in markets.items() if market is not None}
    if unknown:
        names = plain(", ".join(unknown))
        yield f"The exchange says nothing of {names}: sizes are not rounded, and no least applies."
        yield f"What {names} is quoted in is not known, and was taken for {plain(currency)}."
    if known:
        yield f"Sizes follow today's rules of {plain(', '.join(known))}, also in the past."
        yield "Prices are not rounded."
    for symbol, market in known.items():
        fees = [
            f"{side} {value:g} %"
            for side, value in (("maker", market.maker_percent), ("taker", market.taker_percent))
            if value is not None
        ]
        if fees:
            yield f"Fees of {plain(symbol)} are {', '.join(fees)} there; the assumed ones count."


def statistics_rows(data: PortfolioData) -> list[Row]:
    """Return (name, value, meaning) of each statistic."""
    s, currency = data.statistics, data.account.currency
    days = f"{data.account.days_per_year} days a year"
    return [
        ("Balance", money(s.balance), f"at the start, {currency}"),
        ("Final equity", money(s.final_equity), currency),
        ("Growth", number(s.growth_percent, 2, _PERCENT), "after fees and slippage"),
        ("Buy and hold", number(s.benchmark_growth_percent, 2, _PERCENT), "equal parts, no costs"),
        ("Yearly growth", number(s.cagr_percent, 2, _PERCENT), f"compounded, {days}"),
        ("Volatility", number(s.volatility_percent, 2, _PERCENT), f"of daily returns, {days}"),
        ("Sharpe ratio", number(s.sharpe_ratio), f"of daily returns, {days}"),
        ("Sortino ratio", number(s.sortino_ratio), f"of daily returns, {days}"),
        ("Calmar ratio", number(s.calmar_ratio), "yearly growth over max drawdown"),
        *_drawdown_rows(s, currency),
        ("Value at risk", number(s.value_at_risk_percent, 2, _PERCENT), "5th percentile of days"),
        (
            "Expected shortfall",
            number(s.expected_shortfall_percent, 2, _PERCENT),
            "average of the worst 5 % of days",
        ),
        ("Tail ratio", number(s.tail_ratio), "95th over 5th percentile of days, as sizes"),
        ("Skew", number(s.skew), "of daily returns"),
        ("Excess kurtosis", number(s.kurtosis), "of daily returns"),
        ("Beta", number(s.beta), "to buying and holding"),
        ("Alpha", number(s.alpha_percent, 2, _PERCENT), "by the year, beyond beta"),
        ("Correlation", number(s.correlation), "with buying and holding"),
        ("Leverage", number(s.mean_leverage), "value held over equity, average"),
        ("Peak leverage", number(s.peak_leverage), "value held over equity"),
        ("Exposure", number(s.exposure_percent, 1, _PERCENT), "share of time with a position"),
        ("Turnover", number(s.turnover), "of the average equity, by the year"),
        ("Best day", number(s.best_day_percent, 2, _PERCENT), "UTC"),
        ("Worst day", number(s.worst_day_percent, 2, _PERCENT), "UTC"),
        ("Best month", number(s.best_month_percent, 2, _PERCENT), "UTC"),
        ("Worst month", number(s.worst_month_percent, 2, _PERCENT), "UTC"),
        ("Days", f"{s.days:,}", "first and last may be partial"),
        ("Trades", f"{s.total_trades:,}", f"{s.liquidations:,} liquidated"),
        ("Fees", money(s.fees), currency),
        ("Slippage", money(s.slippage), f"{currency}, in the prices"),
        ("Not charged", money(s.not_charged), f"{currency}, lost beyond the collateral"),
        ("Reduced entries", f"{s.reductions:,}", "for want of cash"),
    ]


def _drawdown_rows(s: AccountStatistics, currency: str) -> list[Row]:
    peak, trough, back = s.drawdown_peak_at, s.drawdown_trough_at, s.drawdown_recovered_at
    when = "none"
    if peak is not None and trough is not None:
        when = f"from {iso(peak)} to {iso(trough)}"
    recovered = "not recovered by the end" if back is None else f"recovered at {iso(back)}"
    return [
        ("Max drawdown", number(s.max_drawdown_percent, 2, _PERCENT), when),
        ("Max drawdown, amount", money(s.max_drawdown_amount), currency),
        (
            "Max drawdown, duration",
            minutes(s.drawdown_duration_minutes),
            "none" if peak is None else f"from the peak; {recovered}",
        ),
        ("Longest drawdown", minutes(s.max_drawdown_duration_minutes), "from a peak to recovery"),
        (
            "Max drawdown, daily",
            number(s.max_daily_drawdown_percent, 2, _PERCENT),
            "of the equity at the ends of days",
        ),
    ]


def months_rows(data: PortfolioData) -> list[Row]:
    """Return a row for each year: its name, the returns of its months in percent, and its own."""
    years, values = data.months()
    return [
        (str(year), *("" if np.isnan(value) else number(value, 2) for value in row.tolist()))
        for year, row in zip(years, values, strict=True)
    ]


def part_rows(data: PortfolioData) -> list[Row]:
    """Return the parts as texts."""
    return [
        (
            *(part.kind, part.name, f"{part.trades:,}", money(part.profit), money(part.fees)),
            money(part.in_drawdown),
        )
        for part in data.parts
    ]


def profit_table(data: PortfolioData) -> tuple[Row, list[Row]]:
    """Return the heads and the rows of a table of realised profit, strategies over symbols."""
    symbols = tuple(dict.fromkeys(symbol for _, symbol in data.names))
    profits = dict(zip(data.names, data.profits, strict=True))
    rows = [
        (
            strategy,
            *(money(profits[strategy, s]) if (strategy, s) in profits else "" for s in symbols),
        )
        for strategy in dict.fromkeys(strategy for strategy, _ in data.names)
    ]
    return (data.account.currency, *symbols), rows


def correlation_table(data: PortfolioData) -> tuple[Row, list[Row]]:
    """Return the heads and the rows of a table of correlations between runs."""
    names = [f"{strategy} on {symbol}" for strategy, symbol in data.names]
    rows = [
        (name, *(number(value) for value in row))
        for name, row in zip(names, data.correlations, strict=True)
    ]
    return ("Run", *names), rows


def refusal_counts(s: AccountStatistics) -> list[tuple[str, str, int]]:
    """Return (what, reason, count) of refusals and skips, most frequent first."""
    return [
        (what, reason, count)
        for what, counts in (("refused", s.refusals), ("skipped", s.skips))
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def refusal_rows(events: Iterable[RiskEvent]) -> list[Row]:
    """Return refusals or skips as texts."""
    return [
        (
            *(iso(event.timestamp), event.strategy_name, event.symbol, event.signal.position),
            *(event.reason or "", event.detail),
        )
        for event in events
    ]


def trade_rows(data: PortfolioData) -> list[Row]:
    """Return the closed trades in money as texts."""
    table = data.table()
    times = zip(*(table[name].tolist() for name in ("opened_at", "closed_at")), strict=True)
    names = zip(*(table[name].tolist() for name in _NAMES), strict=True)
    amounts = zip(*(table[name].tolist() for name in _AMOUNTS), strict=True)
    ends = zip(table["profit_percent"].tolist(), _endings(table), strict=True)
    return [
        (
            *map(iso, time),
            *name,
            f"{quantity:,.8g}",
            *map(money, amount),
            number(percent, 3, _PERCENT),
            end,
        )
        for time, name, quantity, amount, (percent, end) in zip(
            times, names, table["quantity"].tolist(), amounts, ends, strict=True
        )
    ]


def _endings(table: Table) -> list[str]:
    """Return why each trade closed, and whether it was less than what was asked for."""
    marks = ("close_reason", "liquidated", "reduced")
    return [
        reason + " (liquidated)" * liquidated + " (reduced)" * reduced
        for reason, liquidated, reduced in zip(
            *(table[name].tolist() for name in marks), strict=True
        )
    ]


def summary_lines(data: PortfolioData) -> list[tuple[str, str]]:
    """Return what a terminal shows of an account: (name, text)."""
    s = data.statistics
    peak, trough, back = s.drawdown_peak_at, s.drawdown_trough_at, s.drawdown_recovered_at
    lines = [(name, f"{value}, {meaning}") for name, value, meaning in key_figures(data)]
    if peak is not None and trough is not None:
        end = "not recovered" if back is None else f"recovered {iso(back)}"
        lines.append(("Drawdown", f"{iso(peak)} to {iso(trough)}, {end}"))
    counts = refusal_counts(s)
    if counts:
        lines.append(("Not done", ", ".join(f"{n:,} {what}: {why}" for what, why, n in counts)))
    return lines


def _table(columns: Row, rows: Iterable[tuple[str | int, ...]]) -> str:
    return markdown_table(columns, rows)

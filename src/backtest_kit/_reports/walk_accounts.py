"""What each strategy of a walk made of the money of an account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backtest_kit._reports.portfolio_data import money
from backtest_kit._reports.table import number
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.schemas import METRICS

COLUMNS: Final = (
    *("Strategy", "Final equity", "Growth %", "Yearly %", "Sharpe", "Sortino", "Calmar"),
    *("Max drawdown %", "Exposure %", "Fees", "Refused", "Reduced", "Liquidated"),
)
#: How many strategies a line names before it counts the others.
_NAMED: Final = 5


def account_lines(data: WalkerData) -> list[str]:
    """Return on what terms the strategies played, and what to doubt; none without an account."""
    account = data.account
    if account is None:
        return []
    known = [row.account for row in data.ranking if row.account is not None]
    begins = f"Each strategy begins with {money(account.balance)} {account.currency}"
    together = "; all symbols share it" if len(data.symbols) > 1 else ""
    lines = [f"{begins}, leverage {account.leverage:g}{together}."]
    held = next((s.benchmark_growth_percent for s in known), None)
    if held is not None:
        several = len(data.symbols) > 1
        what = "the symbols in equal parts" if several else ", ".join(data.symbols)
        lines.append(f"Buying {what} with this money and holding: {number(held)} %, without costs.")
    ruined = [row.strategy_name for row in data.ranking if row.account and row.account.ruined]
    if ruined:
        left = len(ruined) - _NAMED
        more = f" and {left:,} more" if left > 0 else ""
        lines.append(f"Lost all their money: {', '.join(ruined[:_NAMED])}{more}.")
    if any(s.not_charged for s in known):
        lines.append("Losses beyond a position's collateral were not charged.")
    if account.leverage > 1:
        lines.append(
            "Not modelled: funding of perpetual futures, interest on what is borrowed, margin "
            "tiers, cross margin."
        )
    return lines


def account_rows(data: WalkerData) -> list[tuple[str, ...]]:
    """Return the cells of `COLUMNS` for each strategy that has played, best first."""
    rows: list[tuple[str, ...]] = []
    for row in data.ranking:
        s = row.account
        if s is None:
            continue
        rows.append(
            (
                row.strategy_name,
                money(s.final_equity),
                number(s.growth_percent),
                number(s.cagr_percent),
                number(s.sharpe_ratio),
                number(s.sortino_ratio),
                number(s.calmar_ratio),
                number(s.max_drawdown_percent),
                number(s.exposure_percent, 1),
                money(s.fees),
                str(sum(s.refusals.values()) + sum(s.skips.values())),
                str(s.reductions),
                str(s.liquidations),
            )
        )
    return rows


def by_symbol(data: WalkerData) -> tuple[str, Sequence[tuple[str, ...]]]:
    """Return a title, and for each strategy its metric by symbol.

    A metric of the account is of all symbols together: then it is the sum of the trades' percents.
    """
    of_trades = data.metric in METRICS
    rows = []
    for row in data.ranking:
        if row.by_symbol:
            totals = tuple(each.total_pnl for each in row.by_symbol)
            values = row.metric_by_symbol if of_trades else totals
            rows.append((row.strategy_name, *(number(value, 3) for value in values)))
    return "By symbol" if of_trades else "By symbol, sum of percents", rows

"""What reports say of managed positions: what signals lacked, costs, what each rule contributed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, Protocol

from backtest_kit._reports.table import markdown_table, number
from backtest_kit._statistics.figures import Statistics
from backtest_kit._statistics.replay import Rule
from backtest_kit._statistics.sensitivity import Sensitivity
from backtest_kit._values.results import TickCancelled, TickClosed

BY_COST: Final = "sum of profit times cost, in percent of one first entry"
RULES: Final[dict[Rule, str]] = {
    "trailing_stop": "trailing stop",
    "breakeven": "breakeven",
    "take_profits": "ladder of profits",
    "stop_losses": "ladder of losses",
    "entries": "further entries",
    "exits": "rows that say exit",
}
CONTRIBUTION_COLUMNS: Final = ("Without", "Trades", "Total profit", "It contributed")
#: What a replay without a rule does not know.
UNKNOWN: Final = (
    "Each row is a replay of the signals without one rule, the others as they were. Rules work "
    "together, so that the rows don't add up. A replay knows the signals that the run met, and no "
    "others: where a trade lasts longer, those within it are left out; where one ends earlier, the "
    "strategy might have proposed another. Of the rows that say exit it knows those that ended "
    "something."
)


class _Run(Protocol):
    @property
    def signals(self) -> Sequence[TickClosed]: ...
    @property
    def cancelled(self) -> Sequence[TickCancelled]: ...
    @property
    def statistics(self) -> Statistics: ...


def first_doubts(data: _Run) -> list[str]:
    """Return what nobody should miss of a run with managed positions."""
    found = missing_levels(data.signals, data.cancelled), cost_warning(data.statistics)
    return [line for line in found if line]


def missing_levels(closed: Iterable[TickClosed], cancelled: Iterable[TickCancelled]) -> str:
    """Return how many signals had no stop, no target, no end; nothing where all had them."""
    stops = goals = ends = count = 0
    for tick in chain(closed, cancelled):
        row, count = tick.signal, count + 1
        stops += row.price_stop_loss is None
        goals += row.price_take_profit is None
        ends += row.minute_estimated_time is None
    if not stops and not goals and not ends:
        return ""
    return (
        f"Of {count:,} signals, {stops:,} had no stop, {goals:,} no target, {ends:,} no end. "
        "(A NaN in a column may be of its warm-up, and not meant.)"
    )


def cost_warning(s: Statistics) -> str:
    """Return a warning where only one of the two totals is a profit."""
    total, by_cost = s.total_pnl, s.total_pnl_by_cost
    if total is None or by_cost is None or (total > 0) == (by_cost > 0):
        return ""
    return (
        f"Only one of the two totals is a profit: {number(total, 2, ' %')} as percents of each "
        f"signal's own cost, {number(by_cost, 2, ' %')} by cost (of one first entry)."
    )


def contribution_columns(s: Statistics) -> tuple[str, ...]:
    """Return the heads of `contribution_rows`."""
    more = () if s.total_pnl_by_cost is None else ("Total by cost", "It contributed, by cost")
    return (*CONTRIBUTION_COLUMNS, *more)


def contribution_rows(depends: Sensitivity, s: Statistics) -> list[tuple[str, ...]]:
    """Return what each rule contributed, as rows of text; by cost too where costs differ."""
    percent, rows = " %", []
    for row in depends.rules:
        cells = [RULES[row.rule], f"{row.trades:,}", number(row.total_pnl, 2, percent)]
        cells.append(number(row.contributed, 2, percent))
        if s.total_pnl_by_cost is not None:
            cells.append(number(row.total_pnl_by_cost, 2, percent))
            cells.append(number(row.contributed_by_cost, 2, percent))
        rows.append(tuple(cells))
    return rows


def uses_rules(closed: Iterable[TickClosed]) -> bool:
    """Say whether trades were managed by more than a target, a stop and an end."""
    return any(tick.signal.is_managed or tick.close_reason == "closed" for tick in closed)


def contributions_text(
    depends: Sensitivity, closed: Iterable[TickClosed], s: Statistics
) -> list[str]:
    """Return the section on what each rule contributed as Markdown, if there is any."""
    title = "## What each rule contributed"
    if depends.rules:
        rows = contribution_rows(depends, s)
        return [title, markdown_table(contribution_columns(s), rows), UNKNOWN]
    if depends.not_replayed and uses_rules(closed):
        return [title, f"Not known: {depends.not_replayed}."]
    return []

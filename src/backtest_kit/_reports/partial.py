"""Partial: which milestones of open profit and loss were reached."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtest_kit._events import PartialEvent
from backtest_kit._record import RunRecord
from backtest_kit._reports.table import markdown_table, number, price
from backtest_kit._time import iso


class LevelCount(msgspec.Struct, frozen=True):
    """How many signals reached a level (percent)."""

    level: int
    count: int


class PartialData(msgspec.Struct, frozen=True, kw_only=True):
    """Milestones reached, by level and one by one."""

    strategy_name: str
    symbols: tuple[str, ...]
    signals: int
    levels: tuple[LevelCount, ...]
    events: tuple[PartialEvent, ...]


def partial_data(records: Sequence[RunRecord]) -> PartialData:
    """Return the milestones of these runs."""
    events = tuple(event for record in records for event in record.partials)
    levels = sorted({event.level for event in events}, reverse=True)
    return PartialData(
        strategy_name=records[0].strategy_name,
        symbols=tuple(dict.fromkeys(record.symbol for record in records)),
        signals=len({(event.symbol, event.signal.id) for event in events}),
        levels=tuple(LevelCount(at, sum(e.level == at for e in events)) for at in levels),
        events=events,
    )


def partial_report(data: PartialData) -> str:
    """Return the report as Markdown."""
    title = f"# Partial milestones of {data.strategy_name} on {', '.join(data.symbols)}"
    if not data.events:
        return f"{title}\n\nNo signal reached a milestone of 10 %.\n"
    levels = markdown_table(
        ("Level", "Signals"), [(f"{level.level:+d} %", level.count) for level in data.levels]
    )
    rows = [
        (
            iso(e.timestamp),
            e.symbol,
            e.signal.position,
            f"{e.level:+d} %",
            number(e.revenue_percent, 2, " %"),
            price(e.current_price),
            price(e.signal.price_open),
        )
        for e in data.events
    ]
    columns = ("Time", "Symbol", "Side", "Level", "Revenue", "Price", "Entry")
    return f"{title}\n\n{levels}\n\n## Milestones\n\n{markdown_table(columns, rows)}\n"

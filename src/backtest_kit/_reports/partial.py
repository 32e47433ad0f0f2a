"""Partial: which milestones of open profit and loss were reached."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.table import markdown_table, number, plain, price
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.table import Table, Tabular, table_of
from backtest_kit._values.time import iso


class LevelCount(msgspec.Struct, frozen=True):
    """How many signals reached a level (percent)."""

    level: int
    count: int


class Milestone(PartialEvent, frozen=True, kw_only=True):
    """A milestone, and the frame of the run it was reached in."""

    frame_name: str | None


class PartialData(Tabular, frozen=True, kw_only=True):
    """Milestones reached, by level and one by one."""

    strategy_name: str
    symbols: tuple[str, ...]
    signals: int
    levels: tuple[LevelCount, ...]
    events: tuple[Milestone, ...]

    def table(self) -> Table:
        """Return the milestones as columns."""
        return table_of(self.events, Milestone, "milestones")


def partial_data(records: Sequence[RunRecord]) -> PartialData:
    """Return the milestones of these runs."""
    events = tuple(
        Milestone(**msgspec.structs.asdict(event), frame_name=record.frame_name)
        for record in records
        for event in record.partials
    )
    # not by id: a strategy may give the same one to every signal, and frames may share instants
    signals = {(i, e.signal.pending_at) for i, r in enumerate(records) for e in r.partials}
    levels = sorted({event.level for event in events}, reverse=True)
    return PartialData(
        strategy_name=records[0].strategy_name,
        symbols=tuple(dict.fromkeys(record.symbol for record in records)),
        signals=len(signals),
        levels=tuple(LevelCount(at, sum(e.level == at for e in events)) for at in levels),
        events=events,
    )


def partial_report(data: PartialData) -> str:
    """Return the report as Markdown."""
    symbols = plain(", ".join(data.symbols))
    title = f"# Partial milestones of {plain(data.strategy_name)} on {symbols}"
    if not data.events:
        return f"{title}\n\nNo signal reached a milestone of 10 %.\n"
    levels = markdown_table(
        ("Level", "Signals"), [(f"{level.level:+d} %", level.count) for level in data.levels]
    )
    rows = [
        (
            iso(e.timestamp),
            e.symbol,
            e.frame_name or "",
            e.signal.position,
            f"{e.level:+d} %",
            number(e.revenue_percent, 2, " %"),
            price(e.current_price),
            price(e.signal.price_open),
        )
        for e in data.events
    ]
    columns = ("Time", "Symbol", "Frame", "Side", "Level", "Revenue", "Price", "Entry")
    total = f"{data.signals} {'signal' if data.signals == 1 else 'signals'} reached a milestone."
    return f"{title}\n\n{total}\n\n{levels}\n\n## Milestones\n\n{markdown_table(columns, rows)}\n"

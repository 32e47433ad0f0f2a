"""Trades as rows of text, with each fill of those that have several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from backtest_kit._reports.table import Cell, markdown_table, number, price
from backtest_kit._values.results import Leg, TickCancelled, TickClosed
from backtest_kit._values.time import MINUTE, iso

COLUMNS = (
    "Opened",
    "Closed",
    "Side",
    "Open",
    "Close",
    "Take-profit",
    "Stop-loss",
    "Profit",
    "Reason",
    "Minutes",
    "Note",
)


def trades_table(signals: Sequence[TickClosed], on_filled: Collection[int] = ()) -> str:
    """Return the trades as a Markdown table, all of them; those `on_filled` are marked.

    Below a trade with several fills stand these.
    """
    rows: list[tuple[Cell, ...]] = []
    for i, tick in enumerate(signals):
        rows.append(trade_row(tick, on_filled=i in on_filled))
        rows += leg_rows(tick)
    return markdown_table(COLUMNS, rows)


def trade_row(tick: TickClosed, *, on_filled: bool = False) -> tuple[str | int, ...]:
    """Return one trade as the cells of `trades_table`."""
    row = tick.signal
    opened = row.pending_at or 0
    return (
        iso(opened),
        iso(tick.close_timestamp),
        row.position,
        price(tick.pnl.price_open),
        price(tick.pnl.price_close),
        price(row.price_take_profit),
        price(row.price_stop_loss),
        number(tick.pnl.pnl_percentage, 3, " %"),
        tick.close_reason
        + (" (ambiguous)" if tick.ambiguous else "")
        + (" (on a missing candle)" if on_filled else ""),
        (tick.close_timestamp - opened) // MINUTE,
        row.note,
    )


def leg_rows(tick: TickClosed) -> Iterator[tuple[str, ...]]:
    """Yield each fill of a trade that has several, as the cells of `trades_table`."""
    for leg in tick.fills:
        entry, at, fill = leg.kind == "entry", iso(leg.timestamp), price(leg.price)
        when = (at, "") if entry else ("", at)
        prices = (fill, "") if entry else ("", fill)
        yield (*when, f"{leg.kind} {share_of(leg)}", *prices, "", "", "", reason_of(leg), "", "")


def share_of(leg: Leg) -> str:
    """Return the share of a fill in the cost of all entries."""
    return f"{number(leg.share, 1)} %"


def reason_of(leg: Leg) -> str:
    """Return the reason of a fill, as text."""
    return leg.reason + (" (ambiguous)" if leg.ambiguous else "")


def reasons_table(signals: Sequence[TickClosed]) -> str:
    """Return how many trades closed for which reason, and what they made on average."""
    counts = Counter(tick.close_reason for tick in signals)
    sums: Counter[str] = Counter()
    for tick in signals:
        sums[tick.close_reason] += tick.pnl.pnl_percentage  # type: ignore[assignment]
    rows = [(reason, n, number(sums[reason] / n, 3, " %")) for reason, n in counts.most_common()]
    return markdown_table(("Reason", "Trades", "Average profit"), rows)


def cancelled_text(cancelled: Sequence[TickCancelled]) -> list[str]:
    """Return a line on signals that were cancelled while they waited, if there are any."""
    if not cancelled:
        return []
    counts = Counter(tick.reason for tick in cancelled).most_common()
    return [f"Cancelled while they waited: {', '.join(f'{n:,} {why}' for why, n in counts)}."]

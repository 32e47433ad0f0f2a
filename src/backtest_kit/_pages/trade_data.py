"""Closed trades as columns for a page's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backtest_kit._values.results import Leg, TickClosed


def trade_columns(signals: Sequence[TickClosed]) -> dict[str, list[Any]]:
    """Return trades as columns, in their order; times in milliseconds, profit in percent.

    `legs` has the fills of trades that have several: each with its time, price, whether it is an
    entry, its share in percent, its reason, and if that is ambiguous.
    """
    rows = [tick.signal for tick in signals]
    return {
        "opened": [row.pending_at or row.scheduled_at for row in rows],
        "closed": [tick.close_timestamp for tick in signals],
        "long": [row.position == "long" for row in rows],
        "entry": [tick.pnl.price_open for tick in signals],
        "exit": [tick.pnl.price_close for tick in signals],
        "goal": [row.price_take_profit for row in rows],
        "stop": [row.price_stop_loss for row in rows],
        "profit": [tick.pnl.pnl_percentage for tick in signals],
        "reason": [tick.close_reason for tick in signals],
        "ambiguous": [tick.ambiguous for tick in signals],
        "note": [row.note for row in rows],
        "legs": [[_leg(leg) for leg in tick.fills] for tick in signals],
    }


def _leg(leg: Leg) -> list[Any]:
    entry = leg.kind == "entry"
    return [leg.timestamp, leg.price, entry, leg.share, leg.reason, leg.ambiguous]

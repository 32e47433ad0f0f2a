"""The trades of a run, and what they add up to, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_kit._statistics.figures import equity
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.results import TickClosed
from backtest_kit._values.table import Table
from backtest_kit._values.time import MINUTE


def outcomes_of(closed: Sequence[TickClosed]) -> tuple[Floats, Ints, Ints]:
    """Return the profit (percent), the opening and the close (ms) of closed results, in order."""
    return (
        np.array([tick.pnl.pnl_percentage for tick in closed], dtype=np.float64),
        np.array([tick.signal.pending_at or 0 for tick in closed], dtype=np.int64),
        np.array([tick.close_timestamp for tick in closed], dtype=np.int64),
    )


def trades_of(closed: Sequence[TickClosed]) -> Table:
    """Return closed results as columns, in order; prices before costs, profit in percent after.

    The prices of entry and exit are means over all entries and all exits, of which `fills` is the
    number; `cost` is that of all entries, relative to the first.
    """
    rows = [tick.signal for tick in closed]
    opened = np.array([row.pending_at for row in rows], dtype=np.int64)
    ended = np.array([tick.close_timestamp for tick in closed], dtype=np.int64)
    prices = {
        "price_open": [tick.pnl.price_open for tick in closed],
        "price_close": [tick.pnl.price_close for tick in closed],
        "price_take_profit": [row.price_take_profit for row in rows],
        "price_stop_loss": [row.price_stop_loss for row in rows],
        "pnl_percentage": [tick.pnl.pnl_percentage for tick in closed],
    }
    texts = {
        "close_reason": [tick.close_reason for tick in closed],
        "note": [row.note for row in rows],
        "id": [row.id for row in rows],
    }
    return Table(
        {
            "position": np.array([row.position for row in rows], dtype=object),
            "scheduled_at": np.array([row.scheduled_at for row in rows], dtype=np.int64),
            "opened_at": opened,
            "closed_at": ended,
            "minutes": (ended - opened) // MINUTE,
            **{name: np.array(column, dtype=np.float64) for name, column in prices.items()},
            "cost": np.array([tick.cost for tick in closed], dtype=np.float64),
            "fills": np.array([len(tick.fills) or 2 for tick in closed], dtype=np.int64),
            "ambiguous": np.array([tick.ambiguous for tick in closed], dtype=np.bool_),
            **{name: np.array(column, dtype=object) for name, column in texts.items()},
        },
        times=("scheduled_at", "opened_at", "closed_at"),
        title="trades",
    )


def legs_of(closed: Sequence[TickClosed]) -> Table:
    """Return every entry and exit of closed results as columns, in order.

    `trade` is the place of its trade, from 0. Prices are before costs, quantities relative to the
    first entry of the trade, `share` in percent of the cost of all its entries.
    """
    found = [(i, leg) for i, tick in enumerate(closed) for leg in tick.legs]
    legs = [leg for _, leg in found]
    texts = {"kind": [leg.kind for leg in legs], "reason": [leg.reason for leg in legs]}
    numbers = {
        "price": [leg.price for leg in legs],
        "quantity": [leg.quantity for leg in legs],
        "share": [leg.share for leg in legs],
    }
    words = {name: np.array(column, dtype=object) for name, column in texts.items()}
    return Table(
        {
            "trade": np.array([i for i, _ in found], dtype=np.int64),
            "kind": words["kind"],
            "timestamp": np.array([leg.timestamp for leg in legs], dtype=np.int64),
            **{name: np.array(column, dtype=np.float64) for name, column in numbers.items()},
            "reason": words["reason"],
            "ambiguous": np.array([leg.ambiguous for leg in legs], dtype=np.bool_),
        },
        times=("timestamp",),
        title="legs",
    )


def equity_of(closed: Sequence[TickClosed], since: int, balance: float = 1.0) -> Table:
    """Return what profits have come to after each close, beginning at `since` (ms) with none.

    `total_pnl` is the sum of the profits in percent. `equity` starts at `balance` and stakes all of
    it on each trade; `drawdown_percent` is how far it lies below its highest value so far.
    """
    r, _, closed_at = outcomes_of(closed)
    growth = equity(r)
    return Table(
        {
            "timestamp": np.concatenate((np.array([since], dtype=np.int64), closed_at)),
            "total_pnl": np.concatenate(([0.0], np.cumsum(r))),
            "equity": growth * balance,
            "drawdown_percent": (1 - growth / np.maximum.accumulate(growth)) * 100,
        },
        times=("timestamp",),
        title="equity",
    )

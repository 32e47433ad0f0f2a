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

    The prices of entry and exit are means over all entries and all exits.
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
            "ambiguous": np.array([tick.ambiguous for tick in closed], dtype=np.bool_),
            **{name: np.array(column, dtype=object) for name, column in texts.items()},
        },
        times=("scheduled_at", "opened_at", "closed_at"),
        title="trades",
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

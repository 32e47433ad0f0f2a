"""Trades on calendar time: the profit of each strategy in the same equal bins.

What strategies share (the market, trades that are copies of each other) falls into the same bins,
so that a test over bins knows of it. A bin is no shorter than a position is held, so that what a
bin gains says little about the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Floats, Ints

Span = tuple[int, int]

#: A span is cut into days of a year at the most: more bins would not make a test any sharper.
MOST_BINS: Final = 365
#: With fewer bins, nothing is said.
LEAST_BINS: Final = 20


def longest_holding(trades: TradeColumns) -> int:
    """Return how long the longest trade was open, milliseconds; 0 without trades."""
    return int((trades.closed_at - trades.opened_at).max(initial=0))


def bin_edges(span: Span, shortest: int) -> Ints:
    """Return the edges of equal bins that are at least `shortest` long, int64 ms of shape (B + 1,).

    They are as many as fit into the span, and `MOST_BINS` at the most; none where not one fits.
    """
    length = max(span[1] - span[0], 0)
    count = min(MOST_BINS, length // max(shortest, 1))
    return span[0] + np.arange(count + 1, dtype=np.int64) * length // max(count, 1)


def bin_of(closed_at: Ints, edges: Ints) -> Ints:
    """Return the bin that each trade closed in: edges[i] < closed_at <= edges[i + 1].

    What closed outside of all bins is in the first or the last one.
    """
    return np.searchsorted(edges[1:-1], closed_at, side="left").astype(np.int64)


def binned(trades: TradeColumns, edges: Ints) -> Floats:
    """Return the profit of a strategy in each bin, percent, shape (B,)."""
    at = bin_of(trades.closed_at, edges)
    return np.bincount(at, weights=trades.r, minlength=len(edges) - 1).astype(np.float64)


def with_rare_loss(profits: Floats, trades: TradeColumns) -> Floats:
    """Return binned profits with one more trade that loses `rare_loss`, at a random place.

    The place depends on the trades alone, so that copies of a strategy stay copies.
    """
    digest = blake2b(trades.profits, digest_size=8)
    digest.update(trades.closed)
    found = profits.copy()
    found[int.from_bytes(digest.digest(), "little") % len(found)] -= rare_loss(trades)
    return found


def rare_loss(trades: TradeColumns) -> float:
    """Return what one more losing trade would lose, percent, at least 0.

    The distance of the farthest stop; where a trade has none or it is not known, the worst trade
    and the worst price that any saw as well. Of a strategy that never lost and of which neither is
    known, its greatest profit.
    """
    r, stops = trades.r, trades.stop_loss
    if not len(r):
        return 0.0
    known = stops[np.isfinite(stops)]
    loss = float(known.max(initial=0.0))
    if len(known) < len(r):
        worst = trades.worst_loss
        seen = float(worst[np.isfinite(worst)].max(initial=0.0))
        loss = max(loss, float(-r.min()), seen)
    return loss if loss > 0 else float(np.abs(r).max())


def overlap_ratio(trades: TradeColumns, edges: Ints) -> float:
    """Return how much trades that overlap in time add to the variance of the mean: at least 1.

    Positions that are open at once win and lose by the same moves of the market, also where they
    close in different bins. The ratio is of the variance of the sum to the sum of the bins'
    variances, for a market whose moves don't depend on each other, and positions that all follow
    it; it depends on times alone. 1 where at most one position was open at any time.
    """
    opened, closed = trades.opened_at, trades.closed_at
    order = np.argsort(opened, kind="stable")
    if not (opened[order][1:] < np.maximum.accumulate(closed[order])[:-1]).any():
        return 1.0
    at = bin_of(closed, edges)
    time = np.concatenate((opened, closed))
    change = np.repeat(np.array([1, -1]), len(opened))
    of_bin = np.concatenate((at, at))
    within = _squares(time, change, np.lexsort((time, of_bin)))
    return _squares(time, change, np.argsort(time, kind="stable")) / within if within else 1.0


def _squares(time: Ints, change: Ints, order: Ints) -> float:
    """Return the square of the number of open positions, summed over time."""
    open_ = np.cumsum(change[order])[:-1].astype(np.float64)
    return float((open_ * open_ * np.diff(time[order])).sum())


def matrix_of(rows: Sequence[TradeColumns], edges: Ints) -> tuple[Floats, Floats]:
    """Return the profits of strategies as columns of shape (B, N): as they are, and with a loss.

    The second has one more losing trade in each column (`with_rare_loss`).
    """
    plain = np.zeros((len(edges) - 1, len(rows)))
    burdened = np.zeros_like(plain)
    for i, trades in enumerate(rows):
        plain[:, i] = binned(trades, edges)
        burdened[:, i] = with_rare_loss(plain[:, i], trades)
    return plain, burdened

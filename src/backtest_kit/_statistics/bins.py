"""Trades on calendar time: the profit of each strategy in the same equal bins.

What strategies share (the market, trades that are copies of each other) falls into the same bins,
so that a test over bins knows of it. A bin is no shorter than a position is held, so that what a
bin gains says little about the next one.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np

from backtest_kit._statistics.trades import Mask, Trades, all_trades, counted, greatest, renumbered
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Floats, Ints

Span = tuple[int, int]

#: A span is cut into days of a year at the most: more bins would not make a test any sharper.
MOST_BINS: Final = 365
#: With fewer bins, nothing is said.
LEAST_BINS: Final = 20
#: Keys that are sorted must be whole numbers below this.
_MOST_KEY: Final = 2**62


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


def matrix_of(trades: Trades, count: int, edges: Ints) -> tuple[Floats, Floats]:
    """Return the profits of `count` strategies as columns of shape (B, N), and with a loss.

    The second has in each column one more trade that loses `rare_losses`, at a random place, which
    depends on the trades alone, so that copies of a strategy stay copies.
    """
    bins = len(edges) - 1
    at = trades.of * bins + bin_of(trades.closed, edges)
    rows = np.bincount(at, weights=trades.r, minlength=count * bins).reshape(count, bins)
    plain = np.ascontiguousarray(rows.T, dtype=np.float64)
    burdened = plain.copy()
    profits, closed = (np.ascontiguousarray(x).tobytes() for x in (trades.r, trades.closed))
    ends = 8 * np.cumsum(counted(trades, count))
    losses, begin = rare_losses(trades, count), 0
    for i, end in enumerate(ends.tolist()):
        digest = blake2b(profits[begin:end], digest_size=8)
        digest.update(closed[begin:end])
        burdened[int.from_bytes(digest.digest(), "little") % bins, i] -= losses[i]
        begin = end
    return plain, burdened


def rare_loss(trades: TradeColumns) -> float:
    """Return what one more losing trade of a strategy would lose (`rare_losses`), percent."""
    return float(rare_losses(all_trades([trades]), 1)[0])


def rare_losses(trades: Trades, count: int) -> Floats:
    """Return what one more losing trade of each of `count` strategies would lose, percent.

    The distance of the farthest stop; where a trade has none or it is not known, the worst trade
    and the worst price that any saw as well. Of a strategy that never lost and of which neither is
    known, its greatest profit. At least 0, and that without trades.
    """
    r, of = trades.r, trades.of
    known = np.isfinite(trades.stop)
    loss = greatest(np.where(known, trades.stop, 0.0), of, count, 0.0)
    seen = np.where(np.isfinite(trades.worst), trades.worst, 0.0)
    unstopped = np.bincount(of[~known], minlength=count) > 0
    loss = np.where(unstopped, np.maximum(loss, greatest(np.maximum(-r, seen), of, count, 0)), loss)
    return np.where(loss > 0, loss, greatest(np.abs(r), of, count, 0.0))


def overlap_ratios(trades: Trades, count: int, edges: Ints, chosen: Mask | None = None) -> Floats:
    """Return how much trades that overlap in time add to the variance of each mean: at least 1.

    Positions that are open at once win and lose by the same moves of the market, also where they
    close in different bins. The ratio is of the variance of the sum to the sum of the bins'
    variances, for a market whose moves don't depend on each other, and positions that all follow
    it; it depends on times alone. 1 where at most one position was open at any time, and where it
    is not one of the `chosen`, shape (count,).
    """
    found = np.ones(count)
    if chosen is not None:
        few = np.flatnonzero(chosen)
        found[few] = overlap_ratios(renumbered(trades, few, count), len(few), edges)
        return found
    # in the order of closing, trades that follow each other each open after the one before
    next_to = (np.diff(trades.of) == 0) & (trades.opened[1:] < trades.closed[:-1])
    crossing = np.unique(trades.of[1:][next_to])
    if not len(crossing):
        return found
    first = int(min(trades.opened.min(), trades.closed.min()))
    length = int(max(trades.opened.max(), trades.closed.max())) - first + 1
    room = max(_MOST_KEY // (2 * length * (len(edges) - 1)), 1)
    bins = len(edges) - 1
    for part in np.array_split(crossing, -(-len(crossing) // room)):
        some = renumbered(trades, part, count)
        of, times = some.of, (some.opened - first, some.closed - first)
        groups = of * bins + bin_of(some.closed, edges)
        within = _squares(groups, len(part) * bins, times, length)
        within = within.reshape(-1, bins).sum(axis=1)
        whole = _squares(of, len(part), times, length)
        found[part] = np.where(within > 0, whole / np.where(within > 0, within, 1.0), 1.0)
    return np.maximum(found, 1.0)


def _squares(group: Ints, groups: int, times: tuple[Ints, Ints], length: int) -> Floats:
    """Return the square of the number of open positions of each group, summed over time.

    Times are from 0 to below `length`. It is one sort of keys that tell group and time.
    """
    opened, closed = ((group * length + time) * 2 for time in times)
    key = np.sort(np.concatenate((opened + 1, closed)))
    change = (key & 1) * 2 - 1
    key >>= 1
    open_ = np.cumsum(change)[:-1].astype(np.float64)
    found = np.bincount(key[:-1] // length, open_ * open_ * np.diff(key), groups)
    return found.astype(np.float64)

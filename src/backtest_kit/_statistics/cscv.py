"""The probability of backtest overfitting by a walk's own metric.

Combinatorially symmetric cross-validation as in `overfitting`, but what makes a strategy the best
of a half, and gives it its rank in the other, is the metric by which the walk ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from backtest_kit._statistics.bootstrap import Span, check_metric, evaluate, sums
from backtest_kit._statistics.overfitting import CELLS, Overfitting, overfitting_of
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Floats

#: Parts that the time is cut into.
BLOCKS: Final = 16
#: The most splits, times strategies: of many strategies fewer splits are drawn.
_CELLS: Final = 8 * CELLS
_SPLITS: Final = 500


def overfitting_by_metric(
    trades: Sequence[TradeColumns], span: Span, metric: str, *, seed: int
) -> Overfitting | None:
    """Return how often the best by a metric of one half is below the median in the other.

    The span in ms is cut into `BLOCKS` equal parts of time; a trade counts where it closed. All
    12,870 splits are tried, of many strategies fewer, drawn from `seed`. A strategy for which the
    metric is not defined in a half is never best there, and ranks last.

    `None` for fewer than two strategies, and where no split has a best one.

    Raises:
        ArgumentError: no such metric, or the span has no length.
    """
    scale = check_metric(metric, span, 1)
    if len(trades) < 2:
        return None
    means = np.array([float(each.r.mean()) if each.count else 0.0 for each in trades])
    totals = np.stack([_block_sums(each, span) for each in trades], axis=1)

    def score(chosen: Floats) -> Floats:
        terms = chosen @ totals.reshape(BLOCKS, -1)
        shape = len(chosen), len(trades)
        centres = np.broadcast_to(means, shape).ravel()
        with np.errstate(divide="ignore", invalid="ignore"):
            found = evaluate(terms.reshape(-1, totals.shape[2]), centres, metric, scale)
        return np.where(np.isfinite(found), found, -np.inf).reshape(shape)

    combinations = max(_SPLITS, _CELLS // len(trades))
    return overfitting_of(score, len(trades), BLOCKS, combinations, seed)


def _block_sums(trades: TradeColumns, span: Span) -> Floats:
    """Return the terms of `sums` for each block, shape (blocks, 7)."""
    length = max(span[1] - span[0], 1)
    at = np.clip((trades.closed_at - span[0]) * BLOCKS // length, 0, BLOCKS - 1)
    columns = [np.bincount(at, weights=column, minlength=BLOCKS) for column in sums(trades.r).T]
    return np.stack(columns, axis=1).astype(np.float64)

"""Tests of many strategies at once, from one joint stationary bootstrap.

Papers:

- Romano and Wolf (2005), "Stepwise multiple testing as formalized data snooping", Econometrica 73;
  (2016), "Efficient computation of adjusted p-values for resampling-based stepdown multiple
  testing", Statistics and Probability Letters 113;
- White (2000), "A reality check for data snooping", Econometrica 68;
- Hansen (2005), "A test for superior predictive ability", J. of Business & Economic Statistics 23.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.blocks import Lags, block_variance
from backtest_kit._statistics.bootstrap import draw
from backtest_kit._statistics.overfitting import seeded
from backtest_kit._values.candles import Floats

Singles = npt.NDArray[np.float32]

#: Pairs of resamples; each gives two draws of the null distribution, since it is symmetric.
PAIRS: Final = 1000
#: A correlation of series of length T is one from so many deviations 1 / sqrt(T) on.
_CHANCE: Final = 3.0
#: Rows of a correlation matrix that are held at once.
_ROWS: Final = 256
_NORMAL: Final = NormalDist()


class Draws(msgspec.Struct, frozen=True):
    """Means of joint resamples less those of the series, in units of their plain standard errors.

    `means` is of shape (N, 2 P), float32. `null` are P differences of two of them, scaled to
    deviation 1 each: what skews a mean cancels out, so that a strategy that hardly loses, and whose
    resamples without a loss would be beyond any bound, does not hide all others.
    """

    means: Singles
    null: Singles


def joint_draws(series: Floats, block: float, seed: int, pairs: int = PAIRS) -> Draws:
    """Return the draws of one joint stationary bootstrap of columns (T, N) with blocks of a length.

    Every column is resampled at the same instants.
    """
    n = len(series)
    deviation = series.std(axis=0)
    centred = (series - series.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    scaled = (centred.T / math.sqrt(n)).astype(np.float32)
    means = scaled @ _counts(n, block, seed, 2 * pairs).T
    null = means[:, :pairs] - means[:, pairs:]
    spread = np.sqrt(np.einsum("ij,ij->i", null, null) / pairs)[:, None]
    null /= np.where(spread > 0, spread, np.float32(1))
    return Draws(means, null)


@lru_cache(maxsize=4)
def _counts(n: int, block: float, seed: int, draws: int) -> Singles:
    pieces = [piece.astype(np.float32) for piece in draw(n, block, seeded(seed), draws)]
    counts: Singles = np.concatenate(pieces)
    counts.flags.writeable = False
    return counts


def adjusted_p_values(scores: Floats, draws: Draws, unknown: int = 0) -> Floats:
    """Return Romano and Wolf's adjusted p-values of `scores`, shape (N,), one-sided.

    Each is the least error rate at which the strategy is in StepM's set: the chance that the
    greatest of its score and the smaller ones would be as great by luck. `unknown` strategies of
    which only the number is known count whole, each as independent of all others (Bonferroni).
    """
    order = np.argsort(-scores, kind="stable")
    pairs = draws.null.shape[1]
    found, above = np.empty(len(scores)), np.empty(len(scores))
    most = np.full(pairs, -np.inf, dtype=np.float32)
    least = -most
    limits = scores.astype(np.float32)
    for i in order[::-1].tolist():  # the greatest of each one and of those below it
        np.maximum(most, draws.null[i], out=most)
        np.minimum(least, draws.null[i], out=least)
        limit = limits[i]
        above[i] = np.count_nonzero(most >= limit) + np.count_nonzero(least <= -limit)
    p = (above[order] + 1) / (2 * pairs + 1)
    p = p + unknown * np.array([_NORMAL.cdf(-x) for x in scores[order].tolist()])
    found[order] = np.minimum(np.maximum.accumulate(p), 1.0)
    return found


def least_p_value(scores: Floats, draws: Draws, unknown: int = 0) -> float:
    """Return the least of `adjusted_p_values`, which is that of the greatest score."""
    limit = np.float32(scores.max())
    most, least = draws.null.max(axis=0), draws.null.min(axis=0)
    above = np.count_nonzero(most >= limit) + np.count_nonzero(least <= -limit)
    p = (above + 1) / (2 * len(most) + 1) + unknown * _NORMAL.cdf(-float(scores.max()))
    return min(p, 1.0)


def simultaneous_width(draws: Draws, unknown: int = 0, error: float = 0.05) -> float:
    """Return how many standard errors hold all true values at once, but for `error` of the cases.

    An interval that is so wide to both sides is right also for a strategy that was chosen for its
    figure (the projection interval of Andrews, Kitagawa and McCloskey, 2024, "Inference on
    winners", Quarterly J. of Economics 139).
    """
    greatest = np.sort(np.abs(draws.null).max(axis=0)).astype(np.float64)
    low, high = -_NORMAL.inv_cdf(error / 2), 40.0
    for _ in range(60):
        middle = (low + high) / 2
        beyond = 1 - np.searchsorted(greatest, middle, side="right") / len(greatest)
        if beyond + 2 * unknown * _NORMAL.cdf(-middle) > error:
            low = middle
        else:
            high = middle
    return high


def reality_check(series: Floats, draws: Draws) -> float:
    """Return White's p-value for the best mean of columns (T, N): that none is truly above 0."""
    deviation = series.std(axis=0)
    null = (draws.means * deviation.astype(np.float32)[:, None]).max(axis=0)
    best = float((series.mean(axis=0) * math.sqrt(len(series))).max())
    return _share(null, best)


def superior_ability(series: Floats, lags: Lags, block: float, draws: Draws) -> float:
    """Return Hansen's consistent p-value for the best of columns (T, N): that none is above 0.

    The means are studentised, and one that is far below 0 is not taken for one that is at 0.
    """
    n = len(series)
    deviation = np.sqrt(lags.variances * block_variance(lags, block))
    good = deviation > 0
    scale = np.where(good, series.std(axis=0) / np.where(good, deviation, 1.0), 0.0)
    t = np.where(good, series.mean(axis=0) * math.sqrt(n) / np.where(good, deviation, 1.0), 0.0)
    far = t < -math.sqrt(2 * math.log(math.log(n)))
    null = draws.means * scale.astype(np.float32)[:, None]
    null[far] += t[far].astype(np.float32)[:, None]
    return _share(np.maximum(null.max(axis=0), 0), max(0.0, float(t.max())))


def independent_parts(series: Floats) -> Floats:
    """Return for how much of an independent strategy each column of shape (T, N) counts, (N,).

    For one over the sum of its squared correlations with all, its own included: one of k copies for
    1 / k, whatever else there is. Correlations that chance would explain, below `_CHANCE` standard
    errors, are left out. Their sum is how many independent strategies they are about as good as.
    """
    n, count = series.shape
    d = series - series.mean(axis=0)
    size = np.sqrt(np.square(d).sum(axis=0))
    unit = np.ascontiguousarray((d / np.where(size > 0, size, 1.0)).T, dtype=np.float32)
    totals = np.zeros(count)
    for begin in range(0, count, _ROWS):  # half of the matrix, which is symmetric
        end = min(begin + _ROWS, count)
        squares = unit[begin:end] @ unit[begin:].T
        np.square(squares, out=squares)
        squares *= squares >= _CHANCE**2 / n
        totals[begin:end] += squares.sum(axis=1, dtype=np.float64)
        totals[end:] += squares[:, end - begin :].sum(axis=0, dtype=np.float64)
    return np.asarray(1 / np.maximum(totals, 1.0), dtype=np.float64)


def _share(null: Singles, best: float) -> float:
    return float(((null >= best).sum() + 1) / (len(null) + 1))

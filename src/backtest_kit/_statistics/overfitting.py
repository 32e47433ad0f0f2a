"""How much of a Sharpe ratio is luck: pure functions over arrays and figures, no random state.

A Sharpe ratio here is per observation (per trade, or per period), never annualised. Papers:

- Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier", J. of Risk 15(2);
- Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio: correcting for selection bias,
  backtest overfitting and non-normality", J. of Portfolio Management 40(5);
- Bailey, Borwein, Lopez de Prado and Zhu (2017), "The probability of backtest overfitting",
  J. of Computational Finance 20(4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.figures import LEAST_DEVIATION, sharpe_ratio
from backtest_kit._values.candles import Floats
from backtest_kit._values.errors import ArgumentError

#: Fewer trades than this never give a figure.
MIN_TRADES: Final = 30
#: The most splits into halves that are all tried; where there are more, so many are drawn.
#: C(16, 8) is 12,870.
COMBINATIONS: Final = 20_000
#: Array elements that a vectorised step holds at once: 2 MB of float64, which fits into a cache.
CELLS: Final = 1 << 18
#: A variance below this share of the mean square is a rounding error, not variance.
ROUNDING: Final = 1e-12
#: Scores closer than this, relative to their size, are equal: sums differ in the last digits.
TIE: Final = 1e-9
_NORMAL: Final = NormalDist()


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """The moments of a sample that the tests of a Sharpe ratio need.

    `kurtosis` is the plain one, 3 for a normal distribution; `sharpe` is per observation.
    `observations` may be a fraction: an effective number, where the trades depend on each other.
    """

    observations: float
    sharpe: float
    skewness: float
    kurtosis: float


class Overfitting(msgspec.Struct, frozen=True, kw_only=True):
    """The probability of backtest overfitting, and the number of splits it is taken from.

    `sampled`: the splits were drawn at random; otherwise all were tried. `median_logit` above 0
    means that the best in one half mostly stays in the upper half of the ranks in the other.
    """

    probability: float
    combinations: int
    sampled: bool
    median_logit: float


def moments(r: npt.ArrayLike) -> Moments | None:
    """Return the moments of a strategy's trades, `r` in percent of shape (N,).

    Skewness and kurtosis are the plain moment ratios, as in the paper; the deviation in the
    Sharpe ratio is the sample's (N - 1). `None` for fewer than `MIN_TRADES` trades, and for
    identical ones, which are no edge.

    Raises:
        ArgumentError: `r` is not of one dimension, or holds a value that is not finite.
    """
    values = checked(r)
    sharpe = sharpe_ratio(values) if len(values) >= MIN_TRADES else None
    if sharpe is None:
        return None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        z = values - values.mean()
        z = z / np.sqrt(np.square(z).mean())
        skewness, kurtosis = float((z**3).mean()), float((z**4).mean())
    if not (math.isfinite(skewness) and math.isfinite(kurtosis)):
        return None
    return Moments(observations=len(values), sharpe=sharpe, skewness=skewness, kurtosis=kurtosis)


def probabilistic_sharpe_ratio(sample: Moments, benchmark: float = 0.0) -> float | None:
    """Return the probability that the true Sharpe ratio is above `benchmark` (2012, eq. 11).

    The observations are taken to be independent. `None` for fewer than two of them, and where
    the estimate has no sampling error, which a distribution of two values can have.
    """
    spread = _spread(sample)
    if spread is None or sample.observations <= 1:
        return None
    return _cdf((sample.sharpe - benchmark) * math.sqrt(sample.observations - 1) / spread)


def sampling_error(sample: Moments) -> float | None:
    """Return the standard error of the Sharpe ratio (2012, eq. 8), `None` where there is none."""
    spread = _spread(sample)
    if spread is None or sample.observations <= 1:
        return None
    return spread / math.sqrt(sample.observations - 1)


def expected_maximum_sharpe(trials: float, variance: float) -> float:
    """Return the Sharpe ratio to be expected of the best of `trials` strategies without skill.

    `trials` may be a fraction: an effective number, where they are alike. `variance` is the one of
    the Sharpe ratios across the trials (2014, eq. 1 with mean 0); 0 for one trial. The
    approximation is from extreme value theory: 1.57 deviations for 10 trials, where the exact
    figure is 1.54.

    Raises:
        ArgumentError: fewer than one trial, or a variance that is negative or not finite.
    """
    if trials < 1:
        raise ArgumentError(f"trials must be at least 1, not {trials}")
    if not 0 <= variance < math.inf:
        raise ArgumentError(f"variance must be a finite number of at least 0, not {variance}")
    if trials == 1:
        return 0.0
    rare, rarer = (_NORMAL.inv_cdf(1 - 1 / x) for x in (trials, trials * math.e))
    deviations = (1 - np.euler_gamma) * rare + np.euler_gamma * rarer
    return math.sqrt(variance) * max(deviations, 0.0)  # below 0 for hardly more than one trial


def deflated_sharpe_ratio(sample: Moments, trials: int, variance: float) -> float | None:
    """Return the probability that the Sharpe ratio beats the best of `trials` without skill (2014).

    It is the probabilistic Sharpe ratio against `expected_maximum_sharpe(trials, variance)`, all
    per observation. `None` and errors as for those two.
    """
    return probabilistic_sharpe_ratio(sample, expected_maximum_sharpe(trials, variance))


def minimum_track_record_length(
    sample: Moments, benchmark: float = 0.0, confidence: float = 0.95, *, luckiest: float = 0.0
) -> float | None:
    """Return how many observations put the Sharpe ratio above `benchmark` that surely (2012).

    A number of observations, so of trades where the moments are of trades; it takes the Sharpe
    ratio, skewness and kurtosis to stay as they are. `None` where the Sharpe ratio is not above
    the benchmark: no length would do.

    `luckiest` is for the best of a family: how many sampling errors above the benchmark the best of
    all trials would be without skill (`expected_maximum_sharpe` with variance 1).

    Raises:
        ArgumentError: the confidence is not within 0.5 and 1.
    """
    if not 0.5 < confidence < 1:
        raise ArgumentError(f"confidence must be within 0.5 and 1, not {confidence}")
    spread, lead = _spread(sample), sample.sharpe - benchmark
    if spread is None or lead <= 0:
        return None
    length = 1 + (spread * ((_NORMAL.inv_cdf(confidence) + luckiest) / lead)) ** 2
    return length if math.isfinite(length) else None


def probability_of_overfitting(
    returns: npt.ArrayLike, *, seed: int, blocks: int = 16, combinations: int = COMBINATIONS
) -> Overfitting | None:
    """Return how often the best strategy of one half of the time is below the median in the other.

    Combinatorially symmetric cross-validation (2017). `returns` is of shape (T, N): T periods in
    order, N strategies, in percent. The periods are cut into `blocks` parts, equal to within one
    period; every choice of half the parts is a sample, the rest its counterpart. The best Sharpe
    ratio in the sample gets its rank in the counterpart, `w = rank / (N + 1)`, and a logit
    `ln(w / (1 - w))`; the probability is the share of logits below 0. About 0.5 is what picking
    at random gives, 0 a strategy that is best everywhere.

    Where there are more than `combinations` choices, so many are drawn from `seed`, each with its
    counterpart. What the paper leaves open: the best of a tie is the earlier column, as in the
    walker; ties in the counterpart share their mean rank; a logit of 0, the median itself, counts
    half, so that identical columns give 0.5. A column that is constant in a half has no Sharpe
    ratio: it is never best and ranks last (a strategy that did not trade there, say). A split
    where no column has one is left out.

    `None` for fewer than two columns, fewer than `MIN_TRADES` periods or two a block, and where
    every split is left out. Beyond the input and one copy, memory does not grow with T or N.

    Raises:
        ArgumentError: `returns` is not of two dimensions or holds a value that is not finite;
            `blocks` is odd or below 2; `combinations` is below 2; `seed` is negative.
    """
    matrix = np.asarray(returns, dtype=np.float64)
    if matrix.ndim != 2:
        raise ArgumentError(
            f"returns must have 2 dimensions, not {matrix.ndim}: periods, strategies"
        )
    if not np.isfinite(matrix).all():
        raise ArgumentError("returns holds a value that is not finite")
    if blocks < 2 or blocks % 2:
        raise ArgumentError(f"blocks must be an even number of at least 2, not {blocks}")
    if combinations < 2:
        raise ArgumentError(f"combinations must be at least 2, not {combinations}")
    seeded(seed)
    periods, strategies = matrix.shape
    if strategies < 2 or periods < max(MIN_TRADES, 2 * blocks):
        return None
    return overfitting_of(_Halves(matrix, blocks), strategies, blocks, combinations, seed)


def overfitting_of(
    score: Callable[[Floats], Floats], strategies: int, blocks: int, combinations: int, seed: int
) -> Overfitting | None:
    """Return the probability of overfitting by any score of a choice of blocks.

    `score` is called with choices of half of the blocks, 0 or 1 of shape (C, blocks), and returns
    how good each strategy was in them, shape (C, strategies), -inf where that is not defined. The
    rest is as in `probability_of_overfitting`.
    """
    sampled = math.comb(blocks, blocks // 2) > combinations
    rows = max(1, CELLS // strategies)
    logits = np.concatenate(
        [
            _logits(score(chosen), score(1.0 - chosen))
            for chosen in _choices(blocks, combinations if sampled else 0, rows, seed)
        ]
    )
    if not len(logits):
        return None
    return Overfitting(
        probability=float((logits < 0).mean() + (logits == 0).mean() / 2),
        combinations=len(logits),
        sampled=sampled,
        median_logit=float(np.median(logits)),
    )


def checked(values: npt.ArrayLike, name: str = "r") -> Floats:
    """Return values as float64 of one dimension.

    Raises:
        ArgumentError: they are of another shape, or one of them is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ArgumentError(f"{name} must have one dimension, not {array.ndim}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ArgumentError(f"{name} holds {array[bad[0]]} at {bad[0]}: only finite numbers count")
    return array


def seeded(seed: int, stream: int = 0) -> np.random.Generator:
    """Return the generator of one of a seed's independent streams.

    Raises:
        ArgumentError: the seed is negative.
    """
    if seed < 0:
        raise ArgumentError(f"seed must be at least 0, not {seed}")
    return np.random.default_rng((seed, stream))


class _Halves:
    """Scores choices of blocks: their sums are all that a Sharpe ratio of a half needs."""

    __slots__ = ("_counts", "_means", "_squares", "_sums")

    def __init__(self, matrix: Floats, blocks: int) -> None:
        starts = np.arange(blocks) * len(matrix) // blocks
        self._means = matrix.mean(axis=0)
        centred = matrix - self._means
        self._counts = np.diff(starts, append=len(matrix)).astype(np.float64)
        self._sums = np.add.reduceat(centred, starts)
        self._squares = np.add.reduceat(np.square(centred, out=centred), starts)

    def __call__(self, chosen: Floats) -> Floats:
        """Return the Sharpe ratios (C, N) of choices (C, blocks) of 0 and 1; -inf for none."""
        count = (chosen @ self._counts)[:, None]
        total, square = chosen @ self._sums, chosen @ self._squares
        variance = (square - total**2 / count) / (count - 1)
        least = np.maximum(LEAST_DEVIATION**2, ROUNDING * square / count)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = (self._means + total / count) / np.sqrt(variance)
        return np.where(variance > least, scores, -np.inf)


def _logits(inside: Floats, outside: Floats) -> Floats:
    """Return the logit of the rank outside of each row's best inside; rows without one left out."""
    top = inside.max(axis=1)
    valid = np.isfinite(top)
    inside, outside, top = inside[valid], outside[valid], top[valid]
    best = np.argmax(inside >= (top - TIE * (1 + np.abs(top)))[:, None], axis=1)
    score = outside[np.arange(len(best)), best][:, None]
    margin = TIE * (1 + np.abs(np.where(np.isfinite(score), score, 0.0)))
    below = (outside < score - margin).sum(axis=1)
    above = (outside > score + margin).sum(axis=1)
    equal = outside.shape[1] - below - above
    rank = below + (equal + 1) / 2
    # (N + 1) / 2, the middle rank, gives exactly 0
    return np.asarray(np.log(rank / (outside.shape[1] + 1 - rank)), dtype=np.float64)


def _choices(blocks: int, drawn: int, rows: int, seed: int) -> Iterator[Floats]:
    """Yield choices of half the blocks, 0 or 1 of shape (up to `rows`, blocks).

    All of them, or where `drawn` is not 0 that many, in pairs of a choice and its counterpart.
    """
    if drawn:
        rng, left = seeded(seed), drawn // 2
        while left:
            size = min(left, max(1, rows // 2))
            order = rng.random((size, blocks)).argsort(axis=1)
            half = (order < blocks // 2).astype(np.float64)
            yield np.concatenate((half, 1.0 - half))
            left -= size
        return
    every = itertools.combinations(range(blocks), blocks // 2)
    while picked := list(itertools.islice(every, rows)):
        chosen = np.zeros((len(picked), blocks))
        np.put_along_axis(chosen, np.array(picked), 1.0, axis=1)
        yield chosen


def _spread(sample: Moments) -> float | None:
    """Return the standard error of the Sharpe ratio times the root of N - 1 (Mertens, 2002)."""
    square = 1 - sample.skewness * sample.sharpe + (sample.kurtosis - 1) / 4 * sample.sharpe**2
    return math.sqrt(square) if TIE < square < math.inf else None


def _cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2  # unlike 1 + erf, exact in the lower tail

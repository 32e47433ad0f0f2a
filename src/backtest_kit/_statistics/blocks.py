"""How long what happens in a series goes on to matter: block lengths and long-run variances.

Pure functions over series as columns, shape (T, N). Papers:

- Politis and White (2004), "Automatic block-length selection for the dependent bootstrap",
  Econometric Reviews 23, with the correction of Patton, Politis and White (2009), ibid. 28;
- Newey and West (1987), "A simple, positive semi-definite, heteroskedasticity and autocorrelation
  consistent covariance matrix", Econometrica 55;
- Andrews and Monahan (1992), "An improved heteroskedasticity and autocorrelation consistent
  covariance matrix estimator", Econometrica 60.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.figures import LEAST_DEVIATION
from backtest_kit._values.candles import Floats, Ints

#: A variance below this share of the mean square is a rounding error, not variance.
ROUNDING: Final = 1e-12
#: After so many insignificant lags in a row, autocorrelation is taken to have ended.
QUIET_LAGS: Final = 5
#: Autocorrelation that all series have in common is significant from so many deviations on.
COMMON: Final = 3.0
#: Coefficients of an autoregression that add up to more are taken for this.
MOST_PERSISTENT: Final = 0.97
#: What keeps a matrix of correlations regular.
RIDGE: Final = 1e-6
_NORMAL: Final = NormalDist()


class Lags(msgspec.Struct, frozen=True):
    """The autocovariances of N series of length T, `correlations` of shape (L + 1, N).

    `variances` are the plain ones, divided by T; a series that never varies has variance 0 and no
    correlations but the first.
    """

    variances: Floats
    correlations: Floats
    length: int


class Blocks(msgspec.Struct, frozen=True):
    """The rule's answer for each series: `lengths` (float64) of blocks, `widths` (int64) of lags.

    A width is the last lag that counts, 0 where no autocorrelation is significant; `ratios` are of
    the long-run variance to the plain one, under the rule's own window.
    """

    lengths: Floats
    widths: Ints
    ratios: Floats


def autocorrelations(series: Floats) -> Lags:
    """Return the autocorrelations of columns, as far as the rule looks."""
    n = len(series)
    most = _most_lags(n)
    d = series - series.mean(axis=0) if n else series
    square = (d * d).mean(axis=0) if n else np.zeros(series.shape[1])
    least = (
        np.maximum(LEAST_DEVIATION**2, ROUNDING * (series * series).mean(axis=0))
        if n
        else np.ones(series.shape[1])
    )
    variances = np.where(square > least, square, 0.0)
    found = np.zeros((2 * most + 1, series.shape[1]))
    found[0] = 1.0
    divisor = np.where(variances > 0, variances, np.inf) * max(n, 1)
    for lag in range(1, min(2 * most, n - 1) + 1):
        found[lag] = np.einsum("ij,ij->j", d[lag:], d[: n - lag]) / divisor
    return Lags(variances, found, n)


def block_lengths(lags: Lags, family: float = 1.0) -> Blocks:
    """Return the rule of Politis and White for each series.

    `(2 G^2 / D)^(1/3) T^(1/3)`, where D is 2 g(0)^2 and G and g come from the autocovariances under
    a flat-top window, up to twice the lag after which 5 in a row are insignificant. At most
    `min(3 sqrt(T), T / 3)`; 1, which is the ordinary bootstrap, where none is significant.

    `family` is how many independent series are looked at: the band widens so that one lag beyond it
    by chance is as rare among all of them as it is in a single series.
    """
    n, count = lags.length, lags.correlations.shape[1]
    if n < 2 * QUIET_LAGS:
        return Blocks(np.ones(count), np.zeros(count, dtype=np.int64), np.ones(count))
    most = _most_lags(n)
    deviations = 2 * math.sqrt(math.log10(n))
    if family > 1:
        deviations = -_NORMAL.inv_cdf(_NORMAL.cdf(-deviations) / family)
    significant = np.abs(lags.correlations[1 : most + 1]) >= deviations / math.sqrt(n)
    widths = np.minimum(2 * _last_significant(significant), most)
    return _under_window(lags, widths)


def _under_window(lags: Lags, widths: Ints) -> Blocks:
    n = lags.length
    reach = int(widths.max(initial=0))
    lag = np.arange(1, reach + 1)[:, None]
    window = np.clip(2 * (1 - lag / np.maximum(widths, 1)), 0.0, 1.0) * (lag <= widths)
    weighted = window * lags.correlations[1 : reach + 1]
    spectrum = 1 + 2 * weighted.sum(axis=0)
    slope = 2 * (lag * weighted).sum(axis=0)
    good = (widths > 0) & (spectrum > 0)
    safe = np.where(good, spectrum, 1.0)
    lengths = np.where(good, (np.square(slope / safe) * n) ** (1 / 3), 1.0)
    return Blocks(
        np.clip(lengths, 1.0, max(1.0, min(3 * math.sqrt(n), n / 3))),
        np.where(good, widths, 0),
        np.where(good, spectrum, 1.0),
    )


def common_dependence(lags: Lags, parts: Floats) -> bool:
    """Say whether the series have an autocorrelation of the first lag in common.

    Series that each depend on their past a little look independent one by one. `parts` say for how
    much of an independent one each counts, so that copies of one count once.
    """
    n = lags.length
    if n < 2 * QUIET_LAGS or not lags.correlations.shape[1]:
        return False
    mean = float(np.average(lags.correlations[1], weights=parts)) + 1 / n
    return mean * math.sqrt(n * max(float(parts.sum()), 1.0)) > COMMON


def block_variance(lags: Lags, block: float) -> Floats:
    """Return the variance of the mean in a stationary bootstrap, over that of one without blocks.

    Politis and Romano (1994), lemma 1, for blocks of geometric length with the mean `block`.
    """
    n, stay = lags.length, 1 - 1 / block
    lag = np.arange(1, len(lags.correlations))[:, None]
    weights = (1 - lag / n) * stay**lag + (lag / n) * stay ** np.maximum(n - lag, 0)
    found = 1 + 2 * (weights * lags.correlations[1:]).sum(axis=0)
    return np.maximum(np.asarray(found, dtype=np.float64), 0.0)


def newey_west(lags: Lags, width: int) -> Floats:
    """Return the long-run variance over the plain one, with Bartlett's window over `width` lags."""
    lag = np.arange(1, min(width, len(lags.correlations) - 1) + 1)[:, None]
    weighted = (1 - lag / (width + 1)) * lags.correlations[1 : len(lag) + 1]
    return np.asarray(1 + 2 * weighted.sum(axis=0), dtype=np.float64)


def autoregression(lags: Lags, order: int) -> tuple[Floats, Floats]:
    """Return the long-run variance over the plain one of autoregressions, and its freedom.

    Andrews and Monahan (1992), without lags of what is left: what a window over few lags leaves out
    of a variance. The sum of the coefficients (Yule and Walker's) is corrected for its bias
    (Kendall, 1954, Biometrika 41; Shaman and Stine, 1988, J. American Statistical Association 83,
    here `p (p + 1) / 2` for the constant of an order p), and not taken to be below 0 or above
    `MOST_PERSISTENT`. The freedom is 2 over the variance of the estimate's logarithm.
    """
    n, count = lags.length, lags.correlations.shape[1]
    p = max(1, min(order, n // 4, len(lags.correlations) - 1))
    distance = np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    matrices = lags.correlations[distance].transpose(2, 0, 1) + RIDGE * np.eye(p)
    first = lags.correlations[1 : p + 1].T
    sides = np.stack((first, np.ones((count, p))), axis=2)
    solved = np.linalg.solve(matrices, sides)
    total = solved[:, :, 0].sum(axis=1)
    left = np.clip(1 - (solved[:, :, 0] * first).sum(axis=1), 0.0, 1.0)
    total = np.clip(total + (p * (p + 1) / 2 + 3 * total) / max(n, 1), 0.0, MOST_PERSISTENT)
    spread = left * np.maximum(solved[:, :, 1].sum(axis=1), 0.0) / max(n, 1)
    freedom = 2 / (2 / max(n, 1) + 4 * spread / np.square(1 - total))
    return left / np.square(1 - total), np.asarray(freedom, dtype=np.float64)


def dependence(r: Floats) -> tuple[float, float]:
    """Return the block length for one series, shape (T,), and its long-run over plain variance."""
    if _quiet(r):
        return 1.0, 1.0
    found = block_lengths(autocorrelations(r[:, None]))
    return float(found.lengths[0]), float(found.ratios[0])


def _quiet(r: Floats) -> bool:
    """Say whether one series has no significant autocorrelation; sooner than by all lags."""
    n = len(r)
    d = r - r.mean() if n else r
    square = float(d @ d)
    if n < 2 * QUIET_LAGS or square <= 0:
        return True
    limit = 2 * math.sqrt(math.log10(n)) / math.sqrt(n) * square
    # a little below it counts as well: these sums are rounded in another way
    return not any(
        abs(float(d[lag:] @ d[:-lag])) >= (1 - 1e-9) * limit for lag in range(1, _most_lags(n) + 1)
    )


def _most_lags(n: int) -> int:
    return max(min(n - 1, math.ceil(math.sqrt(n)) + QUIET_LAGS), 0) if n else 0


def _last_significant(significant: npt.NDArray[np.bool_]) -> Ints:
    """Return, per column, the last significant lag before `QUIET_LAGS` others in a row; 0: none."""
    most, count = significant.shape
    quiet = np.zeros(count, dtype=np.int64)
    found = np.full(count, -1, dtype=np.int64)
    for lag in range(1, most + 1):
        quiet = np.where(significant[lag - 1], 0, quiet + 1)
        found = np.where((quiet == QUIET_LAGS) & (found < 0), lag - QUIET_LAGS, found)
    last = np.where(significant.any(axis=0), most - np.argmax(significant[::-1], axis=0), 0)
    return np.where(found < 0, last, found).astype(np.int64)

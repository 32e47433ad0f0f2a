"""Bootstrap intervals of a metric, and comparisons of two strategies.

Pure functions over closed trades: `r` is profit in percent per trade, float64 of shape (N,), in
the order of closing. Every random choice comes from an explicit integer seed, and the same input
gives the same answer. `None` means that the sample is not enough to tell: fewer than
`MIN_TRADES` trades never give a figure. Memory does not grow with the number of draws.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.blocks import dependence
from backtest_kit._statistics.bootstrap import (
    Span,
    check_metric,
    drawn,
    estimate,
)
from backtest_kit._statistics.overfitting import MIN_TRADES, ROUNDING, checked, seeded
from backtest_kit._values.candles import Floats
from backtest_kit._values.errors import ArgumentError

#: Number of resamples: the ends of a 95 % interval then rest on 25 draws each.
DRAWS: Final = 1000
#: A metric that is undefined in more than this share of the resamples has no interval.
MOST_UNDEFINED: Final = 0.05


class ConfidenceInterval(msgspec.Struct, frozen=True, kw_only=True):
    """A metric and its percentile interval, from `draws` resamples.

    `block` is the mean length of their blocks.
    """

    metric: str
    estimate: float
    lower: float
    upper: float
    level: float
    block: float
    draws: int


def bootstrap_interval(
    r: npt.ArrayLike,
    metric: str,
    *,
    seed: int,
    level: float = 0.95,
    draws: int = DRAWS,
    span: Span | None = None,
) -> ConfidenceInterval | None:
    """Return the percentile interval of a metric by the stationary bootstrap.

    Blocks of consecutive trades, of geometric length with the mean of `block_length`, are drawn
    with wrap-around until there are N trades again (Politis and Romano, 1994, "The stationary
    bootstrap", JASA 89), so the order in which wins and losses cluster is kept. `metric` is one
    of `METRICS`; `span`, start and end of the run in milliseconds, is what the yearly one needs.
    The number of trades is kept, so `total_pnl` is N times the interval of the mean.

    `None` for fewer than `MIN_TRADES` trades; if the metric is not defined for the trades, or for
    more than `MOST_UNDEFINED` of the resamples (fewer are left out); and if it never varies: thirty
    wins out of thirty do not make the next one certain.

    Raises:
        ArgumentError: `r` is not of one dimension or not finite; no such metric; a metric without
            its span; `level` is not within 0 and 1; `draws` is below 1; `seed` is negative.
    """
    if not 0 < level < 1:
        raise ArgumentError(f"level must be within 0 and 1, not {level}")
    values, scale = checked(r), check_metric(metric, span, draws)
    rng = seeded(seed)
    value = estimate(values, metric, scale) if len(values) >= MIN_TRADES else None
    if value is None:
        return None
    block = block_length(values)
    resampled = drawn(values, block, metric, scale, rng, draws)
    kept = resampled[np.isfinite(resampled)]
    if len(kept) < (1 - MOST_UNDEFINED) * draws:
        return None
    ends = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    if kept.max() - kept.min() <= ROUNDING * abs(value):
        return None
    return ConfidenceInterval(
        metric=metric,
        estimate=value,
        lower=float(ends[0]),
        upper=float(ends[1]),
        level=level,
        block=block,
        draws=draws,
    )


def for_the_chosen(interval: ConfidenceInterval, width: float) -> ConfidenceInterval:
    """Return an interval that holds also for a strategy that was chosen for its metric.

    Each end lies as many times further from the estimate as `width`, the standard errors that hold
    all true values at once (`stepdown.simultaneous_width`), is of those that hold one.
    """
    times = width / NormalDist().inv_cdf((1 + interval.level) / 2)
    estimate = interval.estimate
    return msgspec.structs.replace(
        interval,
        lower=estimate - (estimate - interval.lower) * times,
        upper=estimate + (interval.upper - estimate) * times,
    )


def block_length(r: npt.ArrayLike) -> float:
    """Return the mean block length for the stationary bootstrap of a series, at least 1.

    Politis and White (2004), "Automatic block-length selection for the dependent bootstrap",
    Econometric Reviews 23, with the correction of Patton, Politis and White (2009), ibid. 28:
    `(2 G^2 / D)^(1/3) N^(1/3)`, where D is 2 g(0)^2 and G and g come from the autocovariances
    under a flat-top window, up to twice the lag after which 5 in a row are insignificant. At most
    `min(3 sqrt(N), N / 3)`; 1, which is the ordinary bootstrap, for a series that never varies.
    The rule is the best one for the mean; it is used here for every metric.

    Raises:
        ArgumentError: `r` is not of one dimension, or holds a value that is not finite.
    """
    return dependence(checked(r))[0]


def share_above(first: Floats, second: Floats) -> float | None:
    """Return the share of resamples in which the first metric is greater; equal ones count half.

    `None` where more than `MOST_UNDEFINED` of them leave either metric undefined.
    """
    valid = np.isfinite(first) & np.isfinite(second)
    if valid.sum() < (1 - MOST_UNDEFINED) * len(first):
        return None
    a, b = first[valid], second[valid]
    return float((a > b).mean() + (a == b).mean() / 2)

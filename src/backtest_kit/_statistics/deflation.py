"""The deflated Sharpe ratios of strategies that were compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.blocks import dependence
from backtest_kit._statistics.overfitting import (
    Moments,
    checked,
    deflated_sharpe_ratio,
    moments,
    sampling_error,
)
from backtest_kit._values.candles import Floats

#: With fewer strategies, the variance of their Sharpe ratios is not estimated from them.
FEW_TRIALS: Final = 10


def deflated_sharpes(trades: Mapping[str, npt.ArrayLike], trials: int) -> dict[str, float]:
    """Return the deflated Sharpe ratio of each strategy that has one, out of `trials` in all.

    It departs from the paper in two ways, where the paper's assumptions fail. Trades that depend on
    each other count for fewer: N is divided by the ratio of the long-run variance to the plain one
    if that is above 1 (Lo, 2002, "The statistics of Sharpe ratios"). And the variance across trials
    is that of Sharpe ratios in units of their own sampling error, so that a strategy with few
    trades meets a higher threshold than one with many. This variance is at most 1, its value under
    the null hypothesis: strategies far worse than chance do not raise the threshold for the others.
    It is 1 for fewer than `FEW_TRIALS` strategies, and if more were tried than are given: ten
    similar strategies, picked out of hundreds, do not tell how much the hundreds varied.
    """
    rows = {name: checked(r, name) for name, r in trades.items()}
    samples = {name: sample for name, r in rows.items() if (sample := _effective(r)) is not None}
    return _deflate(samples, max(trials, len(rows)), known=len(rows) >= trials)


def _effective(r: Floats) -> Moments | None:
    """Return the moments, with the equivalent number of independent observations."""
    sample = moments(r)
    if sample is None:
        return None
    inflation = max(dependence(r)[1], 1.0)
    return msgspec.structs.replace(sample, observations=sample.observations / inflation)


def _deflate(samples: Mapping[str, Moments], trials: int, *, known: bool) -> dict[str, float]:
    errors = {name: sampling_error(sample) for name, sample in samples.items()}
    z = [
        sample.sharpe / error
        for name, sample in samples.items()
        if (error := errors[name]) is not None
    ]
    # a variance estimated from few strategies is unreliable: take that of the null hypothesis
    enough = known and len(z) >= FEW_TRIALS
    spread = min(float(np.var(z, ddof=1)), 1.0) if enough else 1.0
    found = {}
    for name, sample in samples.items():
        error = errors[name]
        if error is not None:
            probability = deflated_sharpe_ratio(sample, trials, spread * error**2)
            if probability is not None:
                found[name] = probability
    return found

"""The deflated Sharpe ratios of strategies that were compared with each other."""

from __future__ import annotations

import msgspec

from backtest_kit._statistics.blocks import dependence
from backtest_kit._statistics.overfitting import (
    expected_maximum_sharpe,
    minimum_track_record_length,
    moments,
    probabilistic_sharpe_ratio,
    sampling_error,
)
from backtest_kit._values.candles import Floats


class Deflated(msgspec.Struct, frozen=True, kw_only=True):
    """What the Sharpe ratio of a strategy's trades is worth.

    `probabilistic` is the probability that the true one is above 0, `deflated` that it is above
    what the best of all trials would have without skill, `minimum_trades` how many trades would put
    `deflated` at 0.95 if its moments stayed as they are; `None` where no number would.
    """

    probabilistic: float | None
    deflated: float | None
    minimum_trades: float | None


def deflate(r: Floats, trials: float) -> Deflated | None:
    """Return what the Sharpe ratio of trades is worth, out of `trials` independent ones in all.

    `None` for fewer than 30 trades or identical ones.

    It departs from the paper in two ways, where the paper's assumptions fail. Trades that depend on
    each other count for fewer: N is divided by the ratio of the long-run variance to the plain one
    if that is above 1 (Lo, 2002, "The statistics of Sharpe ratios"). And the variance across trials
    is the one that they have under the null hypothesis, each in units of its own sampling error:
    it is not estimated, since a few strategies, or many that are alike, don't tell.
    """
    sample = moments(r)
    if sample is None:
        return None
    inflation = max(dependence(r)[1], 1.0)
    effective = msgspec.structs.replace(sample, observations=sample.observations / inflation)
    luckiest = expected_maximum_sharpe(trials, 1.0)
    error = sampling_error(effective)
    benchmark = None if error is None else error * luckiest
    length = minimum_track_record_length(effective, luckiest=luckiest)
    return Deflated(
        probabilistic=probabilistic_sharpe_ratio(effective),
        deflated=None if benchmark is None else probabilistic_sharpe_ratio(effective, benchmark),
        minimum_trades=None if length is None else length * inflation,
    )

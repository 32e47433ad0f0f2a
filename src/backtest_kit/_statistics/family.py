"""The test of a family of strategies: which of them luck does not explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from backtest_kit._statistics.bins import (
    LEAST_BINS,
    Span,
    bin_edges,
    longest_holding,
    matrix_of,
    overlap_ratio,
)
from backtest_kit._statistics.blocks import autocorrelations, block_lengths, common_dependence
from backtest_kit._statistics.figures import sharpe_ratio
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.scores import long_run, scores
from backtest_kit._statistics.stepdown import (
    PAIRS,
    adjusted_p_values,
    effective_trials,
    joint_draws,
    reality_check,
    simultaneous_width,
    superior_ability,
)
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.schemas import Benchmark

#: The profit of a strategy's benchmark in each bin, from its name and the edges of the bins.
BenchmarkBins = Callable[[str, Ints], Floats]
#: Why a strategy is not judged.
Unjudged = Literal["too few trades", "never varies", "too short"]

#: Blocks where strategies depend on their past together, but none so that it would show alone.
LEAST_BLOCK: Final = 2.0


class LuckTest(msgspec.Struct, frozen=True, kw_only=True):
    """The test that a walk's sentence rests on, and figures of the whole family.

    The profits of `known_trials` strategies were laid on `bins` of equal length (`bin_length`, ms)
    and compared with `benchmark` in a joint stationary bootstrap with blocks of `block` bins on
    average; of `unknown_trials` only the number is known. `effective_trials` is how many
    independent strategies all of them are about as good as.

    `reality_check` (White, 2000) and `superior_ability` (Hansen, 2005) are p-values for the best:
    how often luck would do as well. `interval_width` is how many standard errors to each side hold
    the true values of all strategies in 95 of 100 cases.
    """

    bins: int
    bin_length: int
    block: float
    known_trials: int
    unknown_trials: int
    effective_trials: float
    benchmark: Benchmark
    reality_check: float
    superior_ability: float
    interval_width: float


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What the test says of each strategy of a walk that is judged, by name.

    `p_values` are adjusted for the whole family, `without_loss` the same without the losing trade
    that each is given (`bins.rare_loss`).
    """

    test: LuckTest
    edges: Ints
    p_values: Mapping[str, float]
    without_loss: Mapping[str, float]


def why_not_judged(trades: TradeColumns, span: Span) -> Unjudged | None:
    """Return why nothing can be said of a strategy's trades, or `None`."""
    if trades.count < MIN_TRADES:
        return "too few trades"
    if sharpe_ratio(trades.r) is None:
        return "never varies"
    if longest_holding(trades) * LEAST_BINS > span[1] - span[0]:
        return "too short"
    return None


def family_test(
    trades: Mapping[str, TradeColumns],
    span: Span,
    *,
    seed: int,
    interval: int = 0,
    others: Sequence[TradeColumns] = (),
    unknown: int = 0,
    benchmark: Benchmark = 0,
    benchmark_bins: BenchmarkBins | None = None,
    pairs: int = PAIRS,
) -> Family | None:
    """Return the test of the strategies of a walk, out of all that were tried on these data.

    `span` is that of the walk in ms, `interval` the longest at which one of them is asked.
    `others` are the trades of further trials on these data, of `unknown` ones only the number is
    known. `benchmark_bins` returns what is taken off each strategy's profits; nothing, if left out.
    Off those of `others` buying and holding is taken as well; with another benchmark, which is not
    known for them, they count as unknown.

    The steps: profits on equal bins of calendar time; one more losing trade for each; a score for
    each mean that is normal under the null hypothesis, also where losses are rare, or trades
    overlap or depend on each other; and StepM's p-values from a joint stationary bootstrap.

    `None` if no strategy can be judged: fewer than `MIN_TRADES` trades, identical ones, or no
    `LEAST_BINS` bins that are as long as its longest trade. Such a strategy does not count, since
    nothing can be claimed of it. Of `others` the trades within the span count; one that could be
    judged, but not by these, or whose trades are too long, counts as unknown.

    Raises:
        ArgumentError: a benchmark of another length than the bins, or with a value that is not
            finite.
    """
    if interval * LEAST_BINS > span[1] - span[0]:
        return None
    # in an order of their own, so that the figures depend on no other
    names = sorted(name for name, each in trades.items() if why_not_judged(each, span) is None)
    if not names:
        return None
    could = [each for each in others if why_not_judged(each, span) in (None, "too short")]
    cut = [_within(each, span) for each in could]
    known = [each for each in cut if why_not_judged(each, span) is None]
    unknown += len(could) - len(known)
    if benchmark_bins is not None and benchmark != "hold":
        known, unknown = [], unknown + len(known)
    rows = [*(trades[name] for name in names), *known]
    edges = bin_edges(span, max(interval, *map(longest_holding, rows)))
    plain, burdened = matrix_of(rows, edges)
    if benchmark_bins is not None:
        for i in range(len(rows)):
            name = names[i] if i < len(names) else names[0]  # holding is the same for every name
            taken = _checked(benchmark_bins(name, edges), name, len(edges) - 1)
            plain[:, i] -= taken
            burdened[:, i] -= taken
    independent = effective_trials(plain)
    lags = autocorrelations(plain)
    found = block_lengths(lags, independent)
    block = float(found.lengths.max())
    if common_dependence(lags, independent):
        block = max(block, LEAST_BLOCK)
    ratios = np.array([overlap_ratio(each, edges) for each in rows])
    freedom = np.full(len(rows), len(plain) - 1.0)
    if block > 1:
        estimated, freedom = long_run(lags, found, block)
        ratios = np.maximum(ratios, estimated)
    draws = joint_draws(plain, block, seed, pairs)
    test = LuckTest(
        bins=len(plain),
        bin_length=(span[1] - span[0]) // len(plain),
        block=block,
        known_trials=len(rows),
        unknown_trials=unknown,
        effective_trials=independent + unknown,
        benchmark=benchmark,
        reality_check=reality_check(plain, draws),
        superior_ability=superior_ability(plain, lags, block, draws),
        interval_width=simultaneous_width(draws, unknown),
    )
    burdened_p = adjusted_p_values(scores(burdened, ratios, freedom), draws, unknown)
    plain_p = adjusted_p_values(scores(plain, ratios, freedom), draws, unknown)
    return Family(
        test=test,
        edges=edges,
        p_values=dict(zip(names, burdened_p.tolist(), strict=False)),
        without_loss=dict(zip(names, plain_p.tolist(), strict=False)),
    )


def _within(trades: TradeColumns, span: Span) -> TradeColumns:
    """Return the trades that opened and closed in a span."""
    rows = (trades.opened_at >= span[0]) & (trades.closed_at <= span[1])
    if rows.all():
        return trades
    return TradeColumns.of(
        trades.r[rows],
        trades.opened_at[rows],
        trades.closed_at[rows],
        symbol=trades.symbol[rows],
        stop_loss=trades.stop_loss[rows],
        worst_loss=trades.worst_loss[rows],
    )


def _checked(profits: Floats, name: str, count: int) -> Floats:
    values = np.asarray(profits, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ArgumentError(
            f"the benchmark of {name!r} must be {count} finite profits, one per bin, not "
            f"{values.shape} with {int(np.isnan(values).sum())} NaN"
        )
    return values

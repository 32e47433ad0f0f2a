"""The test of a family of strategies: which of them luck does not explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from backtest_kit._statistics.bins import (
    LEAST_BINS,
    Span,
    bin_edges,
    longest_holding,
    matrix_of,
    overlap_ratios,
)
from backtest_kit._statistics.blocks import (
    Lags,
    autocorrelations,
    block_lengths,
    common_dependence,
)
from backtest_kit._statistics.figures import sharpe_ratio
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.scores import long_run, scores, student_scores
from backtest_kit._statistics.stepdown import (
    PAIRS,
    adjusted_p_values,
    independent_parts,
    joint_draws,
    least_p_value,
    reality_check,
    simultaneous_width,
    superior_ability,
)
from backtest_kit._statistics.trades import (
    Mask,
    Trades,
    all_trades,
    counted,
    greatest,
    metrics,
    renumbered,
    stacked,
)
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.schemas import Benchmark

#: The profit of a strategy's benchmark in each bin, from its name and the edges of the bins.
BenchmarkBins = Callable[[str, Ints], Floats]
#: Why a strategy is not judged.
Unjudged = Literal["too few trades", "never varies", "too short"]

#: Strategies of a family by which it is seen whether anything can be there.
_SOME: Final = 500
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


def why_not_judged(trades: TradeColumns, span: Span, interval: int = 0) -> Unjudged | None:
    """Return why nothing can be said of a strategy's trades, or `None`.

    It is asked every `interval` ms.
    """
    if trades.count < MIN_TRADES:
        return "too few trades"
    if sharpe_ratio(trades.r) is None:
        return "never varies"
    if max(longest_holding(trades), interval) * LEAST_BINS > span[1] - span[0]:
        return "too short"
    return None


class Sample(NamedTuple):
    """The bins of a family as columns of shape (B, N), and how these depend on their past.

    `burdened` has one more losing trade in each column. `ratios` are of the variance of each mean
    to that of independent bins, known with so many degrees of `freedom`; `independent` is how many
    independent strategies all of them are about as good as.
    """

    edges: Ints
    plain: Floats
    burdened: Floats
    lags: Lags
    block: float
    ratios: Floats
    freedom: Floats
    independent: float

    def scores(self, series: Floats, overlaps: Floats | None = None) -> Floats:
        """Return the scores of its columns; `overlaps` are the ratios of trades that overlap."""
        ratios = self.ratios if overlaps is None else np.maximum(self.ratios, overlaps)
        return scores(series, ratios, self.freedom)


def judged(trades: Trades, count: int, length: int, intervals: Ints | int = 0) -> tuple[Mask, Mask]:
    """Return which of `count` strategies have enough trades, and which can be judged.

    As `why_not_judged` says; `length` is that of the span, and they are asked every `intervals` ms.
    """
    enough = counted(trades, count) >= MIN_TRADES
    enough &= np.isfinite(metrics(trades, count, "sharpe_ratio", (0, 0)))
    held = greatest(trades.closed - trades.opened, trades.of, count, 0.0)
    return enough, enough & (np.maximum(held, intervals) * LEAST_BINS <= length)


def sample_of(
    trades: Trades,
    count: int,
    span: Span,
    interval: int = 0,
    taken: Callable[[Ints], Floats] | None = None,
) -> Sample:
    """Return the bins of `count` strategies that can be judged.

    `taken` returns what is taken off them, shape (B, N), from the edges of the bins.
    """
    held = int((trades.closed - trades.opened).max(initial=0))
    edges = bin_edges(span, max(interval, held))
    plain, burdened = matrix_of(trades, count, edges)
    if taken is not None:
        off = taken(edges)
        plain -= off
        burdened -= off
    parts = independent_parts(plain)
    independent = max(float(parts.sum()), 1.0)
    lags = autocorrelations(plain)
    found = block_lengths(lags, independent)
    block = float(found.lengths.max())
    if common_dependence(lags, parts):
        block = max(block, LEAST_BLOCK)
    ratios, freedom = np.ones(count), np.full(count, len(plain) - 1.0)
    if block > 1:
        ratios, freedom = long_run(lags, found, block)
    return Sample(edges, plain, burdened, lags, block, ratios, freedom, independent)


def beyond_luck(sample: Sample, trades: Trades, seed: int, unknown: int, error: float) -> Mask:
    """Return which strategies of a family luck does not explain, and nothing else.

    The same as by the p-values of `family_test`, sooner. No score is above Student's, and the
    greatest of some strategies is by luck no greater than that of all: where even so the best is
    nothing, there is nothing. Overlapping lowers scores, and lower scores make StepM's set smaller
    or leave it: so it is looked at only for those that would be in the set without it.
    """
    none = np.zeros(sample.plain.shape[1], dtype=np.bool_)
    at_most = student_scores(sample.burdened, sample.ratios, sample.freedom)
    some = sample.plain[:, :: max(len(none) // _SOME, 1)]
    few = joint_draws(some, sample.block, seed)
    if least_p_value(at_most, few, unknown) > error:
        return none
    draws = joint_draws(sample.plain, sample.block, seed) if some.shape[1] < len(none) else few
    raw = sample.scores(sample.burdened)
    if least_p_value(raw, draws, unknown) > error:
        return none
    might = adjusted_p_values(raw, draws, unknown) <= error
    overlaps = overlap_ratios(trades, len(raw), sample.edges, might)
    return adjusted_p_values(sample.scores(sample.burdened, overlaps), draws, unknown) <= error


def family_test(
    trades: Mapping[str, TradeColumns],
    span: Span,
    *,
    seed: int,
    intervals: Mapping[str, int] | None = None,
    others: Sequence[TradeColumns] = (),
    unknown: int = 0,
    benchmark: Benchmark = 0,
    benchmark_bins: BenchmarkBins | None = None,
    pairs: int = PAIRS,
) -> Family | None:
    """Return the test of the strategies of a walk, out of all that were tried on these data.

    `span` is that of the walk in ms, `intervals` (ms) are those at which they are asked, by name.
    `others` are the trades of further trials on these data, of `unknown` ones only the number is
    known. `benchmark_bins` returns what is taken off each strategy's profits; nothing, if left out.
    Off those of `others` buying and holding is taken as well; with another benchmark, which is not
    known for them, they count as unknown.

    The steps: profits on equal bins of calendar time; one more losing trade for each; a score for
    each mean that is normal under the null hypothesis, also where losses are rare, or trades
    overlap or depend on each other; and StepM's p-values from a joint stationary bootstrap.

    `None` if no strategy can be judged: fewer than `MIN_TRADES` trades, identical ones, or no
    `LEAST_BINS` bins that are as long as its longest trade and its interval. Such a strategy
    does not count, nor does its interval, since nothing can be claimed of it. Of `others` the
    trades within the span count; one that could be judged, but not by these, or whose trades
    are too long, counts as unknown.

    Raises:
        ArgumentError: a benchmark of another length than the bins, or with a value that is not
            finite.
    """
    length = span[1] - span[0]
    # in an order of their own, so that the figures depend on no other
    ordered = sorted(trades)
    own = all_trades([trades[name] for name in ordered])
    asked = np.array([(intervals or {}).get(name, 0) for name in ordered], dtype=np.int64)
    chosen = np.flatnonzero(judged(own, len(ordered), length, asked)[1])
    if not len(chosen):
        return None
    names = [ordered[i] for i in chosen.tolist()]
    theirs = all_trades(others)
    could, _ = judged(theirs, len(others), length)
    inside = (theirs.opened >= span[0]) & (theirs.closed <= span[1])
    theirs = theirs.at(inside)
    known = could & judged(theirs, len(others), length)[1]
    if benchmark_bins is not None and benchmark != "hold":
        known = np.zeros_like(known)
    unknown += int(could.sum() - known.sum())
    count = len(names) + int(known.sum())
    rows = renumbered(own, chosen, len(ordered))
    rows = beside(rows, len(names), renumbered(theirs, np.flatnonzero(known), len(others)))

    def taken(edges: Ints) -> Floats:
        assert benchmark_bins is not None
        off = [_checked(benchmark_bins(name, edges), name, len(edges) - 1) for name in names]
        # holding, which is the same for every name
        return np.stack(off + [off[0]] * (count - len(names)), axis=1)

    interval = int(asked[chosen].max())
    sample = sample_of(rows, count, span, interval, None if benchmark_bins is None else taken)
    draws = joint_draws(sample.plain, sample.block, seed, pairs)
    test = LuckTest(
        bins=len(sample.plain),
        bin_length=length // len(sample.plain),
        block=sample.block,
        known_trials=count,
        unknown_trials=unknown,
        effective_trials=sample.independent + unknown,
        benchmark=benchmark,
        reality_check=reality_check(sample.plain, draws),
        superior_ability=superior_ability(sample.plain, sample.lags, sample.block, draws),
        interval_width=simultaneous_width(draws, unknown),
    )
    overlaps = overlap_ratios(rows, count, sample.edges)
    burdened_p = adjusted_p_values(sample.scores(sample.burdened, overlaps), draws, unknown)
    plain_p = adjusted_p_values(sample.scores(sample.plain, overlaps), draws, unknown)
    return Family(
        test=test,
        edges=sample.edges,
        p_values=dict(zip(names, burdened_p.tolist(), strict=False)),
        without_loss=dict(zip(names, plain_p.tolist(), strict=False)),
    )


def beside(trades: Trades, count: int, others: Trades) -> Trades:
    """Return the trades of `count` strategies and of others, which are numbered after them."""
    if not len(others.r):
        return trades
    return stacked([trades, others._replace(of=others.of + count)])


def _checked(profits: Floats, name: str, count: int) -> Floats:
    values = np.asarray(profits, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ArgumentError(
            f"the benchmark of {name!r} must be {count} finite profits, one per bin, not "
            f"{values.shape} with {int(np.isnan(values).sum())} NaN"
        )
    return values

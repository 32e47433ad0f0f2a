"""The trials of a walk, ranked, with measures of how much is luck."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from backtest_kit._statistics.benchmarks import BenchmarkRow, Market
from backtest_kit._statistics.cross_validation import CrossValidation
from backtest_kit._statistics.cscv import overfitting_by_metric
from backtest_kit._statistics.deflation import deflate
from backtest_kit._statistics.equity import AccountStatistics
from backtest_kit._statistics.family import BenchmarkBins, Family, LuckTest, family_test
from backtest_kit._statistics.figures import Statistics, metric
from backtest_kit._statistics.inference import (
    ConfidenceInterval,
    bootstrap_interval,
    for_the_chosen,
)
from backtest_kit._statistics.over_windows import not_as_asked, of_trades, over_windows
from backtest_kit._statistics.overfitting import MIN_TRADES, Overfitting
from backtest_kit._statistics.trial_result import OtherTrial, TradeColumns, TrialResult
from backtest_kit._statistics.verdict import Verdict, verdict
from backtest_kit._statistics.walk_forward import WalkForward
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.schemas import METRICS, WalkerSchema
from backtest_kit._values.table import Table, Tabular, table_of

#: Every resample of every walk is drawn from this seed: the same trials give the same figures.
SEED: Final = 20_240_101
#: The rows of a ranking that have their interval from the start: each takes 1,000 resamples.
FIRST_ROWS: Final = 50

NotComputed = Literal["not computed"]


class RankRow(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy of a walk; `rank` is from 1, and `None` where the metric is not defined.

    `interval` is the metric's 95 % bootstrap interval as if the strategy had been the only one
    tried; `selection_interval` is wide enough to hold also for one that was chosen for its metric.
    Both are "not computed" in rows after the first `FIRST_ROWS` until they are asked for
    (`WalkResult.with_intervals`).

    `adjusted_p_value` is how often luck alone would make one of all trials look as good as this one
    (StepM; the walk's sentence goes by it). `probabilistic_sharpe` is the probability that the true
    Sharpe ratio is above 0, `deflated_sharpe` that it is above what the best of as many trials
    without skill would have, `minimum_trades` how many trades would put `deflated_sharpe` at 0.95.
    They are `None` for fewer than 30 trades, and where they are not defined. `metric_by_symbol` is
    in the order of the walk's symbols; an account's metric is of all together. `warming` counts the
    steps at which the data did not reach back far enough to ask it. `account` is what its money
    came to, in a walk with an account.
    """

    rank: int | None
    strategy_name: str
    metric_value: float | None
    interval: ConfidenceInterval | NotComputed | None
    deflated_sharpe: float | None
    minimum_trades: float | None
    metric_by_symbol: tuple[float | None, ...]
    statistics: Statistics | None
    by_symbol: tuple[Statistics, ...]
    calls: int
    error: str | None
    error_count: int
    first_error: str | None
    gaps_filled: int
    ambiguous_closes: int
    end_of_data_closes: int
    complete: bool
    warming: int = 0
    adjusted_p_value: float | None = None
    probabilistic_sharpe: float | None = None
    selection_interval: ConfidenceInterval | NotComputed | None = None
    account: AccountStatistics | None = None


class WalkerData(Tabular, frozen=True, kw_only=True):
    """The results of a walk; times in milliseconds UTC.

    `trials` is how many were ever tried on these data, as far as is known. `overfitting` is how
    often the best strategy by the metric in one half of the time is below the median in the other.
    `test` says on what the sentence rests, with figures of all strategies together; `None` if none
    could be judged, and in a report of an earlier release.
    `base_interval` is of the candles by which the runs stepped; "" where a report of an earlier
    release does not say it. `unseen` are environment variables and files that strategies read,
    where results are stored: whether they have changed does not show. `account` is the money that
    each strategy began with, if the walk has one.
    """

    walker_name: str
    symbols: tuple[str, ...]
    exchange_name: str
    frame_name: str
    metric: str
    since: int
    until: int
    total_strategies: int
    strategies_tested: int
    complete: bool
    best_strategy: str | None
    best_metric: float | None
    ranking: tuple[RankRow, ...]
    trials: int
    verdict: Verdict
    overfitting: Overfitting | None
    walk_forward: WalkForward | None = None
    cross_validation: CrossValidation | None = None
    benchmarks: tuple[BenchmarkRow, ...] = ()
    base_interval: str = ""
    unseen: tuple[str, ...] = ()
    test: LuckTest | None = None
    account: AccountSchema | None = None

    def table(self) -> Table:
        """Return the ranking as columns, a row per strategy, best first, then the benchmarks.

        The columns of an interval are NaN where it is not defined, and where `interval_computed` is
        false. `benchmark` is true of the rows that nobody registered: of random entries the median
        is shown. What an account came to is in columns that begin with `account_`.
        """
        title = f"{self.metric} over {', '.join(self.symbols)}"
        rows = [*self.ranking, *map(_as_row, self.benchmarks)]
        table = table_of(rows, RankRow, title, without=("account",))
        known = np.array([row.interval != "not computed" for row in rows], dtype=np.bool_)
        added = np.arange(len(rows)) >= len(self.ranking)
        columns = {name: table[name] for name in table.columns}
        columns |= {"interval_computed": known, "benchmark": added}
        times = table.times
        if self.account is not None:
            money = table_of([row.account for row in rows], AccountStatistics)
            columns |= {f"account_{name}": money[name] for name in money.columns}
            times += tuple(f"account_{name}" for name in money.times)
        return Table(columns, times=times, title=title)


def _as_row(benchmark: BenchmarkRow) -> RankRow:
    """Return a benchmark as the row of a strategy, without what it does not have."""
    return RankRow(
        rank=None,
        strategy_name=benchmark.name,
        metric_value=benchmark.metric_value,
        interval=None,
        deflated_sharpe=None,
        minimum_trades=None,
        metric_by_symbol=(),
        statistics=None,
        by_symbol=(),
        calls=0,
        error=benchmark.error,
        error_count=0,
        first_error=None,
        gaps_filled=0,
        ambiguous_closes=0,
        end_of_data_closes=0,
        complete=benchmark.error is None,
    )


def rank(
    schema: WalkerSchema,
    symbols: Sequence[str],
    trials: Sequence[TrialResult],
    tried: int | None = None,
    timeline: range | None = None,
    base_interval: str = "",
    first_rows: int = FIRST_ROWS,
    benchmark_bins: BenchmarkBins | None = None,
    benchmarks: tuple[BenchmarkRow, ...] = (),
    others: Sequence[OtherTrial] = (),
    markets: Sequence[Market] = (),
) -> WalkerData:
    """Return the trials of a walk ranked by its metric: more is better, ties go to the earlier.

    The `first_rows` have their intervals; `with_intervals` adds the others. `tried` is how many
    trials there ever were on these data, at least (and by default) those given. `timeline` are the
    frame's instants, which the windows of a walk-forward divide.

    `benchmarks` are rows that are shown beside, and neither ranked nor counted.
    `others` are further trials on these data whose trades are known; of what is left of `tried`,
    only the number is.

    `benchmark_bins` is what the strategies are tested against, if not against 0: called with a
    strategy's name and the edges of the test's bins, int64 milliseconds of shape (B + 1,), it
    returns the benchmark's profit in each bin in percent after costs, float64 of shape (B,). Buying
    and holding is the same for every name; random entries are drawn like the named strategy's. A
    trade counts where it closed, in the bin with edges[i] < closed_at <= edges[i + 1], and outside
    of all bins in the nearest. `markets`, those of the symbols, are what the same benchmark within
    the windows is computed from.
    """
    good = [trial for trial in trials if trial.statistics is not None]
    span = (
        min((trial.since for trial in good), default=0),
        max((trial.until for trial in good), default=0),
    )
    count = max(len(trials), tried or 0)
    values = {trial.strategy_name: trial.metric(schema.metric) for trial in trials}
    order = sorted(trials, key=lambda trial: _order(values[trial.strategy_name]))
    trades = {trial.strategy_name: trial.trades for trial in good}
    lacking = not_as_asked(schema, good, given=benchmark_bins is not None)
    if lacking is not None:
        benchmark_bins = None
    unknown = max(count - len(trials) - len(others), 0)
    intervals = {trial.strategy_name: trial.interval for trial in good}
    family = family_test(
        trades,
        span,
        seed=SEED,
        intervals=intervals,
        others=[other.trades for other in others],
        unknown=unknown,
        benchmark=schema.benchmark if benchmark_bins is not None else 0,
        benchmark_bins=benchmark_bins,
    )
    rows = tuple(
        _row(
            *(trial, place, schema.metric, values, family),
            *(span if place <= first_rows else None, count),
        )
        for place, trial in enumerate(order, 1)
    )
    found = verdict(
        *(trades, family, span),
        seed=SEED,
        metric=of_trades(schema.metric),
        trials=count,
        intervals=intervals,
    )
    if family is not None and lacking is not None:
        found = msgspec.structs.replace(found, sentence=f"{found.sentence} {lacking}")
    forward, crossed = over_windows(schema, good, others, unknown, timeline, markets, SEED)
    best = rows[0] if rows and rows[0].metric_value is not None else None
    return WalkerData(
        walker_name=schema.name,
        symbols=tuple(symbols),
        exchange_name=schema.exchange_name,
        frame_name=schema.frame_name,
        metric=schema.metric,
        since=span[0],
        until=span[1],
        total_strategies=len(schema.strategies),
        strategies_tested=len(trials),
        complete=len(trials) == len(schema.strategies),
        best_strategy=None if best is None else best.strategy_name,
        best_metric=None if best is None else best.metric_value,
        ranking=rows,
        trials=count,
        verdict=found,
        overfitting=_overfitting(trades.values(), span, of_trades(schema.metric)),
        test=None if family is None else family.test,
        base_interval=base_interval,
        walk_forward=forward,
        cross_validation=crossed,
        benchmarks=benchmarks,
    )


def with_intervals(data: WalkerData, trials: Sequence[TrialResult]) -> WalkerData:
    """Return a ranking in which the rows of these trials have their intervals computed."""
    known = {trial.strategy_name: trial for trial in trials}
    rows = tuple(
        _with_intervals(
            row,
            _interval(known[row.strategy_name], data.metric, (data.since, data.until)),
            data.test,
        )
        if row.interval == "not computed" and row.strategy_name in known
        else row
        for row in data.ranking
    )
    return msgspec.structs.replace(data, ranking=rows)


def _interval(
    trial: TrialResult, name: str, span: tuple[int, int] | None
) -> ConfidenceInterval | NotComputed | None:
    if trial.trades.count < MIN_TRADES or name not in METRICS:
        return None
    if span is None:
        return "not computed"
    return bootstrap_interval(trial.trades.r, name, seed=SEED, span=span)


def _with_intervals(
    row: RankRow, interval: ConfidenceInterval | NotComputed | None, test: LuckTest | None
) -> RankRow:
    corrected = interval
    if isinstance(interval, ConfidenceInterval):
        corrected = None if test is None else for_the_chosen(interval, test.interval_width)
    return msgspec.structs.replace(row, interval=interval, selection_interval=corrected)


def _overfitting(
    trades: Iterable[TradeColumns], span: tuple[int, int], name: str
) -> Overfitting | None:
    """Return the probability of overfitting, from the strategies with enough trades."""
    enough = [each for each in trades if each.count >= MIN_TRADES]
    return overfitting_by_metric(enough, span, name, seed=SEED) if len(enough) > 1 else None


def _row(
    trial: TrialResult,
    place: int,
    name: str,
    values: dict[str, float | None],
    family: Family | None,
    span: tuple[int, int] | None,
    count: int,
) -> RankRow:
    """Return the row of a trial; without a `span` its intervals are left for later."""
    value = values[trial.strategy_name]
    # what can't be tested has no known dependence either: each trial counts in full
    worth = deflate(
        trial.trades.r, float(count) if family is None else family.test.effective_trials
    )
    row = RankRow(
        rank=None if value is None else place,
        strategy_name=trial.strategy_name,
        metric_value=value,
        interval=None,
        deflated_sharpe=None if worth is None else worth.deflated,
        minimum_trades=None if worth is None else worth.minimum_trades,
        adjusted_p_value=None if family is None else family.p_values.get(trial.strategy_name),
        probabilistic_sharpe=None if worth is None else worth.probabilistic,
        metric_by_symbol=tuple(_value(each, name) for each in trial.by_symbol),
        statistics=trial.statistics,
        by_symbol=trial.by_symbol,
        calls=trial.calls,
        error=trial.error,
        error_count=trial.error_count,
        first_error=trial.first_error,
        gaps_filled=trial.gaps_filled,
        ambiguous_closes=trial.ambiguous_closes,
        end_of_data_closes=trial.end_of_data_closes,
        complete=trial.complete,
        warming=trial.warming,
        account=trial.account,
    )
    return _with_intervals(
        row, _interval(trial, name, span), None if family is None else family.test
    )


def _value(statistics: Statistics, name: str) -> float | None:
    """Return the metric of one symbol; an account's is of all together."""
    return metric(statistics, name) if name in METRICS else None


def _order(value: float | None) -> tuple[bool, float]:
    """Sort higher values first, those without one last; the sort keeps the order of equals."""
    return (True, 0.0) if value is None else (False, -value)

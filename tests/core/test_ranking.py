"""The ranking of trials: what costs a row is computed for the first ones, or when asked for."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._pages.results import walk_result
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.inference import ConfidenceInterval
from backtest_kit._statistics.ranking import WalkerData, rank, with_intervals
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._values.schemas import METRICS, WalkerSchema
from effort import examples

DAY = 86_400_000
SPAN = (0, 90 * DAY)


def trial(name, count, seed, mean=0.0):
    """A trial of random trades, each an hour long."""
    rng = np.random.default_rng(seed)
    closed = np.sort(rng.integers(DAY, SPAN[1], count))
    opened = closed - DAY // 24
    r = rng.normal(mean, 1.0, count)
    statistics = summarize(r, opened, closed, SPAN)
    symbol = np.zeros(count, dtype="<i8")
    return TrialResult(
        strategy_name=name,
        symbols=("X",),
        since=SPAN[0],
        until=SPAN[1],
        statistics=statistics,
        by_symbol=(statistics,),
        trades=TradeColumns(r.tobytes(), opened.tobytes(), closed.tobytes(), symbol.tobytes()),
        calls=count,
        complete=True,
    )


def schema_of(trials, metric="sharpe_ratio"):
    return WalkerSchema(
        walker_name="w",
        exchange_name="e",
        frame_name="f",
        strategies=[each.strategy_name for each in trials],
        metric=metric,
    )


@examples(20)
@given(
    counts=st.lists(st.integers(20, 45), min_size=1, max_size=5),
    first_rows=st.integers(0, 5),
    metric=st.sampled_from(METRICS),
)
def test_intervals_asked_for_later_are_those_computed_at_once(counts, first_rows, metric):
    trials = [trial(f"s{i}", count, seed=i) for i, count in enumerate(counts)]
    schema = schema_of(trials, metric)
    whole = rank(schema, ("X",), trials, first_rows=len(trials))
    some = rank(schema, ("X",), trials, first_rows=first_rows)
    assert with_intervals(some, trials) == whole
    for place, (row, full) in enumerate(zip(some.ranking, whole.ranking, strict=True)):
        short = row.statistics.total_signals < 30
        later = place >= first_rows and not short
        left = {"interval": "not computed", "selection_interval": "not computed"}
        assert row == (msgspec.structs.replace(full, **left) if later else full)


@pytest.fixture(scope="module")
def many():
    trials = [trial(f"s(n={i})", 40, seed=i) for i in range(60)]
    trials.append(trial("short", 7, seed=99))
    return trials, rank(schema_of(trials), ("X",), trials)


def test_the_first_fifty_have_their_intervals_and_the_others_say_so(many):
    _, data = many
    for place, row in enumerate(data.ranking):
        if row.strategy_name == "short":
            assert row.interval is None, "too few trades is known without resampling"
        elif place < 50:
            assert isinstance(row.interval, ConfidenceInterval)
        else:
            assert row.interval == "not computed"
    assert msgspec.json.decode(msgspec.json.encode(data), type=WalkerData) == data
    assert b'"interval":"not computed"' in msgspec.json.encode(data)


def test_a_table_has_all_rows_and_says_which_intervals_were_computed(many):
    trials, data = many
    table = data.table()
    assert len(table) == 61
    computed = [row.interval != "not computed" for row in data.ranking]
    assert table["interval_computed"].tolist() == computed
    intervals = [row.interval for row in data.ranking]
    lower = [i.lower if isinstance(i, ConfidenceInterval) else np.nan for i in intervals]
    np.testing.assert_array_equal(table["lower"], lower)
    assert not computed[-1]
    later = walk_result(data, trials).with_intervals()
    assert later.trials_kept == tuple(trials)
    assert later.table()["interval_computed"].all()
    assert (~np.isnan(later.table()["lower"])).sum() == 60


def test_a_sharpe_ratio_that_can_not_be_tested_is_deflated_by_every_trial():
    one = msgspec.structs.replace(trial("a", 60, 1, mean=0.5), interval=10**13)
    alone, of_many = (rank(schema_of([one]), ("X",), [one], tried) for tried in (1, 1000))
    assert alone.test is of_many.test is None
    assert of_many.ranking[0].deflated_sharpe < alone.ranking[0].deflated_sharpe


def test_a_benchmark_that_could_not_be_had_is_not_claimed():
    one = trial("a", 60, 1, mean=0.5)
    found = rank(msgspec.structs.replace(schema_of([one]), benchmark="hold"), ("X",), [one])
    assert found.test.benchmark == 0
    assert found.verdict.sentence.endswith("Tested against 0: no candles for the benchmark 'hold'.")

"""The parts of the test of a walk, against other implementations, closed forms and simulation."""

import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from arch.bootstrap import SPA, StepM, optimal_block_length
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._statistics.blocks import (
    autocorrelations,
    autoregression,
    block_lengths,
    block_variance,
    common_dependence,
    dependence,
    newey_west,
)
from backtest_kit._statistics.cscv import overfitting_by_metric
from backtest_kit._statistics.inference import bootstrap_interval, for_the_chosen
from backtest_kit._statistics.overfitting import probability_of_overfitting
from backtest_kit._statistics.scores import normal_of_student, scores, t_statistics
from backtest_kit._statistics.stepdown import (
    Draws,
    adjusted_p_values,
    independent_parts,
    joint_draws,
    least_p_value,
    reality_check,
    simultaneous_width,
    superior_ability,
)
from backtest_kit._statistics.trial_result import TradeColumns
from effort import examples

DAY = 86_400_000


def autoregressive(rng, n, *coefficients, columns=1):
    noise = rng.standard_normal((n + 100, columns))
    return scipy.signal.lfilter([1.0], [1.0, *(-a for a in coefficients)], noise, axis=0)[100:]


def free(series):
    ones = np.ones(series.shape[1])
    return scores(series, ones, ones * (len(series) - 1.0))


@pytest.mark.parametrize("a", [0.3, 0.6, 0.85])
def test_block_lengths_are_those_of_arch(a):
    """Which counts one lag more before the five insignificant ones: the same but for that."""
    series = autoregressive(np.random.default_rng(1), 20_000, a, columns=6)
    ours = block_lengths(autocorrelations(series)).lengths
    theirs = optimal_block_length(series)["stationary"].to_numpy()
    assert np.median(ours / theirs) == pytest.approx(1.0, abs=0.1)
    assert (np.abs(np.log(ours / theirs)) < 0.3).all()


def test_a_family_of_independent_series_hardly_ever_looks_dependent():
    rng = np.random.default_rng(2)
    alone, together = [], []
    for _ in range(40):
        lags = autocorrelations(rng.standard_normal((365, 100)))
        alone.append(block_lengths(lags).lengths.max() > 1)
        together.append(block_lengths(lags, 100).lengths.max() > 1)
        assert not common_dependence(lags, np.ones(100))
    assert np.mean(alone) > 0.3, "what the wider band is for"
    assert np.mean(together) < 0.15
    weak = autocorrelations(autoregressive(rng, 100, 0.2, columns=50))
    assert (block_lengths(weak, 50).lengths == 1).mean() > 0.9
    assert common_dependence(weak, np.ones(50))


def test_copies_of_one_series_do_not_make_a_family_look_dependent():
    rng, found = np.random.default_rng(4), []
    for _ in range(40):
        apart = rng.standard_normal((365, 10))
        near = apart[:, :1] + rng.normal(0, 0.1, (365, 100))
        series = np.hstack((apart, near))
        found.append(common_dependence(autocorrelations(series), independent_parts(series)))
    assert np.mean(found) < 0.05, "a correlation of one is not that of eleven"


def test_long_run_variances_are_those_of_their_definitions_and_of_theory():
    rng = np.random.default_rng(3)
    series = autoregressive(rng, 5000, 0.5, columns=3)
    lags = autocorrelations(series)
    for i in range(3):
        d = series[:, i] - series[:, i].mean()
        weighted = ((1 - k / 8) * (d[k:] @ d[:-k]) for k in range(1, 8))
        expected = (d @ d + 2 * sum(weighted)) / len(d)
        assert newey_west(lags, 7)[i] * lags.variances[i] == pytest.approx(expected)
    # of a long series: (1 - a^2) / (1 - a)^2 times the plain variance
    assert autoregression(lags, 1)[0] == pytest.approx(3.0, rel=0.15)
    second = autocorrelations(autoregressive(rng, 5000, 0.0, 0.5, columns=3))
    assert autoregression(second, 2)[0] == pytest.approx(3.0, rel=0.2)
    assert autoregression(second, 1)[0] == pytest.approx(1.0, rel=0.1), "an order is missing"
    freedom = autoregression(autocorrelations(autoregressive(rng, 60, 0.5)), 1)[1]
    assert freedom < 25, "of sixty that depend on each other"


def test_the_variance_of_a_bootstrap_is_that_of_its_draws():
    series = autoregressive(np.random.default_rng(4), 300, 0.4, columns=4)
    draws = joint_draws(series, 6.0, seed=1, pairs=4000)
    expected = block_variance(autocorrelations(series), 6.0)
    assert np.square(draws.means).mean(axis=1) == pytest.approx(expected, rel=0.05)
    assert draws.null.std(axis=1) == pytest.approx(1.0, abs=0.02)
    assert np.abs(draws.null.mean(axis=1)).max() < 0.06


@pytest.mark.parametrize("block", [1, 5])
def test_reality_check_and_superior_ability_are_those_of_arch(block):
    """Arch studentises nothing but a limit: so each series has deviation 1 in the second."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        series = rng.standard_normal((200, 12)) * rng.uniform(0.5, 3.0, 12)
        series[:, :4] -= 0.5  # far below 0: what the consistent p-value leaves out
        series[:, 5] += 0.1 * series[:, 5].std()
        draws, lags = joint_draws(series, float(block), seed=1), autocorrelations(series)
        theirs = SPA(np.zeros(200), -series, block_size=block, reps=2000, seed=1)
        theirs.compute()
        assert reality_check(series, draws) == pytest.approx(theirs.pvalues["upper"], abs=0.04)
        scaled = series / np.sqrt(lags.variances * block_variance(lags, float(block)))
        theirs = SPA(np.zeros(200), -scaled, block_size=block, reps=2000, seed=1)
        theirs.compute()
        ours = superior_ability(series, lags, float(block), draws)
        assert ours == pytest.approx(theirs.pvalues["consistent"], abs=0.04)


def test_the_set_is_that_of_step_m():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        series = rng.standard_normal((250, 15)) + np.where(np.arange(15) < 3, 0.4, -0.02)
        theirs = StepM(np.zeros(250), -series, size=0.05, block_size=1, reps=1000, seed=1)
        theirs.compute()
        p = adjusted_p_values(free(series), joint_draws(series, 1.0, seed=1))
        assert np.flatnonzero(p <= 0.05).tolist() == [*theirs.superior_models]


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(0, 3))
def test_adjusted_p_values_are_what_their_definition_says(seed, count, unknown):
    """Romano and Wolf (2016), algorithm 4.1, one strategy after the other."""
    rng = np.random.default_rng(seed)
    observed = rng.standard_normal(count) * 2
    null = rng.standard_normal((50, count)).astype(np.float32)
    both = np.concatenate((null, -null))
    left, expected, least = list(np.argsort(-observed)), np.zeros(count), 0.0
    while left:
        best = left[0]
        beyond = (both[:, left].max(axis=1) >= np.float32(observed[best])).sum()
        p = (beyond + 1) / (len(both) + 1) + unknown * scipy.stats.norm.sf(observed[best])
        least = max(least, p)
        expected[best] = min(least, 1.0)
        left.pop(0)
    draws = Draws(null.T, null.T)
    found = adjusted_p_values(observed, draws, unknown)
    assert found == pytest.approx(expected, abs=1e-9)
    assert least_p_value(observed, draws, unknown) == pytest.approx(found.min(), abs=1e-9)


@given(st.integers(1, 20), st.integers(20, 400), st.floats(0.5, 40.0))
def test_scores_of_two_outcomes_are_those_of_their_likelihood(losses, wins, size):
    """Owen's ratio in closed form; Bartlett's correction is of the order of 1 over their number."""
    n = losses + wins
    r = np.concatenate((np.ones(wins), np.full(losses, -size)))[:, None]
    if r.mean() <= 0:
        assert free(r)[0] <= 0
        return
    fair = 1 / (1 + size)
    ratio = 2 * (wins * math.log(wins / n / (1 - fair)) + losses * math.log(losses / n / fair))
    student = normal_of_student(t_statistics(r), np.array([n - 1.0]))[0]
    d = (r - r.mean()) / r.std()
    correction = 1 + max((d**4).mean() / 2 - (d**3).mean() ** 2 / 3, 0) / n
    assert free(r)[0] == pytest.approx(min(student, math.sqrt(ratio / correction)), rel=1e-6)


def test_scores_of_noise_are_normal_also_of_few_bins():
    rng = np.random.default_rng(5)
    found = free(rng.standard_normal((20, 20_000)))
    for p in (0.05, 0.01, 0.001):
        share = (found > scipy.stats.norm.isf(p)).mean()
        assert share <= p * 1.15 + 2 * math.sqrt(p / 20_000)
    t, freedom = np.array([2.0, 4.0, 6.0]), np.full(3, 30.0)
    exact = scipy.stats.norm.isf(scipy.stats.t.sf(t, freedom))
    assert normal_of_student(t, freedom) == pytest.approx(exact, rel=0.02)
    assert (normal_of_student(-t, freedom) == -normal_of_student(t, freedom)).all()


def test_effective_trials_of_copies_and_of_what_is_apart():
    rng = np.random.default_rng(6)
    apart = rng.standard_normal((365, 10))
    base = rng.standard_normal((365, 1))
    copies = base + 0.05 * rng.standard_normal((365, 500))
    assert independent_parts(apart).sum() == pytest.approx(10, abs=0.1)
    assert independent_parts(copies).sum() == pytest.approx(1, abs=0.05)
    assert independent_parts(np.hstack((apart, copies))).sum() == pytest.approx(11, abs=0.3)
    assert independent_parts(base).sum() == 1.0
    assert independent_parts(rng.standard_normal((365, 700))).sum() == pytest.approx(700, rel=0.1)


def test_an_interval_for_the_chosen_holds_the_truth_of_the_best():
    """The best of twenty without skill: one interval of its own misses the 0 far too often."""
    inside = {"alone": 0, "chosen": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        series = rng.standard_normal((150, 20))
        best = series[:, series.mean(axis=0).argmax()]
        alone = bootstrap_interval(best, "avg_pnl", seed=1, draws=300)
        width = simultaneous_width(joint_draws(series, 1.0, seed=1, pairs=300))
        chosen = for_the_chosen(alone, width)
        assert chosen.lower < alone.lower < alone.upper < chosen.upper
        inside["alone"] += alone.lower <= 0 <= alone.upper
        inside["chosen"] += chosen.lower <= 0 <= chosen.upper
    assert inside["alone"] < 48
    assert inside["chosen"] >= 54


def test_a_simultaneous_width_is_the_quantile_of_the_greatest():
    rng = np.random.default_rng(7)
    null = rng.standard_normal((20_000, 9)).astype(np.float32)
    width = simultaneous_width(Draws(null.T, null.T))
    assert width == pytest.approx(scipy.stats.norm.isf((1 - 0.95 ** (1 / 9)) / 2), abs=0.03)
    more = simultaneous_width(Draws(null.T, null.T), unknown=91)
    assert more == pytest.approx(scipy.stats.norm.isf(0.05 / 200), abs=0.1)


@examples(10)
@given(st.integers(0, 2**32))
def test_overfitting_by_the_sharpe_ratio_is_that_of_a_matrix(seed):
    """One trade in each of sixteen parts of sixteen periods: the two ways are the same."""
    rng = np.random.default_rng(seed)
    r = rng.standard_normal((4, 128))
    closed = np.arange(128) * DAY + DAY // 2
    span = (0, 128 * DAY)
    columns = [TradeColumns.of(each, closed - 1, closed) for each in r]
    ours = overfitting_by_metric(columns, span, "sharpe_ratio", seed=1)
    assert ours == probability_of_overfitting(r.T, seed=1)


def test_overfitting_goes_by_the_metric_of_the_walk():
    """One wins often and loses more, the other earns: which is best depends on the metric."""
    rng = np.random.default_rng(8)
    often = np.where(rng.random(320) < 0.9, 0.1, -3.0)
    earns = np.where(rng.random(320) < 0.5, 1.5, -1.0)
    between = np.where(rng.random(320) < 0.7, 0.5, -0.9)
    closed = np.arange(1, 321) * DAY
    columns = [TradeColumns.of(r, closed - 1, closed) for r in (often, earns, between)]
    for metric in ("win_rate", "total_pnl", "certainty_ratio"):
        found = overfitting_by_metric(columns, (0, 320 * DAY), metric, seed=1)
        assert found.probability < 0.1, metric
    luck = [TradeColumns.of(rng.permutation(between), closed - 1, closed) for _ in range(12)]
    assert overfitting_by_metric(luck, (0, 320 * DAY), "win_rate", seed=1).probability > 0.3
    assert overfitting_by_metric(columns[:1], (0, 320 * DAY), "win_rate", seed=1) is None


def test_one_series_has_the_rule_of_many():
    rng = np.random.default_rng(9)
    series = autoregressive(rng, 400, 0.5, columns=3)
    found = block_lengths(autocorrelations(series))
    for i in range(3):
        assert dependence(series[:, i]) == pytest.approx((found.lengths[i], found.ratios[i]))
    assert dependence(np.full(50, 1.5)) == (1.0, 1.0)
    assert dependence(np.zeros(0)) == (1.0, 1.0)

"""How much of a Sharpe ratio is luck: published examples, brute force, simulation."""

import itertools
import math

import msgspec
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._statistics.overfitting import (
    Moments,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    moments,
    probabilistic_sharpe_ratio,
    probability_of_overfitting,
    sampling_error,
)

#: Bailey and Lopez de Prado (2014): five years of days, annualised Sharpe ratio 2.5.
PAPER = Moments(observations=1250, sharpe=2.5 / math.sqrt(250), skewness=-3.0, kurtosis=10.0)
VARIANCE = 0.5 / 250


def test_the_worked_example_of_the_deflated_sharpe_ratio():
    """The paper's numerical example: 100 trials 0.9004, 46 trials 0.9505, per day 0.1132."""
    assert expected_maximum_sharpe(100, VARIANCE) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe_ratio(PAPER, 100, VARIANCE) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe_ratio(PAPER, 46, VARIANCE) == pytest.approx(0.9505, abs=5e-5)
    normal = msgspec.structs.replace(PAPER, skewness=0.0, kurtosis=3.0)
    assert deflated_sharpe_ratio(normal, 88, VARIANCE) == pytest.approx(0.9505, abs=5e-4)


def test_the_best_of_many_without_skill():
    rng = np.random.default_rng(1)
    for n in (10, 100, 1000):
        simulated = rng.standard_normal((4000, n)).max(axis=1).mean()
        assert expected_maximum_sharpe(n, 1.0) == pytest.approx(simulated, rel=0.03)
    assert expected_maximum_sharpe(1, 1.0) == 0.0


def test_the_sampling_error_is_that_of_simulated_trades():
    """Of skewed trades as well: Mertens' term in skewness and kurtosis."""
    rng = np.random.default_rng(2)
    n, shift = 400, 0.3
    r = 1.0 - rng.exponential(size=(6000, n)) + shift  # skewness -2, kurtosis 9
    found = r.mean(axis=1) / r.std(axis=1, ddof=1)
    truth = Moments(observations=n, sharpe=shift, skewness=-2.0, kurtosis=9.0)
    assert sampling_error(truth) == pytest.approx(found.std(), rel=0.05)
    above = (found > shift).mean()
    assert above == pytest.approx(0.5, abs=0.05)


def test_a_probability_without_skill_is_evenly_spread():
    rng = np.random.default_rng(3)
    found = [probabilistic_sharpe_ratio(moments(r)) for r in rng.standard_t(6, size=(2000, 300))]
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


@given(st.integers(0, 2**32), st.integers(30, 200))
def test_moments_are_those_of_scipy(seed, n):
    r = np.random.default_rng(seed).gamma(2.0, size=n) - 1.0
    found = moments(r)
    assert found.skewness == pytest.approx(scipy.stats.skew(r), rel=1e-9)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(r, fisher=False), rel=1e-9)
    assert found.sharpe == pytest.approx(r.mean() / r.std(ddof=1), rel=1e-9)


@given(st.floats(0.02, 0.6), st.floats(-2, 2), st.floats(3, 12), st.floats(0.6, 0.99))
def test_the_minimum_track_record_is_just_long_enough(sharpe, skewness, kurtosis, confidence):
    sample = Moments(observations=1, sharpe=sharpe, skewness=skewness, kurtosis=kurtosis)
    length = minimum_track_record_length(sample, confidence=confidence)
    if length is None:
        return
    long = msgspec.structs.replace(sample, observations=length)
    assert probabilistic_sharpe_ratio(long) == pytest.approx(confidence, abs=1e-9)


def brute_force(returns, blocks):
    """The probability of overfitting straight from its definition."""
    parts = np.array_split(np.arange(len(returns)), blocks)
    logits = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[i] for i in chosen])
        outside = np.setdiff1d(np.arange(len(returns)), inside)
        sharpes = [
            returns[rows].mean(axis=0) / returns[rows].std(axis=0, ddof=1)
            for rows in (inside, outside)
        ]
        best = int(np.argmax(sharpes[0]))
        w = scipy.stats.rankdata(sharpes[1])[best] / (returns.shape[1] + 1)
        logits.append(math.log(w / (1 - w)))
    return np.array(logits)


@given(st.integers(0, 2**32), st.sampled_from([2, 4, 6, 8]), st.integers(2, 7))
def test_overfitting_is_what_its_definition_says(seed, blocks, strategies):
    periods = blocks * 8
    returns = np.random.default_rng(seed).standard_normal((periods, strategies))
    logits = brute_force(returns, blocks)
    found = probability_of_overfitting(returns, seed=1, blocks=blocks)
    if periods < 30:
        assert found is None
        return
    assert found.combinations == len(logits)
    assert found.probability == pytest.approx((logits < 0).mean() + (logits == 0).mean() / 2)
    assert found.median_logit == pytest.approx(np.median(logits), abs=1e-12)


def test_overfitting_of_noise_is_a_coin_and_of_skill_is_none():
    rng = np.random.default_rng(4)
    noise = [
        probability_of_overfitting(rng.standard_normal((400, 30)), seed=1, blocks=10).probability
        for _ in range(30)
    ]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.1)
    skill = rng.standard_normal((400, 30))
    skill[:, 7] += 0.5
    assert probability_of_overfitting(skill, seed=1).probability == 0.0


def test_sampled_splits_are_near_all_of_them():
    returns = np.random.default_rng(5).standard_normal((200, 10)) + np.arange(10) / 200
    every = probability_of_overfitting(returns, seed=1, blocks=14)
    some = probability_of_overfitting(returns, seed=1, blocks=14, combinations=1000)
    assert (every.sampled, some.sampled) == (False, True)
    assert (every.combinations, some.combinations) == (3432, 1000)
    assert some.probability == pytest.approx(every.probability, abs=0.05)


def test_columns_alike_are_a_coin_and_idle_ones_are_never_best():
    same = np.repeat(np.random.default_rng(6).standard_normal((100, 1)), 5, axis=1)
    assert probability_of_overfitting(same, seed=1, blocks=8).probability == 0.5
    idle = np.random.default_rng(7).standard_normal((100, 3)) - 1.0
    idle[:, 0] = 0.0
    assert probability_of_overfitting(idle, seed=1, blocks=8).combinations == 70


def test_too_little_to_say():
    rng = np.random.default_rng(8)
    assert moments(rng.standard_normal(29)) is None
    assert moments(np.full(40, 2.0)) is None
    assert probability_of_overfitting(rng.standard_normal((29, 4)), seed=1) is None
    assert probability_of_overfitting(rng.standard_normal((100, 1)), seed=1) is None
    assert probability_of_overfitting(np.zeros((100, 4)), seed=1) is None
    losing = msgspec.structs.replace(PAPER, sharpe=-0.1)
    assert minimum_track_record_length(losing) is None
    assert probabilistic_sharpe_ratio(msgspec.structs.replace(PAPER, observations=1)) is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: expected_maximum_sharpe(0, 1.0), "trials"),
        (lambda: expected_maximum_sharpe(5, -1.0), "variance"),
        (lambda: minimum_track_record_length(PAPER, confidence=1.0), "confidence"),
        (lambda: probability_of_overfitting(np.zeros(5), seed=1), "2 dimensions"),
        (lambda: probability_of_overfitting([[math.inf, 1.0]], seed=1), "not finite"),
        (lambda: probability_of_overfitting(np.zeros((50, 2)), seed=1, blocks=5), "even"),
        (lambda: probability_of_overfitting(np.zeros((50, 2)), seed=-1), "seed"),
        (lambda: probability_of_overfitting(np.zeros((50, 2)), seed=1, combinations=1), "combin"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()

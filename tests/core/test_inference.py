"""Intervals and comparisons, against worked examples and simulations with known truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._statistics.blocks import dependence
from backtest_kit._statistics.bootstrap import draw, drawn, estimate, evaluate, sums
from backtest_kit._statistics.figures import METRICS, metric, summarize
from backtest_kit._statistics.inference import block_length, bootstrap_interval
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._statistics.verdict import standing

DAY = 86_400_000
SPAN = (0, 365 * DAY)


def noise(rng, n):
    """Trades without skill, with the fat tails that trades have."""
    return rng.standard_t(4, size=n)


def autoregressive(rng, n, a):
    x, e = np.zeros(n), rng.standard_normal(n)
    for i in range(1, n):
        x[i] = a * x[i - 1] + e[i]
    return x


@given(
    st.lists(st.floats(-50, 50).map(lambda x: round(x, 3)), min_size=1, max_size=60),
    st.sampled_from(METRICS),
)
def test_metrics_of_samples_are_those_of_the_reports(values, name):
    """Computed from sums here, from the trades there."""
    r = np.array(values)
    closed = np.arange(1, len(r) + 1) * DAY
    expected = metric(summarize(r, closed - DAY, closed, SPAN), name)
    found = estimate(r, name, 365.25 / 365 if name == "expected_yearly_returns" else 1.0)
    if expected is None or found is None:
        # near the least deviation, sums and differences round differently
        assert expected == found or r.std() < 1e-6
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("block", [1.0, 3.5, 20.0])
def test_a_draw_is_of_blocks_that_wrap_around(block):
    n, rng = 50, np.random.default_rng(1)
    weights = np.concatenate([*draw(n, block, rng, 4000)])
    assert weights.shape == (4000, n)
    assert (weights.sum(axis=1) == n).all()
    assert weights.mean(axis=0) == pytest.approx(1.0, abs=0.15), "every trade is as likely"
    # of independent draws, neighbours are as rare together as any two; of blocks they come along
    together = np.mean(weights[:, :-1] * weights[:, 1:])
    apart = np.mean(weights[:, :-25] * weights[:, 25:])
    assert (together > apart + 0.2) == (block > 1)


@pytest.mark.slow
def test_an_interval_holds_the_truth_as_often_as_it_says():
    inside = {"independent": 0, "dependent": 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        r = rng.standard_normal(200) + 0.1
        found = bootstrap_interval(r, "sharpe_ratio", seed=seed, draws=300)
        inside["independent"] += found.lower <= 0.1 <= found.upper
        r = autoregressive(rng, 400, 0.5)
        found = bootstrap_interval(r, "avg_pnl", seed=seed, draws=300)
        inside["dependent"] += found.lower <= 0 <= found.upper
    assert 0.92 <= inside["independent"] / 300 <= 0.98
    # the ordinary bootstrap, blind to the order, is right here in 74 % of cases only
    assert 0.86 <= inside["dependent"] / 300 <= 0.98


def test_the_interval_of_the_mean_is_that_of_the_central_limit():
    r = np.random.default_rng(3).normal(0.2, 1.0, 2000)
    found = bootstrap_interval(r, "avg_pnl", seed=5, draws=4000)
    half = 1.96 * r.std(ddof=1) / math.sqrt(len(r))
    assert found.lower == pytest.approx(r.mean() - half, abs=0.005)
    assert found.upper == pytest.approx(r.mean() + half, abs=0.005)


@given(st.integers(0, 2**32), st.integers(30, 120), st.sampled_from(METRICS))
def test_the_same_trades_give_the_same_interval_and_scale_with_it(seed, n, name):
    r = noise(np.random.default_rng(seed), n)
    first = bootstrap_interval(r, name, seed=7, draws=50, span=SPAN)
    assert first == bootstrap_interval(r, name, seed=7, draws=50, span=SPAN)
    if first is None:
        return
    assert first.lower <= first.upper
    twice = bootstrap_interval(2 * r, name, seed=7, draws=50, span=SPAN)
    linear = name in ("avg_pnl", "total_pnl", "expected_yearly_returns")
    assert twice.lower == pytest.approx((2 if linear else 1) * first.lower, rel=1e-9, abs=1e-12)


def test_blocks_are_longer_where_trades_depend_on_each_other():
    rng = np.random.default_rng(1)
    assert block_length(rng.standard_normal(1000)) < 3
    lengths = [block_length(autoregressive(rng, 1000, a)) for a in (0.3, 0.6, 0.9)]
    assert lengths == sorted(lengths)
    # the optimum for an AR(1), from its spectrum (Politis and White, 2004, section 3)
    a, n = 0.6, 20_000
    g = 2 * a / (1 - a) ** 2 / (1 - a**2)
    optimum = (g**2 / (1 / (1 - a) ** 2) ** 2) ** (1 / 3) * n ** (1 / 3)
    found = np.median([block_length(autoregressive(rng, n, a)) for _ in range(5)])
    assert found == pytest.approx(optimum, rel=0.25)
    # and its long-run variance is (1 + a) / (1 - a) times the plain one
    assert dependence(autoregressive(rng, n, a))[1] == pytest.approx(4.0, rel=0.25)
    assert block_length(np.full(50, 1.5)) == 1.0


def beats(a, b, draws=1000):
    """The probability with which the first beats the second, both resampled by the same days."""
    closed = np.arange(1, len(a) + 1) * DAY
    of = {name: TradeColumns.of(r, closed - 1, closed) for name, r in (("a", a), ("b", b))}
    edges = np.arange(len(a) + 1) * DAY
    told = standing(of, {"a": 1.0, "b": 0.0}, edges, 1.0, "avg_pnl", 1.0, 3, draws)
    assert told.leader == "a"
    return told.wins["b"]


def test_one_that_is_better_beats_one_that_is_not():
    rng = np.random.default_rng(2)
    good, bad = rng.normal(0.5, 1, 200), rng.normal(0.0, 1, 200)
    assert beats(good, bad) > 0.99
    assert beats(good, bad) + beats(bad, good) == pytest.approx(1.0)
    # against the normal distribution of the mean of differences
    close = rng.normal(0.45, 1, 200)
    apart = good - close
    expected = math.erfc(-apart.mean() / apart.std() * math.sqrt(200 / 2)) / 2
    assert beats(good, close, 4000) == pytest.approx(expected, abs=0.03)


def test_two_that_move_together_are_told_apart_in_time():
    """What both win and lose together does not count for the difference."""
    rng = np.random.default_rng(4)
    market = rng.normal(0, 1, 365)
    a, b = market + 0.05 + rng.normal(0, 0.1, 365), market + rng.normal(0, 0.1, 365)
    assert beats(a, b) > 0.99
    assert beats(a, rng.permutation(b)) < 0.9


def test_tiny_samples_never_give_a_figure():
    rng = np.random.default_rng(7)
    few = rng.normal(3.0, 0.1, 29)
    for name in METRICS:
        assert bootstrap_interval(few, name, seed=1, span=SPAN) is None


def test_what_never_varies_has_no_interval():
    assert bootstrap_interval(np.full(40, 1.5), "win_rate", seed=1) is None
    assert bootstrap_interval(np.full(40, 1.5), "sharpe_ratio", seed=1) is None


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: bootstrap_interval([1.0, math.nan], "avg_pnl", seed=1), "holds nan at 1"),
        (lambda: bootstrap_interval([[1.0]], "avg_pnl", seed=1), "one dimension"),
        (lambda: bootstrap_interval([1.0], "profit", seed=1), "unknown metric 'profit'"),
        (lambda: bootstrap_interval([1.0], "avg_pnl", seed=-1), "seed"),
        (lambda: bootstrap_interval([1.0], "avg_pnl", seed=1, level=1.0), "level"),
        (lambda: bootstrap_interval([1.0], "avg_pnl", seed=1, draws=0), "draws"),
        (lambda: bootstrap_interval([1.0], "expected_yearly_returns", seed=1), "span"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_pieces_of_draws_are_the_same_whatever_their_size(monkeypatch):
    from backtest_kit._statistics import bootstrap as _bootstrap

    r = noise(np.random.default_rng(9), 100)
    whole = drawn(r, 4.0, "avg_pnl", 1.0, np.random.default_rng(1), 40)
    assert len(whole) == 40
    weights = np.concatenate([*draw(100, 4.0, np.random.default_rng(1), 40)])
    assert whole == pytest.approx(evaluate(weights @ sums(r), float(r.mean()), "avg_pnl", 1.0))
    monkeypatch.setattr(_bootstrap, "CELLS", 1000)
    assert all(len(piece) <= 10 for piece in draw(100, 4.0, np.random.default_rng(1), 40))

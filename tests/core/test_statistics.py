"""Every statistic against a second, independent computation."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from backtest_kit._statistics import figures as s
from backtest_kit._values.time import MINUTE

returns = st.lists(
    st.floats(-60, 60, allow_nan=False).map(lambda x: round(x, 3)), min_size=1, max_size=60
)
DAY = 1440 * MINUTE


def times(n, seed=0):
    rng = np.random.default_rng(seed)
    opened = np.cumsum(rng.integers(1, 400, n)) * MINUTE
    closed = opened + rng.integers(1, 300, n) * MINUTE
    return opened, np.maximum.accumulate(closed)


@given(returns)
def test_moments_agree_with_exact_arithmetic(values):
    r = np.array(values)
    span = (0, 90 * DAY)
    opened, closed = times(len(r))
    got = s.summarize(r, opened, closed, span)
    mean = statistics.fmean(values)
    assert got.total_signals == len(values)
    assert got.avg_pnl == pytest.approx(mean, abs=1e-12)
    assert got.total_pnl == pytest.approx(math.fsum(values), abs=1e-9)
    assert got.win_rate == pytest.approx(100 * sum(x > 0 for x in values) / len(values))
    assert got.expectancy == pytest.approx(got.avg_pnl, abs=1e-9)
    if len(values) > 1:
        deviation = statistics.stdev(values)
        assert got.std_dev == pytest.approx(deviation, rel=1e-9, abs=1e-12)
        if deviation > 1e-6:
            assert got.sharpe_ratio == pytest.approx(mean / deviation, rel=1e-9, abs=1e-12)
            assert got.annualized_sharpe_ratio == pytest.approx(got.sharpe_ratio * 365**0.5)
    else:
        assert got.std_dev is got.sharpe_ratio is None


@given(returns)
def test_ratios_agree_with_plain_loops(values):
    r = np.array(values)
    wins, losses = [x for x in values if x > 0], [x for x in values if x < 0]
    if losses:
        assert s.profit_factor(r) == pytest.approx(sum(wins) / -sum(losses))
        mean_win = sum(wins) / len(wins) if wins else 0.0
        assert s.certainty_ratio(r) == pytest.approx(mean_win / -(sum(losses) / len(losses)))
        downside = math.sqrt(sum(min(x, 0) ** 2 for x in values) / len(values))
        assert s.sortino_ratio(r) == pytest.approx(sum(values) / len(values) / downside, abs=1e-9)
    else:
        assert s.profit_factor(r) is s.certainty_ratio(r) is s.sortino_ratio(r) is None
    streak = best = 0
    for x in values:
        streak = streak + 1 if x > 0 else 0
        best = max(best, streak)
    assert s.longest_streak(r > 0) == best


@given(returns, st.integers(0, 9))
def test_drawdown_agrees_with_pandas(values, seed):
    pd = pytest.importorskip("pandas")
    r = np.array(values)
    _, closed = times(len(r), seed)
    span = (0, int(closed[-1]) + 500 * MINUTE)
    depth, longest = s.drawdown(r, closed, span)
    curve = pd.Series([1.0, *values]).shift(-1).dropna().div(100).add(1).cumprod()
    curve = pd.Series([1.0, *curve], index=[0, *closed.tolist()])
    assert depth == pytest.approx(float((1 - curve / curve.cummax()).max()) * 100, abs=1e-9)
    waits, peak, since, under = [0], 1.0, 0, False
    for when, value in [*curve.items()][1:]:
        if value >= peak:
            waits.append(when - since if under else 0)
            peak, since, under = value, when, False
        else:
            under = True
    if under:
        waits.append(span[1] - since)
    assert longest == pytest.approx(max(waits) / MINUTE)


@given(returns)
def test_growth_ratios(values):
    r = np.array(values)
    _, closed = times(len(r))
    span = (0, 200 * DAY)
    depth, _ = s.drawdown(r, closed, span)
    final = math.prod(1 + x / 100 for x in values)
    if depth:
        assert s.recovery_factor(r, closed, span) == pytest.approx((final - 1) * 100 / depth)
        yearly = (final ** (365.25 / 200) - 1) * 100
        assert s.calmar_ratio(r, closed, span) == pytest.approx(yearly / depth)
    else:
        assert s.recovery_factor(r, closed, span) is s.calmar_ratio(r, closed, span) is None


@given(st.lists(st.tuples(st.integers(-50, 300), st.integers(1, 80)), min_size=1, max_size=20))
def test_exposure_counts_every_minute_once(positions):
    opened = np.array([a for a, _ in positions]) * MINUTE
    closed = np.array([a + b for a, b in positions]) * MINUTE
    covered = {m for a, b in positions for m in range(a, a + b)} & set(range(200))
    assert s.exposure(opened, closed, (0, 200 * MINUTE)) == pytest.approx(len(covered) / 2)


def test_the_worked_example_of_sortino():
    # Red Rock Capital, "Sortino: A 'Sharper' Ratio": annual returns, target 0
    r = np.array([17.0, 15.0, 23.0, -5.0, 12.0, 9.0, 13.0, -4.0])
    assert s.sortino_ratio(r) == pytest.approx(4.417, abs=0.001)


def test_without_trades_every_ratio_is_none():
    empty = np.array([])
    got = s.summarize(empty, empty.astype(np.int64), empty.astype(np.int64), (0, DAY))
    counts = {"total_signals", "win_count", "loss_count", "max_win_streak", "max_loss_streak"}
    for name in got.__struct_fields__:
        assert getattr(got, name) == (0 if name in counts else None), name


def test_the_sharpe_ratio_is_the_t_statistic_over_the_root_of_n():
    r = np.random.default_rng(5).normal(0.1, 1.3, 80)
    assert s.sharpe_ratio(r) == pytest.approx(stats.ttest_1samp(r, 0).statistic / 80**0.5)


def test_identical_returns_are_no_edge():
    assert s.sharpe_ratio(np.full(50, 0.598)) is None


def test_ruin_ends_the_equity_and_breaks_nothing():
    r = np.array([10.0, -150.0, 50.0])
    closed = np.array([1, 2, 3]) * DAY
    assert s.equity(r).tolist() == [1.0, 1.1, 0.0, 0.0]
    assert s.drawdown(r, closed, (0, 4 * DAY))[0] == 100.0
    assert s.calmar_ratio(r, closed, (0, 4 * DAY)) == pytest.approx(-1.0)


@given(returns)
def test_no_figure_is_ever_nan_or_infinite(values):
    r = np.array(values)
    opened, closed = times(len(r))
    got = s.summarize(r, opened, closed, (0, int(closed[-1])))
    for name in got.__struct_fields__:
        value = getattr(got, name)
        assert value is None or math.isfinite(value), name
    for name in s.METRICS:
        assert s.metric(got, name) == getattr(got, name)


def test_an_unknown_metric_names_the_known_ones():
    empty = np.array([])
    got = s.summarize(empty, empty.astype(np.int64), empty.astype(np.int64), (0, DAY))
    with pytest.raises(ValueError, match="unknown metric 'luck'; use one of: sharpe_ratio"):
        s.metric(got, "luck")


EXTREMES = [
    [1e308, 1e308, -1e308],
    [1e200, -1e200, 1e200],
    [1e200, 1e200, -50.0],
    [1e200, 1e200, -100.0],
    [5e-324, -5e-324],
    [-60.0] * 2000,
    [0.0] * 3,
]
RATIOS = [
    s.std_dev,
    s.sharpe_ratio,
    s.sortino_ratio,
    s.certainty_ratio,
    s.profit_factor,
    s.expectancy,
]


@pytest.mark.parametrize("values", EXTREMES)
def test_the_edge_of_float64_gives_no_warning_and_no_nan(values):
    r = np.array(values)
    opened, closed = times(len(r))
    got = s.summarize(r, opened, closed, (0, int(closed[-1]) + DAY))
    for name in got.__struct_fields__:
        value = getattr(got, name)
        assert value is None or math.isfinite(value), name
    for ratio in RATIOS:
        value = ratio(r)
        assert value is None or math.isfinite(value), ratio.__name__
    assert not np.isnan(s.equity(r)).any()


def test_equity_beyond_float64_is_no_figure_until_it_is_ruined():
    closed = np.array([1, 2, 3]) * DAY
    over, ruined = np.array([1e200, 1e200, -50.0]), np.array([1e200, 1e200, -100.0])
    assert s.drawdown(over, closed, (0, 4 * DAY)) == (None, None)
    assert s.recovery_factor(over, closed, (0, 4 * DAY)) is None
    assert s.calmar_ratio(over, closed, (0, 4 * DAY)) is None
    assert s.drawdown(ruined, closed, (0, 4 * DAY))[0] == 100.0


def test_all_losses_and_all_wins():
    losses, wins = np.array([-1.0, -2.0]), np.array([1.0, 2.0])
    assert s.certainty_ratio(losses) == s.profit_factor(losses) == 0.0
    assert s.certainty_ratio(wins) is s.profit_factor(wins) is s.sortino_ratio(wins) is None
    _, closed = times(2)
    assert s.drawdown(wins, closed, (0, DAY)) == (0.0, 0.0)
    assert s.recovery_factor(wins, closed, (0, DAY)) is None


def test_calmar_needs_a_day():
    r, closed = np.array([5.0, -2.0]), np.array([1, 2]) * MINUTE
    assert s.calmar_ratio(r, closed, (0, DAY - 1)) is None
    # by hand: equity 1.05 * 0.98 = 1.029; depth 2 %
    yearly = (1.029 ** (365.25 / 10) - 1) * 100
    assert s.calmar_ratio(r, closed, (0, 10 * DAY)) == pytest.approx(yearly / 2.0)


def test_expectancy_by_hand_with_a_break_even():
    # 2 wins of 3, 1 loss of 2, 1 break-even: 2/4 * 3 - 1/4 * 2
    assert s.expectancy(np.array([3.0, -2.0, 0.0, 3.0])) == pytest.approx(1.0)

"""An account's statistics beside those of empyrical and quantstats, from `returns()` as it is.

Where definitions differ, how they do is tested too: docs/accounts-statistics.md says the same.
"""

import statistics

import numpy as np
import pytest

from equity_world import DAY, START, World, portfolio_of

empyrical = pytest.importorskip("empyrical", reason="needs the group statistics")
quantstats = pytest.importorskip("quantstats.stats", reason="needs the group statistics")

pytestmark = pytest.mark.slow  # they take seconds to import


@pytest.fixture(scope="module", params=[(1, 365), (2, 252)], ids=["365", "252"])
def account(request):
    """All days, or those from Monday to Friday."""
    seed, days = request.param
    world = World(seed, minutes=400 * 1440, step=240, wildness=0.008, activity=0.1)
    dates = START // DAY + np.arange(400)
    weekdays = None if days == 365 else dates[(dates + 3) % 7 < 5]
    result = portfolio_of(world, days_per_year=days, traded_days=weekdays)
    assert result.statistics.days == (400 if weekdays is None else len(weekdays))
    assert result.statistics.max_daily_drawdown_percent > 0.5
    return result, result.account.days_per_year


def near(value, factor=1.0):
    return pytest.approx(float(value) * factor, rel=1e-8, abs=1e-10)


def test_empyrical_says_the_same(account):
    result, days = account
    s, r, b = result.statistics, result.returns(), result.benchmark_returns()
    assert s.growth_percent == near(empyrical.cum_returns_final(r), 100)
    assert s.cagr_percent == near(empyrical.cagr(r, annualization=days), 100)
    assert s.volatility_percent == near(empyrical.annual_volatility(r, annualization=days), 100)
    assert s.sharpe_ratio == near(empyrical.sharpe_ratio(r, annualization=days))
    assert s.sortino_ratio == near(empyrical.sortino_ratio(r, annualization=days))
    assert s.max_daily_drawdown_percent == near(empyrical.max_drawdown(r), -100)
    assert s.value_at_risk_percent == near(empyrical.value_at_risk(r), 100)
    assert s.expected_shortfall_percent == near(empyrical.conditional_value_at_risk(r), 100)
    assert s.tail_ratio == near(empyrical.tail_ratio(r))
    assert s.beta == near(empyrical.beta(r, b))
    months = empyrical.aggregate_returns(r, "monthly")
    assert s.best_month_percent == near(months.max(), 100)
    assert s.worst_month_percent == near(months.min(), 100)


def test_quantstats_says_the_same(account):
    result, days = account
    s, r, b = result.statistics, result.returns(), result.benchmark_returns()
    assert s.growth_percent == near(quantstats.comp(r), 100)
    assert s.cagr_percent == near(quantstats.cagr(r, periods=days), 100)
    assert s.volatility_percent == near(quantstats.volatility(r, periods=days), 100)
    assert s.sharpe_ratio == near(quantstats.sharpe(r, periods=days))
    assert s.sortino_ratio == near(quantstats.sortino(r, periods=days))
    assert s.max_daily_drawdown_percent == near(quantstats.max_drawdown(r), -100)
    assert s.tail_ratio == near(quantstats.tail_ratio(r))
    assert s.skew == near(quantstats.skew(r))
    assert s.kurtosis == near(quantstats.kurtosis(r))
    greeks = quantstats.greeks(r, b, periods=days)
    assert s.beta == near(greeks["beta"])
    assert s.alpha_percent == near(greeks["alpha"], 100)
    assert s.correlation**2 == near(quantstats.r_squared(r, b))
    assert s.best_day_percent == near(quantstats.best(r), 100)
    assert s.worst_day_percent == near(quantstats.worst(r), 100)
    theirs = quantstats.monthly_returns(r)
    assert theirs.index.tolist() == [str(year) for year in result.monthly().index]
    ours = result.monthly().fillna(0).to_numpy()
    assert ours == pytest.approx(theirs.to_numpy() * 100, rel=1e-8, abs=1e-10)


def test_where_they_differ(account):
    """Drawdowns by the minute, compounded alpha, a normal law, exposure by days."""
    result, days = account
    s, r, b = result.statistics, result.returns(), result.benchmark_returns()
    assert s.max_drawdown_percent >= s.max_daily_drawdown_percent
    over_days = quantstats.calmar(r, periods=days)
    assert over_days == near(empyrical.calmar_ratio(r, annualization=days))
    assert s.calmar_ratio * s.max_drawdown_percent == near(over_days * s.max_daily_drawdown_percent)
    daily = s.alpha_percent / 100 / days
    compounded = empyrical.alpha(r, b, annualization=days)
    assert compounded == near((1 + daily) ** days - 1)
    law = statistics.NormalDist(r.mean(), r.std())
    assert quantstats.value_at_risk(r) == near(law.inv_cdf(0.05))
    assert quantstats.exposure(r) != pytest.approx(s.exposure_percent / 100)

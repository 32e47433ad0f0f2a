"""Each statistic of an account against a second, independent computation."""

import math
import statistics
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from backtest_kit._statistics import equity as s
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_days import (
    daily_returns,
    days_of_candles,
    last_rows,
    monthly_returns,
    yearly_returns,
)
from backtest_kit._statistics.equity_drawdown import drawdowns, max_drawdown
from backtest_kit._statistics.equity_outcome import account_outcome
from backtest_kit._values.equity_curve import EquityCurve, Marks
from effort import examples
from equity_world import DAY, MINUTE, START, World, fills_of

YEAR = 365
#: Returns as fractions, some of them 0.
returns = st.lists(
    st.floats(-0.5, 0.5, allow_nan=False).map(lambda x: round(x, 4)), min_size=0, max_size=60
).map(np.array)
seeds = st.integers(0, 2**32)
few = examples(30)


def near(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@given(returns)
def test_ratios_agree_with_the_standard_library(r):
    values = r.tolist()
    if len(values) < 2:
        assert s.volatility(r, YEAR) is s.sharpe_ratio(r, YEAR) is s.sortino_ratio(r, YEAR) is None
        assert s.tail_ratio(r) is None
        return
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert s.volatility(r, YEAR) == near(deviation * math.sqrt(YEAR))
    if deviation > 1e-8:
        assert s.sharpe_ratio(r, YEAR) == near(mean / deviation * math.sqrt(YEAR))
        assert s.sharpe_ratio(r, 252) == near(s.sharpe_ratio(r, YEAR) * math.sqrt(252 / YEAR))
    elif deviation == 0:
        assert s.sharpe_ratio(r, YEAR) is None
    downside = math.sqrt(sum(min(x, 0.0) ** 2 for x in values) / len(values))
    if downside:
        assert s.sortino_ratio(r, YEAR) == near(mean / downside * math.sqrt(YEAR))
    else:
        assert s.sortino_ratio(r, YEAR) is None


@given(returns)
def test_tails_agree_with_sorting_by_hand(r):
    ordered = sorted(r.tolist())

    def percentile(share):
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        above = ordered[min(low + 1, len(ordered) - 1)]
        return ordered[low] + (above - ordered[low]) * (place - low)

    if len(r) >= 20:
        assert s.value_at_risk(r) == near(percentile(0.05))
        least = ordered[: (len(ordered) - 1) // 20 + 1]
        assert s.expected_shortfall(r) == near(statistics.fmean(least))
        assert s.expected_shortfall(r) <= s.value_at_risk(r) + 1e-12
    else:
        assert s.value_at_risk(r) is s.expected_shortfall(r) is None
    if len(r) > 1 and abs(percentile(0.05)) > 1e-8:
        assert s.tail_ratio(r) == near(abs(percentile(0.95)) / abs(percentile(0.05)))


@pytest.mark.parametrize(("days", "worst"), [(20, 1), (21, 2), (40, 2), (41, 3), (365, 19)])
def test_the_shortfall_is_that_of_so_many_days(days, worst):
    r = np.random.default_rng(days).permutation(days) / 1000 - 0.1
    assert s.expected_shortfall(r) == near(np.arange(worst).mean() / 1000 - 0.1)


@given(returns)
def test_moments_agree_with_scipy(r):
    if len(r) and r.std() > 1e-6:
        if len(r) > 2:
            assert s.skew(r) == pytest.approx(stats.skew(r, bias=False), rel=1e-6, abs=1e-6)
        if len(r) > 3:
            expected = stats.kurtosis(r, bias=False)
            assert s.kurtosis(r) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert s.skew(r[:2]) is None
    assert s.kurtosis(r[:3]) is None
    assert s.skew(np.full(9, 0.25)) is s.kurtosis(np.full(9, 0.25)) is None


@given(returns, seeds)
def test_a_regression_agrees_with_scipy(r, seed):
    b = np.random.default_rng(seed).normal(0.001, 0.02, len(r))
    if len(r) < 3 or r.std() < 1e-6:
        assert s.pearson(np.zeros(len(r)), b) is None
        return
    line = stats.linregress(b, r)
    assert s.beta(r, b) == pytest.approx(line.slope, rel=1e-6, abs=1e-9)
    assert s.alpha(r, b, YEAR) == pytest.approx(YEAR * line.intercept, rel=1e-6, abs=1e-6)
    assert s.pearson(r, b) == pytest.approx(stats.pearsonr(r, b).statistic, abs=1e-9)
    assert (s.pearson(r, r), s.pearson(r, -r)) == (1.0, -1.0)
    assert s.beta(r, np.full(len(r), 0.01)) is s.alpha(r, np.full(len(r), 0.01), YEAR) is None


def test_what_is_beyond_float64_is_none():
    assert s.cagr(1e300, 1, YEAR) is None
    assert s.cagr(-0.1, 9, YEAR) is None
    assert s.cagr(2.0, 0, YEAR) is None
    assert s.cagr(0.0, 9, YEAR) == s.cagr(-1e-16, 9, YEAR) == -1.0  # all is lost
    assert s.cagr(1.1, 365, 365) == near(0.1)
    assert s.calmar_ratio(0.5, 0.0) is s.calmar_ratio(None, 0.5) is None
    assert s.calmar_ratio(0.5, 0.25) == 2.0


levels = st.lists(st.integers(1, 6), min_size=1, max_size=40).map(
    lambda x: np.array(x, dtype=np.float64)
)


@given(levels, st.integers(1, 6).map(float))
def test_the_drawdown_agrees_with_all_pairs(equity, balance):
    values = [balance, *equity.tolist()]
    pairs = [
        (1 - low / high, j, i)
        for i, low in enumerate(values)
        for j, high in enumerate(values[: i + 1])
    ]
    depth = max(share for share, _, _ in pairs)
    found = max_drawdown(equity, balance)
    assert (drawdowns(equity, balance) <= 0).all()
    if depth == 0:
        assert found is None
        return
    assert found.depth == near(depth)
    assert drawdowns(equity, balance).min() == near(-depth)
    top, bottom = values[found.peak + 1], values[found.trough + 1]
    assert (1 - bottom / top, top - bottom) == (near(depth), found.amount)
    assert top == max(values[: found.trough + 2])
    assert all(value < top for value in values[found.peak + 2 : found.trough + 2])
    later = [i for i, value in enumerate(values) if i > found.trough + 1 and value >= top]
    assert found.recovered == (later[0] - 1 if later else None)


def by_pandas(curve, balance):
    """Daily returns as pandas makes them of the same curve: right-closed days, the first row in."""
    pd = pytest.importorskip("pandas")
    at = pd.to_datetime(curve.timestamp, unit="ms")
    at = at[:1].append(at[1:] - pd.Timedelta(1, "ms"))
    days = pd.Series(curve.equity, index=at).resample("D").last().ffill()
    before = days.shift(fill_value=balance)
    return (days / before - 1).where(before != 0, 0.0)


@few
@given(
    seeds,
    st.integers(0, 2880).map(lambda m: START + m * MINUTE),
    st.sampled_from((1, 60, 1440, 4320)),
    st.integers(1, 40),
)
def test_daily_returns_agree_with_pandas(seed, start, step, count):
    start = start // (step * MINUTE) * step * MINUTE
    t = start + np.arange(count, dtype=np.int64) * step * MINUTE
    equity = np.random.default_rng(seed).choice([0.0, 5.0, 7.0, 9.0], count)
    curve = EquityCurve(t, equity, equity, equity)
    daily = daily_returns(curve, np.ones(count), 4.0, None)
    expected = by_pandas(curve, 4.0)
    dates = daily.day.astype("datetime64[D]").astype(datetime).tolist()
    assert dates == [day.date() for day in expected.index]
    assert daily.returns.tolist() == pytest.approx(expected.tolist())
    assert daily.benchmark.tolist() == [0.0] * len(daily)


def test_midnight_belongs_to_the_day_that_ends():
    t = START + np.array([0, 720, 1440, 2160, 2880], dtype=np.int64) * MINUTE
    curve = EquityCurve(t, [10, 11, 12, 13, 15], [0] * 5, [0] * 5)
    daily = daily_returns(curve, np.ones(5), 8.0, None)
    assert daily.equity.tolist() == [12, 15]
    assert daily.returns.tolist() == [12 / 8 - 1, 15 / 12 - 1]
    assert last_rows(t[:1])[0].tolist() == [START // DAY]
    assert last_rows(t[:0])[0].tolist() == []


def test_days_without_candles_are_left_out():
    """Friday to Tuesday; what happens at the weekend counts to Monday, at the end to the last."""
    friday = START + 4 * DAY
    t = friday + np.arange(0, 5 * 1440 + 1, 720, dtype=np.int64) * MINUTE
    equity = np.array([10, 10, 11, 11, 11, 11, 12, 13, 14, 14, 15], dtype=np.float64)
    curve = EquityCurve(t, equity, equity, equity)
    opened = days_of_candles(np.array([friday + MINUTE, friday + DAY, friday + 4 * DAY]))
    assert opened.tolist() == [friday // DAY, friday // DAY + 3]
    daily = daily_returns(curve, equity / 10, 10.0, opened)
    assert daily.day.tolist() == opened.tolist()
    assert daily.returns.tolist() == [11 / 10 - 1, 15 / 11 - 1]
    assert np.prod(1 + daily.benchmark) == near(1.5)
    assert len(daily_returns(curve, equity, 10.0, opened[:0])) == 0


@given(returns, st.integers(0, 20_000))
def test_months_agree_with_pandas(r, first):
    pd = pytest.importorskip("pandas")
    day = first + np.arange(len(r), dtype=np.int64) * 7
    series = pd.Series(r, index=pd.to_datetime(day, unit="D"), dtype=np.float64)
    for found, period in ((monthly_returns(day, r), "M"), (yearly_returns(day, r), "Y")):
        expected = series.groupby(series.index.to_period(period)).apply(
            lambda x: (1 + x).prod() - 1
        )
        places, values = found
        assert values.tolist() == pytest.approx(expected.tolist())
        assert places.tolist() == [p.ordinal for p in expected.index]


def outcome(world, **more):
    options = {"balance": world.balance, "leverage": world.leverage, **more}
    return account_outcome(world.runs, world.fills, world.marks, AccountCounts(), **options)


long_worlds = st.builds(
    World,
    seed=seeds,
    minutes=st.integers(1, 30).map(lambda days: days * 1440),
    step=st.just(60),
    leverage=st.sampled_from((1.0, 5.0)),
    fee=st.sampled_from((0.0, 0.001)),
    activity=st.sampled_from((0.0, 0.05, 0.4)),
    wildness=st.just(0.01),
)


@few
@given(long_worlds)
def test_the_whole_agrees_with_loops_over_rows_and_fills(world):
    found = outcome(world)
    a, curve, r = found.statistics, found.curve, found.daily.returns
    n = len(r)
    assert a.days == n == (world.timestamp[-1] - START) // DAY
    assert a.balance == world.balance
    assert a.final_equity == curve.equity[-1]
    assert a.growth_percent == near((math.prod(1 + x for x in r.tolist()) - 1) * 100)
    yearly = (a.final_equity / a.balance) ** (YEAR / n) - 1
    assert a.cagr_percent == pytest.approx(yearly * 100, rel=1e-9)
    ratios = [h / e for h, e in zip(world.held, world.equity, strict=True) if e > 0]
    assert a.mean_leverage == near(statistics.fmean(ratios))
    assert a.peak_leverage == near(max(ratios))
    held = sum(value > 0 for value in world.held[:-1])
    assert a.exposure_percent == near(100 * held / (len(world.held) - 1))
    volume = sum(row[10] for row in world.rows)
    mean = statistics.fmean(world.equity)
    assert a.turnover == near(volume / 2 / mean * YEAR / n)
    assert a.fees == near(sum(row[7] for row in world.rows))
    assert a.slippage == near(sum(row[8] for row in world.rows))
    assert a.liquidations == len({row[2] for row in world.rows if row[11]})
    open_trades = {}
    for row in world.rows:
        open_trades[row[2]] = open_trades.get(row[2], 0.0) + row[4]
    assert a.total_trades == sum(left == 0 for left in open_trades.values())
    assert (a.best_day_percent, a.worst_day_percent) == (near(100 * max(r)), near(100 * min(r)))
    daily_low = 100 * (
        1
        - (
            found.daily.equity
            / np.maximum.accumulate(np.maximum(found.daily.equity, world.balance))
        ).min()
    )
    assert a.max_daily_drawdown_percent == near(max(daily_low, 0.0))
    assert a.max_daily_drawdown_percent <= a.max_drawdown_percent + 1e-9
    if a.calmar_ratio is not None and a.max_daily_drawdown_percent > 1e-6 and yearly > 0:
        assert a.calmar_ratio <= yearly * 100 / a.max_daily_drawdown_percent + 1e-9
    assert not a.ruined
    if a.drawdown_recovered_at is not None:
        span = a.drawdown_recovered_at - a.drawdown_peak_at
        assert a.drawdown_duration_minutes == span / MINUTE <= a.max_drawdown_duration_minutes
    assert msgspec.json.decode(msgspec.json.encode(a), type=s.AccountStatistics) == a
    assert len(a.table()) == len(a.table()["value"]) > 30


AMOUNTS = {"balance", "final_equity", "max_drawdown_amount", "fees", "slippage", "not_charged"}


@few
@given(seeds, st.sampled_from((1.0, 5.0)))
def test_twice_the_money_doubles_amounts_and_leaves_the_rest(seed, leverage):
    options = {"minutes": 25 * 1440, "step": 240, "leverage": leverage}
    once = outcome(World(seed, **options))
    twice = outcome(World(seed, **options, money=2.0))
    one = msgspec.structs.asdict(once.statistics)
    for name, value in msgspec.structs.asdict(twice.statistics).items():
        assert value == (one[name] * 2 if name in AMOUNTS else one[name]), name
    for part, same in zip(once.parts, twice.parts, strict=True):
        assert (same.kind, same.name, same.trades) == (part.kind, part.name, part.trades)
        assert (same.in_drawdown, same.profit) == (part.in_drawdown * 2, part.profit * 2)
    assert twice.correlations == once.correlations


@few
@given(seeds, st.permutations(range(3)))
def test_the_order_of_runs_does_not_matter(seed, order):
    world = World(seed, minutes=25 * 1440, step=240)
    before = outcome(world)
    world.rows = [(row[0], order[row[1]], *row[2:]) for row in world.rows]
    world.runs = tuple(world.runs[order.index(place)] for place in range(3))
    world.symbols = [symbol for _, symbol in world.runs]
    after = outcome(world)
    one = msgspec.structs.asdict(before.statistics)
    for name, value in msgspec.structs.asdict(after.statistics).items():
        same = near(one[name]) if isinstance(value, float) else one[name]
        assert value == same, name
    for i in range(3):
        assert after.profits[order[i]] == before.profits[i]
        for j in range(3):
            moved = after.correlations[order[i]][order[j]]
            assert moved == near(before.correlations[i][j])
    parts = {(part.kind, part.name): part.in_drawdown for part in after.parts}
    for part in before.parts:
        assert parts[part.kind, part.name] == pytest.approx(part.in_drawdown, abs=1e-6)


@few
@given(seeds)
def test_correlations_are_those_of_daily_profits(seed):
    world = World(seed, minutes=12 * 1440, step=240, activity=0.4)
    found = outcome(world)
    ends = found.daily.row
    profit = np.array([row.sum(axis=1) for row in world.by_run])[ends]
    daily = np.diff(profit, axis=0, prepend=0.0)
    for i in range(3):
        for j in range(3):
            expected = stats.pearsonr(daily[:, i], daily[:, j]).statistic
            assert found.correlations[i][j] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("left", [0.0, 2e-12], ids=["nothing", "rounding"])
def test_a_ruined_account_has_no_ratios(left):
    """A long of leverage 10 that falls by half takes all there is."""
    opened = (START, 0, 0, 1, 990.0, 99_000.0, -99.0, 99.0, 0.0, 0.0, 99_000.0, False)
    lost = (START + 40 * DAY, 0, 0, 1, -990.0, -99_000.0, -9_900.0, 0.0, 0.0, -9_900.0, 0.0, True)
    price = np.full(42 * 24 + 1, 100.0)
    price[40 * 24 :] = 50.0
    marks = Marks(
        timestamp=START + np.arange(len(price), dtype=np.int64) * 60 * MINUTE, prices={"X": price}
    )
    later = (START + 40 * DAY, 0, 1, 1, 0.0, 0.0, left, -left, 0.0, 0.0, 0.0, False)
    more = (START + 41 * DAY, 0, 2, 1, 0.0, 0.0, left, -left, 0.0, 0.0, 0.0, False)
    fills = fills_of([opened, lost, later, more])
    found = account_outcome(
        [("s", "X")], fills, marks, AccountCounts(), balance=9_999.0, leverage=10.0
    )
    a = found.statistics
    assert a.ruined
    assert a.final_equity == pytest.approx(0, abs=1e-11)
    assert a.growth_percent == pytest.approx(-100)
    assert a.max_drawdown_percent == pytest.approx(100)
    assert a.best_day_percent == 0.0
    assert a.liquidations == 1
    for name in (
        "sharpe_ratio",
        "sortino_ratio",
        "calmar_ratio",
        "tail_ratio",
        "volatility_percent",
    ):
        assert getattr(a, name) is None
    assert a.beta is a.alpha_percent is a.correlation is a.skew is a.kurtosis is None
    assert a.mean_leverage == pytest.approx(99_000 / 9_900)


def test_an_account_that_did_nothing():
    marks = Marks(timestamp=np.array([START]), prices={"X": np.array([np.nan])})
    found = account_outcome([("s", "X")], fills_of([]), marks, AccountCounts(), balance=100.0)
    a = found.statistics
    assert (a.final_equity, a.growth_percent, a.cagr_percent, a.days) == (100.0, 0.0, 0.0, 1)
    assert a.max_drawdown_percent == a.max_drawdown_amount == a.max_drawdown_duration_minutes == 0
    assert a.drawdown_peak_at is a.drawdown_trough_at is a.drawdown_recovered_at is None
    assert a.sharpe_ratio is a.volatility_percent is a.exposure_percent is a.calmar_ratio is None
    assert found.correlations == ((None,),)
    assert a.mean_leverage == 0.0
    assert (a.best_day_percent, a.worst_month_percent) == (0.0, 0.0)


def test_a_year_has_the_days_of_the_account():
    world = World(3, minutes=30 * 1440, step=60)
    crypto, stocks = outcome(world), outcome(world, days_per_year=252)
    assert crypto.statistics.sharpe_ratio == near(
        stocks.statistics.sharpe_ratio * math.sqrt(365 / 252)
    )
    start = datetime(2024, 1, 1, tzinfo=UTC)
    dates = [start + timedelta(days=i) for i in range(crypto.statistics.days)]
    assert crypto.daily.day.tolist() == [int(d.timestamp()) * 1000 // DAY for d in dates]

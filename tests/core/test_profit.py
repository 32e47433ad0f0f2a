"""Profit, open revenue and milestones: by hand, by exact arithmetic, and at their borders."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._rules.profit import MILESTONES, crossed, profit, revenue_percent


def test_worked_example_long_and_short():
    # 100 -> 110 with 0.1 % slippage and fee: 100.1 paid, 109.89 got, 9.79/100.1 - 0.2 %
    assert profit("long", 100, 110, 0.1, 0.1) == pytest.approx(9.780219780 - 0.2)
    # short 110 -> 100: 109.89 got, 100.1 paid, 9.79/109.89 - 0.2 %
    assert profit("short", 110, 100, 0.1, 0.1) == pytest.approx(8.908908909 - 0.2)


@given(st.floats(0.01, 1e6), st.sampled_from(["long", "short"]))
def test_a_flat_trade_costs_both_fees_and_both_slippages(price, position):
    s = 0.001
    base = (1 + s) if position == "long" else (1 - s)
    got = profit(position, price, price, 0.1, 0.1)
    assert got == pytest.approx(-2 * s / base * 100 - 0.2)


@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_without_costs_profit_is_revenue(opened, closed):
    for position in ("long", "short"):
        assert profit(position, opened, closed, 0.0, 0.0) == revenue_percent(
            position, opened, closed
        )


def test_revenue_mirrors():
    prices = np.array([90.0, 100.0, 125.0])
    assert revenue_percent("long", 100.0, prices).tolist() == [-10.0, 0.0, 25.0]
    assert revenue_percent("short", 100.0, prices).tolist() == [10.0, 0.0, -25.0]


def test_one_step_can_cross_several_in_order_of_size():
    assert crossed(35.0, 0) == ([10, 20, 30], 0b111)
    assert crossed(-35.0, 0) == ([-10, -20, -30], 0b111 << 10)


def test_a_level_counts_when_it_is_met_exactly():
    assert crossed(10.0, 0)[0] == [10]
    assert crossed(float(np.nextafter(10.0, 0)), 0)[0] == []
    assert crossed(-10.0, 0)[0] == [-10]
    assert crossed(float(np.nextafter(-10.0, 0)), 0)[0] == []


def test_the_loss_bits_lie_above_the_profit_bits():
    assert crossed(1000.0, 0)[1] == 0x3FF
    assert crossed(-1000.0, 0x3FF) == ([-x for x in MILESTONES], 0xFFFFF)


@given(st.lists(st.floats(-150, 150), max_size=20))
def test_repeating_a_step_fires_nothing_new(path):
    fired = 0
    for revenue in path:
        _, fired = crossed(revenue, fired)
        assert crossed(revenue, fired) == ([], fired)


prices = st.floats(0.01, 1e6)


@given(prices, prices, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["long", "short"]))
def test_profit_agrees_with_exact_arithmetic(opened, closed, fee, slippage, position):
    o, c, s = Fraction(opened), Fraction(closed), Fraction(slippage) / 100
    if position == "long":
        a, b = o * (1 + s), c * (1 - s)
        exact = (b - a) / a * 100 - 2 * Fraction(fee)
    else:
        a, b = o * (1 - s), c * (1 + s)
        exact = (a - b) / a * 100 - 2 * Fraction(fee)
    got = profit(position, opened, closed, fee, slippage)
    assert got == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


@given(st.lists(prices, min_size=1, max_size=20), prices, st.sampled_from(["long", "short"]))
def test_revenue_of_an_array_is_that_of_each_price_bit_for_bit(values, opened, position):
    many = revenue_percent(position, opened, np.array(values))
    assert many.tolist() == [revenue_percent(position, opened, x) for x in values]


@given(st.lists(st.floats(-120, 120), max_size=60))
def test_each_milestone_fires_once_and_at_the_first_step_that_reaches_it(path):
    fired, told = 0, []
    for i, revenue in enumerate(path):
        levels, fired = crossed(revenue, fired)
        told += [(level, i) for level in levels]
    for level in (*MILESTONES, *(-x for x in MILESTONES)):
        first = next(
            (i for i, r in enumerate(path) if (r >= level if level > 0 else r <= level)), None
        )
        assert [i for at, i in told if at == level] == ([] if first is None else [first])

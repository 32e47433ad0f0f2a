"""Profit, milestones and position sizes against the formulas of the specification."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._profit import MILESTONES, crossed, profit, revenue_percent

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


def test_fixed_percentage():
    bk.add_sizing(sizing_name="a", method="fixed-percentage", risk_percentage=2.0)
    size = bk.PositionSize.fixed_percentage("X", 10_000, 100, 95, sizing_name="a")
    assert size == pytest.approx(40)
    assert size * (100 - 95) == pytest.approx(10_000 * 0.02)


def test_kelly():
    bk.add_sizing(sizing_name="k", method="kelly-criterion")
    size = bk.PositionSize.kelly_criterion("X", 10_000, 50, 0.6, 1.5, sizing_name="k")
    assert size == pytest.approx(10_000 * (0.6 * 1.5 - 0.4) / 1.5 * 0.25 / 50)
    assert bk.PositionSize.kelly_criterion("X", 10_000, 50, 0.3, 1.0, sizing_name="k") == 0


def test_atr():
    bk.add_sizing(sizing_name="t", method="atr-based")
    assert bk.PositionSize.atr_based("X", 10_000, 50, 5, sizing_name="t") == pytest.approx(10)


def test_raised_to_the_minimum_first_then_capped():
    bk.add_sizing(
        sizing_name="b",
        method="fixed-percentage",
        min_position_size=500,
        max_position_percentage=10,
    )
    size = bk.PositionSize.fixed_percentage("X", 1000, 100, 50, sizing_name="b")
    assert size == pytest.approx(1.0), "the cap of 10 % of 1000 at 100 wins over the minimum"


def test_on_calculate_is_told_sync_or_async():
    told = []

    async def on_calculate(quantity, parameters):
        told.append((quantity, parameters["symbol"]))

    bk.add_sizing(sizing_name="a", method="atr-based", callbacks={"on_calculate": on_calculate})
    size = bk.PositionSize.atr_based("X", 100, 50, 5, sizing_name="a")
    assert told == [(size, "X")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bk.PositionSize.atr_based("X", 1, 1, 1, sizing_name="no"), "unknown sizing 'no'"),
        (lambda: bk.PositionSize.atr_based("X", 1, 1, 1, sizing_name="a"), "has the method"),
        (lambda: bk.PositionSize.fixed_percentage("X", -1, 1, 2, sizing_name="a"), "above 0"),
        (lambda: bk.PositionSize.fixed_percentage("X", 1, 2, 2, sizing_name="a"), "must differ"),
        (lambda: bk.add_sizing(sizing_name="b", method="guess"), "unknown method 'guess'"),
        (
            lambda: bk.add_sizing(
                sizing_name="b", method="atr-based", min_position_size=2, max_position_size=1
            ),
            "is above max_position_size",
        ),
    ],
)
def test_bad_sizing_input(call, message):
    bk.add_sizing(sizing_name="a", method="fixed-percentage")
    with pytest.raises((ValueError, LookupError), match=message):
        call()

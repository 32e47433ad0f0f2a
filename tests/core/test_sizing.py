"""Position sizes: the formulas, their bounds, and bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._engine.sizing import bounded, kelly_size

amounts = st.floats(0.01, 1e6)
limits = st.none() | amounts


@given(amounts, amounts, amounts, limits, limits, limits.map(lambda x: x and min(x, 100)))
def test_bounds_agree_with_the_sentence_of_the_specification(size, balance, price, low, high, cap):
    if low is not None and high is not None and low > high:
        low, high = high, low
    sizing = bk.SizingSchema(
        sizing_name="b",
        method="atr-based",
        min_position_size=low,
        max_position_size=high,
        max_position_percentage=cap,
    )
    got = bounded(size, balance, price, sizing)
    caps = [x for x in (high, None if cap is None else balance * cap / 100 / price) if x]
    assert got == min([size if low is None else max(size, low), *caps])


@given(st.floats(0.05, 0.95), st.floats(0.2, 10))
def test_kelly_is_the_bet_that_grows_fastest(win_rate, ratio):
    share = kelly_size(1.0, win_rate, ratio, 1.0, 1.0)

    def growth(bet):
        return win_rate * math.log1p(bet * ratio) + (1 - win_rate) * math.log1p(-bet)

    grid = np.linspace(0, 0.999, 500)
    assert growth(share) >= max(map(growth, grid)) - 1e-12


def test_numpy_scalars_are_numbers_and_keep_their_precision():
    bk.add_sizing(sizing_name="k", method="kelly-criterion")
    price = np.float32(50)
    size = bk.PositionSize.kelly_criterion("X", np.int64(10_001), price, 0.5, 2, sizing_name="k")
    assert type(size) is float
    assert size == bk.PositionSize.kelly_criterion("X", 10_001, 50, 0.5, 2, sizing_name="k")


@pytest.mark.parametrize("atr", [5e-324, 1e-300])
def test_a_size_beyond_float64_is_an_error_not_infinity(atr):
    bk.add_sizing(sizing_name="t", method="atr-based", atr_multiplier=0.25)
    with pytest.raises(ValueError, match=r"'t' gives a size beyond float64 for X"):
        bk.PositionSize.atr_based("X", 1e308, 50, atr, sizing_name="t")


def test_a_cap_tames_a_size_beyond_float64():
    bk.add_sizing(sizing_name="t", method="atr-based", max_position_size=7)
    assert bk.PositionSize.atr_based("X", 1e308, 50, 5e-324, sizing_name="t") == 7


@pytest.mark.parametrize(
    "bad", ["0.5", True, None, float("nan"), 60, -0.1, pytest.param(10**400, id="huge")]
)
def test_a_bad_win_rate_is_one_value_error_that_names_it(bad):
    bk.add_sizing(sizing_name="k", method="kelly-criterion")
    with pytest.raises(ValueError, match=r"^win_rate"):
        bk.PositionSize.kelly_criterion("X", 1000, 50, bad, 1, sizing_name="k")


@pytest.mark.parametrize(
    "bad", [0, -1, math.inf, math.nan, "5", None, False, pytest.param(10**400, id="huge")]
)
def test_a_bad_amount_is_one_value_error_that_names_it(bad):
    bk.add_sizing(sizing_name="t", method="atr-based")
    with pytest.raises(ValueError, match=r"^atr"):
        bk.PositionSize.atr_based("X", 1000, 50, bad, sizing_name="t")


async def test_on_calculate_is_awaited_inside_a_running_loop():
    told = []

    async def on_calculate(quantity, parameters):
        told.append((quantity, parameters["method"]))

    bk.add_sizing(sizing_name="t", method="atr-based", callbacks={"on_calculate": on_calculate})
    size = bk.PositionSize.atr_based("X", 10_000, 50, 5, sizing_name="t")
    assert told == [(size, "atr-based")]


def test_what_on_calculate_raises_reaches_the_caller():
    def on_calculate(quantity, parameters):
        raise RuntimeError("boom")

    bk.add_sizing(sizing_name="t", method="atr-based", callbacks={"on_calculate": on_calculate})
    with pytest.raises(RuntimeError, match="boom"):
        bk.PositionSize.atr_based("X", 10_000, 50, 5, sizing_name="t")


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

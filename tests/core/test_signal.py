"""Proposals at the very limits that the settings allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._rules.proposal import Quote, complete
from backtest_kit._values.config import Config

CONFIG = Config()
NAMES = {"when": 0, "symbol": "X", "strategy_name": "s", "exchange_name": "e", "config": CONFIG}
prices = st.floats(1e-6, 1e9)
sides = st.sampled_from(["long", "short"])


def proposed(side, price, goal, stop):
    s = 1 if side == "long" else -1
    signal = bk.Signal(
        position=side,
        price_take_profit=price * (1 + s * goal / 100),
        price_stop_loss=price * (1 - s * stop / 100),
        minute_estimated_time=60,
    )
    return complete(signal, quote=Quote(price, price), **NAMES)


@given(prices, sides)
def test_a_distance_of_exactly_the_limit_is_enough_at_any_price(price, side):
    least = CONFIG.min_stop_loss_distance_percent
    proposed(side, price, CONFIG.min_take_profit_distance_percent, least)
    proposed(side, price, 1.0, CONFIG.max_stop_loss_distance_percent)


@given(prices, sides)
def test_a_hair_less_than_the_limit_is_not(price, side):
    with pytest.raises(bk.SignalError, match="min_stop_loss_distance_percent"):
        proposed(side, price, 1.0, CONFIG.min_stop_loss_distance_percent * (1 - 1e-9))
    with pytest.raises(bk.SignalError, match="max_stop_loss_distance_percent"):
        proposed(side, price, 1.0, CONFIG.max_stop_loss_distance_percent * (1 + 1e-9))

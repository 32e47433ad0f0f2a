"""The rules of markets, as ccxt tells them."""

import asyncio

import pytest

import backtest_kit as bk
from backtest_kit.exchanges._ccxt_markets import market_of

SPOT = {
    "base": "BTC",
    "quote": "USDT",
    "precision": {"amount": 1e-05, "price": 0.01},
    "limits": {"amount": {"min": 1e-05}, "cost": {"min": 5.0}},
    "maker": 0.001,
    "taker": 0.001,
}
PLACES, SIGNIFICANT, TICKS = 2, 3, 4


def test_a_market_has_the_rules_of_its_orders():
    assert market_of(SPOT, TICKS) == bk.Market(
        base="BTC",
        quote="USDT",
        price_step=0.01,
        quantity_step=1e-05,
        min_quantity=1e-05,
        min_notional=5.0,
        maker_percent=0.1,
        taker_percent=0.1,
    )


def test_precisions_are_steps_places_or_neither():
    places = market_of(SPOT | {"precision": {"amount": 3, "price": 2}}, PLACES)
    assert (places.quantity_step, places.price_step) == (0.001, 0.01)
    digits = market_of(SPOT | {"precision": {"amount": 5, "price": 5}}, SIGNIFICANT)
    assert (digits.quantity_step, digits.price_step) == (None, None)


def test_what_it_does_not_say_is_none():
    bare = {"base": "A", "quote": "B", "precision": {}, "limits": {"amount": {"min": 0}}}
    assert market_of(bare, TICKS) == bk.Market(base="A", quote="B")


def test_contracts_are_counted_in_the_base_asset():
    linear = SPOT | {"contract": True, "linear": True, "contractSize": 0.001}
    amounts = {"precision": {"amount": 1, "price": 0.1}, "limits": {"amount": {"min": 10}}}
    found = market_of(linear | amounts, TICKS)
    assert (found.quantity_step, found.min_quantity) == (0.001, 0.01)
    inverse = SPOT | {"contract": True, "inverse": True, "contractSize": 100} | amounts
    found = market_of(inverse, TICKS)
    assert (found.quantity_step, found.min_quantity) == (None, None)


def test_the_client_loads_them():
    pytest.importorskip("ccxt")
    from exchanges.ccxt_server import BinanceServer

    async def ask(exchange):
        try:
            return await exchange.get_market("BTC/USDT"), await exchange.get_market("NO/SUCH")
        finally:
            await exchange.close()

    with BinanceServer([]) as server:
        exchange = server.exchange()
        found, none = asyncio.run(ask(exchange))
    assert none is None
    assert (found.base, found.quote, found.quantity_step) == ("BTC", "USDT", 0.001)
    assert (found.min_quantity, found.price_step) == (0.001, 0.01)

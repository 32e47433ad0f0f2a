"""Registering accounts, sizings and markets: bad input is one clear error each."""

import math

import pytest

import backtest_kit as bk


def account(**changes):
    fields = {"account_name": "main", "currency": "USDT", "balance": 10_000.0}
    bk.add_account(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"account_name": " "}, "account_name must be a non-empty string, not ' '"),
        ({"currency": ""}, "account_name='main': currency='' must be one"),
        ({"balance": 0}, "balance=0 must be a number above 0"),
        ({"balance": -5.0}, r"balance=-5\.0 must be a number above 0"),
        ({"balance": math.nan}, "balance=nan must be a number above 0"),
        ({"balance": True}, "balance=True must be a number above 0"),
        ({"balance": "10000"}, "balance='10000' must be a number above 0"),
        ({"balance": 10**400}, "must be a number above 0"),
        ({"leverage": 0.5}, r"leverage=0\.5 must be a number, 1 \(none\) or more"),
        ({"leverage": math.inf}, "leverage=inf must be a number"),
        ({"maintenance_percent": -1}, "maintenance_percent=-1 must be 0 or more, and below 100"),
        ({"leverage": 20, "maintenance_percent": 5}, "below 5, the part.*that leverage=20 leaves"),
        ({"maintenance_percent": math.nan}, "maintenance_percent=nan must be 0 or more"),
        ({"default_percent": 0}, "default_percent=0 must be a number above 0, or None"),
        ({"on_cash_shortage": "skip"}, r"on_cash_shortage='skip'.*\(there are: reduce, refuse\)"),
        ({"days_per_year": 0}, "days_per_year=0 must be a whole number from 1 to 366"),
        ({"days_per_year": 365.0}, r"days_per_year=365\.0 must be a whole number"),
        ({"leverages": 2}, "AccountSchema has no field 'leverages'; did you mean 'leverage'"),
    ],
)
def test_what_is_wrong_with_an_account_is_told(changes, text):
    with pytest.raises(bk.RegistrationError, match=text):
        account(**changes)
    assert not bk.list_accounts()


def test_an_account_is_registered_once_or_replaced():
    account()
    with pytest.raises(bk.RegistrationError, match="account 'main' already exists"):
        account(balance=5.0)
    account(balance=5.0, leverage=3, replace=True)
    (found,) = bk.list_accounts()
    assert (found.balance, found.leverage, found.maintenance_percent) == (5.0, 3, 0.5)
    bk.add_account(bk.AccountSchema(account_name="b", currency="EUR", balance=1))
    assert [each.name for each in bk.list_accounts()] == ["main", "b"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"method": "fixed-cost"}, r"sizing_name='z': cost is needed \(method='fixed-cost'\)"),
        ({"method": "fixed-cost", "cost": 0}, "cost=0 must be a number above 0"),
        (
            {"method": "atr-based", "cost": 5},
            r"cost belongs to the method 'fixed-cost' \(method='atr-based'\)",
        ),
        ({"method": "equity-percentage"}, "equity_percentage is needed"),
        ({"method": "volatility-target"}, "target_percentage is needed"),
        ({"method": "function"}, "size is needed"),
        ({"method": "function", "size": 5}, "size must be a function, not 5"),
        ({"method": "atr-based", "atr_period": 0}, "atr_period=0 must be a whole number, 1 or"),
        ({"method": "atr-based", "atr_interval": "7m"}, "unknown interval '7m'"),
        ({"method": "kelly-criterion", "min_trades": 0}, "min_trades=0 must be a whole number"),
        (
            {"method": "volatility-target", "target_percentage": 20, "volatility_days": 1},
            "volatility_days=1 must be a whole number, 2 or more",
        ),
        ({"method": "fixed"}, "unknown method 'fixed'"),
    ],
)
def test_what_is_wrong_with_a_sizing_is_told(fields, text):
    with pytest.raises(bk.RegistrationError, match=text):
        bk.add_sizing(sizing_name="z", **fields)


def test_a_share_of_equity_may_be_above_100():
    bk.add_sizing(sizing_name="z", method="equity-percentage", equity_percentage=250)
    assert bk.list_sizings()[0].equity_percentage == 250


def test_a_strategy_names_its_sizing():
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=print, sizing_name="risk-1")
    assert bk.list_strategies()[0].sizing_name == "risk-1"
    with pytest.raises(bk.RegistrationError, match="sizing_name='' must be a name"):
        bk.add_strategy(strategy_name="t", interval="1m", get_signal=print, sizing_name="")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"quantity_step": 0}, "Market: quantity_step=0 must be a number above 0, or None"),
        ({"min_notional": math.nan}, "min_notional=nan must be a number above 0"),
        ({"price_step": -0.1}, r"price_step=-0\.1 must be"),
        ({"taker_percent": "0.1"}, "taker_percent='0.1' must be a number, or None"),
        ({"quote": ""}, "quote='' must be an asset"),
    ],
)
def test_what_is_wrong_with_a_market_is_told(fields, text):
    with pytest.raises(bk.ArgumentError, match=text):
        bk.Market(**{"base": "BTC", "quote": "USDT"} | fields)


def test_an_exchange_may_have_markets():
    async def get_market(symbol):
        return None

    bk.add_exchange(exchange_name="e", get_candles=print, get_market=get_market)
    assert bk.list_exchanges()[0].get_market is get_market
    with pytest.raises(bk.RegistrationError, match="get_market must be a function, not 5"):
        bk.add_exchange(exchange_name="f", get_candles=print, get_market=5)


def test_a_risk_event_without_detail_is_as_before():
    event = bk.RiskEvent.__struct_fields__
    assert event[-1] == "detail"
    assert bk.RiskEvent.__struct_config__.omit_defaults

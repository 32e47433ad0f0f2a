"""Stored trials of walks on an account: nothing that its money hangs on is taken for another."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC)
ROWS = [list(row) for row in market(5, 1500, gaps=False)]
ACCOUNT = {"account_name": "main", "currency": "USDT", "balance": 1_000.0, "leverage": 2.0}
SIZING = {"sizing_name": "s", "method": "function", "size": lambda account, signal: 100.0}
RULES = bk.Market(base="X", quote="USDT", quantity_step=0.001)


def crossing(candles):
    place = candles.timestamp // 60_000
    return bk.Signals.bracket((place % 300 == 0).astype(np.int8), 0.8, 0.6, 30)


class Venue:
    """An exchange that tells its candles, and what its market takes."""

    exchange_name = "venue"

    def __init__(self, rules):
        self._frame = bk.exchanges.FrameExchange(ROWS)
        self.rules = rules

    async def get_candles(self, symbol, interval, since, limit):
        return await self._frame.get_candles(symbol, interval, since, limit)

    def get_market(self, symbol):
        return self.rules

    def content_digest(self):
        return "the same"


def known(store, account=None, sizing=None, rules=RULES, name="trend"):
    """Be a process that walks; return how many results it had already, and the others."""
    with bk.Engine() as engine:
        bk.add_exchange(Venue(rules))
        end = BEGIN + timedelta(minutes=1400)
        bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
        bk.add_account(**(ACCOUNT | (account or {})))
        bk.add_sizing(**(SIZING if sizing is None else sizing))
        bk.add_strategy(
            strategy_name=name, interval="1m", get_signals=crossing, warmup=1, sizing_name="s"
        )
        bk.add_walker(
            walker_name="w", exchange_name="venue", frame_name="f", strategies=[name],
            account_name=(account or ACCOUNT).get("account_name", "main"),
        )  # fmt: skip
        (contract,) = bk.Walker.run_sync("X", walker_name="w", store=store)
        assert contract.error is None
        assert contract.statistics.total_signals > 2
        return engine.walks["w", ("X",)].already_known


ATR = {"sizing_name": "s", "method": "atr-based", "min_position_size": 0.001}
FIXED = {"sizing_name": "s", "method": "fixed-cost", "cost": 100.0}
CHANGED = {
    "balance": ({}, {"account": {"balance": 2_000.0}}),
    "leverage": ({}, {"account": {"leverage": 3.0}}),
    "maintenance": ({}, {"account": {"maintenance_percent": 1.0}}),
    "default size": ({}, {"account": {"default_percent": 7.0}}),
    "shortage of cash": ({}, {"account": {"on_cash_shortage": "refuse"}}),
    "days of a year": ({}, {"account": {"days_per_year": 252}}),
    "method": ({}, {"sizing": ATR}),
    "code of a size": (
        {},
        {"sizing": SIZING | {"size": lambda account, signal: account.equity / 9}},
    ),
    "bound of a size": ({"sizing": ATR}, {"sizing": ATR | {"min_position_size": 0.002}}),
    "candles of a size": ({"sizing": ATR}, {"sizing": ATR | {"atr_interval": "5m"}}),
    "cost of a size": ({"sizing": FIXED}, {"sizing": FIXED | {"cost": 101.0}}),
    "rules of the market": ({}, {"rules": bk.Market(base="X", quote="USDT", quantity_step=0.1)}),
    "no rules": ({}, {"rules": None}),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_of_what_the_money_hangs_on_is_run_again(what, tmp_path):
    before, after = CHANGED[what]
    assert [known(tmp_path, **how) for how in (before, after, after)] == [0, 0, 1]


def test_names_are_no_terms(tmp_path):
    assert known(tmp_path) == 0
    assert known(tmp_path, account={"account_name": "other", "note": "the same money"}) == 1


def test_what_the_market_does_not_answer_is_an_error_of_the_trial(tmp_path):
    class Down(Venue):
        def get_market(self, symbol):
            raise OSError("no answer")

    with bk.Engine():
        bk.add_exchange(Down(None))
        end = BEGIN + timedelta(minutes=1400)
        bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
        bk.add_account(**ACCOUNT)
        bk.add_strategy(strategy_name="s", interval="1m", get_signals=crossing, warmup=1)
        bk.add_walker(
            walker_name="w", exchange_name="venue", frame_name="f", strategies=["s"],
            account_name="main",
        )  # fmt: skip
        (contract,) = bk.Walker.run_sync("X", walker_name="w", store=tmp_path)
        text = "FetchError: get_market for X raised OSError: no answer ("
        assert contract.error.startswith(text)
        assert contract.error.count("test_walker_account_keys.py:") == 1  # the line, once

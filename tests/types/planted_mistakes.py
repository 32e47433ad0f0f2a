"""Mistakes that a type checker must find: each line that ends in `# error`, and no other line.

Read by type checkers alone (`test_types.py`); nothing here is ever run.
"""

from datetime import UTC, date, datetime
from typing import Final

import numpy as np

import backtest_kit as bk

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
END = datetime(2024, 1, 2, tzinfo=UTC)
HOURLY: Final = "1h"


def get_signal(symbol: str, when: datetime) -> bk.Signal | None:
    return None


async def get_signal_later(symbol: str, when: datetime) -> dict[str, object]:
    return {"position": "long"}


def get_number(symbol: str, when: datetime) -> int:
    return 1


def get_signal_of_one(symbol: str) -> None:
    return None


def get_candles(symbol: str, interval: str, since: int, limit: int) -> list[bk.Candle]:
    return []


def get_signals(candles: bk.Candles) -> bk.Signals:
    return bk.Signals.bracket(np.zeros(len(candles)))


def get_side(candles: bk.Candles) -> list[int]:
    return [0]


def check(one: bk.RiskCheck) -> str | None:
    return None


def check_price(price: float) -> str | None:
    return None


def manage(position: bk.Position, when: datetime) -> bk.Action | None:
    return bk.Close(50) if position.revenue_percent > 2 else bk.MoveStop(position.effective_entry)


async def manage_later(position: bk.Position, when: datetime) -> list[bk.Action]:
    return [bk.Add(), bk.Extend(60)]


class Made:
    async def get_signal(self, symbol: str, when: datetime) -> bk.Signal | None:
        return None


class MadeOnce:
    def get_signals(self, candles: bk.Candles) -> bk.Signals:
        return get_signals(candles)


async def as_it_should_be(interval: bk.Interval) -> None:
    bk.add_exchange(bk.exchanges.SyntheticExchange(seed=1), note="random", replace=True)
    bk.add_exchange(bk.exchanges.FrameExchange([]), replace=True)
    bk.add_exchange(bk.exchanges.CcxtExchange("binance"))
    bk.add_exchange(exchange_name="e", get_candles=get_candles, page_limit=500)
    bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal, warmup=10)
    bk.add_strategy(strategy_name="s", interval=interval, get_signal=get_signal_later)
    bk.add_strategy(strategy_name="s", interval=HOURLY, get_signal=lambda symbol, when: None)
    bk.add_strategy(strategy_name="s", interval="5m", get_signals=get_signals, warmup=10)
    bk.add_strategy(strategy_name="s", interval="5m", make=Made)
    bk.add_strategy(strategy_name="s", interval="5m", make=MadeOnce)
    bk.add_strategy(strategy_name="s", interval="5m", make=lambda: get_signal)
    bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal, manage=manage)
    bk.add_strategy(strategy_name="s", interval="5m", make=Made, manage=manage_later)
    bk.add_strategy(
        bk.StrategySchema(strategy_name="s", interval="1m", get_signal=get_signal), replace=True
    )
    bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=END)
    bk.add_risk(
        risk_name="r", validations=[check, lambda one: "no"], callbacks={"on_allowed": print}
    )
    bk.add_sizing(sizing_name="z", method="kelly-criterion", kelly_multiplier=1)
    bk.add_walker(walker_name="w", exchange_name="e", frame_name="f", strategies=["s"])
    bk.set_config(percent_fee=0, exit_trigger="wick", state_dir="s", paper=True)


@bk.strategy("decorated", interval="5m", risk_name=["a", "b"], note="", replace=True)
async def decorated(symbol: str, when: datetime) -> bk.Signal | None:
    return None


@bk.strategy("class", interval="5m", warmup=20, manage=manage, manage_interval="1h")
class Decorated(Made):
    pass


@bk.exchange("decorated", page_limit=100)
async def candles_of(symbol: str, interval: str, since: int, limit: int) -> list[list[float]]:
    return []


bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal, risk="r")  # error
bk.add_strategy(strategy_name="s", interval="7m", get_signal=get_signal)  # error
bk.add_strategy(strategy_name="s", interval=5, get_signal=get_signal)  # error
bk.add_strategy(strategy_name="s", get_signal=get_signal)  # error
bk.add_strategy(interval="5m", get_signal=get_signal)  # error
bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_number)  # error
bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal_of_one)  # error
bk.add_strategy(strategy_name="s", interval="5m", get_signal="get_signal")  # error
bk.add_strategy(strategy_name="s", interval="5m", get_signals=get_side)  # error
bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal, warmup="1d")  # error
bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal, replace="s")  # error
bk.add_strategy(strategy_name="s", interval="5m", make=get_number)  # error
bk.add_strategy(strategy_name="s", interval="5m", make=Made, manage=get_number)  # error
bk.add_strategy(strategy_name="s", interval="5m", make=Made, manage_interval="7m")  # error
bk.add_strategy(strategy_name="s", interval="5m", make=Made())  # error
bk.add_strategy({"strategy_name": "s", "interval": "5m"})  # error
bk.StrategySchema(strategy_name="s", interval="7m", get_signal=get_signal)  # error


@bk.strategy("s", interval="5m", risk="r")  # error
def unknown_keyword(symbol: str, when: datetime) -> None:
    return None


@bk.strategy("s", interval="7m")  # error
def unknown_interval(symbol: str, when: datetime) -> None:
    return None


@bk.strategy("s", interval="5m")  # error
def wrong_answer(symbol: str, when: datetime) -> list[bk.Signal]:
    return []


class Unasked:
    def get_signl(self, symbol: str, when: datetime) -> None:
        return None


class WrongAnswer:
    def get_signal(self, symbol: str, when: datetime) -> int:
        return 1


bk.strategy("s", interval="5m")(Unasked)  # error
bk.strategy("s", interval="5m")(WrongAnswer)  # error


@bk.exchange("e", limit=100)  # error
def unknown_limit(symbol: str, interval: str, since: int, limit: int) -> None:
    return None


@bk.exchange("e")  # error
def wrong_since(symbol: str, interval: str, since: datetime, limit: int) -> None:
    return None


bk.add_exchange(exchange_name="e", get_candles=get_candles, pagelimit=500)  # error
bk.add_exchange(exchange_name="e", get_candles=get_signal)  # error
bk.add_exchange(exchange_name="e")  # error
bk.add_exchange(bk.exchanges.FrameExchange([]), page_limit=5)  # error
bk.add_exchange("binance")  # error

bk.add_frame(frame_name="f", interval="1m", start_date="2024-01-01", end_date=END)  # error
bk.add_frame(frame_name="f", interval="1m", start_date=date(2024, 1, 1), end_date=END)  # error
bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN)  # error
bk.add_frame(frame_name="f", interval="1min", start_date=BEGIN, end_date=END)  # error

bk.add_risk(risk_name="r", validations=check)  # error
bk.add_risk(risk_name="r", validations=["check"])  # error
bk.add_risk(risk_name="r", validations=[check_price])  # error
bk.add_risk(risk_name="r", checks=[check])  # error

bk.add_sizing(sizing_name="z", method="kelly")  # error
bk.add_sizing(sizing_name="z", method="atr-based", atr_multiplier="2")  # error
bk.add_walker(walker_name="w", exchange_name="e", frame_name="f", strategies=[get_signal])  # error
bk.add_walker(walker_name="w", exchange_name="e", frame="f", strategies=["s"])  # error
bk.WalkerSchema(
    walker_name="w",
    exchange_name="e",
    frame_name="f",
    strategies=["s"],
    metric="sharp",  # error
)

bk.set_config(percent_fees=0.1)  # error
bk.set_config(percent_fee="0.1")  # error
bk.set_config(schedule_await_minutes=1.5)  # error
bk.set_config(exit_trigger="low")  # error
bk.Engine().set_config(paper="yes")  # error

bk.Signal(
    position="buy",  # error
    price_take_profit=1.0,
    price_stop_loss=1.0,
    minute_estimated_time=1,
)

"""Each argument that must be a whole number says so, whatever it is given instead."""

import inspect
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from markets import START, market

BEGIN = to_datetime(START)


def asked_for(limit, ask):
    """Ask within a strategy, and return what was raised there."""
    raised = []

    async def get_signal(symbol, when):
        try:
            await ask(symbol, limit)
        except Exception as error:
            raised.append(error)

    with bk.Engine():
        bk.add_exchange(bk.exchanges.FrameExchange(market(1, 90)))
        frame = {
            "start_date": BEGIN + timedelta(hours=1),
            "end_date": BEGIN + timedelta(minutes=62),
        }
        bk.add_frame(frame_name="f", interval="1m", **frame)
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
    if raised:
        raise raised[0]


async def windows(symbol, limit):
    bk.candles(symbol, "1m", limit)


async def awaited_windows(symbol, limit):
    await bk.get_candles(symbol, "1m", limit)


def strategy(warmup):
    bk.add_strategy(strategy_name="w", interval="1m", get_signal=print, warmup=warmup, replace=True)


def exchange(page_limit):
    bk.add_exchange(exchange_name="p", get_candles=print, page_limit=page_limit, replace=True)


def search(**given):
    pytest.importorskip("optuna", reason="searches need Optuna: the extra optuna")
    bk.add_exchange(bk.exchanges.FrameExchange(market(1, 90)), replace=True)
    frame = {"start_date": BEGIN + timedelta(hours=1), "end_date": BEGIN + timedelta(minutes=62)}
    bk.add_frame(frame_name="f", interval="1m", replace=True, **frame)
    known = {"parameters": {"x": [1, 2]}, "exchange_name": "frame", "frame_name": "f"}
    made = {"interval": "1m", "get_signal": lambda symbol, when: None}
    bk.search(lambda x: made, "X", **known | {"trials": 1} | given)


ROWS = bk.Candles(*(np.ones(30) for _ in range(6)))
#: What takes the argument, the least it may be, and whether it may be left out (`None`).
TAKEN = {
    "trials": (lambda n: search(trials=n), 1, False),
    "seed": (lambda n: search(seed=n), 0, False),
    "count": (lambda n: bk.trailing_mean(np.ones(30), n), 1, False),
    "period": (lambda n: bk.Signals.atr_bracket(np.ones(30), ROWS, period=n), 1, False),
    "limit": (lambda n: asked_for(n, windows), 1, False),
    "limit, awaited": (lambda n: asked_for(n, awaited_windows), 1, False),
    "warmup": (strategy, 0, True),
    "page_limit": (exchange, 1, True),
}
TAKEN |= {
    f"set_config({name})": (lambda n, name=name: bk.set_config(**{name: n}), 0, False)
    for name, kind in inspect.get_annotations(bk.Config, eval_str=True).items()
    if getattr(kind, "__origin__", None) is int
}
NONE_OF_THEM = [True, False, 1.5, 1.0, float("nan"), float("inf"), "3", "", None, [1], 1j]


def test_the_settings_are_among_them():
    assert sum(name.startswith("set_config") for name in TAKEN) > 8


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_no_whole_number_is_named_with_its_value(name):
    take, lowest, optional = TAKEN[name]
    word = name.partition(",")[0].removeprefix("set_config(").rstrip(")")
    for value in [*NONE_OF_THEM, lowest - 1, lowest - 2]:
        if value is None and optional:
            take(value)
            continue
        with pytest.raises(bk.BacktestKitError) as caught:
            take(value)
        text = str(caught.value)
        assert word in text
        assert repr(value) in text
        assert isinstance(caught.value, ValueError)


@given(st.integers(1, 30))
def test_numbers_of_numpy_count(number):
    values = np.arange(30.0)
    assert (
        bk.trailing_mean(values, np.int32(number)).tolist()[number - 1 :]
        == (bk.trailing_mean(values, number).tolist()[number - 1 :])
    )
    exchange(np.int64(number))
    strategy(np.uint8(number))

"""`bk.backtest`: one strategy over some candles."""

from __future__ import annotations

import math
from contextlib import nullcontext
from datetime import date, datetime
from os import PathLike
from typing import Any, Unpack

import msgspec

from backtest_kit._backtest.backtest import Backtest
from backtest_kit._engine.engine import Engine, current_engine
from backtest_kit._one_call.inputs import add_data, frame_of, strategy_of, symbol_of
from backtest_kit._one_call.progress import progress
from backtest_kit._pages.results import BacktestResult, backtest_result
from backtest_kit._values.config import Settings
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.time import Interval

#: An instant: a text or a date without a zone is in UTC.
When = str | date | datetime


def backtest(
    data: str | PathLike[str] | Any,
    strategy: Any,
    *,
    symbol: str | None = None,
    interval: Interval | None = None,
    start: When | None = None,
    end: When | None = None,
    balance: float = 10_000.0,
    **settings: Unpack[Settings],
) -> BacktestResult:
    """Backtest a strategy over some candles, and return what `Backtest.get_data` returns.

    `data` is a file or a folder (Parquet or CSV), a pandas or polars frame, `Candles`, or an
    exchange. `strategy` is what `bk.strategy` decorates, a name that is registered, a
    `StrategySchema`, or a plain `get_signal(symbol, when)`, `get_signals(candles)` or class, with
    `interval`. By default the whole range of the data after the warm-up is played. `settings` are
    those of `bk.set_config`, on top of the present ones. `balance` is what `result.equity` begins
    with; it stakes all of it on each trade, and changes no trade.

    It runs in an engine of its own: nothing has to be registered, and nothing is left behind. It
    also works where an event loop is already running, as in a notebook:

        result = bk.backtest("BTCUSDT-1m-2023.parquet", crossover, interval="5m")

    Raises:
        RegistrationError: an argument is none of these; the message says what is missing.
        ConfigError: an unknown setting, or a value out of range.
        DataError: the candles can't be had.
        ArgumentError: `balance` is no positive number.
    """
    if not 0 < balance < math.inf:
        raise ArgumentError(f"balance={balance!r} must be a positive number")
    outside = current_engine()
    with own_engine(outside, settings) as engine:
        exchange = add_data(engine, data)
        name = symbol_of(data, symbol)
        schema = strategy_of(outside, strategy, interval)
        engine.strategies.add(schema)
        frame = frame_of(engine, exchange, [name], [schema], start, end)
        engine.frames.add(frame)
        title = f"{schema.name} on {name}"
        # soon over, and slower with a listener
        arrays = schema.get_signals is not None and schema.manage is None
        shown = progress(engine, "backtest_progress", title, "frames")
        with nullcontext() if arrays else shown:
            Backtest.run_sync(
                name,
                strategy_name=schema.name,
                exchange_name=exchange.name,
                frame_name=frame.name,
            )
        data = Backtest.get_data(name, strategy_name=schema.name)
        return backtest_result(msgspec.structs.replace(data, balance=balance), engine, exchange)


def own_engine(outside: Engine, settings: Settings) -> Engine:
    """Return a new engine with the settings, risk profiles, sizings and log of another."""
    engine = Engine()
    engine.config = outside.config
    engine.logger = outside.logger
    engine.risks, engine.sizings = outside.risks.copy(), outside.sizings.copy()
    engine.set_config(**settings)
    return engine

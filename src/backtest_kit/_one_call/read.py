"""`bk.read_candles`: the candles of a file, a frame or an exchange, outside of a run."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from backtest_kit._data.base import run_config
from backtest_kit._engine.engine import Engine, current_engine
from backtest_kit._engine.task import close_exchange, run_blocking
from backtest_kit._one_call.backtest import When, own_engine
from backtest_kit._one_call.inputs import add_data, range_of, symbol_of
from backtest_kit._values.candles import Candles
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import Interval, interval_ms


def read_candles(
    data: str | PathLike[str] | Any,
    *,
    symbol: str | None = None,
    interval: Interval | None = None,
    start: When | None = None,
    end: When | None = None,
) -> Candles:
    """Return the candles whose time lies from `start` to `end`, by default all there are.

    `data` is as in `bk.backtest`; `interval` is by default that of the data. They are checked as in
    a run. Missing candles are left out, where a run would see flat ones. For a look at the market,
    as in a notebook: a strategy uses `get_candles`, which knows what time it is.

    Raises:
        RegistrationError: `data` is none of these, or it does not say what range it has.
        DataError: the candles can't be had, or there are none in the range.
    """
    with own_engine(current_engine(), {}) as engine:
        exchange = add_data(engine, data)
        name = symbol_of(data, symbol)
        own = run_config(engine.config, exchange, name).base_interval
        first, until = range_of(exchange, [name], start, end)
        return run_blocking(lambda: _load(engine, exchange, name, interval or own, first, until))


async def _load(
    engine: Engine, exchange: ExchangeSchema, symbol: str, interval: str, first: int, until: int
) -> Candles:
    step = interval_ms(interval)
    since, end = -(-first // step) * step, until // step * step
    try:
        segment = await engine.store.load(exchange, symbol, interval, since, end, engine.config)
    finally:
        await close_exchange(exchange)
    times = segment.first + np.arange(segment.rows, dtype=np.int64) * step
    keep = ~segment.filled & (times >= since) & (times < end)
    return Candles(*(column[keep] for column in segment.columns))

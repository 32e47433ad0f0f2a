"""What the symbols of an account were worth at each step, for its equity curve."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtest_kit._data.market import MarketView
from backtest_kit._data.series import Segment
from backtest_kit._data.store import Store
from backtest_kit._statistics.equity_days import days_of_candles
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.errors import DataRangeError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS


async def marks_of(
    store: Store,
    exchange: ExchangeSchema,
    configs: Mapping[str, Config],
    since: int,
    until: int,
    *,
    traded_days_only: bool,
) -> Marks:
    """Return the marks of symbols from `since` to `until` (ms); `configs` are those of their runs.

    By the finest base interval among them. `traded_days_only`: say on which days anything traded.

    Raises:
        DataError: the candles can't be had any more.
    """
    step = min(INTERVALS[config.base_interval] for config in configs.values())
    timestamp: Ints = np.arange(since, until + 1, step, dtype=np.int64)
    prices: dict[str, Floats] = {}
    days: list[Ints] = []
    for symbol, config in configs.items():
        view = MarketView(store, exchange, config, until)
        try:
            await view.bars(symbol, since, until)
        except DataRangeError:  # not one candle
            prices[symbol] = np.full(len(timestamp), np.nan)
            continue
        segment = view.loaded(symbol, config.base_interval)
        assert segment is not None
        prices[symbol] = _closes(segment, timestamp)
        if traded_days_only:
            days.append(days_of_candles(segment.columns[0][~segment.filled] + segment.step))
    traded = np.unique(np.concatenate(days)) if days else None
    return Marks(timestamp=timestamp, prices=prices, traded_days=traded)


def _closes(segment: Segment, timestamp: Ints) -> Floats:
    """Return the close of the last closed candle at each instant, NaN before the first."""
    close = segment.columns[4]
    first = int(timestamp[0] - segment.first) // segment.step - 1
    last = int(timestamp[-1] - segment.first) // segment.step - 1
    if last - first == len(timestamp) - 1 and first >= 0 and last < segment.rows:
        return close[first : last + 1]  # the usual case, by slicing
    row = (timestamp - segment.first) // segment.step - 1
    closes: Floats = close[np.clip(row, 0, segment.rows - 1)]
    closes[row < 0] = np.nan
    return closes

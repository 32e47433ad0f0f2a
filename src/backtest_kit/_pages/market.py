"""The market a backtest was made in, loaded again for its page."""

from __future__ import annotations

from typing import NamedTuple

from backtest_kit._data.market import MarketView
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._rules.bars import Bars
from backtest_kit._statistics.sensitivity import DELAYS, Sensitivity, sensitivity
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import DataError
from backtest_kit._values.signal import NEVER
from backtest_kit._values.time import MINUTE, interval_ms


class Market(NamedTuple):
    """The candles of a run's range, without those that were missing, and the bars it saw."""

    candles: Candles
    bars: Bars


async def market_of(engine: Engine, record: RunRecord) -> Market | None:
    """Return the market of a backtest on its base interval; `None` where it can't be had.

    Raises:
        UnknownNameError: its exchange is no longer registered.
    """
    config, exchange = record.config, engine.exchanges.get(record.exchange_name)
    rows = [tick.signal for tick in record.closed]
    longest = max((row.minute_estimated_time or 0 for row in rows), default=0)
    step = interval_ms(config.base_interval)
    ends = [record.until, *(tick.close_timestamp for tick in record.closed[-1:])]
    last = max(ends) + longest * MINUTE + config.schedule_await_minutes * MINUTE
    # what has no end lives as long as there are data
    horizon = last + max(DELAYS) * step if record.data_end == NEVER else record.data_end
    view = MarketView(engine.store, exchange, config, horizon)
    try:
        bars = await view.bars(record.symbol, record.since, horizon)
    except DataError:
        return None
    segment = view.loaded(record.symbol, config.base_interval)
    assert segment is not None
    t = segment.columns[0]
    real = ~segment.filled & (t >= record.since) & (t < max(ends))
    real_candles = Candles(*(column[real] for column in segment.columns))
    return Market(real_candles, bars.until(record.data_end))


def run_sensitivity(record: RunRecord, market: Market | None) -> Sensitivity:
    """Return what a run's profit depends on; see `sensitivity`."""
    cancelled = [waited.cancelled for waited in record.waited if waited.cancelled is not None]
    if market is None:
        return sensitivity(record.closed, cancelled, record.config)
    candles, bars = market
    held = float((candles.close[-1] / candles.open[0] - 1) * 100) if len(candles) else None
    return sensitivity(record.closed, cancelled, record.config, bars, held)

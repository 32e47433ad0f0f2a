"""The market a backtest was made in, loaded again for its page."""

from __future__ import annotations

from typing import NamedTuple

from backtest_kit._data.market import MarketView
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.task import close_exchange, run_blocking
from backtest_kit._reports.backtest import BacktestData
from backtest_kit._rules.bars import Bars
from backtest_kit._statistics.sensitivity import DELAYS, Sensitivity, sensitivity
from backtest_kit._values.candles import Candles
from backtest_kit._values.config import Config
from backtest_kit._values.errors import DataError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import MINUTE, interval_ms


class Market(NamedTuple):
    """The candles of a run's range, without those that were missing, and the bars it saw."""

    candles: Candles
    bars: Bars

    @property
    def held(self) -> float | None:
        """What one purchase would have made from the first open to the last close, percent."""
        close = self.candles.close
        return float((close[-1] / self.candles.open[0] - 1) * 100) if len(close) else None


async def market_of(engine: Engine, exchange: ExchangeSchema, data: BacktestData) -> Market | None:
    """Return the market of a backtest on its base interval; `None` where it can't be had."""
    config = data.settings
    if config is None:  # written by a release that did not keep them
        return None
    longest = max((tick.signal.minute_estimated_time or 0 for tick in data.signals), default=0)
    step = interval_ms(config.base_interval)
    ends = [data.until, *(tick.close_timestamp for tick in data.signals[-1:])]
    last = max(ends) + longest * MINUTE + config.schedule_await_minutes * MINUTE
    # what has no end lives as long as there are data
    horizon = last + max(DELAYS) * step if data.data_end is None else data.data_end
    view = MarketView(engine.store, exchange, config, horizon)
    try:
        bars = await view.bars(data.symbol, data.since, horizon)
    except DataError:
        return None
    segment = view.loaded(data.symbol, config.base_interval)
    assert segment is not None
    t = segment.columns[0]
    real = ~segment.filled & (t >= data.since) & (t < max(ends))
    if data.data_end is not None:
        bars = bars.until(data.data_end)
    return Market(Candles(*(column[real] for column in segment.columns)), bars)


def load_market(engine: Engine, exchange: ExchangeSchema, data: BacktestData) -> Market | None:
    """Return the market of a backtest, and close the exchange; `None` where it can't be had."""

    async def load() -> Market | None:
        try:
            return await market_of(engine, exchange, data)
        finally:
            await close_exchange(exchange)

    return run_blocking(load)


def sensitivity_of(data: BacktestData, market: Market | None) -> Sensitivity:
    """Return what a backtest's profit depends on; see `sensitivity`."""
    config = data.settings or Config(
        percent_fee=data.percent_fee, percent_slippage=data.percent_slippage
    )
    if market is None:
        return sensitivity(data.signals, data.cancelled, config)
    return sensitivity(data.signals, data.cancelled, config, market.bars, market.held)

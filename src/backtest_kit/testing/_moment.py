"""One instant of a run, without the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from backtest_kit._data.base import run_config
from backtest_kit._data.market import MarketView
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.engine import Engine, current_engine
from backtest_kit._engine.task import run_blocking
from backtest_kit._values.candles import Candles
from backtest_kit._values.config import Config
from backtest_kit._values.events import Mode
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.user_code import CandlesNotLoaded
from backtest_kit.exchanges import FrameExchange
from backtest_kit.testing._time import milliseconds


class _LoadedView(MarketView):
    """A market that sync code can read at once: it loads what is missing by itself."""

    def window(self, symbol: str, interval: str, limit: int, when: int) -> Candles:
        try:
            return super().window(symbol, interval, limit, when)
        except CandlesNotLoaded as missing:
            request = missing.request
        run_blocking(lambda: self.provide(*request))
        return super().window(symbol, interval, limit, when)

    def average_price(self, symbol: str, when: int) -> float:
        try:
            return super().average_price(symbol, when)
        except CandlesNotLoaded as missing:
            request = missing.request
        run_blocking(lambda: self.provide(*request))
        return super().average_price(symbol, when)


class _Run(msgspec.Struct, frozen=True):
    view: MarketView
    engine: Engine
    config: Config
    symbol: str
    mode: Mode
    strategy_name: str
    exchange_name: str
    frame_name: str | None = None
    waits: bool = True


@contextmanager
def moment(
    symbol: str,
    when: datetime | int,
    candles: object,
    *,
    mode: Mode = "backtest",
    strategy_name: str = "strategy",
) -> Iterator[None]:
    """Let code in the `with` block read the market as a strategy does at the instant `when`.

    `candles` are those of `symbol`, in any shape that `get_candles` of an exchange may return, or a
    mapping from symbols to such. Those of `when` and later are out of reach, as in a run; longer
    intervals are made of them. `candles()`, `get_candles()`, `average_price()`, `get_date()`,
    `get_context()` and the like work, with the current engine's settings:

        with backtest_kit.testing.moment("BTCUSDT", when, candles):
            assert my_get_signal("BTCUSDT", when) is None

    Raises:
        BadCandlesError: `candles` have the wrong shape, or break a rule of the data.
        ValueError: `when` has no time zone.
    """
    instant = milliseconds(when)
    exchange = FrameExchange(candles, "candles")
    engine = Engine()
    schema = ExchangeSchema(
        exchange_name="candles",
        get_candles=exchange.get_candles,
        intervals=exchange.intervals,
    )
    config = run_config(current_engine().config, schema, symbol)
    view = _LoadedView(engine.store, schema, config, instant)
    run = _Run(view, engine, config, symbol, mode, strategy_name, exchange.exchange_name)
    outside = current_moment.set(Moment(run, instant))
    try:
        yield
    finally:
        current_moment.reset(outside)

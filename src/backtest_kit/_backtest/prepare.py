"""What a backtest stands on, put together before it begins."""

from __future__ import annotations

from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._data.market import MarketView
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.fresh import begin
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import RiskGate, SharedBooks
from backtest_kit._engine.run import Run
from backtest_kit._rules.asking import Stride, stride
from backtest_kit._values.errors import ConfigError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, RiskSchema, StrategySchema
from backtest_kit._values.time import INTERVALS, iso


def prepare(
    engine: Engine,
    symbol: str,
    strategy: StrategySchema,
    exchange: ExchangeSchema,
    frame: FrameSchema,
    books: SharedBooks,
    risks: Registry[RiskSchema] | None = None,
) -> FrameDriver:
    """Return the driver of a backtest; its record is in no registry yet.

    `risks`: the risk profiles there are, where they are not those that are registered now.

    Raises:
        UnknownNameError: the strategy names a risk profile that is not registered.
        StrategyFailedError, RegistrationError: its factory raised, or made what can't be asked.
        ConfigError: the frame has no instant at which the strategy is asked.
    """
    asked = _stride(engine, strategy, frame)
    profiles = [(risks or engine.risks).get(name) for name in strategy.risk_names]
    timeline = frame.timeline
    record = RunRecord(
        symbol=symbol,
        strategy_name=strategy.name,
        exchange_name=exchange.name,
        frame_name=frame.name,
        mode="backtest",
        config=engine.config,
        since=timeline[0],
        until=timeline[0],
        total_frames=len(timeline),
    )
    run = Run(
        engine,
        mode="backtest",
        symbol=symbol,
        begun=begin(strategy),
        exchange=exchange,
        frame_name=frame.name,
        view=MarketView(engine.store, exchange, engine.config, timeline[-1]),
        record=record,
        risk_gate=RiskGate(books, profiles, (symbol, strategy.name, exchange.name), engine.logger),
    )
    return FrameDriver(run, timeline, asked, frame.callback("on_timeframe"))


def _stride(engine: Engine, strategy: StrategySchema, frame: FrameSchema) -> Stride:
    interval, line = INTERVALS[strategy.interval], frame.timeline
    found = stride(line, interval, engine.config.ask_at == "close")
    if found is None:
        raise ConfigError(
            f"strategy {strategy.name!r} is never asked: no candle of its interval "
            f"{strategy.interval} closes at an instant of frame {frame.name!r} "
            f"({iso(line[0])} to {iso(line[-1])}, every {frame.interval}); begin the frame at a "
            "close, make it longer or finer, or set ask_at='elapsed'"
        )
    return found

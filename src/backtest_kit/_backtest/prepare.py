"""What a backtest stands on, put together before it begins."""

from __future__ import annotations

from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._data.base import run_config, step_at, stride_of, timeline_of
from backtest_kit._data.market import MarketView
from backtest_kit._engine.account_gate import AccountGate
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.fresh import begin
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import RiskGate, SharedBooks
from backtest_kit._engine.run import Run
from backtest_kit._rules.asking import data_end
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, RiskSchema, StrategySchema
from backtest_kit._values.time import interval_ms


def prepare(
    engine: Engine,
    symbol: str,
    strategy: StrategySchema,
    exchange: ExchangeSchema,
    frame: FrameSchema,
    books: SharedBooks,
    risks: Registry[RiskSchema] | None = None,
    account: AccountGate | None = None,
) -> FrameDriver:
    """Return the driver of a backtest; its record is in no registry yet.

    `risks`: the risk profiles there are, where they are not those that are registered now.
    `account`: what the run has to do with the account that it is in.

    Raises:
        UnknownNameError: the strategy names a risk profile that is not registered.
        StrategyFailedError, RegistrationError: its factory raised, or made what can't be asked.
        ConfigError: the frame has no instant at which the strategy is asked, or the exchange has no
            candles of the base interval that is set.
    """
    profiles = [(risks or engine.risks).get(name) for name in strategy.risk_names]
    config = run_config(engine.config, exchange, symbol)
    timeline = timeline_of(frame, config)
    asked = stride_of(strategy, frame, timeline, config)
    record = RunRecord(
        symbol=symbol,
        strategy_name=strategy.name,
        exchange_name=exchange.name,
        frame_name=frame.name,
        mode="backtest",
        config=config,
        since=timeline[0],
        until=timeline[0],
        total_frames=len(timeline),
    )
    begun = begin(strategy)
    record.strategy, record.manages = strategy, begun.strategy.manage is not None
    record.data_end = data_end(timeline, interval_ms(config.base_interval), config)
    run = Run(
        engine,
        mode="backtest",
        symbol=symbol,
        begun=begun,
        exchange=exchange,
        frame_name=frame.name,
        view=MarketView(engine.store, exchange, config, timeline[-1]),
        record=record,
        risk_gate=RiskGate(
            books,
            profiles,
            (symbol, strategy.name, exchange.name),
            engine.logger,
            step_at=step_at(exchange, config),
            account=None if account is None else account.schema.account_name,
        ),
        account=account,
    )
    return FrameDriver(run, timeline, asked, frame.callback("on_timeframe"))

"""How a strategy is asked: one function of (symbol, when), whichever way it was written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from backtest_kit._arrays.signals import evaluate
from backtest_kit._engine.ambient import candles, fill_price
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.signal import Signal


def question(strategy: StrategySchema) -> Callable[[str, datetime], Any]:
    """Return what to call with (symbol, when) for a strategy's answer."""
    if strategy.get_signal is not None:
        return strategy.get_signal
    function = strategy.get_signals
    assert function is not None

    def ask(symbol: str, when: datetime) -> Signal | None:
        window = candles(symbol, strategy.interval, strategy.warmup)
        signals = evaluate(function, window)
        return signals.row(len(window) - 1, fill_price(symbol))

    return ask

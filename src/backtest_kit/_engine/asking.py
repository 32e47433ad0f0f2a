"""How a strategy is called: one function of (symbol, when) for every kind of strategy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from backtest_kit._arrays.signals import Signals, evaluate
from backtest_kit._engine.ambient import candles, fill_price
from backtest_kit._engine.run import Run
from backtest_kit._values.errors import BeforeDataError, ConfigError, SignalError
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.signal import Signal, SignalRow


async def has_warmup(run: Run, when: int) -> bool:
    """Say whether a strategy's `warmup` candles have closed by `when`, within the data.

    An array strategy, or one without a warm-up, finds out when it asks for candles.

    Raises:
        DataError: the candles can't be had.
    """
    strategy = run.strategy
    if run.is_warm or strategy.get_signal is None or not strategy.warmup:
        return True
    try:
        await run.view.window_async(run.symbol, strategy.interval, strategy.warmup, when)
    except BeforeDataError:
        return False
    run.warm(when)
    return True


class ArrayQuestion:
    """Asks an array strategy for the row of the newest candle, over the window before "now"."""

    def __init__(self, strategy: StrategySchema) -> None:
        self._interval, self._warmup = strategy.interval, strategy.warmup
        self._function: Any = strategy.get_signals
        #: Whether the last answer had columns that say when positions are to end.
        self.has_exits = False

    def __call__(self, symbol: str, when: datetime) -> Signal | None:
        """Return the row as a proposal."""
        signals = self._signals(symbol)
        self.has_exits = signals.has_exits
        return signals.row(len(signals) - 1, fill_price(symbol))

    def exits(self, symbol: str, side: int) -> bool:
        """Say whether the row says that nothing should be on `side`."""
        mask = (signals := self._signals(symbol)).exit_long
        if side < 0:
            mask = signals.exit_short
        return mask is not None and bool(mask[-1])

    def _signals(self, symbol: str) -> Signals:
        return evaluate(self._function, candles(symbol, self._interval, self._warmup))


def plain(row: SignalRow, asked: Callable[[str, datetime], Any]) -> SignalRow:
    """Return a row that a live run can follow, which does not keep managed positions yet.

    Raises:
        SignalError: its position is to be managed, or ended by a column of `asked`.
    """
    if row.is_managed or (isinstance(asked, ArrayQuestion) and asked.has_exits):
        missing = "trailing stop, breakeven, ladder, further entry or exit column"
        raise SignalError([f"a live run does not manage positions yet: no {missing}"])
    return row


def question(strategy: StrategySchema) -> Callable[[str, datetime], Any]:
    """Return what to call with (symbol, when) for a strategy's answer."""
    if strategy.get_signal is not None:
        return strategy.get_signal
    return ArrayQuestion(strategy)


def never_asked(run: Run) -> ConfigError:
    """Return the error of a strategy that is due in closed times only."""
    remedy = "or set ask_at='elapsed'" if run.config.ask_at == "close" else "or another frame"
    return ConfigError(
        f"strategy {run.strategy_name!r} was never asked: whenever it is due, by its interval "
        f"{run.strategy.interval}, the market is closed (calendar {run.exchange.calendar!r} of "
        f"exchange {run.exchange_name!r}); take another interval, {remedy}"
    )

"""The events of a walk: a contract after each strategy, progress, the end."""

from __future__ import annotations

import msgspec

from backtest_kit._statistics.figures import Statistics


class WalkerContract(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one strategy of a walk, and the best strategy so far.

    `statistics` are of all symbols together, and `None` where the strategy failed; then `error`
    says why. `metric_value` is `None` if it is not a finite number; such a strategy never leads.
    """

    walker_name: str
    symbols: tuple[str, ...]
    exchange_name: str
    frame_name: str
    strategy_name: str
    metric: str
    metric_value: float | None
    statistics: Statistics | None
    error: str | None
    best_strategy: str | None
    best_metric: float | None
    strategies_tested: int
    total_strategies: int


class WalkerProgressEvent(msgspec.Struct, frozen=True, kw_only=True):
    """How far a walk has come, failed strategies included; `progress` runs from 0 to 1."""

    walker_name: str
    symbols: tuple[str, ...]
    exchange_name: str
    frame_name: str
    total_strategies: int
    processed_strategies: int
    progress: float


class WalkerDoneEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A walk has ended, for whatever reason, and its other events have been delivered."""

    walker_name: str
    symbols: tuple[str, ...]
    exchange_name: str
    frame_name: str

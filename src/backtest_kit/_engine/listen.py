"""The `listen_*` functions, all made from one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from backtest_kit._engine.bus import Channel
from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.walk_events import WalkerContract, WalkerDoneEvent, WalkerProgressEvent
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.events import (
    CommandEvent,
    DoneEvent,
    ErrorEvent,
    HealthEvent,
    PartialEvent,
    PerformanceEvent,
    ProgressEvent,
    RiskEvent,
)
from backtest_kit._values.results import Tick, TickAdded, TickMoved, TickPartial

T = TypeVar("T")
Unsubscribe = Callable[[], None]


class Listen(Generic[T]):
    """Call a function, sync or async, with each event; returns what ends that. Also a decorator.

    Calls never overlap and keep the order of the events. What the function raises goes to
    `listen_error`, and stops neither the engine nor another listener.
    """

    def __init__(self, channel: Channel, what: str) -> None:
        self._channel: Channel = channel
        self.__doc__ = f"Listen to {what}.\n\n{type(self).__doc__}"

    def __call__(self, function: Callable[[T], Any]) -> Unsubscribe:
        return current_engine().bus.listen(self._channel, function)


class ListenOnce(Generic[T]):
    """Call a function, sync or async, with the first event for which `predicate` is true."""

    def __init__(self, channel: Channel, what: str) -> None:
        self._channel: Channel = channel
        self.__doc__ = f"Listen once to {what}.\n\n{type(self).__doc__}"

    def __call__(self, predicate: Callable[[T], bool], function: Callable[[T], Any]) -> Unsubscribe:
        return current_engine().bus.listen(self._channel, function, predicate, once=True)


def _pair(channel: Channel, what: str) -> tuple[Listen[Any], ListenOnce[Any]]:
    return Listen(channel, what), ListenOnce(channel, what)


listen_signal: Listen[Tick]
listen_signal_once: ListenOnce[Tick]
listen_signal, listen_signal_once = _pair("signal", "every result of a step, in every mode")
listen_signal_backtest: Listen[Tick]
listen_signal_backtest_once: ListenOnce[Tick]
listen_signal_backtest, listen_signal_backtest_once = _pair(
    "signal_backtest", "every result of a backtest's step"
)
listen_signal_live: Listen[Tick]
listen_signal_live_once: ListenOnce[Tick]
listen_signal_live, listen_signal_live_once = _pair("signal_live", "every result of a live step")
listen_error: Listen[ErrorEvent]
listen_error_once: ListenOnce[ErrorEvent]
listen_error, listen_error_once = _pair("error", "errors of steps, callbacks and listeners")
listen_exit: Listen[ErrorEvent]
listen_exit_once: ListenOnce[ErrorEvent]
listen_exit, listen_exit_once = _pair("exit", "what ends a background run")
listen_done_backtest: Listen[DoneEvent]
listen_done_backtest_once: ListenOnce[DoneEvent]
listen_done_backtest, listen_done_backtest_once = _pair("done_backtest", "the end of backtests")
listen_done_live: Listen[DoneEvent]
listen_done_live_once: ListenOnce[DoneEvent]
listen_done_live, listen_done_live_once = _pair("done_live", "the end of live runs")
listen_done_walker: Listen[WalkerDoneEvent]
listen_done_walker_once: ListenOnce[WalkerDoneEvent]
listen_done_walker, listen_done_walker_once = _pair("done_walker", "the end of walks")

listen_walker: Listen[WalkerContract]
listen_walker_once: ListenOnce[WalkerContract]
listen_walker, listen_walker_once = _pair("walker", "the outcome of each strategy of a walk")

listen_walker_progress: Listen[WalkerProgressEvent]
listen_walker_progress_once: ListenOnce[WalkerProgressEvent]
listen_walker_progress, listen_walker_progress_once = _pair(
    "walker_progress", "the progress of walks"
)

listen_walker_complete: Listen[WalkerData]
listen_walker_complete_once: ListenOnce[WalkerData]
listen_walker_complete, listen_walker_complete_once = _pair(
    "walker_complete", "the final results of walks"
)

listen_backtest_progress: Listen[ProgressEvent]
listen_backtest_progress_once: ListenOnce[ProgressEvent]
listen_backtest_progress, listen_backtest_progress_once = _pair(
    "backtest_progress", "the progress of backtests"
)
listen_performance: Listen[PerformanceEvent]
listen_performance_once: ListenOnce[PerformanceEvent]
listen_performance, listen_performance_once = _pair("performance", "durations")
listen_health: Listen[HealthEvent]
listen_health_once: ListenOnce[HealthEvent]
listen_health, listen_health_once = _pair(
    "health", "the health of live runs by the wall clock, once a minute"
)
listen_risk: Listen[RiskEvent]
listen_risk_once: ListenOnce[RiskEvent]
listen_risk, listen_risk_once = _pair("risk", "refusals of risk profiles")
listen_partial_profit: Listen[PartialEvent]
listen_partial_profit_once: ListenOnce[PartialEvent]
listen_partial_profit, listen_partial_profit_once = _pair(
    "partial_profit", "profit milestones of open signals"
)
listen_partial_loss: Listen[PartialEvent]
listen_partial_loss_once: ListenOnce[PartialEvent]
listen_partial_loss, listen_partial_loss_once = _pair(
    "partial_loss", "loss milestones of open signals"
)
listen_partial: Listen[TickPartial]
listen_partial_once: ListenOnce[TickPartial]
listen_partial, listen_partial_once = _pair("partial", "partial exits of positions")
listen_added: Listen[TickAdded]
listen_added_once: ListenOnce[TickAdded]
listen_added, listen_added_once = _pair("added", "further entries of positions")
listen_moved: Listen[TickMoved]
listen_moved_once: ListenOnce[TickMoved]
listen_moved, listen_moved_once = _pair(
    "moved", "levels of positions that move, which a backtest then follows step by step"
)
listen_command: Listen[CommandEvent]
listen_command_once: ListenOnce[CommandEvent]
listen_command, listen_command_once = _pair("command", "what came of commands to live runs")

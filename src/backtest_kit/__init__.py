"""Backtest, run live and compare trading strategies, each written once as a function."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from backtest_kit import data, exchanges
from backtest_kit._arrays.signals import Signals, trailing_mean
from backtest_kit._backtest.backtest import Backtest
from backtest_kit._engine.ambient import (
    Context,
    average_price,
    candles,
    format_price,
    format_quantity,
    get_average_price,
    get_candles,
    get_context,
    get_date,
    get_mode,
)
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.listen import (
    listen_backtest_progress,
    listen_backtest_progress_once,
    listen_done_backtest,
    listen_done_backtest_once,
    listen_done_live,
    listen_done_live_once,
    listen_done_walker,
    listen_done_walker_once,
    listen_error,
    listen_error_once,
    listen_exit,
    listen_exit_once,
    listen_health,
    listen_health_once,
    listen_partial_loss,
    listen_partial_loss_once,
    listen_partial_profit,
    listen_partial_profit_once,
    listen_performance,
    listen_performance_once,
    listen_risk,
    listen_risk_once,
    listen_signal,
    listen_signal_backtest,
    listen_signal_backtest_once,
    listen_signal_live,
    listen_signal_live_once,
    listen_signal_once,
    listen_walker,
    listen_walker_complete,
    listen_walker_complete_once,
    listen_walker_once,
    listen_walker_progress,
    listen_walker_progress_once,
)
from backtest_kit._engine.register import (
    add_exchange,
    add_frame,
    add_risk,
    add_sizing,
    add_strategy,
    add_walker,
    exchange,
    get_config,
    list_exchanges,
    list_frames,
    list_risks,
    list_sizings,
    list_strategies,
    list_walkers,
    set_config,
    set_logger,
    strategy,
)
from backtest_kit._engine.risk import RiskCheck
from backtest_kit._engine.sizing import PositionSize
from backtest_kit._engine.walk_events import WalkerContract, WalkerDoneEvent, WalkerProgressEvent
from backtest_kit._live.clocks import VirtualClock
from backtest_kit._live.live import Live, use_persist_adapter
from backtest_kit._live.named import listen_transitions
from backtest_kit._one_call.backtest import backtest
from backtest_kit._one_call.compare import compare
from backtest_kit._one_call.read import read_candles
from backtest_kit._pages.results import BacktestResult, LiveResult, WalkResult
from backtest_kit._reports.differences import Differences, differences
from backtest_kit._reports.facade import Heat, Partial, Performance, Risk, Schedule
from backtest_kit._state.adapter import PersistAdapter
from backtest_kit._state.documents import LiveState, Transition
from backtest_kit._state.files import FileAdapter
from backtest_kit._state.sqlite import SqliteAdapter
from backtest_kit._statistics.figures import Statistics
from backtest_kit._statistics.plateau import Plateau
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._statistics.sensitivity import Sensitivity
from backtest_kit._values.candles import Candle, Candles
from backtest_kit._values.config import Config
from backtest_kit._values.errors import (
    ArgumentError,
    BacktestKitError,
    BadCandlesError,
    BeforeDataError,
    CallbackTimeoutError,
    ClockError,
    ConfigError,
    ContextError,
    CorruptStateError,
    DataError,
    DataRangeError,
    ExchangeRefusedError,
    FetchError,
    FingerprintError,
    GapError,
    ListenerBehindError,
    MissedStepsError,
    PeekingError,
    RegistrationError,
    SignalError,
    StateError,
    StateOwnedError,
    StrategyFailedError,
    StrategyFileError,
    SuspiciousCandleError,
    TryLaterError,
    UnknownNameError,
    WorkerError,
)
from backtest_kit._values.events import (
    DoneEvent,
    ErrorEvent,
    HealthEvent,
    ListenerHealth,
    PartialEvent,
    PerformanceEvent,
    ProgressEvent,
    RiskEvent,
    RunHealth,
)
from backtest_kit._values.positions import ActivePosition
from backtest_kit._values.results import (
    Leg,
    ProfitLoss,
    Tick,
    TickActive,
    TickAdded,
    TickCancelled,
    TickClosed,
    TickIdle,
    TickMoved,
    TickOpened,
    TickPartial,
    TickScheduled,
    TickWaiting,
    tick_from_json,
)
from backtest_kit._values.schemas import (
    ExchangeSchema,
    FrameSchema,
    RiskSchema,
    SizingSchema,
    StrategySchema,
    WalkerSchema,
)
from backtest_kit._values.signal import Signal, SignalRow, TrailingStop
from backtest_kit._values.table import Table
from backtest_kit._values.time import Interval
from backtest_kit._values.windows import Windows
from backtest_kit._walker.grid import grid
from backtest_kit._walker.search import SearchResult, SearchTrial, search
from backtest_kit._walker.search_space import Constraints
from backtest_kit._walker.walker import Walker

__all__ = [
    "ActivePosition",
    "ArgumentError",
    "Backtest",
    "BacktestKitError",
    "BacktestResult",
    "BadCandlesError",
    "BeforeDataError",
    "CallbackTimeoutError",
    "Candle",
    "Candles",
    "ClockError",
    "Config",
    "ConfigError",
    "Constraints",
    "Context",
    "ContextError",
    "CorruptStateError",
    "DataError",
    "DataRangeError",
    "Differences",
    "DoneEvent",
    "Engine",
    "ErrorEvent",
    "ExchangeRefusedError",
    "ExchangeSchema",
    "FetchError",
    "FileAdapter",
    "FingerprintError",
    "FrameSchema",
    "GapError",
    "HealthEvent",
    "Heat",
    "Interval",
    "Leg",
    "ListenerBehindError",
    "ListenerHealth",
    "Live",
    "LiveResult",
    "LiveState",
    "MissedStepsError",
    "Partial",
    "PartialEvent",
    "PeekingError",
    "Performance",
    "PerformanceEvent",
    "PersistAdapter",
    "Plateau",
    "PositionSize",
    "ProfitLoss",
    "ProgressEvent",
    "RegistrationError",
    "Risk",
    "RiskCheck",
    "RiskEvent",
    "RiskSchema",
    "RunHealth",
    "Schedule",
    "SearchResult",
    "SearchTrial",
    "Sensitivity",
    "Signal",
    "SignalError",
    "SignalRow",
    "Signals",
    "SizingSchema",
    "SqliteAdapter",
    "StateError",
    "StateOwnedError",
    "Statistics",
    "StrategyFailedError",
    "StrategyFileError",
    "StrategySchema",
    "SuspiciousCandleError",
    "Table",
    "Tick",
    "TickActive",
    "TickAdded",
    "TickCancelled",
    "TickClosed",
    "TickIdle",
    "TickMoved",
    "TickOpened",
    "TickPartial",
    "TickScheduled",
    "TickWaiting",
    "TrailingStop",
    "Transition",
    "TryLaterError",
    "UnknownNameError",
    "VirtualClock",
    "WalkResult",
    "Walker",
    "WalkerContract",
    "WalkerData",
    "WalkerDoneEvent",
    "WalkerProgressEvent",
    "WalkerSchema",
    "Windows",
    "WorkerError",
    "add_exchange",
    "add_frame",
    "add_risk",
    "add_sizing",
    "add_strategy",
    "add_walker",
    "average_price",
    "backtest",
    "candles",
    "compare",
    "data",
    "differences",
    "exchange",
    "exchanges",
    "format_price",
    "format_quantity",
    "get_average_price",
    "get_candles",
    "get_config",
    "get_context",
    "get_date",
    "get_mode",
    "grid",
    "list_exchanges",
    "list_frames",
    "list_risks",
    "list_sizings",
    "list_strategies",
    "list_walkers",
    "listen_backtest_progress",
    "listen_backtest_progress_once",
    "listen_done_backtest",
    "listen_done_backtest_once",
    "listen_done_live",
    "listen_done_live_once",
    "listen_done_walker",
    "listen_done_walker_once",
    "listen_error",
    "listen_error_once",
    "listen_exit",
    "listen_exit_once",
    "listen_health",
    "listen_health_once",
    "listen_partial_loss",
    "listen_partial_loss_once",
    "listen_partial_profit",
    "listen_partial_profit_once",
    "listen_performance",
    "listen_performance_once",
    "listen_risk",
    "listen_risk_once",
    "listen_signal",
    "listen_signal_backtest",
    "listen_signal_backtest_once",
    "listen_signal_live",
    "listen_signal_live_once",
    "listen_signal_once",
    "listen_transitions",
    "listen_walker",
    "listen_walker_complete",
    "listen_walker_complete_once",
    "listen_walker_once",
    "listen_walker_progress",
    "listen_walker_progress_once",
    "read_candles",
    "search",
    "set_config",
    "set_logger",
    "strategy",
    "tick_from_json",
    "trailing_mean",
    "use_persist_adapter",
]

# Told by the name under which it is imported: a traceback ends with backtest_kit.FetchError.
# Structs and functions keep their modules: msgspec looks up there what annotations name, and
# typing.get_overloads finds signatures by them.
for _name in __all__:
    _value = globals()[_name]
    if isinstance(_value, type) and not hasattr(_value, "__struct_fields__"):
        _value.__module__ = __name__

if _TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Return `__version__`, which is looked up only when someone asks."""
        from importlib import metadata

        if name == "__version__":
            try:
                return metadata.version("backtest-kit")
            except metadata.PackageNotFoundError:  # run from its source, never installed
                pass
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

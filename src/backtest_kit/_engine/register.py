"""`add_*`, the decorators, `list_*` and the settings, on the current engine.

The overloads are what a type checker and an editor see; the functions behind them take any keyword,
so that an unknown keyword is reported with the known names. A test holds both against the schemas.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload, runtime_checkable

from backtest_kit._arrays.signals import Signals
from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.registry import made
from backtest_kit._engine.risk import RiskCheck
from backtest_kit._values.candles import Candles
from backtest_kit._values.config import Config, Settings
from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.schemas import (
    AccountMetric,
    Benchmark,
    ExchangeSchema,
    Format,
    FrameSchema,
    GetCandles,
    GetMarket,
    GetSignal,
    Manage,
    Metric,
    RiskSchema,
    StrategySchema,
    WalkerSchema,
)
from backtest_kit._values.time import Interval
from backtest_kit._values.windows import Windows

G = TypeVar("G", bound="GetSignal | type[Asked] | type[AskedOnce]")
C = TypeVar("C", bound=GetCandles)
RiskAnswer = str | bool | None
#: Agrees with `None` or `True`; refuses with a reason, with `False`, or by raising.
Validation = Callable[[RiskCheck], RiskAnswer | Awaitable[RiskAnswer]]
#: The intervals that an exchange has, or a function of the symbol that returns them.
Intervals = Sequence[Interval] | Callable[[str], Sequence[str] | None]
#: What a ready-made exchange may have beside its name and `get_candles`.
_OWN = (
    "format_price",
    "format_quantity",
    "get_market",
    "page_limit",
    "data_range",
    "close",
    "intervals",
    "calendar",
)


class Asked(Protocol):
    """An object with `get_signal`: what a factory may make, or a class under `strategy`."""

    @property
    def get_signal(self) -> GetSignal:
        """See `StrategySchema`."""
        ...


class AskedOnce(Protocol):
    """The same with `get_signals`."""

    @property
    def get_signals(self) -> Callable[[Candles], Signals]:
        """See `StrategySchema`."""
        ...


@runtime_checkable
class ReadyExchange(Protocol):
    """An exchange as an object, such as those of `backtest_kit.exchanges`."""

    @property
    def exchange_name(self) -> str:
        """The name under which it is registered."""
        ...

    @property
    def get_candles(self) -> GetCandles:
        """See `ExchangeSchema`."""
        ...


@overload
def add_exchange(exchange: ExchangeSchema, /, *, replace: bool = False) -> None: ...
@overload
def add_exchange(
    exchange: ReadyExchange,
    /,
    *,
    calendar: str | None = None,
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
@overload
def add_exchange(
    *,
    exchange_name: str,
    get_candles: GetCandles,
    format_price: Format | None = None,
    format_quantity: Format | None = None,
    get_market: GetMarket | None = None,
    page_limit: int | None = None,
    data_range: Callable[[str], tuple[int, int] | None] | None = None,
    close: Callable[[], object] | None = None,
    intervals: Intervals | None = None,
    calendar: str | None = None,
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_exchange(exchange: object = None, /, *, replace: bool = False, **fields: Any) -> None:
    """Register an exchange: the fields of `ExchangeSchema`, one such, or a ready-made exchange.

    `replace`: in the place of what has the name. A run that is under way keeps what it began with.

    Raises:
        RegistrationError: a field is missing or malformed, or the name is taken.
    """
    if hasattr(exchange, "get_candles") and not isinstance(exchange, ExchangeSchema):
        own = ("exchange_name", "get_candles", *_OWN)
        has = {name: getattr(exchange, name, None) for name in own}
        for name in fields:
            if name in own and not (name == "calendar" and has[name] is None):
                raise RegistrationError(f"{exchange!r} has a {name} of its own")
        fields = has | fields
        exchange = None
    current_engine().exchanges.add(made(ExchangeSchema, exchange, fields), replace=replace)


@overload
def add_strategy(strategy: StrategySchema, /, *, replace: bool = False) -> None: ...
@overload
def add_strategy(
    *,
    strategy_name: str,
    interval: Interval,
    get_signal: GetSignal | None = None,
    get_signals: Callable[[Candles], Signals] | None = None,
    make: Callable[[], GetSignal | Asked | AskedOnce] | None = None,
    manage: Manage | None = None,
    manage_interval: Interval = "1m",
    warmup: int | None = None,
    risk_name: str | Sequence[str] | None = None,
    sizing_name: str | None = None,
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_strategy(
    strategy: StrategySchema | None = None, /, *, replace: bool = False, **fields: Any
) -> None:
    """Register a strategy: the fields of `StrategySchema`, or one; see `add_exchange`."""
    current_engine().strategies.add(made(StrategySchema, strategy, fields), replace=replace)


@overload
def add_frame(frame: FrameSchema, /, *, replace: bool = False) -> None: ...
@overload
def add_frame(
    *,
    frame_name: str,
    interval: Interval,
    start_date: datetime,
    end_date: datetime,
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_frame(frame: FrameSchema | None = None, /, *, replace: bool = False, **fields: Any) -> None:
    """Register a frame: the fields of `FrameSchema`, or one such; see `add_exchange`."""
    current_engine().frames.add(made(FrameSchema, frame, fields), replace=replace)


@overload
def add_risk(risk: RiskSchema, /, *, replace: bool = False) -> None: ...
@overload
def add_risk(
    *,
    risk_name: str,
    validations: Sequence[Validation],
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_risk(risk: RiskSchema | None = None, /, *, replace: bool = False, **fields: Any) -> None:
    """Register a risk profile: the fields of `RiskSchema`, or one; see `add_exchange`."""
    current_engine().risks.add(made(RiskSchema, risk, fields), replace=replace)


@overload
def add_walker(walker: WalkerSchema, /, *, replace: bool = False) -> None: ...
@overload
def add_walker(
    *,
    walker_name: str,
    exchange_name: str,
    frame_name: str,
    strategies: Sequence[str],
    metric: Metric | AccountMetric = "sharpe_ratio",
    windows: Windows | None = None,
    account_name: str | None = None,
    benchmark: Benchmark = 0,
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_walker(
    walker: WalkerSchema | None = None, /, *, replace: bool = False, **fields: Any
) -> None:
    """Register a walker: the fields of `WalkerSchema`, or one such; see `add_exchange`."""
    current_engine().walkers.add(made(WalkerSchema, walker, fields), replace=replace)


class StrategyOptions(TypedDict, total=False):
    """What `strategy` takes beside the name and the interval."""

    manage: Manage | None
    manage_interval: Interval
    warmup: int | None
    risk_name: str | Sequence[str] | None
    sizing_name: str | None
    callbacks: object
    note: str
    replace: bool


class ExchangeOptions(TypedDict, total=False):
    """What `exchange` takes beside the name."""

    format_price: Format | None
    format_quantity: Format | None
    get_market: GetMarket | None
    page_limit: int | None
    data_range: Callable[[str], tuple[int, int] | None] | None
    close: Callable[[], object] | None
    intervals: Intervals | None
    calendar: str | None
    callbacks: object
    note: str
    replace: bool


def strategy(
    strategy_name: str, *, interval: Interval, **options: Unpack[StrategyOptions]
) -> Callable[[G], G]:
    """Register the decorated `get_signal`, or a class that is made anew for each run (`make`)."""

    def register(function: G) -> G:
        checked: object = function  # to narrow `function` itself would lose its type
        way = "make" if isinstance(checked, type) else "get_signal"
        given: dict[str, Any] = {"interval": interval, way: function, **options}
        add_strategy(strategy_name=strategy_name, **given)
        return function

    return register


def exchange(exchange_name: str, **options: Unpack[ExchangeOptions]) -> Callable[[C], C]:
    """Register the decorated `get_candles` under a name; see `add_exchange`."""

    def register(function: C) -> C:
        add_exchange(exchange_name=exchange_name, get_candles=function, **options)
        return function

    return register


def list_exchanges() -> list[ExchangeSchema]:
    """Return the registered exchanges, in order."""
    return current_engine().exchanges.list()


def list_strategies() -> list[StrategySchema]:
    """Return the registered strategies, in order."""
    return current_engine().strategies.list()


def list_frames() -> list[FrameSchema]:
    """Return the registered frames, in order."""
    return current_engine().frames.list()


def list_risks() -> list[RiskSchema]:
    """Return the registered risk profiles, in order."""
    return current_engine().risks.list()


def list_walkers() -> list[WalkerSchema]:
    """Return the registered walkers, in order."""
    return current_engine().walkers.list()


def set_config(**changes: Unpack[Settings]) -> None:
    """Change settings of the current engine, all or none; runs that have begun keep theirs.

    Raises:
        ConfigError: an unknown setting, or a value out of range.
    """
    current_engine().set_config(**changes)


def get_config() -> Config:
    """Return the settings of the current engine."""
    return current_engine().config


def set_logger(logger: logging.Logger) -> None:
    """Log to this logger from now on (the current engine)."""
    current_engine().logger = logger

"""`add_*`, the decorators, `list_*` and the settings, on the current engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from backtest_kit._engine.engine import current_engine
from backtest_kit._values.config import Config
from backtest_kit._values.errors import RegistrationError, did_you_mean
from backtest_kit._values.schemas import (
    ExchangeSchema,
    FrameSchema,
    RiskSchema,
    SizingSchema,
    StrategySchema,
    WalkerSchema,
)

S = TypeVar(
    "S", ExchangeSchema, StrategySchema, FrameSchema, RiskSchema, SizingSchema, WalkerSchema
)
F = TypeVar("F", bound=Callable[..., Any])


def _make(schema: type[S], given: object, fields: dict[str, Any]) -> S:
    if given is not None:
        if fields:
            raise RegistrationError(f"give a {schema.__name__} or its fields, not both")
        if not isinstance(given, schema):
            raise RegistrationError(f"expected a {schema.__name__}, got {given!r}")
        return given
    known = schema.__struct_fields__
    for name in fields:
        if name not in known:
            raise RegistrationError(
                f"{schema.__name__} has no field {name!r}{did_you_mean(name, known)}"
            )
    try:
        return schema(**fields)
    except TypeError as error:
        raise RegistrationError(f"{schema.__name__}: {error}") from None


def add_exchange(exchange: object = None, /, **fields: Any) -> None:
    """Register an exchange: the fields of `ExchangeSchema`, one such, or a ready-made exchange.

    Raises:
        RegistrationError: a field is missing or malformed, or the name is taken.
    """
    if (
        exchange is not None
        and hasattr(exchange, "get_candles")
        and not isinstance(exchange, ExchangeSchema)
    ):
        optional = ("format_price", "format_quantity", "page_limit", "data_range", "close")
        given: Any = exchange
        fields |= {name: getattr(given, name, None) for name in optional}
        fields |= {"exchange_name": given.exchange_name, "get_candles": given.get_candles}
        exchange = None
    current_engine().exchanges.add(_make(ExchangeSchema, exchange, fields))


def add_strategy(strategy: StrategySchema | None = None, /, **fields: Any) -> None:
    """Register a strategy: the fields of `StrategySchema`, or one; raises as `add_exchange`."""
    current_engine().strategies.add(_make(StrategySchema, strategy, fields))


def add_frame(frame: FrameSchema | None = None, /, **fields: Any) -> None:
    """Register a frame: the fields of `FrameSchema`, or one such; raises as `add_exchange`."""
    current_engine().frames.add(_make(FrameSchema, frame, fields))


def add_risk(risk: RiskSchema | None = None, /, **fields: Any) -> None:
    """Register a risk profile: the fields of `RiskSchema`, or one; raises as `add_exchange`."""
    current_engine().risks.add(_make(RiskSchema, risk, fields))


def add_sizing(sizing: SizingSchema | None = None, /, **fields: Any) -> None:
    """Register a sizing: the fields of `SizingSchema`, or one such; raises as `add_exchange`."""
    current_engine().sizings.add(_make(SizingSchema, sizing, fields))


def add_walker(walker: WalkerSchema | None = None, /, **fields: Any) -> None:
    """Register a walker: the fields of `WalkerSchema`, or one such; raises as `add_exchange`."""
    current_engine().walkers.add(_make(WalkerSchema, walker, fields))


def strategy(strategy_name: str, *, interval: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated `get_signal` under a name; raises as `add_exchange`."""

    def register(function: F) -> F:
        add_strategy(strategy_name=strategy_name, interval=interval, get_signal=function, **fields)
        return function

    return register


def exchange(exchange_name: str, **fields: Any) -> Callable[[F], F]:
    """Register the decorated `get_candles` under a name; raises as `add_exchange`."""

    def register(function: F) -> F:
        add_exchange(exchange_name=exchange_name, get_candles=function, **fields)
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


def list_sizings() -> list[SizingSchema]:
    """Return the registered sizings, in order."""
    return current_engine().sizings.list()


def list_walkers() -> list[WalkerSchema]:
    """Return the registered walkers, in order."""
    return current_engine().walkers.list()


def set_config(**changes: object) -> None:
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

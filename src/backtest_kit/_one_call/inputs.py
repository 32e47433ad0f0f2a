"""What the arguments of `bk.backtest` and `bk.compare` mean: candles, strategies, a range."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from backtest_kit import exchanges
from backtest_kit._data.base import run_config
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import ReadyExchange, add_exchange
from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._values.time import INTERVALS, iso, to_datetime, to_instant
from backtest_kit.exchanges._catalog import is_catalog
from backtest_kit.exchanges._parts import reader_of

#: The name of the frame, and of an exchange that has none of its own.
DATA: Final = "data"


def add_data(engine: Engine, data: object) -> ExchangeSchema:
    """Register the candles `data` stands for on the current engine, `engine`; return the exchange.

    Raises:
        RegistrationError: it is none of what `bk.backtest` takes.
        DataRangeError, BadCandlesError: there is no such file, or it can't be read.
    """
    if isinstance(data, ExchangeSchema | ReadyExchange):
        add_exchange(data)
    elif isinstance(data, str | os.PathLike):
        path = Path(data)
        if is_catalog(data):
            add_exchange(exchanges.CatalogExchange(data))
            return engine.exchanges.list()[-1]
        if not path.exists():
            raise RegistrationError(f"data={str(data)!r} does not exist (looked in {Path.cwd()})")
        add_exchange(reader_of(path)(path, exchange_name=DATA))
    else:
        add_exchange(exchanges.FrameExchange(data, exchange_name=DATA))
    return engine.exchanges.list()[-1]


def symbol_of(data: object, symbol: str | None) -> str:
    """Return the symbol: as given, else the beginning of a file's name, else "DATA".

    Raises:
        RegistrationError: none is given, and a folder or an exchange may have several.
    """
    if symbol is not None:
        return symbol
    if isinstance(data, str | os.PathLike) and Path(data).is_file():
        return Path(data).name.split(".")[0].split("-")[0]
    if hasattr(data, "get_candles") or isinstance(data, str | os.PathLike):
        raise RegistrationError('which symbol? give symbol="BTCUSDT" or the like')
    return "DATA"


def strategy_of(known: Engine, strategy: object, interval: str | None) -> StrategySchema:
    """Return the schema of a strategy: given, registered on `known`, or a plain function.

    Raises:
        RegistrationError: it is no strategy, or a plain function without `interval`.
        UnknownNameError: it is a name that is not registered.
    """
    if isinstance(strategy, StrategySchema):
        return _at(strategy, interval)
    if isinstance(strategy, str):
        return _at(known.strategies.get(strategy), interval)
    for schema in reversed(known.strategies.list()):
        if strategy in (schema.get_signal, schema.get_signals, schema.make):
            return _at(schema, interval)
    if not callable(strategy):
        raise RegistrationError(
            f"strategy={strategy!r} must be a function, a class, or the name of what is registered"
        )
    name = getattr(strategy, "__name__", type(strategy).__name__)
    if interval is None:
        raise RegistrationError(
            f'strategy {name!r} needs interval="5m" or the like: how often it is asked'
        )
    return StrategySchema(strategy_name=name, interval=interval, **{_way(strategy): strategy})  # type: ignore[arg-type]


def _at(schema: StrategySchema, interval: str | None) -> StrategySchema:
    return schema if interval is None else msgspec.structs.replace(schema, interval=interval)


def _way(strategy: Callable[..., Any]) -> str:
    """Return how a plain strategy is registered, by how many arguments it takes."""
    if isinstance(strategy, type):
        return "make"
    needed = [
        parameter
        for parameter in inspect.signature(strategy).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    try:
        return ("make", "get_signals", "get_signal")[len(needed)]
    except IndexError:
        raise RegistrationError(
            f"strategy {strategy!r} takes {len(needed)} arguments; write get_signal(symbol, when) "
            "or get_signals(candles)"
        ) from None


def frame_of(
    engine: Engine,
    exchange: ExchangeSchema,
    symbols: Sequence[str],
    strategies: Sequence[StrategySchema],
    start: object,
    end: object,
) -> FrameSchema:
    """Return the frame from `start` to `end`; by default all that is there after the warm-up.

    Raises:
        RegistrationError: the exchange does not say what it has, or nothing is left of it.
        ArgumentError, TypeError: an instant can't be read.
    """
    first, last = range_of(exchange, symbols, start, end)
    if start is None:
        configs = [run_config(engine.config, exchange, symbol) for symbol in symbols]
        base = max(INTERVALS[config.base_interval] for config in configs)
        priced = max(config.avg_price_candles_count for config in configs) * base
        warm = max(s.warmup * INTERVALS[s.interval] for s in strategies)
        first = -(-(first + max(priced, warm)) // base) * base
    if last < first:
        raise RegistrationError(
            f"no step is left from {iso(first)}, after the warm-up, to {iso(last)}"
        )
    return FrameSchema(
        frame_name=DATA,
        interval="1m",
        start_date=to_datetime(first),
        end_date=to_datetime(last),
    )


def range_of(
    exchange: ExchangeSchema, symbols: Sequence[str], start: object, end: object
) -> tuple[int, int]:
    """Return where to begin and end (ms): as given, else what all symbols have.

    Raises:
        RegistrationError: the exchange does not say what it has, or nothing lies between.
        ArgumentError, TypeError: an instant can't be read.
    """
    ranges = [
        known
        for symbol in symbols
        if exchange.data_range is not None and (known := exchange.data_range(symbol)) is not None
    ]
    if len(ranges) < len(symbols) and (start is None or end is None):
        raise RegistrationError(
            f"exchange {exchange.name!r} does not say which range it has: give start= and end="
        )
    first = max(known[0] for known in ranges) if start is None else to_instant(start, "start")
    last = min(known[1] for known in ranges) if end is None else to_instant(end, "end")
    has = "".join(
        f"; {s} has {iso(a)} to {iso(b)}" for s, (a, b) in zip(symbols, ranges, strict=False)
    )
    if last < first or any(a >= last or b <= first for a, b in ranges):
        raise RegistrationError(f"there is nothing from {iso(first)} to {iso(last)}{has}")
    return first, last

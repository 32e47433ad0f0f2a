"""A strategy with every combination of some parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from backtest_kit._engine.engine import current_engine
from backtest_kit._values.errors import RegistrationError
from backtest_kit._values.schemas import StrategySchema


def grid(
    strategy_factory: Callable[..., StrategySchema | Mapping[str, Any] | None],
    /,
    **parameters: Iterable[Any],
) -> list[str]:
    """Register a strategy for each combination of parameters, and return their names.

    `strategy_factory(**combination)` returns a `StrategySchema` or a mapping of its fields, or
    `None` to leave a combination out. Each name is that of the factory (or of the schema) with the
    parameters: `crossover(fast=10, slow=50)`. The last parameter varies fastest. Either all are
    registered or, after an error, none. A second grid of the same factory (a notebook's cell that
    is run again) replaces what the first has registered under the same names:

        names = bk.grid(crossover, fast=[10, 20], slow=range(50, 200, 10))
        bk.add_walker(walker_name="w", strategies=names, exchange_name=..., frame_name=...)

    Raises:
        RegistrationError: a parameter has no values or one twice, the factory raises or returns
            something else, a name is taken, or no combination is left.
    """
    title = getattr(strategy_factory, "__name__", "strategy")
    values = {name: _values(title, name, given) for name, given in parameters.items()}
    schemas = []
    for combination in itertools.product(*values.values()):
        schema = make_strategy(strategy_factory, dict(zip(values, combination, strict=True)))
        if schema is not None:
            schemas.append(schema)
    if not schemas:
        raise RegistrationError(f"grid of {title}: no combination is left")
    engine = current_engine()
    factory = (getattr(strategy_factory, "__module__", ""), title)
    known = {strategy.name for strategy in engine.strategies.list()}
    known -= {name for name, made_by in engine.grids.items() if made_by == factory}
    for schema in schemas:
        if schema.name in known:
            raise RegistrationError(f"strategy {schema.name!r} already exists")
        known.add(schema.name)
    for schema in schemas:
        engine.strategies.add(schema, replace=True)
        engine.grids[schema.name] = factory
    return [schema.name for schema in schemas]


def make_strategy(
    strategy_factory: Callable[..., Any], parameters: Mapping[str, Any]
) -> StrategySchema | None:
    """Return the strategy that a factory makes of parameters, which become part of its name.

    Raises:
        RegistrationError: the factory raises, or returns something else.
    """
    title = getattr(strategy_factory, "__name__", "strategy")
    text = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
    try:
        made: Any = strategy_factory(**parameters)
    except Exception as error:
        raise RegistrationError(
            f"{title}({text}) raised {type(error).__name__}: {error}"
        ) from error
    return None if made is None else _schema(made, title, text)


def _values(title: str, name: str, given: Iterable[Any]) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise RegistrationError(f"grid of {title}: {name}={given!r} must be several values")
    values = [*given]
    if not values:
        raise RegistrationError(f"grid of {title}: {name} has no values")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise RegistrationError(f"grid of {title}: {name} has {value!r} twice")
    return values


def _schema(made: Any, title: str, text: str) -> StrategySchema:
    if isinstance(made, StrategySchema):
        return msgspec.structs.replace(made, strategy_name=f"{made.name}({text})")
    if isinstance(made, Mapping):
        fields: dict[str, Any] = {**made, "strategy_name": f"{title}({text})"}
        try:
            return StrategySchema(**fields)
        except TypeError as error:
            raise RegistrationError(f"{title}({text}): {error}") from None
    raise RegistrationError(
        f"{title}({text}) returned {made!r}; it must be a StrategySchema, a mapping of its fields, "
        "or None"
    )

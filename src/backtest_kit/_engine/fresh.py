"""The strategy of one run: what its factory makes for it, in place of the factory."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, NamedTuple, Protocol

import msgspec

from backtest_kit._values.errors import RegistrationError, StrategyFailedError
from backtest_kit._values.schemas import StrategySchema


class OwnState(Protocol):
    """A strategy's object that lets its own state be kept through restarts of a live run."""

    def save(self) -> Any:
        """Return its state as a JSON value; `None`: there is nothing to keep."""
        ...

    def load(self, value: Any, /) -> object:
        """Go on from what `save` returned."""
        ...


class Begun(NamedTuple):
    """A strategy as one run asks it, its functions filled in: `made` for this run, or plain.

    `object` is what was made, where it is no function, and `own` the same where it lets its own
    state be kept.
    """

    strategy: StrategySchema
    made: bool
    own: OwnState | None = None
    object: Any = None


def begin(strategy: StrategySchema) -> Begun:
    """Return a strategy for one run of one symbol.

    Raises:
        StrategyFailedError: its factory raised.
        RegistrationError: its factory returned what can't be asked.
    """
    if strategy.make is None:
        return Begun(strategy, made=False)
    me = f"strategy {strategy.name!r}"
    try:
        made: Any = strategy.make()
    except Exception as error:
        raise StrategyFailedError(
            f"{me}: its factory raised {type(error).__name__}: {error}"
        ) from error
    asked = {name: getattr(made, name, None) for name in ("get_signal", "get_signals")}
    if not any(asked.values()):
        if not callable(made) or isawaitable(made):
            raise RegistrationError(
                f"{me}: its factory returned {made!r}; it must be a function, or an object with "
                "get_signal or get_signals"
            )
        return Begun(_filled(strategy, get_signal=made), made=True)
    own = made if callable(getattr(made, "save", None)) else None
    if (own is None) != (not callable(getattr(made, "load", None))):
        raise RegistrationError(f"{me}: save and load go together, and {made!r} has one of them")
    manage = getattr(made, "manage", None)
    if manage is not None and strategy.manage is not None:
        raise RegistrationError(f"{me}: both it and {made!r} have manage")
    callbacks = _callbacks(me, strategy, made)
    filled = _filled(strategy, **asked, manage=manage or strategy.manage, callbacks=callbacks)
    return Begun(filled, made=True, own=own, object=made)


def _filled(strategy: StrategySchema, **fields: Any) -> StrategySchema:
    warmup = strategy.warmup or None  # what is made says whether it is over arrays
    return msgspec.structs.replace(strategy, make=None, warmup=warmup, **fields)


def _callbacks(me: str, strategy: StrategySchema, made: object) -> Any:
    """Return the registered callbacks and those that an object has as methods."""
    found = {} if strategy.callbacks is None else {**vars(strategy.callbacks)}
    for name in strategy.CALLBACKS:
        method = getattr(made, name, None)
        if callable(method):
            if name in found:
                raise RegistrationError(f"{me}: both callbacks and {made!r} have {name}")
            found[name] = method
    return found or None

"""The engine: registries, events, candles, records and settings; and which one is current."""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Unpack

from backtest_kit._data.feed import Feed
from backtest_kit._data.fetch import Cooldown
from backtest_kit._data.store import Store
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.bus import Bus, Subscription
from backtest_kit._engine.record import Records
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import SharedBooks
from backtest_kit._state.adapter import PersistAdapter
from backtest_kit._state.files import FileAdapter
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config, Settings, configure, from_environment
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.places import place_of
from backtest_kit._values.schemas import (
    ExchangeSchema,
    FrameSchema,
    RiskSchema,
    SizingSchema,
    StrategySchema,
    WalkerSchema,
)

if TYPE_CHECKING:
    from backtest_kit._statistics.ranking import WalkerData


class AnyWalk(Protocol):
    """A walk, as the engine keeps it."""

    def stop(self) -> None:
        """End it inside the strategy that runs."""
        ...

    def data(self) -> WalkerData:
        """Return what it has found so far."""
        ...


class Engine:
    """Everything that runs share. Two engines share nothing.

    Used as a context manager it becomes the current engine, on which the module-level functions
    act. Settings come from the environment (`CC_...`) first.

    Raises:
        ConfigError: a setting in the environment can't be read.
    """

    def __init__(self) -> None:
        self.config: Config = from_environment()
        self.logger: logging.Logger = logging.getLogger("backtest_kit")
        #: Whether errors are logged with their whole tracebacks.
        self.tracebacks = False
        self.exchanges: Registry[ExchangeSchema] = Registry("exchange")
        self.strategies: Registry[StrategySchema] = Registry("strategy")
        self.frames: Registry[FrameSchema] = Registry("frame")
        self.risks: Registry[RiskSchema] = Registry("risk")
        self.sizings: Registry[SizingSchema] = Registry("sizing")
        self.walkers: Registry[WalkerSchema] = Registry("walker")
        #: Module and name of the factory of each strategy that a grid has registered.
        self.grids: dict[str, tuple[str, str]] = {}
        #: The newest walk by walker and symbols.
        self.walks: dict[tuple[str, tuple[str, ...]], AnyWalk] = {}
        self.bus = Bus(self._listener_failed, self._current_clock)
        #: What live runs and requests take for the time; tests may set another.
        self.clock = Clock()
        clock = self._current_clock
        cooldown = Cooldown(clock)
        self.store = Store(lambda: self.logger, cooldown, self._exchange_code_failed, clock)
        self.feed = Feed(lambda: self.logger, cooldown, self._exchange_code_failed, clock)
        self.records = Records()
        self.books = SharedBooks()
        self.live_books = SharedBooks()
        #: How many calls backtests of array strategies have come to.
        self.array_calls = 0
        #: State left behind in strategies that the log has already named.
        self.leftovers_told: set[tuple[str, str]] = set()
        self.adapter: PersistAdapter | None = None
        self.live = StateOwner(self._adapter, self._state_failed, clock)

    def set_config(self, **changes: Unpack[Settings]) -> None:
        """Change settings, all of them or none; runs that have begun keep theirs.

        Raises:
            ConfigError: an unknown setting, or a value out of range.
        """
        self.config = configure(self.config, changes)

    def report(self, event: ErrorEvent, *, log: bool = True) -> None:
        """Emit an error, and log it."""
        if log:
            run = (event.strategy_name, event.symbol, event.exchange_name)
            place = " ".join(part for part in run if part)
            self.logger.error(
                "%s%s: %s",
                *(event.where, f" of {place}" if place else "", describe(event.error)),
                exc_info=event.error if self.tracebacks else None,
            )
        if self.bus.wanted("error"):
            self.bus.emit(event, "error")

    async def failed(self, event: ErrorEvent) -> None:
        """Emit what ended a background task, on the error and the exit channel."""
        self.report(event)
        if self.bus.wanted("exit"):
            self.bus.emit(event, "exit")
        await self.bus.drain()

    def _current_clock(self) -> Clock:
        return self.clock

    def _adapter(self) -> PersistAdapter:
        return FileAdapter(self.config.state_dir) if self.adapter is None else self.adapter

    def _state_failed(self, where: str, error: Exception) -> None:
        self.report(ErrorEvent(where=where, error=error, mode="live"))

    def _exchange_code_failed(self, where: str, error: Exception) -> None:
        self.report(_event(where, error, current_moment.get()))

    def _listener_failed(
        self, subscription: Subscription, error: BaseException, at: Moment | None
    ) -> None:
        event = _event(f"a listener of {subscription.channel}", error, at)
        if subscription.channel == "error":  # or its own error would be emitted to it without end
            self.logger.error("%s: %s", event.where, describe(error))
        else:
            self.report(event)

    def __enter__(self) -> Engine:
        _entered.set((*_entered.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _entered.set(_entered.get()[:-1])


def _event(where: str, error: BaseException, at: Moment | None) -> ErrorEvent:
    if at is None:
        return ErrorEvent(where=where, error=error)
    return ErrorEvent(
        where=where,
        error=error,
        symbol=at.run.symbol,
        strategy_name=at.run.strategy_name,
        exchange_name=at.run.exchange_name,
        mode=at.run.mode,
        when=at.when,
    )


def describe(error: BaseException) -> str:
    """Return an error as one line: its type, its text, and the user's line at which it arose."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    place = place_of(error)
    return text if place is None else f"{text} ({place})"


#: The engines entered, innermost last; a task or thread has its own.
_entered: ContextVar[tuple[Engine, ...]] = ContextVar("engines", default=())
_default: list[Engine] = []
_lock = threading.Lock()


def current_engine() -> Engine:
    """Return the engine entered with `with Engine()`, else the default one of the process."""
    entered = _entered.get()
    if entered:
        return entered[-1]
    with _lock:
        if not _default:
            _default.append(Engine())
    return _default[0]

"""The engine: registries, events, candles, records and settings; and which one is current."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from backtest_kit._data.feed import Feed
from backtest_kit._data.fetch import Cooldown
from backtest_kit._data.store import Store
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.bus import Bus, Subscription
from backtest_kit._engine.record import Records, RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import SharedBooks
from backtest_kit._state.adapter import PersistAdapter
from backtest_kit._state.cursors import Cursors
from backtest_kit._state.documents import RunKey
from backtest_kit._state.files import FileAdapter
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.clock import Clock
from backtest_kit._values.config import Config, Settings, configure, from_environment
from backtest_kit._values.errors import ListenerBehindError
from backtest_kit._values.events import ErrorEvent, ListenerHealth, RunHealth
from backtest_kit._values.places import place_of
from backtest_kit._values.schemas import (
    ExchangeSchema,
    FrameSchema,
    RiskSchema,
    StrategySchema,
    WalkerSchema,
)

if TYPE_CHECKING:
    from backtest_kit._statistics.ranking import WalkerData
    from backtest_kit._statistics.trial_result import TrialResult


class AnyWalk(Protocol):
    """A walk, as the engine keeps it."""

    results: list[TrialResult]

    def stop(self) -> None:
        """End it inside the strategy that runs."""
        ...

    def data(self) -> WalkerData:
        """Return what it has found so far."""
        ...


class AnyLiveRun(Protocol):
    """A live run, as the engine keeps it while it has its state."""

    @property
    def callbacks_lag(self) -> ListenerHealth | None:
        """How far behind its callbacks are; `None` where the run waits for them."""
        ...

    def health(self, now: int) -> RunHealth:
        """Return how it is at `now` (ms)."""
        ...


class AnyNamedListener(Protocol):
    """A named listener, as the engine keeps it."""

    @property
    def lag(self) -> ListenerHealth:
        """How far behind it is."""
        ...

    async def attach(self, run: Any, key: RunKey, source: Any, cursors: Cursors) -> None:
        """Go on in a run where the stored cursor is."""
        ...

    def detach(self, key: RunKey) -> None:
        """Leave a run."""
        ...

    def wake(self) -> None:
        """Go on with what is to be told."""
        ...

    async def told(self, key: RunKey) -> None:
        """Wait until it has heard all of a run."""
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
        self.accounts: Registry[AccountSchema] = Registry("account")
        self.walkers: Registry[WalkerSchema] = Registry("walker")
        #: Module and name of the factory of each strategy that a grid has registered.
        self.grids: dict[str, tuple[str, str]] = {}
        #: The newest walk by walker and symbols.
        self.walks: dict[tuple[str, tuple[str, ...]], AnyWalk] = {}
        self.bus = Bus(self._listener_failed, self._listener_behind, self._current_clock)
        #: What live runs and requests take for the time; tests may set another.
        self.clock = Clock()
        clock = self._current_clock
        cooldown = Cooldown(clock)
        self.store = Store(lambda: self.logger, cooldown, self._exchange_code_failed, clock)
        self.feed = Feed(lambda: self.logger, cooldown, self._exchange_code_failed, clock)
        self.records = Records()
        #: What came out of the newest runs on each account, by its name.
        self.portfolios: dict[str, Any] = {}
        self.books = SharedBooks()
        self.live_books = SharedBooks()
        #: The accounts that live runs share, by name, while they run.
        self.live_accounts: dict[str, object] = {}
        #: How many calls backtests of array strategies have come to.
        self.array_calls = 0
        #: State left behind in strategies that the log has already named.
        self.leftovers_told: set[tuple[str, str]] = set()
        #: What stops each backtest that goes on, with its names.
        self.backtests: dict[int, tuple[RunRecord, Callable[[], None]]] = {}
        #: The live runs that have their state, and who tells once a minute how they are.
        self.live_runs: dict[RunKey, AnyLiveRun] = {}
        self.health_task: asyncio.Task[None] | None = None
        #: Who is told of transitions of live runs, with a place that is kept, by name.
        self.named_listeners: dict[str, AnyNamedListener] = {}
        self.adapter: PersistAdapter | None = None
        self.live = StateOwner(self._adapter, self._state_failed, clock)

    def set_config(self, **changes: Unpack[Settings]) -> None:
        """Change settings, all of them or none; runs that have begun keep theirs.

        Raises:
            ConfigError: an unknown setting, or a value out of range.
        """
        self.config = configure(self.config, changes)

    def report(self, event: ErrorEvent, *, log: bool = True, waited: bool = True) -> None:
        """Emit an error, and log it; `waited`: the run that it belongs to waits for listeners."""
        if log:
            run = (event.strategy_name, event.symbol, event.exchange_name)
            place = " ".join(part for part in run if part)
            self.logger.error(
                "%s%s: %s",
                *(event.where, f" of {place}" if place else "", describe(event.error)),
                exc_info=event.error if self.tracebacks else None,
            )
        if self.bus.wanted("error"):
            self.bus.emit(event, "error", waited=waited)

    async def failed(self, event: ErrorEvent, *, patience: float | None = None) -> None:
        """Emit what ended a background task, on the error and the exit channel.

        Listeners are waited for, with `patience` (of a live run) for so many seconds at most.
        """
        waited = patience is None
        self.report(event, waited=waited)
        if self.bus.wanted("exit"):
            self.bus.emit(event, "exit", waited=waited)
        if patience is None:
            await self.bus.drain()
        else:
            await self.bus.settle(patience)

    def _current_clock(self) -> Clock:
        return self.clock

    def _adapter(self) -> PersistAdapter:
        return FileAdapter(self.config.state_dir) if self.adapter is None else self.adapter

    def _state_failed(self, where: str, error: Exception) -> None:
        self.report(ErrorEvent(where=where, error=error, mode="live"), waited=False)

    def _exchange_code_failed(self, where: str, error: Exception) -> None:
        at = current_moment.get()
        self.report(_event(where, error, at), waited=_waited(at))

    def _listener_failed(
        self, subscription: Subscription, error: BaseException, at: Moment | None
    ) -> None:
        event = _event(f"a listener of {subscription.channel}", error, at)
        if subscription.channel == "error":  # or its own error would be emitted to it without end
            self.logger.error("%s: %s", event.where, describe(error))
        else:
            self.report(event, waited=_waited(at))

    def _listener_behind(self, subscription: Subscription, text: str) -> None:
        self.tell_behind(subscription.name, text, log_only=subscription.channel == "error")

    def tell_behind(self, name: str, text: str, *, log_only: bool = False) -> None:
        """Report that a listener of live runs does not keep up."""
        error = ListenerBehindError(f"listener {name} {text}")
        if log_only:
            self.logger.error("%s", error)
        else:
            self.report(ErrorEvent(where="listener", error=error, mode="live"), waited=False)

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


def _waited(at: Moment | None) -> bool:
    return at is None or at.run.waits


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
    """Return an error as one line: its type, its text, and the user's line at which it arose.

    The text of one that tells of another may have that line already.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    place = place_of(error)
    return text if place is None or f"({place})" in text else f"{text} ({place})"


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

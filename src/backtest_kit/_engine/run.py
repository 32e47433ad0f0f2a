"""One run: its names, settings and market, and the events it emits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from backtest_kit._data.market import MarketView
from backtest_kit._engine.account_gate import AccountGate
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.bus import CHANNELS_OF, Channel
from backtest_kit._engine.engine import Engine, describe
from backtest_kit._engine.fresh import Begun
from backtest_kit._engine.guard import call_user_code, given_up
from backtest_kit._engine.leftovers import Leftovers
from backtest_kit._engine.record import KEPT_KINDS, KindKey, RunRecord
from backtest_kit._engine.risk import RiskGate
from backtest_kit._rules.proposal import Quote, complete
from backtest_kit._values.candle_rules import SUSPICIOUS_FACTOR
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BeforeDataError, SuspiciousCandleError
from backtest_kit._values.events import (
    CommandEvent,
    DoneEvent,
    ErrorEvent,
    MetricType,
    Mode,
    PartialEvent,
    PerformanceEvent,
    ProgressEvent,
    RiskEvent,
    RunEvent,
)
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import iso

#: Seconds after which an error that goes on is logged again (its events come each time).
_REMIND_AFTER = 600.0
CallLater = Callable[[str, Callable[..., Any], object], None]

_CALLBACK = {
    "idle": "on_idle",
    "scheduled": "on_schedule",
    "opened": "on_open",
    "active": "on_active",
    "partial": "on_partial",
    "added": "on_add",
    "moved": "on_move",
    "closed": "on_close",
    "cancelled": "on_cancel",
    "waiting": None,
}


class Run:
    """The names, the market, the record and the listeners of one run of one strategy."""

    def __init__(
        self,
        engine: Engine,
        *,
        mode: Mode,
        symbol: str,
        begun: Begun,
        exchange: ExchangeSchema,
        frame_name: str | None,
        view: MarketView,
        record: RunRecord,
        risk_gate: RiskGate,
        account: AccountGate | None = None,
        waits: bool = True,
    ) -> None:
        self.engine = engine
        self.mode: Mode = mode
        self.symbol = symbol
        self.strategy, self.own = begun.strategy, begun.own
        self.exchange = exchange
        self.strategy_name = self.strategy.name
        self.exchange_name = exchange.name
        self.frame_name = frame_name
        self.view = view
        self.record = record
        self.risk_gate = risk_gate
        self.account = account
        if account is not None:
            account.begin(self)
        self.stopping = False
        #: Whether it waits for listeners and callbacks: all do but live runs by the wall clock.
        self.waits = waits
        #: Whether it is a trial of many: what each of them would say is said once for all.
        self.is_trial = False
        #: Makes a call of a registered callback after the step, where the run waits for none.
        self.call_later: CallLater | None = None
        #: As they were when the run began: others may take their names.
        self._risks = {schema.name: schema for schema in risk_gate.schemas}
        #: The kinds of error that were logged, and when (seconds of the clock).
        self._told: dict[KindKey, float] = {}
        self._last_metric: dict[str, int] = {}
        self._made, self._object = begun.made, begun.object
        self._leftovers: Leftovers | None = None

    @property
    def config(self) -> Config:
        """The settings with which the run began."""
        return self.record.config

    def begin(self) -> None:
        """Look at what earlier runs have left in the strategy, and warn of it once."""
        if self._leftovers is not None:
            return
        strategy = self.strategy
        asked: Any = strategy.get_signal or strategy.get_signals
        self._leftovers = Leftovers(asked, strategy.manage, made=self._made, name=strategy.name)
        self.record.left_behind = found = self._leftovers.found
        self.record.left_by_others = self._leftovers.of_others
        if self.is_trial and self.record.left_by_others:
            return  # which is an error of the trial
        untold = {(self.strategy_name, name) for name in found} - self.engine.leftovers_told
        if untold:
            self.engine.leftovers_told |= untold
            self.engine.logger.warning(
                "strategy %r on %s began with what an earlier run left behind: %s; with make=, "
                "each run begins anew",
                *(self.strategy_name, self.symbol, ", ".join(found)),
            )

    def end(self) -> None:
        """Note what the run leaves in the strategy."""
        if self._leftovers is not None:
            self.record.changed_for_others = self._leftovers.note()
            self.record.changed = self._leftovers.changed

    def wants(self, *callbacks: str) -> bool:
        """Say whether a listener of results, or one of these callbacks, waits for a result."""
        channel: Any = f"signal_{self.mode}"
        return self.engine.bus.wanted("signal", channel) or any(
            self.strategy.callback(name) is not None for name in callbacks
        )

    @property
    def wants_moves(self) -> bool:
        """Whether a listener or callback waits for levels that move."""
        return self.engine.bus.wanted("moved") or self.wants("on_tick", "on_move")

    async def publish(self, event: RunEvent) -> None:
        """Tell listeners and callbacks of a result or milestone, at the instant of its step."""
        self.announce(event)
        for name, function in self.callbacks_for(event):
            await self.call_back(f"callback {name}", function, event)

    def announce(self, event: RunEvent) -> None:
        """Emit a result or milestone to listeners, at the instant of its step."""
        current_moment.set(Moment(self, event.timestamp))
        if isinstance(event, PartialEvent):
            self._emit(event, "partial_profit" if event.level > 0 else "partial_loss")
        elif isinstance(event, CommandEvent):
            self._emit(event, "command")
        else:
            of_mode: Channel = "signal_backtest" if self.mode == "backtest" else "signal_live"
            self._emit(event, "signal", of_mode, *CHANNELS_OF.get(event.action, ()))

    def callbacks_for(
        self, event: RunEvent, *, own: bool | None = None
    ) -> list[tuple[str, Callable[..., Any]]]:
        """Return the names and functions of the callbacks that an event has, in order.

        `own`: only those that are methods of the strategy's object, or only the others.
        """
        names = _names_of(event)
        found = [(name, self.strategy.callback(name)) for name in names]
        return [
            (name, function)
            for name, function in found
            if function is not None and (own is None or self.is_own(function) == own)
        ]

    def is_own(self, function: Callable[..., Any]) -> bool:
        """Say whether a callback is a method of the object that was made for this run.

        It is part of the strategy then: what it changes counts when the strategy is asked next.
        """
        own = self._object
        return own is not None and getattr(function, "__self__", None) is own

    async def call_back(self, where: str, function: Callable[..., Any], event: object) -> None:
        """Call a callback, at once or, where the run waits for none, after the step."""
        if self.call_later is None or self.is_own(function):
            await self.guarded(where, function, event)
        else:
            self.call_later(where, function, event)

    def watch_candles(self) -> None:
        """Do `look_at_candles` while the run goes on, where one that is loaded gives cause."""
        if self.view.doubtful(self.symbol):
            self.look_at_candles()

    def look_at_candles(self) -> None:
        """Note what the candles of the run were like up to its newest step; tell of doubts."""
        record, told = self.record, len(self.record.candles.suspicious)
        record.gaps = self.view.gaps(record.until)
        record.candles = self.view.candle_count(self.symbol, record.since, record.until)
        news = record.candles.suspicious[told:]
        if len(news) > 0:
            held = self.config.suspicious_candle == "hold"
            outcome = "nothing happened at its step" if held else "it was taken as it is"
            have = f"{len(news)} candles have" if len(news) > 1 else "a candle has"
            first = ", the first" if len(news) > 1 else ""
            self.error(
                "candles",
                SuspiciousCandleError(
                    f"{have} a price {SUSPICIOUS_FACTOR:.0f} times or more off the closes before"
                    f"{first}: {iso(news[0])} ({self.symbol} {self.config.base_interval}); "
                    f"{outcome} (suspicious_candle={self.config.suspicious_candle!r})"
                ),
            )

    async def guarded(self, where: str, function: Callable[..., Any], *arguments: object) -> None:
        """Call user code whose answer does not matter; what it raises is an error event.

        In a live run, for `callback_timeout_seconds` at most.
        """
        scope = asyncio.timeout(
            self.config.callback_timeout_seconds if self.mode == "live" else None
        )
        try:
            async with scope:
                await call_user_code(function, *arguments)
        except Exception as error:  # noqa: BLE001 - user code never ends a run
            self.error(where, given_up(self.config) if scope.expired() else error)

    @property
    def is_warm(self) -> bool:
        """Whether the strategy has been asked, and got the candles that it wanted."""
        return self.record.warm_at is not None

    def warming(self, count: int = 1, *, asked: bool = True) -> None:
        """Count steps at which the data don't reach back far enough; calls made there are void."""
        self.record.warming += count
        self.record.calls -= count * asked

    def warm(self, when: int) -> None:
        """Note that the strategy was asked at `when`, and got its candles: errors count."""
        if self.is_warm:
            return
        self.record.warm_at = when
        if self.record.warming and not self.is_trial:
            self.engine.logger.info(
                "%s on %s: warming up: %d steps, until %s",
                *(self.strategy_name, self.symbol, self.record.warming, iso(when)),
            )

    def call_failed(self, error: Exception) -> None:
        """Count, emit and log what a call of the strategy raised; before the data: warming up."""
        if isinstance(error, BeforeDataError) and not self.is_warm:
            self.warming()
        else:
            self.error("get_signal", error)

    def error(self, where: str, error: Exception) -> ErrorEvent:
        """Count, emit, log and return an error of user code or a step; in Live, remind of one."""
        now = current_moment.get()
        event = ErrorEvent(
            where=where, error=error, when=None if now is None else now.when, **self._names()
        )
        kind, now_s = self.record.error(event), self.engine.clock.monotonic()
        told = self._told.get(kind)
        repeated = told is not None or len(self._told) >= KEPT_KINDS
        if told is not None and self.mode == "live":
            repeated = now_s - told < _REMIND_AFTER
        if not repeated:
            self._told[kind] = now_s
        self.engine.report(event, log=not repeated, waited=self.waits)
        if repeated:
            self.engine.logger.debug("%s again: %s", where, describe(error))
        return event

    async def risk_allows(self, row: SignalRow, price: float, when: int, *, reserve: bool) -> bool:
        """Ask the strategy's risk profiles; emit each answer that has a listener or callback."""
        if not self.strategy.risk_names:
            return True
        current_moment.set(Moment(self, when))
        answers = await self.risk_gate.check(row, price, when, reserve=reserve)
        allowed = answers[-1].reason is None
        self.record.risk_allowed += allowed
        for answer in answers:
            refused = answer.reason is not None
            schema = self._risks[answer.risk_name]
            if answer.error is not None:
                self.error(f"check {answer.by} of risk profile {answer.risk_name!r}", answer.error)
            callback = schema.callback("on_rejected" if refused else "on_allowed")
            if not refused and callback is None:
                continue
            event = RiskEvent(
                **self._names(),
                risk_name=answer.risk_name,
                signal=row,
                price=price,
                timestamp=when,
                active_count=answer.active_count,
                reason=answer.reason,
            )
            if refused:
                self.rejected(event)
            if callback is not None:
                where = f"callback of risk profile {answer.risk_name!r}"
                await self.call_back(where, callback, event)
        return allowed

    def rejected(self, event: RiskEvent) -> None:
        """Count and emit what a risk profile or an account refuses."""
        self.record.reject(event)
        self._emit(event, "risk")

    def accept(self, answer: Any, quote: Quote, when: int) -> SignalRow:
        """Return a strategy's answer as a row.

        Raises:
            SignalError: it is no valid proposal; all problems at once.
        """
        return complete(
            answer,
            quote=quote,
            when=when,
            symbol=self.symbol,
            strategy_name=self.strategy_name,
            exchange_name=self.exchange_name,
            config=self.config,
        )

    def timed(self, metric_type: MetricType, duration: float, count: int = 1) -> None:
        """Record a duration in milliseconds, and emit it."""
        self.record.timing(metric_type).add(duration, count)
        if self.engine.bus.wanted("performance"):
            now = self.engine.clock.wall_ms()
            event = PerformanceEvent(
                **self._names(),
                metric_type=metric_type,
                duration=duration / count,
                timestamp=now,
                previous_timestamp=self._last_metric.get(metric_type),
            )
            self._last_metric[metric_type] = now
            self._emit(event, "performance")

    def progress(self, processed: int) -> None:
        """Emit how many frames have been processed."""
        self.record.frames = processed
        if self.engine.bus.wanted("backtest_progress"):
            total = self.record.total_frames
            event = ProgressEvent(
                symbol=self.symbol,
                strategy_name=self.strategy_name,
                exchange_name=self.exchange_name,
                frame_name=self.frame_name or "",
                total_frames=total,
                processed_frames=processed,
                progress=processed / total if total else 1.0,
            )
            self._emit(event, "backtest_progress")

    def done(self) -> None:
        """Emit that the run has ended; listeners are told at the run's last instant."""
        channel: Channel = "done_live" if self.mode == "live" else "done_backtest"
        if self.engine.bus.wanted(channel):
            when = self.record.until or self.record.since or self.engine.clock.wall_ms()
            outside = current_moment.set(Moment(self, when))
            self._emit(DoneEvent(frame_name=self.frame_name, **self._names()), channel)
            current_moment.reset(outside)

    async def failed(self, where: str, error: Exception, patience: float | None = None) -> None:
        """Emit what ended a background run, on the error and the exit channel."""
        event = ErrorEvent(where=where, error=error, **self._names())
        await self.engine.failed(event, patience=patience)

    def _emit(self, event: object, *channels: Channel) -> None:
        if self.engine.bus.wanted(*channels):
            self.engine.bus.emit(event, *channels, waited=self.waits)

    def _names(self) -> dict[str, Any]:
        return {
            "symbol": self.symbol,
            "strategy_name": self.strategy_name,
            "exchange_name": self.exchange_name,
            "mode": self.mode,
        }


def _names_of(event: RunEvent) -> tuple[str, ...]:
    """Return the names of an event's callbacks, in the order in which they are called."""
    if isinstance(event, PartialEvent):
        return ("on_partial_profit" if event.level > 0 else "on_partial_loss",)
    if isinstance(event, CommandEvent):
        return ("on_command",)
    name = _CALLBACK[event.action]
    return ("on_tick",) if name is None else ("on_tick", name)

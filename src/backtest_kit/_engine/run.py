"""One run: its names, settings and market, and the events it emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backtest_kit._data.market import MarketView
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.engine import Engine, describe
from backtest_kit._engine.fresh import Begun
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.leftovers import Leftovers
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.risk import RiskGate
from backtest_kit._rules.proposal import Quote, complete
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BeforeDataError
from backtest_kit._values.events import (
    DoneEvent,
    ErrorEvent,
    MetricType,
    Mode,
    PartialEvent,
    PerformanceEvent,
    ProgressEvent,
    RiskEvent,
)
from backtest_kit._values.results import Tick
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import iso

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
        self.stopping = False
        #: Whether the state that the strategy's object has loaded already includes this transition.
        self.own_knows = False
        #: As they were when the run began: others may take their names.
        self._risks = {schema.name: schema for schema in risk_gate.schemas}
        self._last_error: tuple[str, type[BaseException]] | None = None
        self._last_metric: dict[str, int] = {}
        self._made = begun.made
        self._leftovers: Leftovers | None = None

    @property
    def config(self) -> Config:
        """The settings with which the run began."""
        return self.record.config

    def begin(self) -> None:
        """Look at what earlier runs have left in the strategy, and warn of it once."""
        if self._leftovers is not None:
            return
        function: Any = self.strategy.get_signal or self.strategy.get_signals
        self._leftovers = Leftovers(function, made=self._made)
        self.record.left_behind = found = self._leftovers.found
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
            self._leftovers.note()

    def wants(self, *callbacks: str) -> bool:
        """Say whether a listener of results, or one of these callbacks, waits for a result."""
        channel: Any = f"signal_{self.mode}"
        return self.engine.bus.wanted("signal", channel) or any(
            self.strategy.callback(name) is not None for name in callbacks
        )

    async def publish(self, tick: Tick) -> None:
        """Emit a result to listeners and callbacks, at the instant of its step."""
        current_moment.set(Moment(self, tick.timestamp))
        channel: Any = f"signal_{self.mode}"
        if self.engine.bus.wanted("signal", channel):
            self.engine.bus.emit(tick, "signal", channel)
        await self._call_back("on_tick", tick)
        name = _CALLBACK[tick.action]
        if name is not None:
            await self._call_back(name, tick)

    async def publish_milestone(self, event: PartialEvent) -> None:
        """Emit a milestone to listeners and callbacks."""
        current_moment.set(Moment(self, event.timestamp))
        profit = event.level > 0
        if self.engine.bus.wanted("partial_profit" if profit else "partial_loss"):
            self.engine.bus.emit(event, "partial_profit" if profit else "partial_loss")
        await self._call_back("on_partial_profit" if profit else "on_partial_loss", event)

    async def _call_back(self, name: str, event: object) -> None:
        function = self.strategy.callback(name)
        if self.own_knows and getattr(function, "__self__", None) is self.own:
            return
        if function is not None:
            await self.guarded(f"callback {name}", function, event)

    async def guarded(self, where: str, function: Callable[..., Any], *arguments: object) -> None:
        """Call user code whose answer does not matter; what it raises is an error event."""
        try:
            await call_user_code(function, *arguments)
        except Exception as error:  # noqa: BLE001 - user code never ends a run
            self.error(where, error)

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
        if self.record.warming:
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

    def error(self, where: str, error: Exception) -> None:
        """Count, emit and log an error of user code or of one step."""
        now = current_moment.get()
        event = ErrorEvent(
            where=where, error=error, when=None if now is None else now.when, **self._names()
        )
        self.record.error(event)
        kind = (where, type(error))
        repeated, self._last_error = kind == self._last_error, kind
        self.engine.report(event, log=not repeated)
        if repeated:
            self.engine.logger.debug("%s again: %s", where, describe(error))

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
                self.record.rejections.append(event)
                if self.engine.bus.wanted("risk"):
                    self.engine.bus.emit(event, "risk")
            if callback is not None:
                where = f"callback of risk profile {answer.risk_name!r}"
                await self.guarded(where, callback, event)
        return allowed

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
            self.engine.bus.emit(event, "performance")

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
            self.engine.bus.emit(event, "backtest_progress")

    def done(self) -> None:
        """Emit that the run has ended."""
        channel: Any = f"done_{self.mode}"
        if self.engine.bus.wanted(channel):
            self.engine.bus.emit(DoneEvent(frame_name=self.frame_name, **self._names()), channel)

    async def failed(self, where: str, error: Exception) -> None:
        """Emit what ended a background run, on the error and the exit channel."""
        await self.engine.failed(ErrorEvent(where=where, error=error, **self._names()))

    def _names(self) -> dict[str, Any]:
        return {
            "symbol": self.symbol,
            "strategy_name": self.strategy_name,
            "exchange_name": self.exchange_name,
            "mode": self.mode,
        }

"""The driver of a walk: strategies in the order given, each a trial, the best so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Protocol

from backtest_kit._engine.ambient import ask
from backtest_kit._engine.engine import Engine, describe
from backtest_kit._engine.walk_events import WalkerContract, WalkerDoneEvent, WalkerProgressEvent
from backtest_kit._statistics.figures import metric
from backtest_kit._statistics.ranking import WalkerData, rank
from backtest_kit._statistics.trial import Trial
from backtest_kit._values.errors import StateError
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema, WalkerSchema
from backtest_kit._walker.trial import run_trial


class Trials(Protocol):
    """Where trials are run; the walk asks for them one after another, in order.

    `known` of them need no run: their figures are there already.
    """

    @property
    def known(self) -> int: ...

    async def open(self) -> None:
        """Begin; what is raised here is nobody's failure but the caller's."""
        ...

    async def trial(self, index: int) -> Trial:
        """Return the trial of a strategy; raises what it raised."""
        ...

    async def close(self) -> None:
        """Give up what is under way."""
        ...

    def tried(self) -> int | None:
        """Return how many trials there ever were on these data, where that is kept."""
        ...


class Here:
    """Trials run in this process, each when it is asked for."""

    known: Final = 0

    def __init__(
        self,
        engine: Engine,
        strategies: Sequence[StrategySchema],
        symbols: Sequence[str],
        exchange: ExchangeSchema,
        frame: FrameSchema,
    ) -> None:
        self._engine = engine
        self._strategies = strategies
        self._rest = (symbols, exchange, frame, None, engine.risks.copy())

    async def open(self) -> None:
        """See `Trials`."""

    async def trial(self, index: int) -> Trial:
        """See `Trials`."""
        return await run_trial(self._engine, self._strategies[index], *self._rest)

    async def close(self) -> None:
        """See `Trials`."""

    def tried(self) -> None:
        """See `Trials`."""


class Walk:
    """One walk; `play` may be iterated once. `found` holds the trials so far, failed ones too."""

    def __init__(
        self,
        engine: Engine,
        schema: WalkerSchema,
        symbols: Sequence[str],
        timeline: range,
        trials: Trials,
    ) -> None:
        self._engine = engine
        self._schema = schema
        self._symbols = tuple(symbols)
        self._timeline = timeline
        self._trials = trials
        self._stopping = False
        self._current: asyncio.Task[Trial] | None = None
        self._best: tuple[str, float] | None = None
        self.found: list[Trial] = []

    def stop(self) -> None:
        """End the walk inside the strategy that runs; the finished ones keep their results."""
        self._stopping = True
        if self._current is not None:
            self._current.cancel()

    @property
    def known(self) -> int:
        """How many strategies were run before, and are not run again."""
        return self._trials.known

    def data(self) -> WalkerData:
        """Return what has been found so far, ranked."""
        return rank(self._schema, self._symbols, self.found, self._trials.tried(), self._timeline)

    async def play(self) -> AsyncGenerator[WalkerContract, None]:
        """Yield a contract after each strategy; listeners and callbacks are told as well."""
        names = self._schema.strategies
        try:
            await self._trials.open()
            for index, name in enumerate(names):
                if self._stopping:
                    break
                await self._call_back("on_strategy_start", name, self._symbol)
                if self._stopping:
                    break
                trial = await self._one(index, name)
                if trial is None:
                    break
                yield await self._finished(trial)
        finally:
            await self._trials.close()
            await self._ended()

    @property
    def _symbol(self) -> str | tuple[str, ...]:
        return self._symbols[0] if len(self._symbols) == 1 else self._symbols

    async def _one(self, index: int, name: str) -> Trial | None:
        """Return a strategy's trial, a failed one where it failed; `None` where the walk ends."""
        self._current = task = asyncio.ensure_future(self._trials.trial(index))
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopping:
                return None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        except StateError:  # what can't be kept is no strategy's failure
            raise
        except Exception as error:  # noqa: BLE001 - a strategy that fails is skipped
            self._engine.report(
                ErrorEvent(
                    where="walker",
                    error=error,
                    symbol=", ".join(self._symbols),
                    strategy_name=name,
                    exchange_name=self._schema.exchange_name,
                    mode="backtest",
                )
            )
            await self._call_back("on_strategy_error", name, self._symbol, error)
            return Trial(strategy_name=name, symbols=self._symbols, error=describe(error))
        finally:
            self._current = None

    async def _finished(self, trial: Trial) -> WalkerContract:
        """Note a trial, tell of it, and return what is to be yielded."""
        self.found.append(trial)
        statistics, name = trial.statistics, trial.strategy_name
        value = None if statistics is None else metric(statistics, self._schema.metric)
        if value is not None and (self._best is None or value > self._best[1]):
            self._best = (name, value)
        done, total = len(self.found), len(self._schema.strategies)
        contract = WalkerContract(
            strategy_name=name,
            metric=self._schema.metric,
            metric_value=value,
            statistics=statistics,
            error=trial.error,
            best_strategy=self._best and self._best[0],
            best_metric=self._best and self._best[1],
            strategies_tested=done,
            total_strategies=total,
            **self._names(),
        )
        bus = self._engine.bus
        if bus.wanted("walker"):
            bus.emit(contract, "walker")
        if bus.wanted("walker_progress"):
            progress = WalkerProgressEvent(
                total_strategies=total,
                processed_strategies=done,
                progress=done / total,
                **self._names(),
            )
            bus.emit(progress, "walker_progress")
        if statistics is not None:
            await self._call_back("on_strategy_complete", name, self._symbol, statistics, value)
        return contract

    async def _ended(self) -> None:
        """Tell the final results, also of a walk that was cut short."""
        bus, results = self._engine.bus, None
        if bus.wanted("walker_complete") or self._schema.callback("on_complete") is not None:
            results = self.data()
        if bus.wanted("walker_complete"):
            bus.emit(results, "walker_complete")
        if results is not None:
            await self._call_back("on_complete", results)
        await bus.drain()
        if bus.wanted("done_walker"):
            bus.emit(WalkerDoneEvent(**self._names()), "done_walker")
            await bus.drain()

    async def _call_back(self, name: str, *arguments: object) -> None:
        function = self._schema.callback(name)
        if function is None:
            return
        try:
            await ask(function, *arguments)
        except Exception as error:  # noqa: BLE001 - user code never ends a walk
            self._engine.report(ErrorEvent(where=f"callback {name}", error=error))

    def _names(self) -> dict[str, Any]:
        return {
            "walker_name": self._schema.name,
            "symbols": self._symbols,
            "exchange_name": self._schema.exchange_name,
            "frame_name": self._schema.frame_name,
        }


def members(engine: Engine, schema: WalkerSchema) -> list[StrategySchema]:
    """Return the strategies of a walker, with all that they name checked.

    Raises:
        UnknownNameError: a strategy or one of its risk profiles is not registered.
    """
    found = [engine.strategies.get(name) for name in schema.strategies]
    for strategy in found:
        for name in strategy.risk_names:
            engine.risks.get(name)
    return found


def symbols_of(symbol: str | Sequence[str]) -> tuple[str, ...]:
    """Return the symbols of a walk as a tuple.

    Raises:
        ValueError: there are none, one is empty, or one comes twice.
    """
    symbols = (symbol,) if isinstance(symbol, str) else tuple(symbol)
    if not symbols or any(not isinstance(name, str) or not name for name in symbols):
        raise ValueError(f"symbol={symbol!r} must be a text that is not empty, or several")
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"symbol={symbol!r} names a symbol twice")
    return symbols

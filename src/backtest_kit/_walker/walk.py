"""A walk: the trials of its strategies one after another, and the best of them so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec

from backtest_kit._engine.engine import Engine, describe
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.walk_events import WalkerContract, WalkerDoneEvent, WalkerProgressEvent
from backtest_kit._statistics.benchmarks import BenchmarkRow, Market
from backtest_kit._statistics.family import BenchmarkBins
from backtest_kit._statistics.ranking import WalkerData, rank
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.errors import ArgumentError, StateError
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import StrategySchema, WalkerSchema
from backtest_kit._walker.benchmarks import bins_against, compared_with, markets_for
from backtest_kit._walker.runner import TrialRunner
from backtest_kit._walker.stored_runner import StoredRunner
from backtest_kit._walker.trial import TrialSetup


class Walk:
    """One walk; `contracts` may be iterated once. `results` holds all so far, failures included."""

    def __init__(self, setup: TrialSetup, schema: WalkerSchema, runner: TrialRunner) -> None:
        self._setup = setup
        self._engine = setup.engine
        self._schema = schema
        self._runner = runner
        self._stopping = False
        self._current: asyncio.Task[TrialResult] | None = None
        self._best: tuple[str, float] | None = None
        self.results: list[TrialResult] = []
        #: What was ranked last, and of how many results and known trials.
        self._ranked: tuple[tuple[int, int | None], WalkerData] | None = None
        self._benchmarks: tuple[BenchmarkRow, ...] = ()
        #: Of a walk that is tested against a benchmark.
        self._markets: list[Market] = []

    def stop(self) -> None:
        """End the walk, in the middle of a trial; results of finished trials are kept."""
        self._stopping = True
        if self._current is not None:
            self._current.cancel()

    @property
    def already_known(self) -> int:
        """How many strategies were not run, since their results were stored."""
        return self._runner.already_known

    def data(self) -> WalkerData:
        """Return the ranked results so far; they are ranked once, until there are more."""
        tried = self._runner.variants_tried()
        known = (len(self.results), tried)
        if self._ranked is None or self._ranked[0] != known:
            ranked = rank(
                self._schema,
                self._setup.symbols,
                self.results,
                tried,
                self._setup.frame.timeline,
                self._setup.base_interval(),
                benchmarks=self._benchmarks,
                benchmark_bins=self._bins(),
                others=self._runner.others_tried(),
                markets=self._markets,
            )
            unseen = self._runner.unseen if isinstance(self._runner, StoredRunner) else ()
            ranked = msgspec.structs.replace(ranked, unseen=unseen, account=self._setup.account)
            self._ranked = (known, ranked)
        return self._ranked[1]

    async def contracts(self) -> AsyncGenerator[WalkerContract, None]:
        """Run the walk and yield a contract after each strategy, which listeners get as well."""
        names = self._schema.strategies
        try:
            await self._runner.open()
            self._markets = await markets_for(self._setup, self._schema.benchmark)
            for index, name in enumerate(names):
                if self._stopping:
                    break
                await self._call_back("on_strategy_start", name, self._symbol)
                if self._stopping:
                    break
                result = await self._result_of(index, name)
                if result is None:
                    break
                yield await self._finish(result)
            await self._compare()
        finally:
            await self._runner.close()
            await self._finish_walk()

    async def _compare(self) -> None:
        """Compute the rows that nobody registered, and put them beside what is ranked already."""
        rows = await compared_with(self._setup, self.results, self._schema.metric)
        self._benchmarks = rows
        if self._ranked is not None:
            known, ranked = self._ranked
            self._ranked = known, msgspec.structs.replace(ranked, benchmarks=rows)

    def _bins(self) -> BenchmarkBins | None:
        """Return what the strategies are tested against, once the walk has begun."""
        return bins_against(self._setup, self._markets, self._schema.benchmark, self.results)

    @property
    def _symbol(self) -> str | tuple[str, ...]:
        symbols = self._setup.symbols
        return symbols[0] if len(symbols) == 1 else symbols

    async def _result_of(self, index: int, name: str) -> TrialResult | None:
        """Return a strategy's result, also if it failed; `None` if the walk was stopped."""
        self._current = task = asyncio.ensure_future(self._runner.run(index))
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopping:
                return None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        except StateError:  # a store that can't be used is no strategy's failure
            raise
        except Exception as error:  # noqa: BLE001 - a strategy that fails is skipped
            self._engine.report(
                ErrorEvent(
                    where="walker",
                    error=error,
                    symbol=", ".join(self._setup.symbols),
                    strategy_name=name,
                    exchange_name=self._schema.exchange_name,
                    mode="backtest",
                )
            )
            await self._call_back("on_strategy_error", name, self._symbol, error)
            return TrialResult(
                strategy_name=name, symbols=self._setup.symbols, error=describe(error)
            )
        finally:
            self._current = None
            del task  # its error has this frame in its traceback: a circle that keeps the walk

    async def _finish(self, result: TrialResult) -> WalkerContract:
        """Keep a result, notify listeners and callbacks, and return its contract."""
        self.results.append(result)
        statistics, name = result.statistics, result.strategy_name
        value = result.metric(self._schema.metric)
        if value is not None and (self._best is None or value > self._best[1]):
            self._best = (name, value)
        done, total = len(self.results), len(self._schema.strategies)
        contract = WalkerContract(
            strategy_name=name,
            metric=self._schema.metric,
            metric_value=value,
            statistics=statistics,
            error=result.error,
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

    async def _finish_walk(self) -> None:
        """Send the final results, also those of a walk that was stopped."""
        warmed = [result.warming for result in self.results if result.warming]
        if warmed:
            self._engine.logger.info(
                "%s on %s: warming up: %d to %d steps, of %d of %d strategies",
                *(self._schema.name, ", ".join(self._setup.symbols), min(warmed), max(warmed)),
                *(len(warmed), len(self.results)),
            )
        bus, data = self._engine.bus, None
        if bus.wanted("walker_complete") or self._schema.callback("on_complete") is not None:
            data = self.data()
        if bus.wanted("walker_complete"):
            bus.emit(data, "walker_complete")
        if data is not None:
            await self._call_back("on_complete", data)
        await bus.drain()
        if bus.wanted("done_walker"):
            bus.emit(WalkerDoneEvent(**self._names()), "done_walker")
            await bus.drain()

    async def _call_back(self, name: str, *arguments: object) -> None:
        function = self._schema.callback(name)
        if function is None:
            return
        try:
            await call_user_code(function, *arguments)
        except Exception as error:  # noqa: BLE001 - user code never ends a walk
            self._engine.report(ErrorEvent(where=f"callback {name}", error=error))

    def _names(self) -> dict[str, Any]:
        return {
            "walker_name": self._schema.name,
            "symbols": self._setup.symbols,
            "exchange_name": self._schema.exchange_name,
            "frame_name": self._schema.frame_name,
        }


def strategies_of(engine: Engine, schema: WalkerSchema) -> list[StrategySchema]:
    """Return the strategies of a walker, after checking that their risk profiles exist.

    Raises:
        UnknownNameError: a strategy or one of its risk profiles is not registered.
    """
    strategies = [engine.strategies.get(name) for name in schema.strategies]
    for strategy in strategies:
        for name in strategy.risk_names:
            engine.risks.get(name)
    return strategies


def symbols_of(symbol: str | Sequence[str]) -> tuple[str, ...]:
    """Return the symbols of a walk as a tuple.

    Raises:
        ArgumentError: there are none, one is empty, or one is repeated.
    """
    symbols = (symbol,) if isinstance(symbol, str) else tuple(symbol)
    if not symbols or any(not isinstance(name, str) or not name for name in symbols):
        raise ArgumentError(f"symbol={symbol!r} must be a non-empty string, or several of them")
    if len(set(symbols)) < len(symbols):
        raise ArgumentError(f"symbol={symbol!r} names a symbol twice")
    return symbols

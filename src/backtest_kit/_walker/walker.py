"""`bk.Walker`: compare strategies, and look at what the comparison is worth."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

from backtest_kit._engine.engine import AnyWalk, current_engine
from backtest_kit._engine.task import RunTask, collect, exhaust, hang_up, run_blocking
from backtest_kit._engine.walk_events import WalkerContract
from backtest_kit._reports.table import write
from backtest_kit._reports.walker import walker_report
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.errors import RegistrationError, UnknownNameError
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.windows import extent
from backtest_kit._walker.resume import Kept
from backtest_kit._walker.store import WalkStore
from backtest_kit._walker.walk import Here, Trials, Walk, members, symbols_of
from backtest_kit._walker.workers import There

Workers = Executor | Literal["processes"]


class Walker:
    """Walks on the current engine; see `Backtest` for what the methods share.

    `symbol` is one symbol or several: then each strategy runs over all of them side by side, is
    ranked by its metric over all trades, and shown for each.

    `executor="processes"`, or any `concurrent.futures.Executor` whose workers share this machine's
    files, runs the strategies in parallel: contracts, their order and every figure are the same.
    Listeners and callbacks of strategies hear nothing from workers; those of the walker do.

    `store` is a folder where finished trials are kept, under a fingerprint of the strategy's code
    and parameters, the candles, the frame, the settings and this library. What is known there is
    not run again (its callbacks hear nothing), and all that was ever tried there on these symbols
    and about this time counts when luck is judged.
    """

    @staticmethod
    def run(
        symbol: str | Sequence[str],
        *,
        walker_name: str,
        executor: Workers | None = None,
        store: str | Path | None = None,
    ) -> AsyncGenerator[WalkerContract, None]:
        """Return an async generator of a contract per strategy, in the order of the walker.

        A strategy that fails (the candles can't be had, or each of its calls raised) is an error
        event and a contract with `error`; the others go on.

        Raises:
            UnknownNameError: the walker, or something that it names, is not registered.
            ValueError: there is no symbol, or one comes twice.
            WorkerError: a strategy or the exchange can't be sent to a worker.
            StateError: (while iterating) the store can't be read or written.
        """
        return prepare_walk(symbol, walker_name, executor, store).play()

    @staticmethod
    def run_sync(
        symbol: str | Sequence[str],
        *,
        walker_name: str,
        executor: Workers | None = None,
        store: str | Path | None = None,
    ) -> list[WalkerContract]:
        """Run a walk to its end and return its contracts; raises as `run`."""
        walk = prepare_walk(symbol, walker_name, executor, store)
        engine = current_engine()
        exchange = engine.exchanges.get(engine.walkers.get(walker_name).exchange_name)

        async def work() -> list[WalkerContract]:
            try:
                return await collect(walk.play())
            finally:
                await hang_up(exchange)

        return run_blocking(work)

    @staticmethod
    def background(
        symbol: str | Sequence[str],
        *,
        walker_name: str,
        executor: Workers | None = None,
        store: str | Path | None = None,
    ) -> RunTask[None]:
        """Start a walk as a task. `stop()` ends it inside the strategy that runs.

        Raises:
            UnknownNameError, ValueError: as `run`.
            RuntimeError: no event loop is running.
        """
        walk = prepare_walk(symbol, walker_name, executor, store)
        engine = current_engine()

        async def work() -> None:
            try:
                await exhaust(walk.play())
            except Exception as error:
                await engine.failed(ErrorEvent(where="walker", error=error))
                raise

        return RunTask(work(), walk.stop)

    @staticmethod
    def stop(symbol: str | Sequence[str], *, walker_name: str) -> None:
        """Stop the newest walk of these as `RunTask.stop` does.

        Raises:
            UnknownNameError: no such walk yet.
        """
        _walk(symbol, walker_name).stop()

    @staticmethod
    def get_data(symbol: str | Sequence[str], *, walker_name: str) -> WalkerData:
        """Return what the newest such walk has found, ranked, also while it still runs.

        Raises:
            UnknownNameError: no such walk yet.
        """
        return _walk(symbol, walker_name).data()

    @staticmethod
    def get_report(symbol: str | Sequence[str], *, walker_name: str) -> str:
        """Return `get_data` as Markdown; raises as `get_data`."""
        return walker_report(_walk(symbol, walker_name).data())

    @staticmethod
    def dump(
        symbol: str | Sequence[str], *, walker_name: str, path: str | Path = "./dump/walker"
    ) -> Path:
        """Write the report into the folder `path` and return the file's path.

        Raises:
            UnknownNameError: as `get_data`.
            OSError: the file can't be written.
        """
        text = walker_report(_walk(symbol, walker_name).data())
        return write(text, path, "-".join((*symbols_of(symbol), walker_name)))


def prepare_walk(
    symbol: str | Sequence[str],
    walker_name: str,
    executor: Workers | None = None,
    store: str | Path | None = None,
    *,
    again: bool = False,
    workers: int | None = None,
) -> Walk:
    """Return a walk that has not begun; `workers` is how many processes `"processes"` starts.

    `again`: what the store knows is run again, too.
    """
    engine = current_engine()
    symbols = symbols_of(symbol)
    schema = engine.walkers.get(walker_name)
    exchange = engine.exchanges.get(schema.exchange_name)
    frame = engine.frames.get(schema.frame_name)
    if schema.windows is not None and not schema.windows.spans(*extent(frame.timeline)):
        raise RegistrationError(
            f"walker {walker_name!r}: not one window of {schema.windows.train} to train and "
            f"{schema.windows.test} to test fits into frame {frame.name!r}"
        )
    strategies = members(engine, schema)
    if executor is not None and executor != "processes" and not isinstance(executor, Executor):
        raise TypeError(
            f'executor={executor!r} must be "processes", a concurrent.futures.Executor, or None'
        )

    def place(some: Sequence[StrategySchema]) -> Trials:
        if executor is None:
            return Here(engine, some, symbols, exchange, frame)
        return There(engine, some, symbols, exchange, frame, executor, workers=workers)

    if store is None:
        trials = place(strategies)
    else:
        what = (engine, strategies, symbols, exchange, frame, WalkStore(store), place)
        trials = Kept(*what, again=again)
    walk = Walk(engine, schema, symbols, frame.timeline, trials)
    engine.walks[walker_name, symbols] = walk
    return walk


def _walk(symbol: str | Sequence[str], walker_name: str) -> AnyWalk:
    walks = current_engine().walks
    symbols = symbols_of(symbol)
    try:
        return walks[walker_name, symbols]
    except KeyError:
        there = "; ".join(f"{name} {' '.join(of)}" for name, of in walks) or "none"
        raise UnknownNameError(
            f"no walk of {walker_name!r} over {' '.join(symbols)} yet (walks there are: {there})"
        ) from None

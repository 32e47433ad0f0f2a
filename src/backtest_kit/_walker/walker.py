"""`bk.Walker`: compare strategies, and judge whether the best is better than luck."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from backtest_kit._engine.engine import AnyWalk, current_engine
from backtest_kit._engine.task import RunTask, close_exchange, collect, exhaust, run_blocking
from backtest_kit._engine.walk_events import WalkerContract
from backtest_kit._pages.results import WalkResult, walk_result
from backtest_kit._reports.table import file_name, write
from backtest_kit._reports.walker import walker_report
from backtest_kit._values.errors import RegistrationError, UnknownNameError
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._walker.pool_runner import PoolRunner
from backtest_kit._walker.runner import InProcessRunner, TrialRunner, Workers, check_workers
from backtest_kit._walker.store import WalkStore
from backtest_kit._walker.stored_runner import StoredRunner
from backtest_kit._walker.trial import TrialSetup
from backtest_kit._walker.walk import Walk, strategies_of, symbols_of


class Walker:
    """Walks on the current engine; the methods correspond to those of `Backtest`.

    `symbol` is one symbol or several: then each strategy runs over all of them at once, is ranked
    by its metric over all trades, and is also shown for each symbol.

    `executor="processes"`, or any `concurrent.futures.Executor` whose workers share this machine's
    files, runs the strategies in parallel: contracts, their order and every figure are the same.
    Listeners and callbacks of strategies are not called from workers; those of the walker are.

    `store` is a folder for the results of finished trials, each under a fingerprint of the
    strategy's code and parameters, the candles, the frame, the settings and this library. A
    strategy whose result is stored is not run again (and its callbacks are not called), and every
    variant that was ever tried with this store on these candles (known by their content) over an
    overlapping period counts as a trial when luck is judged.
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

        A strategy that fails (the candles can't be had, or each of its calls raised) gives an error
        event and a contract with `error`; the walk goes on with the next one.

        Raises:
            UnknownNameError: the walker, or something that it names, is not registered.
            ValueError: there is no symbol, or one is repeated.
            WorkerError: a strategy or the exchange can't be sent to a worker.
            StateError: (while iterating) the store can't be read or written.
        """
        return prepare_walk(symbol, walker_name, executor, store).contracts()

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
                return await collect(walk.contracts())
            finally:
                await close_exchange(exchange)

        return run_blocking(work)

    @staticmethod
    def background(
        symbol: str | Sequence[str],
        *,
        walker_name: str,
        executor: Workers | None = None,
        store: str | Path | None = None,
    ) -> RunTask[None]:
        """Start a walk as a task. `stop()` ends it, in the middle of a trial.

        Raises:
            UnknownNameError, ValueError: as `run`.
            RuntimeError: no event loop is running.
        """
        walk = prepare_walk(symbol, walker_name, executor, store)
        engine = current_engine()

        async def work() -> None:
            try:
                await exhaust(walk.contracts())
            except Exception as error:
                await engine.failed(ErrorEvent(where="walker", error=error))
                raise

        return RunTask(work(), walk.stop)

    @staticmethod
    def stop(symbol: str | Sequence[str], *, walker_name: str) -> None:
        """Stop the newest walk of this walker over these symbols.

        Raises:
            UnknownNameError: no such walk yet.
        """
        _walk(symbol, walker_name).stop()

    @staticmethod
    def get_data(symbol: str | Sequence[str], *, walker_name: str) -> WalkResult:
        """Return the ranked results of the newest such walk, also while it is running.

        Raises:
            UnknownNameError: no such walk yet.
        """
        walk = _walk(symbol, walker_name)
        return walk_result(walk.data(), walk.results)

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
        return write(text, path, file_name(*symbols_of(symbol), walker_name))


def prepare_walk(
    symbol: str | Sequence[str],
    walker_name: str,
    executor: Workers | None = None,
    store: str | Path | None = None,
    *,
    rerun: bool = False,
    workers: int | None = None,
) -> Walk:
    """Return a walk that has not begun; `workers` is how many processes `"processes"` starts.

    `rerun`: ignore stored results and run every strategy.
    """
    engine = current_engine()
    symbols = symbols_of(symbol)
    schema = engine.walkers.get(walker_name)
    exchange = engine.exchanges.get(schema.exchange_name)
    frame = engine.frames.get(schema.frame_name)
    windows = schema.windows
    if windows is not None:
        try:
            windows.check_fit(frame.timeline)
        except RegistrationError as error:
            raise RegistrationError(
                f"walker {walker_name!r}, frame {frame.name!r}: {error}"
            ) from None
    strategies = strategies_of(engine, schema)
    check_workers(executor)
    account = None if schema.account_name is None else engine.accounts.get(schema.account_name)
    for strategy in strategies if account is not None else ():
        if strategy.sizing_name is not None:
            engine.sizings.get(strategy.sizing_name)
    setup = TrialSetup(
        engine,
        symbols,
        exchange,
        frame,
        engine.risks.copy(),
        account,
        engine.sizings.copy(),
        () if windows is None else tuple(windows.parts(frame.timeline)),
    )

    def make_runner(some: Sequence[StrategySchema]) -> TrialRunner:
        if executor is None:
            return InProcessRunner(setup, some)
        return PoolRunner(setup, some, executor, workers=workers)

    runner = (
        make_runner(strategies)
        if store is None
        else StoredRunner(setup, strategies, WalkStore(store), make_runner, rerun=rerun)
    )
    walk = Walk(setup, schema, runner)
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
            f"no walk of {walker_name!r} over {' '.join(symbols)} yet (existing walks: {there})"
        ) from None

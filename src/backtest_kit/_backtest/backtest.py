"""`bk.Backtest`: run a strategy over a frame, and look at what came out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from backtest_kit._backtest.account_session import AccountSession, session_of
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._backtest.prepare import prepare
from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.task import RunTask, close_exchange, collect, exhaust, run_blocking
from backtest_kit._pages.results import BacktestResult, backtest_result
from backtest_kit._reports.backtest import backtest_data, backtest_report
from backtest_kit._reports.table import file_name, write
from backtest_kit._values.errors import ArgumentError, UnknownNameError
from backtest_kit._values.results import TickClosed


class Backtest:
    """Backtests on the current engine.

    The arguments that name things must name what is registered: `UnknownNameError` otherwise.
    """

    @staticmethod
    def run(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str,
        frame_name: str,
        account_name: str | None = None,
    ) -> AsyncGenerator[TickClosed, None]:
        """Return an async generator of closed results, in order, each as soon as it is known.

        Start backtests that share a risk profile together, in one turn of the event loop, and
        consume them promptly: one that begins after others have been checked later than its start
        waits until they have ended, and opens only what the profile allows beside their positions.

        `account_name`: with the money of this account, as a `Portfolio` of one run, which shares
        risk profiles with no other; `Portfolio.get_data` has what came of it.

        Raises:
            UnknownNameError: nothing is registered under one of the names.
            DataError: (while iterating) the candles can't be had.
        """
        if account_name is not None:
            return _on_account(
                symbol, strategy_name, exchange_name, frame_name, account_name
            ).results()
        return _prepare(symbol, strategy_name, exchange_name, frame_name).results()

    @staticmethod
    def run_sync(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str,
        frame_name: str,
        account_name: str | None = None,
    ) -> Sequence[TickClosed]:
        """Run a backtest to its end and return its closed results; raises as `run`.

        For scripts and notebooks: it also works where an event loop is already running. It shares
        the positions of its risk profiles with no other run. The results of an array strategy are
        made when they are looked at.
        """
        if account_name is not None:
            session = _on_account(symbol, strategy_name, exchange_name, frame_name, account_name)

            async def play() -> Sequence[TickClosed]:
                try:
                    await session.play()
                finally:
                    await close_exchange(session.exchange)
                return session.trades

            return run_blocking(play)
        driver = _prepare(symbol, strategy_name, exchange_name, frame_name)

        async def work() -> Sequence[TickClosed]:
            try:
                if await driver.tabulate(milestones=True):
                    return driver.run.record.closed
                return await collect(driver.results())
            finally:
                await close_exchange(driver.run.exchange)

        return run_blocking(work)

    @staticmethod
    def background(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str,
        frame_name: str,
        account_name: str | None = None,
    ) -> RunTask[None]:
        """Start a backtest as a task; what ends it early is emitted on the exit channel.

        Backtests that share a risk profile belong together if no `await` lies between their starts;
        see `run`.

        Raises:
            UnknownNameError: nothing is registered under one of the names.
            RuntimeError: no event loop is running.
        """
        session = None
        if account_name is None:
            driver = _prepare(symbol, strategy_name, exchange_name, frame_name)
        else:
            session = _on_account(symbol, strategy_name, exchange_name, frame_name, account_name)
            (driver,) = session.drivers

        async def work() -> None:
            try:
                await (exhaust(driver.results()) if session is None else session.play())
            except Exception as error:
                await driver.run.failed("backtest", error)
                raise

        task = RunTask(work(), driver.stop, driver.leave)
        driver.enter()
        return task

    @staticmethod
    def stop(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str | None = None,
        frame_name: str | None = None,
    ) -> None:
        """Take no new signals in backtests that go on; open positions are followed to their close.

        Raises:
            UnknownNameError: no such backtest goes on.
        """
        running = [*current_engine().backtests.values()]
        found = [
            stop
            for record, stop in running
            if (record.symbol, record.strategy_name) == (symbol, strategy_name)
            and exchange_name in (None, record.exchange_name)
            and frame_name in (None, record.frame_name)
        ]
        if not found:
            there = "; ".join(f"{each.strategy_name} {each.symbol}" for each, _ in running)
            raise UnknownNameError(
                f"no backtest of {strategy_name} on {symbol} goes on (running: "
                f"{there or 'nothing'})"
            )
        for stop in found:
            stop()

    @staticmethod
    def get_data(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str | None = None,
        frame_name: str | None = None,
    ) -> BacktestResult:
        """Return what the last such run has found, also while it still runs.

        Raises:
            UnknownNameError: no such run, or several (then name exchange and frame).
        """
        record = _record(symbol, strategy_name, exchange_name, frame_name)
        engine = current_engine()
        return backtest_result(
            backtest_data(record), engine, engine.exchanges.get(record.exchange_name)
        )

    @staticmethod
    def get_report(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str | None = None,
        frame_name: str | None = None,
    ) -> str:
        """Return `get_data` as Markdown; raises as `get_data`."""
        return backtest_report(
            backtest_data(_record(symbol, strategy_name, exchange_name, frame_name))
        )

    @staticmethod
    def dump(
        symbol: str,
        *,
        strategy_name: str,
        exchange_name: str | None = None,
        frame_name: str | None = None,
        path: str | Path = "./dump/backtest",
    ) -> Path:
        """Write the report into the folder `path` and return the file's path.

        Raises:
            UnknownNameError: as `get_data`.
            OSError: the file can't be written.
        """
        record = _record(symbol, strategy_name, exchange_name, frame_name)
        text = backtest_report(backtest_data(record))
        parts = (symbol, strategy_name, record.exchange_name, record.frame_name or "")
        return write(text, path, file_name(*parts))


def _prepare(symbol: str, strategy_name: str, exchange_name: str, frame_name: str) -> FrameDriver:
    engine = current_engine()
    if not isinstance(symbol, str) or not symbol:
        raise ArgumentError(f"symbol={symbol!r} must be a non-empty string")
    driver = prepare(
        engine,
        symbol,
        engine.strategies.get(strategy_name),
        engine.exchanges.get(exchange_name),
        engine.frames.get(frame_name),
        engine.books,
    )
    engine.records.add(driver.run.record)
    return driver


def _on_account(
    symbol: str, strategy_name: str, exchange_name: str, frame_name: str, account_name: str
) -> AccountSession:
    runs = {strategy_name: [symbol]}
    return session_of(current_engine(), runs, exchange_name, frame_name, account_name)


def _record(
    symbol: str, strategy_name: str, exchange_name: str | None, frame_name: str | None
) -> RunRecord:
    return current_engine().records.one(
        mode="backtest",
        symbol=symbol,
        strategy_name=strategy_name,
        exchange_name=exchange_name,
        frame_name=frame_name,
    )

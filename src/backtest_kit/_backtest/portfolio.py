"""`bk.Portfolio`: run several strategies and symbols on one account, and look at what came out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from backtest_kit._backtest.account_session import AccountSession, session_of
from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.task import RunTask, close_exchange, run_blocking
from backtest_kit._pages.results import PortfolioResult, portfolio_result
from backtest_kit._reports.portfolio import portfolio_report
from backtest_kit._reports.portfolio_data import PortfolioData
from backtest_kit._reports.table import file_name, write
from backtest_kit._values.errors import UnknownNameError
from backtest_kit._values.results import TickClosed

#: Strategies, and the symbols that each trades; a run is a pair, in this order.
Runs = Mapping[str, Sequence[str]]


class Portfolio:
    """Backtests on the current engine that share an account and their risk profiles.

    The arguments that name things must name what is registered: `UnknownNameError` otherwise.
    `runs` maps strategies to lists of symbols, such as `{"trend": ["BTCUSDT", "ETHUSDT"]}`.
    """

    @staticmethod
    def run(
        runs: Runs, *, exchange_name: str, frame_name: str, account_name: str
    ) -> AsyncGenerator[TickClosed, None]:
        """Return an async generator of the closed results of all runs, as they happen.

        Once it has ended, or is closed, `get_data` has the rest, as far as the runs have come.

        Raises:
            UnknownNameError: nothing is registered under one of the names.
            ArgumentError: `runs` names none, or one twice; or (while iterating) a symbol is quoted
                in another currency than the account's.
            DataError: (while iterating) the candles can't be had.
        """
        return session_of(current_engine(), runs, exchange_name, frame_name, account_name).results()

    @staticmethod
    def run_sync(
        runs: Runs, *, exchange_name: str, frame_name: str, account_name: str
    ) -> PortfolioResult:
        """Run all to the end and return what came out; raises as `run`.

        For scripts and notebooks: it also works where an event loop is already running.
        """
        session = session_of(current_engine(), runs, exchange_name, frame_name, account_name)

        async def work() -> PortfolioResult:
            try:
                await session.play()
            finally:
                await close_exchange(session.exchange)
            return _result_of(session)

        return run_blocking(work)

    @staticmethod
    def background(
        runs: Runs, *, exchange_name: str, frame_name: str, account_name: str
    ) -> RunTask[PortfolioResult]:
        """Start all as a task; awaited, it returns what came out.

        What ends it early is emitted on the exit channel, and raised by awaiting it.

        Raises:
            UnknownNameError, ArgumentError: as `run`.
            RuntimeError: no event loop is running.
        """
        session = session_of(current_engine(), runs, exchange_name, frame_name, account_name)

        async def work() -> PortfolioResult:
            try:
                await session.play()
            except Exception as error:
                await session.drivers[0].run.failed("portfolio", error)
                raise
            return _result_of(session)

        task = RunTask(work(), session.stop, session.leave)
        session.enter()
        return task

    @staticmethod
    def get_data(*, account_name: str) -> PortfolioResult:
        """Return what the last runs on an account have found, once they have ended.

        Raises:
            UnknownNameError: no runs on this account have ended.
        """
        return portfolio_result(_data(account_name))

    @staticmethod
    def get_report(*, account_name: str) -> str:
        """Return `get_data` as Markdown; raises as `get_data`."""
        return portfolio_report(_data(account_name))

    @staticmethod
    def dump(*, account_name: str, path: str | Path = "./dump/portfolio") -> Path:
        """Write the report into the folder `path` and return the file's path.

        Raises:
            UnknownNameError: as `get_data`.
            OSError: the file can't be written.
        """
        data = _data(account_name)
        parts = (account_name, data.exchange_name, data.frame_name or "")
        return write(portfolio_report(data), path, file_name(*parts))


def _result_of(session: AccountSession) -> PortfolioResult:
    assert session.data is not None
    return portfolio_result(session.data)


def _data(account_name: str) -> PortfolioData:
    found = current_engine().portfolios
    if account_name not in found:
        raise UnknownNameError(
            f"no runs on account {account_name!r} have ended yet (there are: "
            f"{', '.join(found) or 'none'})"
        )
    data: PortfolioData = found[account_name]
    return data

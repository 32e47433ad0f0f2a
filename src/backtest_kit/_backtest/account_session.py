"""Backtests that share an account, in the order of simulated time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from backtest_kit._arrays.paid_account import PaidAccount
from backtest_kit._arrays.shared_simulation import Part, simulate_together
from backtest_kit._backtest.array_session import Loaded
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._backtest.paid_simulation import (
    Paying,
    account_of,
    counts_of,
    fills_of,
    sizes_by_numbers,
)
from backtest_kit._backtest.prepare import prepare
from backtest_kit._engine.account import SharedAccount, check_quotes, markets_of
from backtest_kit._engine.account_gate import AccountGate
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.fill_book import FillBook
from backtest_kit._engine.marks import marks_of
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import SharedBooks
from backtest_kit._reports.backtest import backtest_data
from backtest_kit._reports.portfolio_data import PortfolioData, portfolio_data
from backtest_kit._statistics.equity import AccountCounts, AccountStatistics
from backtest_kit._statistics.equity_outcome import CALENDAR_DAYS, account_figures
from backtest_kit._values.account import Market
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.clock import yield_to_others
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.errors import ArgumentError, DataError
from backtest_kit._values.fills import Fills
from backtest_kit._values.results import TickClosed
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, RiskSchema, StrategySchema


class RunName(NamedTuple):
    """What a run of a portfolio is called."""

    strategy_name: str
    symbol: str


def named_runs(runs: Mapping[str, Sequence[str]]) -> list[RunName]:
    """Return the runs that a mapping of strategies to symbols names, in order.

    Raises:
        ArgumentError: it names none, one twice, or what is no name.
    """
    if not isinstance(runs, Mapping):
        raise ArgumentError(
            f"runs={runs!r} must be a mapping from strategies to lists of symbols, such as "
            '{"trend": ["BTCUSDT", "ETHUSDT"]}'
        )
    found: list[RunName] = []
    for strategy_name, symbols in runs.items():
        if isinstance(symbols, str) or not isinstance(symbols, Sequence):
            raise ArgumentError(f"runs[{strategy_name!r}]={symbols!r} must be a list of symbols")
        if not symbols:
            raise ArgumentError(
                f"runs[{strategy_name!r}] names no symbol; name at least one, or leave it out"
            )
        for symbol in symbols:
            if not isinstance(symbol, str) or not symbol:
                raise ArgumentError(f"runs[{strategy_name!r}] has {symbol!r}, which is no symbol")
            name = RunName(strategy_name, symbol)
            if name in found:
                raise ArgumentError(
                    f"runs names {strategy_name!r} on {symbol!r} twice; name each run once"
                )
            found.append(name)
    if not found:
        raise ArgumentError("runs names no strategy; name one, with at least one symbol")
    return found


def session_of(
    engine: Engine,
    runs: Mapping[str, Sequence[str]],
    exchange_name: str,
    frame_name: str,
    account_name: str,
) -> AccountSession:
    """Return the runs on an account that are named by what is registered.

    Raises:
        ArgumentError: as `named_runs`.
        UnknownNameError: nothing is registered under one of the names.
    """
    return AccountSession(
        engine,
        [(engine.strategies.get(name), symbol) for name, symbol in named_runs(runs)],
        engine.exchanges.get(exchange_name),
        engine.frames.get(frame_name),
        engine.accounts.get(account_name),
    )


class AccountSession:
    """The runs on an account, from its balance to the last close; `play` may be awaited once."""

    def __init__(
        self,
        engine: Engine,
        runs: Sequence[tuple[StrategySchema, str]],
        exchange: ExchangeSchema,
        frame: FrameSchema,
        schema: AccountSchema,
        *,
        sizings: Registry[SizingSchema] | None = None,
        risks: Registry[RiskSchema] | None = None,
        is_trial: bool = False,
    ) -> None:
        """Prepare the runs of strategies on symbols, in this order.

        `sizings` and `risks` are those there are, where they are not those registered now. Of a
        trial neither records nor outcome are kept by the engine, and `data` is not made.

        Raises:
            UnknownNameError, ConfigError, RegistrationError, StrategyFailedError: as `prepare`.
        """
        self.engine = engine
        self.names = [RunName(strategy.name, symbol) for strategy, symbol in runs]
        self.exchange = exchange
        self.account = SharedAccount(schema, FillBook())
        self.markets: dict[str, Market | None] = {}
        self.trades: list[TickClosed] = []
        self.data: PortfolioData | None = None
        self.statistics: AccountStatistics | None = None
        self.drivers: list[FrameDriver] = []
        self._gates: list[AccountGate] = []
        self._sizings: list[SizingSchema | None] = []
        self._is_trial = is_trial
        books, known = SharedBooks(), sizings or engine.sizings
        for strategy, symbol in runs:
            sized = None if strategy.sizing_name is None else known.get(strategy.sizing_name)
            gate = AccountGate(schema, sized)
            self._gates.append(gate)
            self._sizings.append(sized)
            self.drivers.append(
                prepare(engine, symbol, strategy, exchange, frame, books, risks, account=gate)
            )
            gate.join(self.account, self.account.turns.join())
        for driver in self.drivers:
            driver.run.is_trial = is_trial
        if not is_trial:
            for record in self.records:
                engine.records.add(record)

    @property
    def records(self) -> list[RunRecord]:
        """The record of each run."""
        return [driver.run.record for driver in self.drivers]

    def stop(self) -> None:
        """Take no new signals; open positions are followed to their close."""
        for driver in self.drivers:
            driver.stop()

    def enter(self) -> None:
        """Let `Backtest.stop` find the runs, until their results have ended."""
        for driver in self.drivers:
            driver.enter()

    def leave(self) -> None:
        """Let nobody find them any more."""
        for driver in self.drivers:
            driver.leave()

    async def results(self) -> AsyncGenerator[TickClosed, None]:
        """Yield the closed results of all runs in the order in which they happen.

        `conclude` is done in the end, also where the consumer leaves before.
        """
        queue: asyncio.Queue[TickClosed | None] = asyncio.Queue()

        async def hand_over(closed: TickClosed) -> None:
            queue.put_nowait(closed)
            await queue.join()

        async def play() -> None:
            try:
                await self.play(hand_over)
            finally:
                queue.put_nowait(None)

        work = asyncio.create_task(play())
        try:
            while (closed := await queue.get()) is not None:
                yield closed
                queue.task_done()
            await work
        finally:
            has_left = work.cancel()
            # what it raised is the consumer's only where they have waited for it
            await asyncio.gather(work, return_exceptions=True)
            if has_left:
                with contextlib.suppress(DataError):
                    await self.conclude()

    async def play(self, tell: Callable[[TickClosed], Awaitable[None]] | None = None) -> None:
        """Run to the end; `tell` is awaited for each closed result, in order.

        Raises:
            ArgumentError: a symbol is quoted in another currency than the account's.
            DataError: candles of a run can't be had; what closed until then is kept.
        """
        await self._ask_markets()
        for driver in self.drivers:
            driver.load_kernel()
            if tell is None and not self.engine.bus.wanted("backtest_progress"):
                driver.on_paid = self.trades.append
        tasks = [asyncio.create_task(self._follow(driver, tell)) for driver in self.drivers]
        try:
            await asyncio.gather(*tasks)
        except Exception:
            await self._end(tasks)
            # what closed until then is kept, if its candles can be had
            with contextlib.suppress(DataError):
                await self.conclude()
            raise
        finally:
            await self._end(tasks)
        await self.conclude()

    async def play_tables(self) -> bool:
        """Do what `play` does for a trial from tables of all trades; false: it has to be played.

        By another session: this one is spent. Raises as `play`.
        """
        if not all(map(sizes_by_numbers, self._sizings)):
            return False
        await self._ask_markets()
        by = [
            Paying(sizing, gate.terms, gate.rules)
            for gate, sizing in zip(self._gates, self._sizings, strict=True)
        ]
        return await (self._play_alone(by[0]) if len(by) == 1 else self._play_together(by))

    async def _play_alone(self, by: Paying) -> bool:
        """Let the account of a lone run pay its trades as they are found."""
        account = account_of([by], self.account.schema)
        if not await self.drivers[0].tabulate(milestones=False, account=account):
            return False
        await self._take_account(account)
        return True

    async def _play_together(self, by: Sequence[Paying]) -> bool:
        """Let the account pay the trades of all runs as they are found, in the order of time."""
        account, parts = account_of(by, self.account.schema), list[Loaded]()
        for driver in self.drivers:
            loaded = await driver.load()
            if loaded is None:
                return False
            parts.append(loaded)
            await yield_to_others()  # a walk can be stopped between runs
        ready = [Part(each.first, each.bars, each.rows, each.until) for each in parts]
        found = simulate_together(ready, account, self.engine.logger)
        if found is None:
            return False
        for driver, simulation, loaded in zip(self.drivers, found, parts, strict=True):
            if not await driver.take(simulation, loaded):
                return False
        await self._take_account(account)
        return True

    async def _take_account(self, account: PaidAccount) -> None:
        """Take the figures of an account that has paid the trades in tables."""
        tables = [record.table.closed() for record in self.records if record.table is not None]
        ends = [int(table.closed_at.max(initial=0)) for table in tables]
        marks = await self._marks(max(*ends, *(driver.timeline[-1] for driver in self.drivers)))
        self._take_figures(fills_of(account), marks, counts_of(account))

    def _take_figures(self, fills: Fills, marks: Marks, counts: AccountCounts) -> None:
        schema = self.account.schema
        symbols = [name.symbol for name in self.names]
        terms = schema.balance, schema.leverage, schema.days_per_year
        self.statistics = account_figures(symbols, fills, marks, counts, *terms)

    async def _marks(self, until: int) -> Marks:
        """Return the marks of the symbols from the first instant to `until` (ms)."""
        return await marks_of(
            self.engine.store,
            self.exchange,
            {driver.run.symbol: driver.run.config for driver in self.drivers},
            min(driver.timeline[0] for driver in self.drivers),
            until,
            traded_days_only=self.account.schema.days_per_year < CALENDAR_DAYS,
        )

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def conclude(self) -> None:
        """Put together what the runs have found, and let `bk.Portfolio` find it.

        What was interrupted goes as far as its runs have come.

        Raises:
            DataError: the candles can't be had any more.
        """
        account = self.account
        assert account.fills is not None
        fills = account.fills.columns()
        last = int(fills.timestamp[-1]) if len(fills) else 0
        marks = await self._marks(max(last, *map(self._seen, self.drivers)))
        counts, schema = AccountCounts(**msgspec.structs.asdict(account.tally)), account.schema
        if self._is_trial:
            self._take_figures(fills, marks, counts)
            return
        self.data = portfolio_data(
            schema,
            [backtest_data(record) for record in self.records],
            self.trades,
            fills,
            marks,
            counts,
            refusals=[*account.events],
            markets=self.markets,
        )
        self.statistics = self.data.statistics
        self.engine.portfolios.pop(schema.name, None)
        self.engine.portfolios[schema.name] = self.data

    def _seen(self, driver: FrameDriver) -> int:
        """Return how far a run has come, in ms: to its end where it was not cut short."""
        record, end = driver.run.record, driver.timeline[-1]
        whole = record.complete or record.ended_by is not None or driver.run.stopping
        return end if whole or record.data_ended_at is not None else record.until

    async def _follow(
        self, driver: FrameDriver, tell: Callable[[TickClosed], Awaitable[None]] | None
    ) -> None:
        async with aclosing(driver.results()) as results:
            async for closed in results:
                self.trades.append(closed)
                if tell is not None:
                    await tell(closed)

    async def _ask_markets(self) -> None:
        """Ask once for the rules of each symbol's market."""
        self.markets = await markets_of(self.exchange, [name.symbol for name in self.names])
        check_quotes(self.account.schema, self.exchange.name, [*self.markets.items()])
        for gate, name in zip(self._gates, self.names, strict=True):
            gate.keep_to(self.markets[name.symbol])

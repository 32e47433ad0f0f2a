"""What an account of live runs has come to, made again from what is stored and from candles."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from backtest_kit._data.base import run_config
from backtest_kit._engine.account import markets_of
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.fill_book import FillBook
from backtest_kit._engine.marks import marks_of
from backtest_kit._live.stored import stored_record
from backtest_kit._live.stored_accounts import StoredAccount, stored_account
from backtest_kit._reports.backtest import backtest_data
from backtest_kit._reports.portfolio_data import PortfolioData, money, portfolio_data
from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.accounts import AccountDocument
from backtest_kit._state.documents import Transition
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_outcome import CALENDAR_DAYS
from backtest_kit._values.account import Market, Money
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.config import Config
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.errors import (
    ArgumentError,
    DataError,
    StateError,
    UnknownNameError,
)
from backtest_kit._values.fills import Fills
from backtest_kit._values.results import TickAdded, TickClosed, TickOpened, TickPartial
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS

#: Of a balance: how far the end of the curve may be off what is stored, by rounding.
_ROUNDING: Final = 1e-8
_NOTHING: Final = Money(
    quantity=0.0,
    cost=0.0,
    first_cost=0.0,
    fees=0.0,
    slippage=0.0,
    profit=0.0,
    profit_percent=0.0,
    equity_before=0.0,
)


async def account_data(engine: Engine, account_name: str) -> PortfolioData:
    """Return what the live runs on an account have found, also in earlier processes.

    Raises:
        UnknownNameError: no live run on this account is stored.
        StateError: the state can't be read, or a document of the account or its runs is damaged.
        DataError: the candles since it began can't be had.
    """
    adapter = _blocking(engine.live.adapter)
    stored = await asyncio.to_thread(stored_account, adapter, account_name)
    document, runs = stored.document, stored.runs
    if not runs and stored.problems:
        raise StateError("; ".join(stored.problems))
    if not runs:
        raise UnknownNameError(f"account {account_name!r} has no runs yet")
    exchange = engine.exchanges.get(document.exchange_name)
    schema = _schema(engine, document)
    fills = fills_of([run.transitions for run in runs])
    configs = {run.key.symbol: run_config(engine.config, exchange, run.key.symbol) for run in runs}
    since = min(run.state.began_at or 0 for run in runs if run.state is not None)
    until = max((run.at or 0 for run in runs), default=since)
    last = int(fills.timestamp[-1]) if len(fills) else since
    traded = {runs[i].key.symbol for i in set(fills.run.tolist())}
    until = max(until, last, since + min(INTERVALS[c.base_interval] for c in configs.values()))
    asked = _Asked(engine, exchange, since, until, schema.days_per_year < CALENDAR_DAYS)
    marks, unmarked = await _marks(asked, configs, traded)
    markets, unknown = await _markets(exchange, [*configs])
    records = [stored_record(run, configs[run.key.symbol]) for run in runs]
    for record in records:
        record.complete = True  # it has no end that it could miss
    trades = sorted(
        (tick for record in records for tick in record.closed), key=lambda x: x.close_timestamp
    )
    found = portfolio_data(
        schema,
        [backtest_data(record) for record in records],
        trades,
        fills,
        marks,
        _counts(stored.parts),
        markets=markets,
        added=document.paid_in - document.balance,
    )
    damage = [f"{run.key}: {text}" for run in runs for text in run.damage]
    problems = (*stored.problems, *damage, *_difference(stored, found), *unmarked, *unknown)
    return msgspec.structs.replace(found, problems=tuple(dict.fromkeys(problems)))


class _Asked(NamedTuple):
    """What marks are asked for, from `since` to `until` (ms)."""

    engine: Engine
    exchange: ExchangeSchema
    since: int
    until: int
    traded_days_only: bool

    async def of(self, configs: Mapping[str, Config]) -> Marks:
        """Return the marks of some symbols; raises DataError."""
        return await marks_of(
            self.engine.store,
            self.exchange,
            configs,
            self.since,
            self.until,
            traded_days_only=self.traded_days_only,
        )


async def _marks(
    asked: _Asked, configs: Mapping[str, Config], traded: Collection[str]
) -> tuple[Marks, list[str]]:
    """Return the marks of symbols, and which have none: no fill needs them.

    Raises:
        DataError: the candles of a symbol that was `traded` can't be had.
    """
    try:
        return await asked.of(configs), []
    except DataError:
        if not {*configs} - {*traded}:
            raise
    there, problems = dict[str, Config](), list[str]()
    for symbol, config in configs.items():
        try:
            await asked.of({symbol: config})
        except DataError as error:
            if symbol in traded:
                raise
            problems.append(f"Without {symbol}, which was not traded: {error}")
        else:
            there[symbol] = config
    step = min(INTERVALS[config.base_interval] for config in configs.values())
    if there:
        marks = await asked.of(there)
    else:
        marks = Marks(timestamp=np.arange(asked.since, asked.until + 1, step), prices={})
    nothing = np.full(len(marks.timestamp), np.nan)
    prices = {symbol: marks.prices.get(symbol, nothing) for symbol in configs}
    return msgspec.structs.replace(marks, prices=prices), problems


async def _markets(
    exchange: ExchangeSchema, symbols: Iterable[str]
) -> tuple[dict[str, Market | None], list[str]]:
    """Return what an exchange says of symbols now, and what went wrong; a report needs none."""
    found, problems = dict[str, Market | None](), list[str]()
    for symbol in symbols:
        try:
            found |= await markets_of(exchange, [symbol])
        except (ArgumentError, DataError) as error:
            found[symbol] = None
            problems.append(str(error))
    return found, problems


def _difference(stored: StoredAccount, found: PortfolioData) -> list[str]:
    """Return that the curve does not end where the account is, if so."""
    begun = stored.document.balance
    wanted = begun + math.fsum(part.gain for part in stored.parts)
    ends = float(found.curve.balance[-1])
    if abs(wanted - ends) <= _ROUNDING * max(begun, abs(wanted)):
        return []
    text = f"The curve ends with a balance of {money(ends)}, and {money(wanted)} is stored"
    return [f"{text}: some of what was traded is missing from it."]


def fills_of(runs: Sequence[Iterable[Transition]]) -> Fills:
    """Return the fills that the transitions of runs tell of, in order; `run` counts `runs`.

    What is told of a position whose opening the journal has lost is left out.
    """
    found = [fill for i, transitions in enumerate(runs) for fill in _fills(i, transitions)]
    found.sort(key=lambda fill: (fill.timestamp, fill.run))  # a run's own stay in order
    book, trades, newest = FillBook(), -1, dict[int, int]()
    for fill in found:
        if fill.opens:
            trades += 1
            newest[fill.run] = trades
        key = fill.timestamp, fill.run, newest[fill.run], fill.side
        book.add(*key, *fill.amounts, liquidated=fill.liquidated)
    return book.columns()


class _Fill(NamedTuple):
    """A fill as `FillBook` takes it, but for the number of its trade; `opens`: a position."""

    timestamp: int
    run: int
    side: int
    opens: bool
    amounts: tuple[float, float, float, float, float, float, float]
    liquidated: bool


def _fills(run: int, transitions: Iterable[Transition]) -> Iterator[_Fill]:
    """Yield the fills of one run, by how the money of its positions has changed."""
    before, held, basis = _NOTHING, 0.0, 0.0
    for entry in transitions:
        tick = entry.tick
        if not isinstance(tick, TickOpened | TickAdded | TickPartial | TickClosed):
            continue
        money, opens = tick.money, isinstance(tick, TickOpened)
        if money is None or (held == 0 and not opens):
            continue
        if opens:
            before, held, basis = _NOTHING, 0.0, 0.0
        gain, fee = money.profit - before.profit, money.fees - before.fees
        quantity, cost = money.quantity - before.quantity, money.cost - before.cost
        gross, value = 0.0, cost
        if isinstance(tick, TickPartial | TickClosed):
            sold = held if isinstance(tick, TickClosed) else tick.share / 100 * money.quantity
            taken = basis * sold / held
            quantity, cost, gross = -sold, -taken, gain + fee
            value = max(0.0, taken + tick.signal.side * gross)
        held, basis = held + quantity, basis + cost
        slippage = money.slippage - before.slippage
        amounts = (quantity, cost, gain, fee, slippage, gross, value)
        lost = money.liquidated and not before.liquidated
        yield _Fill(tick.timestamp, run, tick.signal.side, opens, amounts, lost)
        before = money


def _schema(engine: Engine, document: AccountDocument) -> AccountSchema:
    """Return an account as it is registered, with what it was begun with."""
    begun: dict[str, Any] = {
        "account_name": document.name,
        "currency": document.currency,
        "balance": document.balance,
        "leverage": document.leverage,
        "maintenance_percent": document.maintenance_percent,
    }
    known = {schema.name: schema for schema in engine.accounts.list()}
    if document.name in known:
        return msgspec.structs.replace(known[document.name], **begun)
    return AccountSchema(**begun)


def _counts(parts: Sequence[AccountPart]) -> AccountCounts:
    refusals, skips = Counter[str](), Counter[str]()
    for part in parts:
        refusals.update(part.refusals)
        skips.update(part.skips)
    return AccountCounts(
        not_charged=sum(part.not_charged for part in parts),
        refusals=dict(refusals),
        skips=dict(skips),
        reductions=sum(part.reductions for part in parts),
    )


def _blocking(adapter: Any) -> Any:
    """Return an adapter with sync methods, for a thread beside this event loop."""
    if not inspect.iscoroutinefunction(adapter.read):
        return adapter
    return _Blocking(adapter, asyncio.get_running_loop())


class _Blocking:
    """An async adapter, called from another thread than that of its event loop."""

    def __init__(self, adapter: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._adapter = adapter
        self._loop = loop

    def read(self, kind: str, key: str) -> Any:
        """See `PersistAdapter`."""
        return self._wait(self._adapter.read(kind, key))

    def list(self, kind: str) -> Any:
        """See `PersistAdapter`."""
        return self._wait(self._adapter.list(kind))

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

"""A trial: the backtest of one strategy from a clean state, reduced to its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import msgspec
import numpy as np

from backtest_kit._arrays.brackets import Brackets, joined_brackets
from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._backtest.array_table import columns_of, costs_of, doubts_of, losses_of
from backtest_kit._backtest.brackets import brackets_of
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._backtest.prepare import prepare
from backtest_kit._data.base import base_interval
from backtest_kit._engine.engine import Engine, describe
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import SharedBooks
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult, WindowRun
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import BacktestKitError, ConfigError, StrategyFailedError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, RiskSchema, StrategySchema
from backtest_kit._values.time import INTERVALS, frames_before, to_datetime
from backtest_kit._values.windows import Window
from backtest_kit._walker.shared_state import began_with_others, changed_for_others

#: Into so many equal parts a frame is divided where trials may be ended early.
PARTS: Final = 10


class TrialSetup(msgspec.Struct, frozen=True):
    """What the trials of a walk or a search have in common: everything but the strategy.

    `windows` are parts of the frame over which each strategy is also run alone.
    """

    engine: Engine
    symbols: tuple[str, ...]
    exchange: ExchangeSchema
    frame: FrameSchema
    risks: Registry[RiskSchema] | None = None
    account: AccountSchema | None = None
    sizings: Registry[SizingSchema] | None = None
    windows: tuple[Window, ...] = ()

    def base_interval(self) -> str:
        """Return the interval of the candles by which the runs step, or those of the symbols."""
        try:
            found = [base_interval(self.exchange, s, self.engine.config) for s in self.symbols]
        except ConfigError:  # each trial fails by it, and says so
            return ""
        return ", ".join(dict.fromkeys(found))


def end_of_part(timeline: range, parts: int) -> int:
    """Return where the first `parts` of a frame end, in milliseconds."""
    return timeline[0] + (timeline[-1] - timeline[0]) * parts // PARTS


def first_parts(setup: TrialSetup, parts: int) -> TrialSetup:
    """Return a setup whose frame is the first `parts` of it."""
    if parts == PARTS:
        return setup
    end = to_datetime(end_of_part(setup.frame.timeline, parts))
    return msgspec.structs.replace(setup, frame=msgspec.structs.replace(setup.frame, end_date=end))


async def run_trial(setup: TrialSetup, strategy: StrategySchema, parts: int = PARTS) -> TrialResult:
    """Backtest a strategy over all symbols at once, with risk books of its own.

    Over the first `parts` of the frame; what is open at their end is followed to its own.

    Raises:
        StrategyFailedError: every call of the strategy raised; or it began with what another
            strategy changed, or changed what others see.
        DataError: the candles can't be had.
        UnknownNameError: the strategy names a risk profile that is not registered.
    """
    frame = first_parts(setup, parts).frame
    result = await _alone(setup, strategy, frame)
    if not setup.windows:
        return result
    runs = [await _run_of(setup, strategy, window) for window in setup.windows]
    return msgspec.structs.replace(result, window_runs=tuple(runs))


async def _run_of(setup: TrialSetup, strategy: StrategySchema, window: Window) -> WindowRun:
    """Backtest a strategy over one window alone, as if there were no other."""
    line = setup.frame.timeline
    instants = line[frames_before(line, window.since) : frames_before(line, window.until)]
    if not instants:
        return WindowRun(window.since, window.until)
    first, last = to_datetime(instants[0]), to_datetime(instants[-1])
    frame = msgspec.structs.replace(setup.frame, start_date=first, end_date=last)
    try:
        alone = await _alone(setup, strategy, frame)
    except BacktestKitError as error:
        return WindowRun(window.since, window.until, error=describe(error))
    return WindowRun(window.since, window.until, alone.trades, brackets=alone.brackets)


async def _alone(setup: TrialSetup, strategy: StrategySchema, frame: FrameSchema) -> TrialResult:
    """Backtest a strategy over all symbols at once, from a clean state."""
    if setup.account is None:
        return _concluded(await _records(setup, strategy, frame))
    session = _session(setup, setup.account, strategy, frame)
    if not await session.play_tables():
        _check_alone(session.records)  # what a run has changed, the next one finds changed
        session = _session(setup, setup.account, strategy, frame)
        await session.play()
    result = _concluded(session.records)
    return msgspec.structs.replace(result, account=session.statistics)


def _session(
    setup: TrialSetup, account: AccountSchema, strategy: StrategySchema, frame: FrameSchema
) -> AccountSession:
    return AccountSession(
        setup.engine,
        [(strategy, symbol) for symbol in setup.symbols],
        setup.exchange,
        frame,
        account,
        sizings=setup.sizings,
        risks=setup.risks,
        is_trial=True,
    )


async def _records(
    setup: TrialSetup, strategy: StrategySchema, frame: FrameSchema
) -> list[RunRecord]:
    """Backtest a strategy over all symbols at once, and return the records of the runs."""
    books = SharedBooks()
    drivers = [
        prepare(setup.engine, symbol, strategy, setup.exchange, frame, books, setup.risks)
        for symbol in setup.symbols
    ]
    for driver in drivers:
        driver.run.is_trial = True
    records = [driver.run.record for driver in drivers]
    tasks = [asyncio.ensure_future(_run_to_end(driver)) for driver in drivers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return records


def _concluded(records: Sequence[RunRecord]) -> TrialResult:
    """Return the result of one strategy's runs, and what state they have changed.

    Raises:
        StrategyFailedError: as `result_of`, or it shared state with others.
    """
    changed = tuple(dict.fromkeys(place for record in records for place in record.changed))
    try:
        _check_alone(records)
        return msgspec.structs.replace(result_of(records), changed=changed)
    except StrategyFailedError as error:
        error.changed = changed
        raise


def _check_alone(records: Sequence[RunRecord]) -> None:
    """Raise a `StrategyFailedError` where a trial shared its state with others: order matters."""
    name = records[0].strategy_name
    found = dict.fromkeys(pair for record in records for pair in record.left_by_others)
    if found:
        raise began_with_others(name, found)
    changed = dict.fromkeys(label for record in records for label in record.changed_for_others)
    if changed:
        raise changed_for_others(name, changed)


def result_of(records: Sequence[RunRecord]) -> TrialResult:
    """Return the result of one strategy's runs over different symbols.

    Raises:
        StrategyFailedError: every call of the strategy raised.
    """
    kinds = [kind for record in records for kind in record.error_kinds.values()]
    raised = sum(record.raised for record in records)
    calls = sum(record.calls for record in records)
    first = min(kinds, key=lambda k: (k.when is None, k.when or 0), default=None)
    name = records[0].strategy_name
    if calls and raised == calls and first is not None:
        raise StrategyFailedError(
            f"strategy {name!r} raised at each of its {calls:,} calls, first {first.text}"
        )
    span = (min(r.since for r in records), max(max(r.until, r.since) for r in records))
    r, opened, closed, symbol, cost = joined_trades(records)
    stop, worst = _joined_losses(records)
    doubts = [doubts_of(record) for record in records]
    together = summarize(r, opened, closed, span, cost)
    of_symbol = (symbol == i for i in range(len(records)))
    return TrialResult(
        strategy_name=name,
        symbols=tuple(record.symbol for record in records),
        since=span[0],
        until=span[1],
        statistics=together,
        by_symbol=(together,)
        if len(records) == 1
        else tuple(
            summarize(r[rows], opened[rows], closed[rows], span, cost[rows]) for rows in of_symbol
        ),
        trades=TradeColumns.of(r, opened, closed, symbol=symbol, stop_loss=stop, worst_loss=worst),
        calls=calls,
        error_count=sum(record.error_count for record in records),
        first_error=None if first is None else first.text,
        warming=sum(record.warming for record in records),
        gaps_filled=sum(record.candles.missing for record in records),
        ambiguous_closes=sum(ambiguous for ambiguous, _ in doubts),
        end_of_data_closes=sum(end_of_data for _, end_of_data in doubts),
        complete=all(record.complete for record in records),
        brackets=_joined_brackets(records),
        interval=max((_interval_of(record) for record in records), default=0),
    )


def _interval_of(record: RunRecord) -> int:
    return 0 if record.strategy is None else INTERVALS.get(record.strategy.interval, 0)


def joined_trades(records: Sequence[RunRecord]) -> tuple[Floats, Ints, Ints, Ints, Floats]:
    """Return the trades of several records in the order of closing.

    As columns: profit in percent, times of opening and close, the index of the record, and the cost
    of the entries, relative to the first.
    """
    columns = [columns_of(record) for record in records]
    costs = [costs_of(record) for record in records]
    if len(columns) == 1:  # which are in order already
        return *columns[0], np.zeros(len(columns[0][0]), dtype=np.int64), costs[0]
    r = np.concatenate([part[0] for part in columns])
    opened = np.concatenate([part[1] for part in columns])
    closed = np.concatenate([part[2] for part in columns])
    symbol, order = _order([part[2] for part in columns])
    cost = np.concatenate(costs)
    return r[order], opened[order], closed[order], symbol[order], cost[order]


def _joined_losses(records: Sequence[RunRecord]) -> tuple[Floats, Floats]:
    """Return what the trades would have lost at stop and worst price, in the order of closing."""
    losses = [losses_of(record) for record in records]
    if len(losses) == 1:
        return losses[0]
    _, order = _order([columns_of(record)[2] for record in records])
    stop, worst = (np.concatenate([part[i] for part in losses]) for i in (0, 1))
    return stop[order], worst[order]


def _joined_brackets(records: Sequence[RunRecord]) -> Brackets:
    """Return how the trades of several records were meant to end, in the order of closing."""
    brackets = [brackets_of(record) for record in records]
    if len(brackets) == 1:
        return brackets[0]
    _, order = _order([columns_of(record)[2] for record in records])
    return joined_brackets(brackets).at(order)


def _order(closed: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Return the record of each trade, and the order of closing, of records by order."""
    symbol = np.repeat(np.arange(len(closed), dtype=np.int64), [len(part) for part in closed])
    return symbol, np.lexsort((symbol, np.concatenate(closed)))


async def _run_to_end(driver: FrameDriver) -> None:
    if await driver.tabulate(milestones=False):
        return
    async with aclosing(driver.results()) as results:
        async for _ in results:
            pass

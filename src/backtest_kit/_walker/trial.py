"""A trial: one strategy's whole backtest from clean state, and the figures that are left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial

import numpy as np

from backtest_kit._backtest.array_table import columns_of, doubts_of
from backtest_kit._backtest.driver import FrameDriver, prepare
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.registry import Registry
from backtest_kit._engine.risk import Books
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial import Trades, Trial
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import StrategyFailedError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, RiskSchema, StrategySchema

#: Where an error of a strategy's call is counted, and the kind that a bad proposal is.
ASKING, INVALID = "get_signal", "SignalError"
Look = Callable[[Sequence[RunRecord]], None]


async def run_trial(
    engine: Engine,
    strategy: StrategySchema,
    symbols: Sequence[str],
    exchange: ExchangeSchema,
    frame: FrameSchema,
    look: Look | None = None,
    risks: Registry[RiskSchema] | None = None,
) -> Trial:
    """Backtest a strategy over symbols, side by side, with risk books of their own.

    `look` is called with the records so far after each close; what it raises ends the trial.
    `risks` are as for `prepare`.

    Raises:
        StrategyFailedError: every call of the strategy raised.
        DataError: the candles can't be had.
        UnknownNameError: the strategy names a risk profile that is not registered.
    """
    books = Books()
    rest = (strategy, exchange, frame, books, risks)
    drivers = [prepare(engine, symbol, *rest) for symbol in symbols]
    records = [driver.run.record for driver in drivers]
    after = None if look is None else partial(look, records)
    tasks = [asyncio.ensure_future(_finish(driver, after)) for driver in drivers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return trial_of(records)


def trial_of(records: Sequence[RunRecord]) -> Trial:
    """Return what is left of runs of one strategy over different symbols.

    Raises:
        StrategyFailedError: every call of the strategy raised.
    """
    kinds = [kind for record in records for kind in record.error_kinds.items()]
    raised = sum(k.count for (where, name), k in kinds if where == ASKING and name != INVALID)
    calls = sum(record.calls for record in records)
    first = min((k for _, k in kinds), key=lambda k: (k.when is None, k.when or 0), default=None)
    name = records[0].strategy_name
    if calls and raised == calls and first is not None:
        raise StrategyFailedError(
            f"strategy {name!r} raised at each of its {calls:,} calls, first {first.message}"
        )
    span = (min(r.since for r in records), max(max(r.until, r.since) for r in records))
    r, opened, closed, symbol = joined(records)
    counts = [doubts_of(record) for record in records]
    together = summarize(r, opened, closed, span)
    each = (symbol == i for i in range(len(records)))
    return Trial(
        strategy_name=name,
        symbols=tuple(record.symbol for record in records),
        since=span[0],
        until=span[1],
        statistics=together,
        by_symbol=(together,)
        if len(records) == 1
        else tuple(summarize(r[mine], opened[mine], closed[mine], span) for mine in each),
        trades=Trades(r.tobytes(), opened.tobytes(), closed.tobytes(), symbol.tobytes()),
        calls=calls,
        error_count=sum(record.error_count for record in records),
        first_error=None if first is None else first.message,
        warming=sum(record.warming for record in records),
        gaps_filled=sum(series.filled for record in records for series in record.gaps),
        ambiguous_closes=sum(counted[0] for counted in counts),
        end_of_data_closes=sum(counted[1] for counted in counts),
        complete=all(record.complete for record in records),
    )


def joined(records: Sequence[RunRecord]) -> tuple[Floats, Ints, Ints, Ints]:
    """Return profit, opening, close and number of the record of all trades, in order of closing."""
    columns = [columns_of(record) for record in records]
    if len(columns) == 1:  # in order already
        return *columns[0], np.zeros(len(columns[0][0]), dtype=np.int64)
    r, opened, closed = (np.concatenate([part[i] for part in columns]) for i in range(3))
    symbol = np.concatenate([np.full(len(part[0]), i) for i, part in enumerate(columns)])
    order = np.lexsort((symbol, closed))
    return r[order], opened[order], closed[order], symbol[order]


async def _finish(driver: FrameDriver, look: Callable[[], None] | None) -> None:
    if look is None and await driver.play_arrays():
        return
    async with aclosing(driver.play()) as results:
        async for _ in results:
            if look is not None:
                look()

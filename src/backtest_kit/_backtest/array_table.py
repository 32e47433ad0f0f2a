"""A backtest from arrays that nobody watches: a table of trades instead of results and events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import numpy as np

from backtest_kit._backtest.answers import Answers, Chunk
from backtest_kit._backtest.array_reach import kernel_loaded, next_stretch, playable, watched
from backtest_kit._engine.ambient import Moment, moment
from backtest_kit._engine.bus import Channel
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.run import Run
from backtest_kit._rules.fast_forward import Tape
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import DataError, SignalError
from backtest_kit._values.time import INTERVALS, MINUTE, iso

if TYPE_CHECKING:
    from backtest_kit._arrays.kernel_run import Stage

#: What a run tells beside the results of its steps; a table can't.
_TOLD: Final[tuple[Channel, ...]] = ("error", "backtest_progress", "done_backtest")


async def play_arrays(run: Run, timeline: range, answers: Answers) -> bool:
    """Fill in the record of a run from the kernel's trades; false: it has to be stepped through.

    Raises:
        PeekingError: signals over arrays look into the future.
    """
    if not playable(run.strategy) or watched(run.engine) or run.engine.bus.wanted(*_TOLD):
        return False
    if not kernel_loaded(run.engine):
        return False
    from backtest_kit._arrays.kernel_run import Stage  # which imports Numba

    stage, errors = Stage(), list[tuple[int, Exception]]()
    try:
        done = await _played(run, timeline, answers, stage, errors)
    except DataError:  # step by step, this may be an error of some steps
        done = False
    if not done:
        run.view = run.view.afresh()
        return False
    table, record = stage.table(), run.record
    for when, error in errors:
        moment.set(Moment(run, when))
        run.error("get_signal", error)
        more = table.invalid - 1
        record.error_count += more
        record.error_kinds["get_signal", type(error).__name__].count += more
    record.table = table
    record.calls, record.frames, record.complete = table.calls, len(timeline), True
    run.warming(table.unanswered)
    if record.calls:
        interval = INTERVALS[run.strategy.interval]
        hop = -(-interval // timeline.step) * timeline.step
        run.warm(timeline[0] + table.unanswered * hop)
    record.until = max(timeline[-1], int(table.closed_at.max(initial=0)))
    record.gaps = run.view.gaps(record.until)
    return True


async def _played(
    run: Run,
    timeline: range,
    answers: Answers,
    stage: Stage,
    errors: list[tuple[int, Exception]],
) -> bool:
    """Play the whole timeline, as much at a time as is loaded; false where that can't be.

    `errors` gets the first invalid signal.
    """
    from backtest_kit._arrays.kernel_run import Play

    config, interval, warmup = run.config, run.strategy.interval, run.strategy.warmup
    tape = await run.view.tape(run.symbol, timeline[0], timeline[0])
    if timeline[0] < tape.first + (config.avg_price_candles_count - 1) * MINUTE:
        return False
    while (frame := stage.due) < len(timeline):
        stretch = await next_stretch(run, timeline, answers, frame)
        if stretch is None:
            return False
        chunk, tape, until, _ = stretch
        valid = not stage.invalid
        play = Play(chunk.signals, chunk.opens, interval, timeline, config, warmup - 1)
        stage.play(tape, play, until)
        if valid and stage.invalid:
            errors.append(_invalid(run, chunk, tape, stage.first_invalid))
        await asyncio.sleep(0)  # a walk can be stopped between chunks
    return True


def columns_of(record: RunRecord) -> tuple[Floats, Ints, Ints]:
    """Return profit, opening and close of what a run has closed, in order."""
    if record.table is not None:
        table = record.table.closed()
        return table.pnl, table.pending_at, table.closed_at
    closed = record.closed
    return (
        np.array([tick.pnl.pnl_percentage for tick in closed], dtype=np.float64),
        np.array([tick.signal.pending_at or 0 for tick in closed], dtype=np.int64),
        np.array([tick.close_timestamp for tick in closed], dtype=np.int64),
    )


def doubts_of(record: RunRecord) -> tuple[int, int]:
    """Return how many closes of a run were ambiguous, and how many at the end of the data."""
    if record.table is not None:
        table = record.table  # what was never filled is neither
        return int(table.ambiguous.sum()), table.count("end_of_data")
    return (
        sum(tick.ambiguous for tick in record.closed),
        sum(tick.close_reason == "end_of_data" for tick in record.closed),
    )


def _invalid(run: Run, chunk: Chunk, tape: Tape, when: int) -> tuple[int, Exception]:
    """Return the error of the signal at `when`."""
    price = float(tape.price[tape.row(when)])
    try:
        run.accept(chunk.signals.row(chunk.row(when), price), price, when)
    except SignalError as error:
        return when, error
    raise AssertionError(f"the kernel refused the signal at {iso(when)}, which is valid")

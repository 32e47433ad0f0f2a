"""A backtest over arrays without listeners: one table of trades for the whole frame."""

from __future__ import annotations

from typing import Final

import numpy as np

from backtest_kit._arrays.simulation import reached, worst_prices
from backtest_kit._arrays.trade_results import results_of
from backtest_kit._arrays.trade_table import TradeTable, joined
from backtest_kit._backtest.array_session import (
    ArraySession,
    Span,
    can_be_simulated,
    has_result_listeners,
)
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.bus import Channel
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.run import Run
from backtest_kit._reports.trades import outcomes_of
from backtest_kit._rules import transitions
from backtest_kit._rules.asking import Stride
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import MILESTONES, profit
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.clock import yield_to_others
from backtest_kit._values.errors import DataError, SignalError
from backtest_kit._values.events import ErrorEvent, PartialEvent
from backtest_kit._values.results import CANCELLED, TickClosed
from backtest_kit._values.time import iso

#: What a run reports beside the results of its steps; a table can't.
_OTHER_CHANNELS: Final[tuple[Channel, ...]] = ("error", "backtest_progress", "done_backtest")


def can_be_tabulated(run: Run) -> bool:
    """Say whether a table of trades is all that the run has to give: no listeners, no callbacks."""
    if not can_be_simulated(run.strategy) or has_result_listeners(run.engine):
        return False
    return not run.engine.bus.wanted(*_OTHER_CHANNELS)


async def tabulate(
    run: Run, timeline: range, stride: Stride, session: ArraySession, *, milestones: bool
) -> bool:
    """Fill in the record of a run from one table; false: it has to be stepped through.

    `milestones`: they go into the record too.

    Raises:
        PeekingError: signals over arrays look into the future.
    """
    try:
        first = await session.priced_from(0)
        found = Findings(run, timeline, stride, session, first, milestones=milestones)
        while not found.are_all:
            span = await session.advance(*found.place)
            if span is None:
                break
            found.add(span)
            await yield_to_others()  # a walk can be stopped between spans
        if await found.reach_the_end():
            found.enter()
            return True
    except DataError:  # step by step, this may be an error of some steps
        pass
    run.view = run.view.afresh()
    return False


class Findings:
    """What was found over a frame, a span after the other, for the record of a run.

    It begins with frame `first`; those before have no average price.
    """

    def __init__(
        self,
        run: Run,
        timeline: range,
        stride: Stride,
        session: ArraySession,
        first: int,
        *,
        milestones: bool,
    ) -> None:
        self._run, self._first = run, first
        self._timeline, self._stride, self._session = timeline, stride, session
        self._with_milestones = milestones
        #: The frame at which to go on, and that from which on the strategy may be asked.
        self.place = (first, 0)
        self._tables: list[TradeTable] = []
        self._errors: list[tuple[int, Exception]] = []
        self._milestones: list[PartialEvent] = []
        self._worst: list[Floats] = []
        self._begin: Bars | None = None

    @property
    def are_all(self) -> bool:
        """Whether no call is left."""
        return self._stride.first(*self.place) >= len(self._timeline)

    def add(self, span: Span) -> None:
        """Add what was found next."""
        if span.table.invalid and not any(table.invalid for table in self._tables):
            self._errors.append(_invalid(self._run, span))
        self._begin = self._begin or span.bars
        self.place = span.frame, span.asks_from
        self._tables.append(span.table)
        self._worst.append(worst_prices(span.bars, span.table))
        if self._with_milestones:
            self._milestones += milestones_of(self._run, span)

    async def reach_the_end(self) -> bool:
        """Say whether they are all, up to the end of the frame.

        The strategy is not asked at the last frames, but the data have to reach them.
        """
        if not self.are_all or not self._tables:
            return False
        run, end = self._run, self._timeline[-1]
        return (await run.view.bars(run.symbol, end, end)).stop > end

    def enter(self) -> None:
        """Enter all into the record."""
        run, timeline = self._run, self._timeline
        table, record = joined(self._tables), run.record
        for when, error in self._errors:
            current_moment.set(Moment(run, when))
            run.error("get_signal", error)
            if more := table.invalid - 1:
                others = SignalError(
                    [f"{more} more, which arrays count without telling them apart"]
                )
                record.error(ErrorEvent(where="get_signal", error=others, when=when), more)
        record.table, record.worst_prices = table, np.concatenate(self._worst)
        record.partials += self._milestones
        record.calls, record.frames, record.complete = table.calls, len(timeline), True
        run.warming(table.unanswered)
        run.warming(self._first, asked=False)
        if record.calls:
            assert self._begin is not None
            warm = self._session.call(self._begin, table.unanswered, self._first)
            run.warm(timeline[warm])
        record.until = max(timeline[-1], int(table.closed_at.max(initial=0)))
        run.look_at_candles()


def milestones_of(run: Run, span: Span) -> list[PartialEvent]:
    """Return the milestones of the trades of a span, in order."""
    far = np.flatnonzero(reached(span.bars, span.table, MILESTONES[0]))
    found: list[PartialEvent] = []
    for i in far.tolist():
        tick = next(results_of(span.table, run.record.names, i, i + 1))
        assert isinstance(tick, TickClosed)
        before = tick.close_timestamp
        # these close a trade after the milestones of their step
        before += (tick.close_reason in ("end_of_data", "closed")) * span.bars.step
        found += transitions.all_milestones(
            tick.signal, run.mode, span.bars, before, _added(span.table, i)
        )
    return found


def _added(table: TradeTable, i: int) -> list[tuple[int, float]]:
    """Return when trade i entered further, and the effective entry after each."""
    if table.managed is None:
        return []
    legs = table.managed.legs_of(i)
    further = [(t, row) for t, row in zip(legs.times, legs.rows, strict=True) if row.quantity > 0]
    return [(when, row.effective_entry) for when, row in further[1:]]


def costs_of(record: RunRecord) -> Floats:
    """Return the cost of the entries of what a run has closed, relative to the first, in order."""
    if record.table is not None:
        return record.table.closed().cost
    return np.array([tick.cost for tick in record.closed], dtype=np.float64)


def losses_of(record: RunRecord) -> tuple[Floats, Floats]:
    """Return what each trade of a run would have lost at its stop, and at the worst price it saw.

    In percent after costs, positive for a loss, in order. NaN for a trade without a stop; the worst
    price is known of those alone, and of runs over arrays only.
    """
    config = record.config
    if record.table is not None:
        table = record.table.closed()
        managed = table.managed
        paid = table.price_open if managed is None else managed.price_paid
        side, stop = table.side, table.price_stop_loss
        worst = record.worst_prices[record.table.reason < CANCELLED]
    else:
        ticks = record.closed
        side = np.array([1 if tick.signal.position == "long" else -1 for tick in ticks], np.int8)
        paid = np.array([tick.pnl.price_open for tick in ticks], dtype=np.float64)
        stops = [tick.signal.price_stop_loss for tick in ticks]
        stop = np.array([np.nan if price is None else price for price in stops], dtype=np.float64)
        worst = np.full(len(ticks), np.nan)

    def lost(price: Floats) -> Floats:
        long, short = (
            profit(position, paid, price, config.percent_fee, config.percent_slippage)
            for position in ("long", "short")
        )
        return -np.where(side > 0, long, short)

    return lost(stop), lost(worst)


def columns_of(record: RunRecord) -> tuple[Floats, Ints, Ints]:
    """Return profit, opening and close of what a run has closed, in order."""
    if record.table is not None:
        table = record.table.closed()
        return table.pnl, table.pending_at, table.closed_at
    return outcomes_of(record.closed)


def doubts_of(record: RunRecord) -> tuple[int, int]:
    """Return how many closes of a run were ambiguous, and how many at the end of the data."""
    if record.table is not None:
        table = record.table  # what was never filled is neither
        return int(table.ambiguous.sum()), table.count("end_of_data")
    return (
        sum(tick.ambiguous for tick in record.closed),
        sum(tick.close_reason == "end_of_data" for tick in record.closed),
    )


def _invalid(run: Run, span: Span) -> tuple[int, Exception]:
    """Return the error of the first invalid signal of a span, and when it was."""
    when, chunk = span.table.first_invalid, span.chunk
    quote = span.bars.bar(when).quote
    try:
        run.accept(chunk.signals.row(chunk.row(when), quote.fill), quote, when)
    except SignalError as error:
        # with its traceback it would keep this frame, and so all results, until they are collected
        return when, error.with_traceback(None)
    raise AssertionError(f"the simulation refused the signal at {iso(when)}, which is valid")

"""A backtest over arrays for those who want its results one at a time, as they are found."""

from __future__ import annotations

from typing import Final, NamedTuple

from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.trade_results import results_of
from backtest_kit._backtest.array_session import (
    ArraySession,
    Span,
    can_be_simulated,
    has_result_listeners,
    load_kernel,
)
from backtest_kit._backtest.array_table import milestones_of
from backtest_kit._engine.run import Run
from backtest_kit._rules import transitions
from backtest_kit._rules.asking import Stride, free_from
from backtest_kit._rules.bars import Bars
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.errors import DataError
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.results import TickCancelled, TickClosed
from backtest_kit._values.time import frames_before

#: Calls in all backtests of an engine from which on it pays to load Numba (which takes as long as
#: playing this many in Python does).
_WORTHWHILE: Final = 6_000_000


#: How many frames ahead a driver may go by itself to where what was found goes on.
_NEAR: Final = 4096
#: Frames that it goes by itself where that is farther.
_LEAST_STEPS: Final = 32
_MOST_STEPS: Final = 65_536


class NextResult(NamedTuple):
    """What came next: the calls made for it, the end of a signal, and where a driver goes on.

    `tick` is `None` after the last signal of a span. `frame` is the index of the next frame, and
    `asks_from` that of the first at which the strategy may be asked.
    """

    calls: int
    tick: TickClosed | TickCancelled | None
    frame: int
    asks_from: int


class ArrayResults:
    """The results that lie ahead of a driver, as far as candles are loaded.

    Spans that contain an invalid signal or an error are stepped through by the driver, so that each
    one is reported.
    """

    def __init__(self, run: Run, timeline: range, stride: Stride, session: ArraySession) -> None:
        self._run = run
        self._timeline = timeline
        self._stride = stride
        self._session = session
        self._span: _SpanResults | None = None
        self._is_elsewhere = False
        self._stepped_until = 0 if can_be_simulated(run.strategy) else len(timeline)
        self._steps_next = _LEAST_STEPS

    async def ready(self, frame: int, asks_from: int) -> bool:
        """Say whether there is something to take at `frame`, `asks_from` being as in `NextResult`.

        Raises:
            PeekingError: signals over arrays look into the future.
        """
        if frame < self._stepped_until:
            return False
        if has_result_listeners(self._run.engine):
            self._span = None
            return False
        if self._is_elsewhere and self._span is not None:
            due = self.first_call(frame, asks_from)
            if due < self._span.frame and not self._meets(due):
                return False
            if due >= self._span.frame:
                self._span = None
        self._is_elsewhere = False
        if self._span is None:
            span = await self._play(frame, asks_from)
            # a listener may have been added during the await
            self._span = None if has_result_listeners(self._run.engine) else span
        return self._span is not None

    def first_call(self, frame: int, asks_from: int) -> int:
        """Return the first frame from `frame` on at which the strategy is asked."""
        assert self._span is not None
        due = self._stride.first(frame, asks_from)
        return self._session.first_open(self._span.bars, due)

    def take(self) -> NextResult:
        """Return what comes next; `note` puts it into the record of the run."""
        span = self._span
        assert span is not None
        taken = span.take(self._run, self._timeline, self._stride)
        if taken.tick is None:
            self._span = None
        return taken

    @property
    def bars(self) -> Bars:
        """The market of what was taken last."""
        assert self._span is not None
        return self._span.bars

    def says_exit(self, side: int, when: int) -> bool:
        """Say whether a row at `when` (ms) says "nothing on `side`", in what was taken last."""
        assert self._span is not None
        return self._span.says_exit(side, when)

    def note(self, tick: TickClosed | TickCancelled) -> None:
        """Put into the record of the run what was taken last, and came so."""
        assert self._span is not None
        self._span.note(self._run, tick)

    def part(self, frame: int) -> None:
        """Let the driver go on at `frame` by itself: what was taken last came otherwise.

        What lies behind it comes again as it was found, from the first call on at which nothing is
        open there either. Where that is far away, it is found anew after some frames, after more
        each time it soon comes otherwise again.
        """
        assert self._span is not None
        if self._span.free[0] - frame <= _NEAR:
            self._is_elsewhere = True
            return
        self._span = None
        soon = frame - self._stepped_until < 16 * self._steps_next
        self._steps_next = min(2 * self._steps_next, _MOST_STEPS) if soon else _LEAST_STEPS
        self._stepped_until = frame + self._steps_next

    def _meets(self, due: int) -> bool:
        """Say whether a call at frame `due` was found as well, with nothing open there."""
        assert self._span is not None
        self._span.pass_to(due, self._run, self._timeline, self._stride)
        found, hop = self.first_call(*self._span.free), self._stride.hop
        if found > due:
            return False
        count, rest = divmod(due - found, hop)
        if self._span.bars.longest_rest:
            count = 0
            while found < due:
                found, count = self.first_call(found + 1, found + hop), count + 1
            rest = found - due
        self._span.elsewhere = count
        return not rest

    async def _play(self, frame: int, asks_from: int) -> _SpanResults | None:
        """Play as far as is loaded."""
        run, began = self._run, stopwatch()
        try:
            span = await self._session.advance(frame, asks_from)
        except DataError:  # step by step, this may be an error of some steps
            span = None
        if span is None:
            priced = await self._session.priced_from(frame)
            self._stepped_until = priced if priced > frame else len(self._timeline)
            return None
        table = span.table
        if span.late is not None or table.invalid or table.unanswered:
            # what has no answer yet lies at the beginning: what follows is played anew from there
            first = frames_before(self._timeline, span.chunk.answers_from)
            again = not table.invalid and frame < first < span.frame
            self._stepped_until = first if again else span.frame
            return None
        run.timed("backtest_timeframe", stopwatch() - began, max(table.calls, 1))
        return _SpanResults(span, run, (frame, asks_from))


def load_kernel_where_it_pays(run: Run, calls: int) -> None:
    """Load the compiled kernel once an engine's backtests have come to many calls."""
    engine = run.engine
    engine.array_calls += calls
    if engine.array_calls >= _WORTHWHILE and not kernel_ready.is_set():
        load_kernel(engine)


class _SpanResults:
    """The results of one span, and its milestones.

    `free` is the frame behind what was taken or passed over, and that from which on the strategy is
    asked; `elsewhere` counts the calls from there on that the driver made, or left out, by itself.
    """

    def __init__(self, span: Span, run: Run, free: tuple[int, int]) -> None:
        self._span = span
        self.bars, self.frame = span.bars, span.frame
        self.free = free
        self.elsewhere = 0
        self._ahead: NextResult | None = None
        self._results = results_of(span.table, run.record.names)
        self._asked = 0
        self._calls = iter(span.table.asked.tolist())
        self._milestones = _in_order(milestones_of(run, span))

    def take(self, run: Run, timeline: range, stride: Stride) -> NextResult:
        """See `ArrayResults.take`."""
        taken, self._ahead = self._ahead or self._following(run, timeline, stride), None
        self.free = taken.frame, taken.asks_from
        calls, self.elsewhere = taken.calls - self.elsewhere, 0
        return taken._replace(calls=calls)

    def pass_to(self, due: int, run: Run, timeline: range, stride: Stride) -> None:
        """Pass over what was found at calls before frame `due`."""
        while True:
            self._ahead = self._ahead or self._following(run, timeline, stride)
            if self._ahead.tick is None or self._ahead.asks_from - stride.hop >= due:
                return
            self.take(run, timeline, stride)

    def _following(self, run: Run, timeline: range, stride: Stride) -> NextResult:
        span = self._span
        tick = next(self._results, None)
        if tick is None:
            return NextResult(span.table.calls - self._asked, None, span.frame, span.asks_from)
        asked = next(self._calls)
        calls, self._asked = asked - self._asked, asked
        row, ended = tick.signal, tick.close_timestamp
        called = frames_before(timeline, row.scheduled_at)
        reason = tick.close_reason if isinstance(tick, TickClosed) else tick.reason
        reverses = self.says_exit(row.side, ended)
        free = free_from(ended, reason, run.config, reverses=reverses)
        frame = max(frames_before(timeline, free), called + 1)
        return NextResult(calls, tick, frame, called + stride.hop)

    def says_exit(self, side: int, when: int) -> bool:
        """See `ArrayResults.says_exit`."""
        return self._span.chunk.says_exit(side, when)

    def note(self, run: Run, tick: TickClosed | TickCancelled) -> None:
        """See `ArrayResults.note`."""
        row, bars = tick.signal, self.bars
        if isinstance(tick, TickClosed):
            assert row.pending_at is not None
            if row.pending_at != row.scheduled_at:
                opened_at = float(bars.price[bars.row(row.pending_at)])
                run.record.add(transitions.opened(row, row.pending_at, opened_at))
            for event in self._milestones.pop(row.id, ()):
                run.record.add(event)
        run.record.add(tick)


def _in_order(events: list[PartialEvent]) -> dict[str, list[PartialEvent]]:
    found: dict[str, list[PartialEvent]] = {}
    for event in events:
        found.setdefault(event.signal.id, []).append(event)
    return found

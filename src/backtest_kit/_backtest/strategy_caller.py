"""Calls of a strategy at the frames of a backtest: one by one, or looked up in its arrays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from inspect import isawaitable
from types import CoroutineType
from typing import Any, Final

import msgspec
import numpy as np

from backtest_kit._arrays.peeking import verify
from backtest_kit._arrays.signals import Signals, evaluate
from backtest_kit._data.series import Segment
from backtest_kit._engine.ambient import Moment, current_moment
from backtest_kit._engine.asking import ArrayQuestion, has_warmup, question
from backtest_kit._engine.engine import describe
from backtest_kit._engine.guard import call_user_code, retry_user_code
from backtest_kit._engine.run import Run
from backtest_kit._rules.bars import Bars
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import DataError, DataRangeError, PeekingError
from backtest_kit._values.time import INTERVALS, iso, to_datetime
from backtest_kit._values.user_code import CandlesNotLoaded

#: Rows compared with windows of their own in the first array of a run, and in each later one.
_FIRST_LOOK, _LATER_LOOK = 6, 1
_SAME: Final = "it is asked step by step, which is exact but slow"


class SignalChunk(msgspec.Struct, frozen=True, eq=False):
    """Signals over contiguous candles of length `step`, the first of which opens at `opens`."""

    signals: Signals
    opens: int
    step: int
    first_row: int

    def row(self, when: int) -> int:
        """Return the row of the last candle closed at `when`; there may be none."""
        return when // self.step - self.opens // self.step - 1

    def has(self, when: int) -> bool:
        """Say whether there is an answer for `when`."""
        return self.first_row <= self.row(when) < len(self.signals)

    @property
    def answers_from(self) -> int:
        """The first instant that has an answer."""
        return (self.opens // self.step + 1 + self.first_row) * self.step

    @property
    def stop(self) -> int:
        """The first instant without an answer after those that have one."""
        return self.opens + (len(self.signals) + 1) * self.step

    def exits(self, side: int, since: int, upto: int) -> Iterator[int]:
        """Yield the instants in [`since`, `upto`] at which a row says that nothing is on `side`."""
        rows = self.signals.exits(side)
        for row in rows[np.searchsorted(rows, max(self.row(since), self.first_row)) :].tolist():
            when = (row + 1 + self.opens // self.step) * self.step
            if when > upto:
                break
            yield when

    def says_exit(self, side: int, when: int) -> bool:
        """Say whether the row of the candle that closes at `when` says "nothing on `side`"."""
        rows, row = self.signals.exits(side), self.row(when)
        if when % self.step or row < self.first_row or not len(rows):
            return False
        at = int(np.searchsorted(rows, row))
        return at < len(rows) and int(rows[at]) == row

    def first(self, when: int, stop: int, hop: int) -> tuple[int, int]:
        """Return the first call time with a signal and its row; `(last call time, -1)` if none.

        Calls are at `when`, `when + hop`, ... before `stop`.
        """
        times = np.arange(when, min(stop, self.stop), hop, dtype=np.int64)
        rows = times // self.step - (self.opens // self.step + 1)
        hits = self.signals.side[rows] != 0
        i = int(hits.argmax())
        return (int(times[i]), int(rows[i])) if hits[i] else (int(times[-1]), -1)


class StrategyCaller:
    """Calls the strategy of one run, or looks its answers up."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ask = question(run.strategy)
        self._function = run.strategy.get_signals
        self._step = INTERVALS[run.strategy.interval]
        self._chunk: SignalChunk | None = None
        self._looked = False
        #: Calls that raised, of those in `ask`.
        self._failed = 0

    async def _warmed_up(self, when: int) -> bool:
        current_moment.set(Moment(self._run, when))
        try:
            if await has_warmup(self._run, when):
                return True
            self._run.warming()
        except DataError as error:
            self._run.error("get_signal", error)
        return False

    def _fail(self, error: Exception, before: int, first: int, hop: int) -> None:
        """Report a call that raised, after `before` calls since `first`."""
        if before > self._failed:
            self._run.warm(first + self._failed * hop)
        self._failed += 1
        self._run.call_failed(error)

    async def ask(self, when: int, stop: int, hop: int, bars: Bars) -> tuple[int, Any]:
        """Ask at `when`, `when + hop` ... before `stop`, up to the first answer that is not `None`.

        Raises:
            PeekingError: signals over arrays look into the future.
        """
        chunk = self.chunk(when)
        if chunk is None:
            if not self._run.is_warm and not await self._warmed_up(when):
                return when, None
            self._failed = 0
            at, answer = await self._one_by_one(when, stop, hop)
            if (at - when) // hop >= self._failed:
                self._run.warm(when + self._failed * hop)
            return at, answer
        at, row = chunk.first(when, stop, hop)
        self._run.warm(when)
        current_moment.set(Moment(self._run, at))
        price = float(bars.fill[bars.row(at)])
        return at, None if row < 0 else chunk.signals.row(row, price)

    async def exit_between(self, side: int, after: int, upto: int, bars: Bars) -> int | None:
        """Return the first step in (`after`, `upto`] at which a row says "nothing on `side`".

        `None`: there is none. All in milliseconds; the market is open at that step.

        Raises:
            PeekingError: signals over arrays look into the future.
        """
        run, at = self._run, (after // self._step + 1) * self._step
        while at <= upto:
            known = self._function is None or (self._chunk is not None and self._chunk.has(at))
            if not known:
                warmup, ahead = run.strategy.warmup, self._ahead(at, upto)
                with contextlib.suppress(DataError):  # no such candle says nothing
                    await run.view.provide(run.symbol, run.strategy.interval, warmup, at, ahead)
            chunk = self.chunk(at)
            if chunk is None:
                if bars.trades_at(at) and await self._says_exit(side, at):
                    return at
                at += self._step
                continue
            for when in chunk.exits(side, at, upto):
                if bars.trades_at(when):
                    return when
            at = chunk.stop
        return None

    def _ahead(self, at: int, upto: int) -> int:
        return min(upto, at + self._run.config.candles_per_chunk * self._step)

    async def _says_exit(self, side: int, when: int) -> bool:
        """Ask for the row of the candle that closed at `when` by its window alone."""
        if not isinstance(self._ask, ArrayQuestion):
            return False
        current_moment.set(Moment(self._run, when))
        try:
            return bool(await call_user_code(self._ask.exits, self._run.symbol, side))
        except DataRangeError:
            return False
        except Exception as error:  # noqa: BLE001 - it never ends a run
            self._run.error("get_signal", error)
            return False

    @property
    def has_exits(self) -> bool:
        """Whether the signals that were looked at say when positions are to end."""
        in_arrays = self._chunk is not None and self._chunk.signals.has_exits
        return in_arrays or (isinstance(self._ask, ArrayQuestion) and bool(self._ask.has_exits))

    def chunk(self, when: int, *, furthest: bool = False) -> SignalChunk | None:
        """Return signals that have an answer for `when`, from the candles that are loaded.

        `furthest`: up to the last candle that is loaded.

        `None`: call it step by step; the strategy has no arrays, there are no candles yet, or
        its signals differ when computed from windows.

        Raises:
            PeekingError: as `ask`.
        """
        if self._function is None:
            return None
        chunk, run = self._chunk, self._run
        segment = run.view.loaded(run.symbol, run.strategy.interval)
        if segment is None:
            return None
        if chunk is None or not chunk.has(when) or (furthest and chunk.stop <= segment.stop):
            self._chunk = self._computed(segment, when)
        return self._chunk

    def _computed(self, segment: Segment, when: int) -> SignalChunk | None:
        """Compute signals for `when` and all later candles, with the warm-up before them."""
        run, warmup, function = self._run, self._run.strategy.warmup, self._function
        assert function is not None
        closed = when // self._step - segment.first_index
        if not warmup <= closed <= segment.rows:
            return None
        candles = Candles.view(segment.columns, closed - warmup, segment.rows)
        current_moment.set(None)  # there is no current step here
        name, most = run.strategy_name, _LATER_LOOK if self._looked else _FIRST_LOOK
        try:
            signals = evaluate(function, candles)
            row = verify(function, candles, signals, warmup, most, name)
            self._looked = True
        except PeekingError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            # it may succeed step by step, or report the error there
            self._give_up("strategy %r fails over arrays (%s): %s", name, describe(error), _SAME)
            return None
        if row is not None:
            self._give_up(
                "strategy %r remembers more than its last %d candles, first at that of %s, which a "
                "live run would not: %s. Give a longer warmup, or indicators of a window alone",
                *(name, warmup, iso(int(candles.timestamp[row])), _SAME),
            )
            return None
        return SignalChunk(signals, int(candles.timestamp[0]), self._step, warmup - 1)

    def _give_up(self, text: str, *values: object) -> None:
        self._function = None
        self._run.engine.logger.info(text, *values)

    async def _one_by_one(self, when: int, stop: int, hop: int) -> tuple[int, Any]:
        run, ask, symbol, put = self._run, self._ask, self._run.symbol, current_moment.set
        date, hop_delta = to_datetime(when), timedelta(milliseconds=hop)
        at = when
        for at in range(when, stop, hop):
            put(Moment(run, at))
            try:
                answer = ask(symbol, date)
                if answer is not None:
                    if answer.__class__ is CoroutineType or isawaitable(answer):
                        answer = await answer
                    if answer is not None:
                        return at, answer
            except (Exception, asyncio.CancelledError, CandlesNotLoaded) as failure:  # noqa: BLE001
                answer = await self._retry(failure, date, (at - when) // hop, when, hop)
                if answer is not None:
                    return at, answer
            date += hop_delta
        return at, None

    async def _retry(
        self, failure: BaseException, date: Any, before: int, first: int, hop: int
    ) -> Any:
        """Load what a sync strategy found missing and ask it again, or report what it raised."""
        try:
            return await retry_user_code(failure, self._ask, self._run.symbol, date)
        except Exception as error:  # noqa: BLE001 - it never ends a run
            self._fail(error, before, first, hop)
            return None

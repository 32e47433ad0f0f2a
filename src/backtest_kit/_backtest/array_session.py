"""A backtest over arrays, a span of frames at a time: load, check, simulate."""

from __future__ import annotations

import contextlib
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._arrays.job import SignalRows
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.paid_account import PaidAccount
from backtest_kit._arrays.simulation import Simulation, compile_kernel
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._backtest.strategy_caller import SignalChunk, StrategyCaller
from backtest_kit._engine.bus import Channel
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.run import Run
from backtest_kit._rules.asking import Stride, data_end
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.management import limits_of
from backtest_kit._values.config import Config
from backtest_kit._values.errors import BacktestKitError, DataError, DataRangeError
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.signal import NEVER
from backtest_kit._values.time import INTERVALS, MINUTE, frames_before

#: The channels of the results of steps; a run with listeners to one is stepped through.
RESULT_CHANNELS: Final[tuple[Channel, ...]] = (
    *("signal", "signal_backtest", "partial_profit", "partial_loss", "risk", "performance"),
    *("partial", "added", "moved"),
)


class Loaded(NamedTuple):
    """What can be simulated, from frame `first` up to `until` (excluded); `late` as in `Span`."""

    first: int
    bars: Bars
    chunk: SignalChunk
    rows: SignalRows
    until: int
    late: DataRangeError | None


class Span(NamedTuple):
    """What was found in frames up to `frame` (excluded), and the market it was found in.

    The strategy may be asked again from frame `asks_from` on. `late`: why the first call of the
    span has no candles; `None` if it has.
    """

    table: TradeTable
    bars: Bars
    chunk: SignalChunk
    frame: int
    asks_from: int
    late: DataRangeError | None


class ArraySession:
    """Plays a run's frames, as many at a time as candles are loaded for."""

    def __init__(self, run: Run, timeline: range, stride: Stride, caller: StrategyCaller) -> None:
        self._run = run
        self._timeline = timeline
        self._stride = stride
        self._caller = caller
        self._asked = False
        #: Pays the trades, where the run is alone on its account and nobody else does.
        self.account: PaidAccount | None = None

    async def advance(self, frame: int, asks_from: int) -> Span | None:
        """Play on from `frame`, asking from frame `asks_from` on; `None`: it has to be stepped.

        Raises:
            DataError: candles can't be had.
            PeekingError: signals over arrays look into the future.
        """
        config = self._run.config
        span = config.candles_per_chunk * INTERVALS[config.base_interval]
        loaded = await self._load(frame, asks_from, span)
        if loaded is None:
            return None
        _, bars, chunk, rows, until, late = loaded
        simulation = Simulation(frame, asks_from, self.account)
        simulation.run(bars, rows, until)
        self._asked = True
        return Span(simulation.table(), bars, chunk, *simulation.place, late)

    async def load(self) -> Loaded | None:
        """Return the whole frame, to be simulated at once; `None`: it has to be stepped.

        Raises as `advance`.
        """
        timeline, first = self._timeline, await self.priced_from(0)
        loaded = await self._load(first, 0, timeline.stop - timeline.start, whole=True)
        if loaded is None or self._stride.first(loaded.until, 0) < len(timeline):
            return None
        return loaded

    async def _load(
        self, frame: int, asks_from: int, span: int, *, whole: bool = False
    ) -> Loaded | None:
        """Load from `frame` on a span (ms) of candles, and for a `whole` one all its trades.

        Raises and returns `None` as `advance`.
        """
        run, timeline = self._run, self._timeline
        view, symbol, config = run.view, run.symbol, run.config
        interval, warmup = run.strategy.interval, run.strategy.warmup
        due = self._stride.first(frame, asks_from)
        if due >= len(timeline):
            return None
        begin, when = timeline[frame], timeline[due]
        bars = await view.bars(symbol, begin, min(timeline[-1], when + span))
        while (opened := self.first_open(bars, due)) != due:
            if opened >= len(timeline):
                return None
            due, when = opened, timeline[opened]
            bars = await view.bars(symbol, begin, min(timeline[-1], when + span))
        asked, late = when, None
        if begin < bars.priced_from(config.avg_price_candles_count):
            return None  # there is no average price yet
        try:
            await view.window_async(symbol, interval, warmup, when)
        except DataRangeError as error:
            segment = view.loaded(symbol, interval)
            if self._asked or segment is None or not segment.begins:
                return None
            late, asked = error, (segment.first_index + warmup) * segment.step
        if whole:
            await view.provide(symbol, interval, warmup, asked, timeline[-1])
        chunk = self._caller.chunk(asked, furthest=True)
        if chunk is None:
            return None
        longest = _longest(chunk, config, bars.step)
        end = data_end(timeline, bars.step, config)
        known: SignalChunk | None = chunk
        if longest is None:
            bars = await view.bars(symbol, begin, end)
            known = await self._reaching(chunk, asked, end)
            until, last = frames_before(timeline, (known or chunk).stop), end
        else:
            # what ends in closed time goes on to the next open step: a wait, then a trade
            reach = _reach(bars.last + bars.step, end, longest + bars.longest_rest)
            if chunk.signals.has_exits:
                reach = min(reach, _reach(chunk.stop, end, longest + bars.longest_rest))
            until = frames_before(timeline, min(chunk.stop, reach))
            last = timeline[until - 1]
        if longest is not None and (whole or until <= due):
            # the frame ends, or the data: trades go on behind what is loaded
            until = frames_before(timeline, min(chunk.stop, when + span))
            last, rest = timeline[until - 1], -1
            while rest < bars.longest_rest:
                rest = bars.longest_rest
                bars = await view.bars(symbol, begin, min(last + longest + rest, end))
            known = await self._reaching(chunk, asked, min(last + longest + rest, end))
        if known is None or until <= due or bars.stop <= last:
            return None
        chunk = known
        rows = SignalRows(chunk.signals, chunk.opens, interval, timeline, config, warmup - 1)
        return Loaded(frame, bars, chunk, rows, until, late)

    async def _reaching(self, chunk: SignalChunk, asked: int, last: int) -> SignalChunk | None:
        """Return signals that say up to `last` when positions are to end, if they say that."""
        if not chunk.signals.has_exits:
            return chunk
        run = self._run
        with contextlib.suppress(DataError):  # no such candle says nothing
            await run.view.provide(
                run.symbol, run.strategy.interval, run.strategy.warmup, asked, last
            )
        return self._caller.chunk(asked, furthest=True)

    async def priced_from(self, frame: int) -> int:
        """Return the first frame from `frame` on that has an average price, as far as is loaded."""
        run, when = self._run, self._timeline[frame]
        try:
            bars = await run.view.bars(run.symbol, when, when)
        except DataError:
            return frame
        first = bars.priced_from(run.config.avg_price_candles_count)
        return max(frame, frames_before(self._timeline, first))

    def call(self, bars: Bars, number: int, frame: int) -> int:
        """Return the frame of a call, counted from 0, where nothing is open before it.

        The first one is made at `frame` or later.
        """
        due = self.first_open(bars, self._stride.first(frame, 0))
        for _ in range(number):
            due = self.first_open(bars, self._stride.first(due + 1, due + self._stride.hop))
        return due

    def first_open(self, bars: Bars, due: int) -> int:
        """Return the first frame from `due` on that is due while the market is open."""
        timeline = self._timeline
        while due < len(timeline) and bars.first <= timeline[due] < bars.stop:
            opens = bars.opens(timeline[due])
            if opens == timeline[due]:
                break
            due = self._stride.first(frames_before(timeline, opens), due)
        return due


def can_be_simulated(strategy: StrategySchema) -> bool:
    """Say whether arrays are enough: no risk profile, no callbacks, nothing asked in between."""
    others = strategy.risk_names or strategy.callbacks is not None or strategy.manage is not None
    return strategy.get_signals is not None and not others


def load_kernel(engine: Engine) -> None:
    """Load the compiled kernel, if Numba is there; a failure is logged."""
    if kernel_ready.is_set():
        return
    try:
        compile_kernel(engine.logger)
    except BacktestKitError:  # there is no Numba: plain Python does the same
        return
    except ImportError as error:  # it has been built for another NumPy
        engine.logger.info("the kernel can't be used, Python is exact but slower: %s", error)


def has_result_listeners(engine: Engine) -> bool:
    """Say whether there are listeners to the results of single steps."""
    return engine.bus.wanted(*RESULT_CHANNELS)


def _reach(stop: int, end: int, longest: int) -> int:
    """Return before when a trade has to begin, of `longest`, that data before `stop` know whole."""
    return NEVER if stop > end else stop - longest


def _longest(chunk: SignalChunk, config: Config, step: int) -> int | None:
    """Return how many ms at most pass from an answer to the end of its trade, in open times.

    `None`: there may be no end. A wait for a fill and a trade both end at the first step (`step`
    ms apart) at or after them.
    """
    signals = chunk.signals
    busy = signals.busy()
    minutes = signals.minute_estimated_time[busy]
    limit = limits_of(config).most_minutes
    lives = minutes[(minutes >= 1) & (minutes <= limit)]
    waits = not np.isnan(signals.price_open[busy]).all()
    longest = int(lives.max(initial=1))
    if np.isnan(minutes).any():
        if not config.max_signal_lifetime_minutes:
            return None
        longest = max(longest, config.max_signal_lifetime_minutes)
    whole = longest, waits * config.schedule_await_minutes
    return sum(-(-length * MINUTE // step) * step for length in whole)

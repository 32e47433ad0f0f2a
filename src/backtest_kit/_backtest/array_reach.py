"""How far the kernel can play a backtest with what is loaded."""

from __future__ import annotations

import functools
import importlib.util
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._backtest.answers import Answers, Chunk
from backtest_kit._engine.bus import Channel
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.run import Run
from backtest_kit._rules.fast_forward import Tape
from backtest_kit._values.config import Config
from backtest_kit._values.errors import DataRangeError
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.time import MINUTE, frames_before

#: Where the results of steps are told; where someone listens, a run is stepped through.
TOLD: Final[tuple[Channel, ...]] = (
    *("signal", "signal_backtest", "partial_profit", "partial_loss", "risk", "performance"),
)


class Stretch(NamedTuple):
    """Signals for frames up to `until` (excluded), and the market to the end of their lives.

    `late`: the first frame's call has no candles yet, for that reason.
    """

    chunk: Chunk
    tape: Tape
    until: int
    late: DataRangeError | None


def playable(strategy: StrategySchema) -> bool:
    """Say whether the kernel knows all that a strategy asks for, and Numba is there."""
    return (
        strategy.get_signals is not None
        and not strategy.risk_names
        and strategy.callbacks is None
        and _numba_is_installed()
    )


@functools.cache
def _numba_is_installed() -> bool:
    """Say so without importing it; asked for each run, and for each strategy of a walk."""
    return importlib.util.find_spec("numba") is not None


def kernel_loaded(engine: Engine) -> bool:
    """Make the kernel ready; false, with a log, where Numba is there but can't be loaded."""
    try:
        from backtest_kit._arrays.kernel_run import compile_kernel
    except ImportError as error:  # it has been built for another NumPy
        engine.logger.info("the kernel can't be used, stepping is exact but slow: %s", error)
        return False
    compile_kernel(engine.logger)
    return True


def watched(engine: Engine) -> bool:
    """Say whether someone waits for the results of single steps."""
    return engine.bus.wanted(*TOLD)


async def next_stretch(run: Run, timeline: range, answers: Answers, frame: int) -> Stretch | None:
    """Return what the kernel can play from `frame` on; `None` where it has to be stepped through.

    Raises:
        DataError: candles can't be had.
        PeekingError: signals over arrays look into the future.
    """
    view, symbol, config = run.view, run.symbol, run.config
    interval, warmup = run.strategy.interval, run.strategy.warmup
    span = config.candles_per_chunk * MINUTE
    when = asked = timeline[frame]
    late = None

    tape = await view.tape(symbol, when, min(timeline[-1], when + span))
    try:
        await view.window_async(symbol, interval, warmup, when)
    except DataRangeError as error:
        segment = view.loaded(symbol, interval)
        if frame or segment is None or not segment.begins:
            return None
        late, asked = error, (segment.first_index + warmup) * segment.step
    chunk = answers.chunk(asked, furthest=True)
    if chunk is None:
        return None
    longest = _longest(chunk, config) * MINUTE
    until = frames_before(timeline, min(chunk.stop, tape.stop - longest))
    if until <= frame:  # the frame ends, or the data: lives go on behind what is loaded
        until = frames_before(timeline, min(chunk.stop, when + span))
        last = timeline[until - 1]
        tape = await view.tape(symbol, when, last + longest)
        if until <= frame or tape.stop <= last:
            return None
    return Stretch(chunk, tape, until, late)


def _longest(chunk: Chunk, config: Config) -> int:
    """Return how many minutes at most pass from an answer to its end."""
    signals = chunk.signals
    busy = signals.busy()
    minutes = signals.minute_estimated_time[busy]
    lives = minutes[(minutes >= 1) & (minutes <= config.max_signal_lifetime_minutes)]
    waits = not np.isnan(signals.price_open[busy]).all()
    return int(lives.max(initial=1)) + waits * config.schedule_await_minutes

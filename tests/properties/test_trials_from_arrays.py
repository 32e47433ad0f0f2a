"""A trial from the kernel's table is the same as one that is stepped through, byte for byte."""

import asyncio

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the kernel needs Numba: pip install 'backtest-kit[numba]'")

import backtest_kit as bk
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit._walker.trial import TrialSetup, run_trial
from markets import MINUTE, START, cases, market

#: How positions are managed, by the seed of a case.
MANAGED = (
    {},
    {"entries": ((0.2, 1.0), (0.4, 2.0)), "take_profits": ((0.55, 50.0),)},
    {"trailing_stop": bk.TrailingStop(0.3, 0.1), "breakeven_percent": 0.5},
    {"exit_long": True},
)


def strategy_of(case, warmup, bracket, broken):
    """Answers that depend on a candle's time and close alone, some of them invalid."""

    def get_signals(candles):
        close = candles.close
        rng = np.random.default_rng(case.seed)
        place = (candles.timestamp // MINUTE) % 997
        draws = rng.random((6, 997))[:, place]
        side = np.where(draws[0] < 0.5, 1, -1) * (draws[1] < case.ask_rate)
        up, down = 0.6 + 3 * draws[2], 0.6 + 3 * draws[3]
        minutes = np.where(draws[4] < broken, 0.5, np.floor(1 + 200 * draws[4] ** 4))
        if bracket:
            how = MANAGED[case.seed % len(MANAGED)]
            if how.get("exit_long"):
                how = {"exit_long": draws[5] < 0.1, "exit_short": draws[5] > 0.9}
            return bk.Signals.bracket(side, up, down, minutes, **how)
        away = np.where(draws[5] < 0.5, np.nan, 2 * draws[5] - 1)
        entry = close * (1 - side * away / 100)
        base = np.where(np.isnan(entry), close, entry)
        return bk.Signals(
            side, base * (1 + side * up / 100), base * (1 - side * down / 100), minutes, entry
        )

    return bk.StrategySchema(
        strategy_name="s", interval=case.interval, get_signals=get_signals, warmup=warmup
    )


def trial(case, strategy, timeline, symbols, chunk):
    """Run a trial on a new engine; return it, or the error and its text, and if arrays served."""
    rows = [list(row) for row in market(case.seed, case.minutes, coarse=case.coarse)]
    with bk.Engine() as engine:
        engine.set_config(**case.config)
        engine.config = msgspec.structs.replace(engine.config, candles_per_chunk=chunk)
        bk.add_exchange(bk.exchanges.FrameExchange(rows))
        frame = bk.FrameSchema(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(timeline.start),
            end_date=to_datetime(timeline.stop - 1),
        )
        try:
            setup = TrialSetup(engine, symbols, engine.exchanges.get("frame"), frame)
            return asyncio.run(run_trial(setup, strategy))
        except bk.BacktestKitError as error:
            return type(error), str(error)


@given(
    cases,
    st.integers(1, 30),
    st.booleans(),
    st.sampled_from([0.0, 0.3, 2.0]),
    st.integers(0, 40),
    st.sampled_from([0.3, 0.9, 1.0, 1.1]),
    st.sampled_from([("X",), ("X", "Y")]),
    st.sampled_from([50, 131_072]),
)
def test_a_trial_from_arrays_is_the_one_stepped_through(
    case, warmup, bracket, broken, shift, length, symbols, chunk
):
    fast_and_slow(case, warmup, bracket, broken, shift, length, symbols, chunk)


def fast_and_slow(case, warmup, bracket, broken, shift, length, symbols, chunk):
    """Assert that both ways find the same; return for each symbol if arrays served, and it."""
    strategy = strategy_of(case, warmup, bracket, broken)
    start = START + shift * MINUTE
    end = start + max(int(case.minutes * length) - shift, 0) * MINUTE
    timeline = range(start, end + 1, INTERVALS[case.frame])
    used = []
    original = FrameDriver.tabulate

    async def watched(driver, **how):
        used.append(await original(driver, **how))
        return used[-1]

    async def never(driver, **how):
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameDriver, "tabulate", watched)
        fast = trial(case, strategy, timeline, symbols, chunk)
        patch.setattr(FrameDriver, "tabulate", never)
        slow = trial(case, strategy, timeline, symbols, chunk)
    assert fast == slow
    return used, slow


@given(
    cases.filter(lambda case: case.interval in ("1m", "3m", "5m")),
    st.integers(1, 30),
    st.booleans(),
    st.sampled_from([0.3, 0.9]),
)
def test_arrays_serve_a_warm_trial_from_its_first_frame_to_its_last(case, warmup, bracket, length):
    shift = 36 * INTERVALS[case.interval] // MINUTE
    assume(shift < length * case.minutes)  # the data go on behind the frame
    used, slow = fast_and_slow(case, warmup, bracket, 0.0, shift, length, ("X",), 131_072)
    assume(isinstance(slow, TrialResult))
    assert used
    assert all(used)

"""On every base, and through closed times, all modes give the same, to the last bit."""

import asyncio
import itertools
from contextlib import suppress
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.simulation import compile_kernel
from backtest_kit._backtest.driver import FrameDriver
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit._walker.trial import TrialSetup, run_trial
from backtest_kit.testing import MemoryAdapter
from markets import MINUTE, START, configs, managed, market, script, spiked
from positions import as_mapping, facts_of

DAY = INTERVALS["1d"]


class Run(NamedTuple):
    """A backtest on candles of `base`, of a market that closes as `calendar` says.

    `shift` and `length` place the frame: candles from the first to its start, and to its end.
    """

    seed: int
    candles: int
    base: str
    frame: str
    interval: str
    calendar: str | None
    prints: bool
    ask_rate: float
    shift: int
    length: int
    odd: int
    config: dict
    spikes: bool
    suspicious: str

    @property
    def step(self):
        return INTERVALS[self.base]

    @property
    def first(self):
        return -(-START // (3 * DAY)) * 3 * DAY

    @property
    def span(self):
        """The start and the end of the frame, not always on the grid of the base."""
        start = self.first + self.shift * self.step + self.odd * MINUTE
        return start, start + self.length * self.step

    @property
    def settings(self):
        """Times as long as the candles are, and not in whole candles; hardly a limit, or none."""
        minutes = self.step // MINUTE
        wait = self.config["schedule_await_minutes"] * minutes - self.odd % minutes
        limit = 0 if self.seed % 2 else 100 * 366 * 1440
        more = {"schedule_await_minutes": wait, "max_signal_lifetime_minutes": limit}
        more |= {"require_stop_loss": False, "suspicious_candle": self.suspicious}
        return self.config | more

    def rows(self):
        """The candles: without weekends or with some prints there, and with gaps of their own."""
        rng = np.random.default_rng([self.seed, 3])
        rows = market(self.seed, self.candles, gaps=self.calendar != "data")
        rows = [(self.first + (r[0] - START) // MINUTE * self.step, *r[1:]) for r in rows]
        if self.spikes:
            rows = spiked(rows, self.seed)
        if self.calendar == "data":  # sessions and nights of any length
            keep, i = [], 0
            while i < len(rows):
                session, night = int(rng.integers(1, 30)), int(rng.integers(0, 30))
                keep += rows[i : i + session]
                i += session + night
            return [*rows[:2], *keep[2:]]  # two that tell the interval
        if self.calendar == "weekdays":
            prints = self.prints & (rng.random(len(rows)) < 0.1)
            keep = prints | ~np.array([weekend(r[0]) for r in rows])
            keep[:2] = keep[-1:] = True  # two that tell the interval, and how the data end
            return list(itertools.compress(rows, keep))
        return rows

    def closed_at(self, rows):
        """What says of a candle if it is in closed times."""
        there = {row[0] for row in rows}
        if self.calendar == "data":
            return lambda t: t not in there
        if self.calendar == "weekdays":
            return lambda t: all(
                weekend(day) for day in range(t, t + self.step, min(self.step, DAY))
            )
        return None

    def script(self, *, manages=True):
        answer = script(self.seed, self.ask_rate)
        if manages and self.seed // 2 % 2:
            answer = managed(answer, self.seed)

        def longer(t, price):
            proposal = answer(t, price)
            if proposal is not None and proposal["minute_estimated_time"] is not None:
                minutes = proposal["minute_estimated_time"] * self.step // MINUTE
                proposal["minute_estimated_time"] = max(minutes - self.odd, 1)
            return proposal

        return longer


def weekend(t):
    return to_datetime(t).weekday() >= 5


#: Base, step of the frame and interval of the strategy, those of a few base candles more often.
grids = [
    (base, frame, interval)
    for base, step in INTERVALS.items()
    for frame, hop in INTERVALS.items()
    for interval, length in INTERVALS.items()
    if max(step, hop) % step == 0 and length % step == 0 and max(hop, length) <= 60 * step
]
near = [g for g in grids if max(INTERVALS[g[1]], INTERVALS[g[2]]) <= 4 * INTERVALS[g[0]]]
runs = st.builds(
    lambda grid, **fields: Run(base=grid[0], frame=grid[1], interval=grid[2], **fields),
    grid=st.one_of(st.sampled_from(near), st.sampled_from(near), st.sampled_from(grids)),
    seed=st.integers(0, 2**32),
    candles=st.integers(30, 300),
    calendar=st.sampled_from([None, "weekdays", "data"]),
    prints=st.booleans(),
    spikes=st.booleans(),
    suspicious=st.sampled_from(["hold", "accept"]),
    ask_rate=st.sampled_from([0.1, 1.0]),
    shift=st.integers(0, 30),
    length=st.integers(1, 250),
    odd=st.integers(0, 59),
    config=configs,
)


def register(run, rows, told, *, manages=True):
    """Register market, frame and strategy on the current engine; transitions go to `told`."""
    start, end = run.span
    bk.add_exchange(bk.exchanges.FrameExchange([list(r) for r in rows], calendar=run.calendar))
    bk.add_frame(
        frame_name="f",
        interval=run.frame,
        start_date=to_datetime(start),
        end_date=to_datetime(end),
    )
    proposals = run.script(manages=manages)

    def get_signal(symbol, when):
        return as_mapping(proposals(int(when.timestamp() * 1000), bk.average_price(symbol)))

    names = ("on_open", "on_schedule", "on_cancel", "on_close", "on_partial", "on_add")
    bk.add_strategy(
        strategy_name="s",
        interval=run.interval,
        get_signal=get_signal,
        callbacks=dict.fromkeys((*names, "on_partial_profit", "on_partial_loss"), told.append),
    )


def facts(told):
    """The transitions as the reference writes them, each once."""
    found = {}
    for x in told:
        fact = next(facts_of([x]))
        assert found.setdefault(x.transition_id, fact) == fact
    return [*found.values()]


def backtest(run, rows, *, step_by_step, chunk=131_072):
    """Return the transitions of a backtest; `None` where no instant of the frame is asked."""
    told, ticks = [], []
    with bk.Engine() as engine:
        engine.set_config(**run.settings)
        engine.config = msgspec.structs.replace(engine.config, candles_per_chunk=chunk)
        register(run, rows, told)
        if step_by_step:
            bk.listen_signal(ticks.append)
        try:
            bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        except (bk.ConfigError, bk.RegistrationError):
            return None
        except bk.DataRangeError:  # all of the frame lies behind the data
            return []
        record = engine.records.select(mode="backtest")[0]
        kinds = [k for k in record.error_kinds if k[1] not in ("SignalError", "DataRangeError")]
        kinds = [k for k in kinds if k[:2] != ("candles", "SuspiciousCandleError")]
        if not record.calls:  # a frame of which all that is due is closed
            kinds = [k for k in kinds if k[:2] != ("frame", "ConfigError")]
        assert not kinds, kinds
        assert record.config.base_interval == run.base
        closed_at = run.closed_at(rows)
        if closed_at is not None:
            assert not [x for x in ticks if closed_at(x.timestamp - run.step)]
    return facts(told)


def expected(run, rows):
    """What the slow reference says; `None` where no instant of the frame is asked."""
    step, (start, end) = run.step, run.span
    frame, interval = max(INTERVALS[run.frame], step), INTERVALS[run.interval]
    start = -(-start // step) * step
    line = range(start, end + 1, frame)
    # where the data end with the frame, nothing is asked
    last = end // step * step if run.settings["max_signal_lifetime_minutes"] == 0 else None
    asked = [t for t in line if t != last]
    if not line or (run.config["ask_at"] == "close" and all(t % interval for t in asked)):
        return None
    found = reference.backtest(
        rows, start, end, frame, interval, run.script(), run.settings, step, run.closed_at(rows)
    )
    return [fact for fact in found if fact[0] != "moved"]


@given(runs)
def test_a_backtest_equals_the_reference(run):
    rows = run.rows()
    assert backtest(run, rows, step_by_step=False) == expected(run, rows)


@given(runs)
def test_step_by_step_equals_the_reference(run):
    rows = run.rows()
    assert backtest(run, rows, step_by_step=True) == expected(run, rows)


@given(runs, st.sampled_from([20, 50, 100]))
def test_the_size_of_chunks_changes_nothing(run, chunk):
    rows = run.rows()
    whole = backtest(run, rows, step_by_step=False)
    assert backtest(run, rows, step_by_step=False, chunk=chunk) == whole


def live(run, rows, stops):
    """Return the transitions of live runs on a virtual clock, begun anew at each of `stops`."""
    told = []
    start, end = run.span
    moments = [
        start,
        *sorted(start + (end - start) * s // 10 // MINUTE * MINUTE for s in stops),
        end,
    ]
    documents = {}
    for since, until in itertools.pairwise(moments):
        with bk.Engine() as engine:
            engine.set_config(**run.settings)
            bk.use_persist_adapter(MemoryAdapter(documents))
            register(run, rows, told, manages=False)
            clock = bk.VirtualClock(to_datetime(since), to_datetime(until))
            results = bk.Live.run("X", strategy_name="s", exchange_name="frame", clock=clock)

            async def play(results=results):
                return [tick async for tick in results]

            with suppress(bk.DataRangeError):  # the data end before the clock does
                asyncio.run(play())
    return facts(told)


@given(runs, st.lists(st.integers(1, 9), max_size=2))
def test_live_equals_the_reference(run, stops):
    """A frame of base candles, up to the end of the clock or of the data."""
    run = run._replace(frame=run.base, length=min(run.length, run.candles - run.shift - 1))
    assume(run.length > 0)
    rows = run.rows()
    start, end = run.span
    found = reference.backtest(
        rows,
        -(-start // run.step) * run.step,
        end,
        run.step,
        INTERVALS[run.interval],
        run.script(manages=False),
        run.settings,
        run.step,
        run.closed_at(rows),
        live=True,
    )
    found = [fact for fact in found if fact[1] <= end and "end_of_data" not in fact]
    assert live(run, rows, stops) == found


def array_strategy(run, warmup, bracket):
    """Answers that depend on a candle's time and close alone."""

    def get_signals(candles):
        close = candles.close
        place = (candles.timestamp // INTERVALS[run.interval]) % 997
        draws = np.random.default_rng(run.seed).random((6, 997))[:, place]
        side = np.where(draws[0] < 0.5, 1, -1) * (draws[1] < run.ask_rate)
        up, down = 0.6 + 3 * draws[2], 0.6 + 3 * draws[3]
        minutes = np.floor(1 + 30 * draws[4] ** 4 * (run.step // MINUTE))
        if bracket:
            return bk.Signals.bracket(side, up, down, minutes)
        away = np.where(draws[5] < 0.5, np.nan, 2 * draws[5] - 1)
        entry = close * (1 - side * away / 100)
        base = np.where(np.isnan(entry), close, entry)
        return bk.Signals(
            side, base * (1 + side * up / 100), base * (1 - side * down / 100), minutes, entry
        )

    return bk.StrategySchema(
        strategy_name="s", interval=run.interval, get_signals=get_signals, warmup=warmup
    )


def trial(run, strategy, rows, chunk):
    """Run a trial on a new engine; return it, or the error and its text."""
    start, end = run.span
    with bk.Engine() as engine:
        engine.set_config(**run.settings)
        engine.config = msgspec.structs.replace(engine.config, candles_per_chunk=chunk)
        bk.add_exchange(bk.exchanges.FrameExchange([list(r) for r in rows], calendar=run.calendar))
        frame = bk.FrameSchema(
            frame_name="f",
            interval=run.frame,
            start_date=to_datetime(start),
            end_date=to_datetime(end),
        )
        setup = TrialSetup(engine, ("X",), engine.exchanges.get("frame"), frame)
        try:
            return asyncio.run(run_trial(setup, strategy))
        except bk.BacktestKitError as error:
            return type(error), str(error)


@pytest.mark.parametrize("compiled", [False, True])
@given(runs, st.integers(1, 5), st.booleans(), st.sampled_from([50, 120, 131_072]))
def test_arrays_give_what_steps_give(compiled, run, warmup, bracket, chunk):
    """From plain Python and from the kernel, in whole or in chunks."""
    if compiled:
        pytest.importorskip("numba")
        compile_kernel()
    run = run._replace(shift=run.shift + 10, length=min(run.length, run.candles))
    strategy, rows = array_strategy(run, warmup, bracket), run.rows()
    used = []
    original = FrameDriver.tabulate

    async def watched(driver, **how):
        if not compiled:
            kernel_ready.clear()
        used.append(await original(driver, **how))
        return used[-1]

    async def never(driver, **how):
        return False

    ready = kernel_ready.is_set()
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr("backtest_kit._backtest.driver.load_kernel", lambda engine: None)
        patch.setattr(FrameDriver, "tabulate", watched)
        fast = trial(run, strategy, rows, chunk)
        patch.setattr(FrameDriver, "tabulate", never)
        slow = trial(run, strategy, rows, chunk)
    if ready:
        kernel_ready.set()
    assert fast == slow

"""The compiled kernel trades as the engine does, to the last bit: signals, markets and settings."""

import asyncio
import importlib
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the kernel needs Numba: pip install 'backtest-kit[numba]'")

import backtest_kit as bk
import reference
from backtest_kit._arrays import simulation as kernel
from backtest_kit._arrays.simulate import simulate
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._backtest.array_results import ArrayResults
from backtest_kit._data.series import average_prices
from backtest_kit._rules.bars import Bars
from backtest_kit._values.config import Config
from backtest_kit._values.results import REASONS, ProfitLoss, TickCancelled, TickClosed
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import INTERVALS, frames_before, to_datetime
from backtest_kit.testing import MemoryAdapter
from markets import MINUTE, START, Case, cases, market

NAMES = {"strategy_name": "s", "exchange_name": "frame", "frame_name": "f"}
WHERE = {"symbol": "X", "strategy_name": "s", "exchange_name": "frame"}


class More(NamedTuple):
    """What a backtest of arrays has beside a `Case`."""

    warmup: int
    shift: int
    length: float
    bracket: bool
    one_lifetime: bool
    broken: float
    easy: bool = False


mores = st.builds(
    More,
    warmup=st.integers(1, 4),
    shift=st.integers(0, 20),
    length=st.sampled_from([0.0, 0.3, 0.75, 1.0, 1.2]),
    bracket=st.booleans(),
    one_lifetime=st.booleans(),
    broken=st.sampled_from([0.0, 0.1]),
)


#: Signals that are valid, nearly all of them, in frames inside the data.
easy = st.builds(
    More,
    warmup=st.integers(1, 4),
    shift=st.integers(12, 60),
    length=st.sampled_from([0.3, 0.75]),
    bracket=st.booleans(),
    one_lifetime=st.booleans(),
    broken=st.just(0.0),
    easy=st.just(True),
)


def bars_of(rows, config):
    """The 1m market without gaps, as the engine sees it."""
    t, o, h, low, c, v = (
        np.array(column) for column in zip(*reference.fill_gaps(rows), strict=True)
    )
    average = average_prices(h, low, c, v, config["avg_price_candles_count"])
    fill = average if config["fill_price"] == "average" else c
    return Bars(int(t[0]) + MINUTE, average, fill, o, h, low)


def play_of(case, more, bars, rows):
    """Random signals near the market, some of them invalid, asked for along a frame.

    There is one for each candle up to the last that has closed and is no gap.
    """
    rng = np.random.default_rng([case.seed, 7])
    interval = INTERVALS[case.interval]
    opens = START // interval * interval
    last = max((row[0] for row in rows if row[0] // interval < rows[-1][0] // interval), default=0)
    if (rows[-1][0] + MINUTE) % interval == 0:
        last = rows[-1][0]
    n = max(last // interval - opens // interval + 1, 0)
    closes_at = np.clip(bars.row(opens + (np.arange(n) + 1) * interval), 0, len(bars.open) - 1)
    near = bars.open[closes_at]
    side = np.where(rng.random(n) < 0.5, 1, -1) * (rng.random(n) < case.ask_rate)
    away = [0.0, 0.4, 0.6, 1.5, 4.0, 16.0]
    often = [0, 0, 0.1, 0.3, 0.2, 0.4] if more.easy else [0.02, 0.03, 0.35, 0.3, 0.15, 0.15]
    up, down = rng.choice(away, (2, n), p=often)
    minutes = rng.choice([1.0, 2.0, 4.0, 7.0, 30.0, 33.0, 120.0, 1440.0], n)
    away = rng.choice([-0.3, 0.0, 0.1, 0.5, 2.0], n)
    entry = np.where(rng.random(n) < 0.5, near * (1 - side * away / 100), np.nan)
    if case.coarse:
        entry = np.round(entry * 2) / 2
    base = np.where(np.isnan(entry), near, entry)
    goal, stop = base * (1 + side * up / 100), base * (1 - side * down / 100)
    if case.coarse:
        goal, stop = np.round(goal * 2) / 2, np.round(stop * 2) / 2
    if more.bracket:
        goal, stop = up, down
    for column in (goal, stop, minutes, entry):
        bad = rng.random(n) < more.broken
        column[bad] = rng.choice([np.nan, np.inf, -1.0, 0.0, 0.5, 1441.0, 1e9], bad.sum())
    if more.one_lifetime:
        minutes = 30
    if more.bracket:
        signals = bk.Signals.bracket(side, goal, stop, minutes)
    else:
        signals = bk.Signals(side, goal, stop, minutes, entry)
    start = START + more.shift * MINUTE
    whole_buckets = -(-START // interval) - START // interval
    return kernel.SignalRows(
        signals,
        opens,
        case.interval,
        range(start, start + int(case.minutes * more.length) * MINUTE + 1, INTERVALS[case.frame]),
        Config(**case.config),
        first_row=whole_buckets + more.warmup - 1,
    )


def register(case, more, rows, play, ended, *, one_by_one=False):
    """Register market and strategy of a play on the current engine."""
    interval, signals = INTERVALS[case.interval], play.signals

    def get_signals(candles):
        if one_by_one and len(candles) > more.warmup:
            raise RuntimeError("only a window at a time")
        take = (candles.timestamp - play.opens) // interval
        make = bk.Signals.bracket if signals.relative else bk.Signals
        columns = [signals.price_take_profit, signals.price_stop_loss]
        columns += [signals.minute_estimated_time]
        columns += [] if signals.relative else [signals.price_open]
        return make(signals.side[take], *(column[take] for column in columns))

    bk.set_config(**case.config)
    bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
    bk.add_strategy(
        strategy_name="s",
        interval=case.interval,
        get_signals=get_signals,
        warmup=more.warmup,
        callbacks=None if ended is None else {"on_cancel": ended.append, "on_close": ended.append},
    )


def by_the_engine(case, more, rows, play, *, listen=False, one_by_one=False):
    """Run a play on a new engine; return what ended, in order, and the record."""
    ended = []
    with bk.Engine() as engine:
        register(case, more, rows, play, ended, one_by_one=one_by_one)
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(play.timeline.start),
            end_date=to_datetime(play.timeline.stop - 1),
        )
        if listen:
            bk.listen_signal(lambda tick: None)
        results = bk.Backtest.run_sync("X", **NAMES)
        assert results == [tick for tick in ended if isinstance(tick, TickClosed)]
        return ended, engine.records.select(mode="backtest")[0]


async def live(play):
    """Run a play live on the current engine, from its first frame to its last."""
    clock = bk.VirtualClock(to_datetime(play.timeline[0]), to_datetime(play.timeline[-1]))
    names = {"strategy_name": "s", "exchange_name": "frame"}
    async for _ in bk.Live.run("X", **names, clock=clock):
        pass


def or_none(value):
    return None if np.isnan(value) else float(value)


def ticks(table, bars):
    """The rows of a table as the engine would tell them."""
    for i in range(len(table)):
        scheduled, filled, at = (
            int(column[i]) for column in (table.scheduled_at, table.pending_at, table.closed_at)
        )
        row = SignalRow(
            id=f"frame:s:X:{scheduled}",
            position="long" if table.side[i] > 0 else "short",
            price_open=float(table.price_open[i]),
            price_take_profit=or_none(table.price_take_profit[i]),
            price_stop_loss=or_none(table.price_stop_loss[i]),
            minute_estimated_time=int(table.minutes[i]) or None,
            scheduled_at=scheduled,
            pending_at=None if filled < 0 else filled,
            price_limit=or_none(table.price_limit[i]),
            **WHERE,
        )
        place = {**WHERE, "timestamp": at, "current_price": bars.bar(at).price, "signal": row}
        reason = REASONS[table.reason[i]]
        if filled < 0:
            assert np.isnan(table.pnl[i])
            assert np.isnan(table.price_close[i])
            yield TickCancelled(reason=reason, close_timestamp=at, **place)
        else:
            close = float(table.price_close[i])
            yield TickClosed(
                close_reason=reason,
                close_timestamp=at,
                pnl=ProfitLoss(float(table.pnl[i]), row.price_open, close),
                ambiguous=bool(table.ambiguous[i]),
                **place,
            )


def compare(case, more, **how):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    bars = bars_of(rows, case.config)
    play = play_of(case, more, bars, rows)
    table = kernel.run_kernel(bars, play)
    try:
        ended, record = by_the_engine(case, more, rows, play, **how)
    except bk.ConfigError:  # no frame is the close of a candle of the interval
        assert play.stride is None
        assert not len(table)
        assert not table.calls
        return
    except bk.DataRangeError:  # a frame that begins where the data do, or goes on where they ended
        assert table.unpriced == len(play.timeline) or bars.stop <= play.timeline[-1]
        return
    assert list(ticks(table, bars)) == ended
    errors = {}
    for (*kind, _), seen in record.error_kinds.items():
        count, first = errors.get(tuple(kind), (0, seen.when))
        errors[tuple(kind)] = (count + seen.count, first)
    invalid = errors.pop(("get_signal", "SignalError"), (0, -1))
    assert (table.invalid, table.first_invalid) == invalid
    # a call at which the last candle of its interval has not come is an error of that step
    too_early = errors.pop(("get_signal", "DataRangeError"), (0, None))[0]
    assert not errors
    assert table.unanswered + table.unpriced == record.warming + too_early
    assert table.calls == record.calls + table.unanswered - too_early
    # where the data end inside the frame, the kernel may jump over throttled frames behind them
    frames = min(table.frames, frames_before(play.timeline, bars.stop))
    assert (frames == len(play.timeline)) == record.complete
    assert frames == record.frames
    assert min(table.unpriced, table.held, table.throttled) >= 0


@given(cases, mores)
def test_the_kernel_equals_the_engine_with_signals_from_arrays(case, more):
    compare(case, more)


@given(cases, mores)
def test_the_kernel_equals_the_engine_that_asks_at_each_frame(case, more):
    compare(case, more, one_by_one=True)


@given(cases, mores)
def test_the_kernel_equals_the_engine_that_tells_of_each_minute(case, more):
    compare(case, more, listen=True)


@given(cases, mores)
def test_the_kernel_equals_a_live_run_on_a_virtual_clock(case, more):
    case = case._replace(frame="1m")
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    bars = bars_of(rows, case.config)
    play = play_of(case, more, bars, rows)
    timeline = range(bars.first + more.shift * MINUTE, bars.stop, MINUTE)
    table = kernel.run_kernel(bars, msgspec.structs.replace(play, timeline=timeline))
    ended = []
    with bk.Engine():
        bk.use_persist_adapter(MemoryAdapter())
        register(case, more, rows, play, ended)
        asyncio.run(live(msgspec.structs.replace(play, timeline=timeline)))
    found = [*ticks(table, bars)]
    while found and "end_of_data" in (
        getattr(found[-1], "reason", None),
        getattr(found[-1], "close_reason", None),
    ):
        found.pop()  # what lives at the end lives on
    assert found == ended


@given(cases, mores)
def test_plain_python_finds_the_same_table(case, more):
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    bars = bars_of(rows, case.config)
    play = play_of(case, more, bars, rows)
    compiled = kernel.run_kernel(bars, play)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "simulator", lambda: simulate)
        simulation = kernel.Simulation()
        simulation.run(bars, play)
    for name in TradeTable.__struct_fields__:
        one, other = getattr(compiled, name), getattr(simulation.table(), name)
        if name == "managed":
            assert one is other is None
            continue
        assert np.array_equal(one, other, equal_nan=name.startswith(("price", "pnl", "average")))


class Listener(NamedTuple):
    """Someone who begins to listen to results after some of them."""

    after: int
    heard: list


async def results_of(case, most, listener):
    found = []
    async with aclosing(bk.Backtest.run("X", **NAMES)) as results:
        async for tick in results:
            found.append(tick)
            if listener is not None and len(found) == listener.after:
                bk.listen_signal(listener.heard.append)
            if len(found) == most:
                break
    return found


def backtest(case, more, rows, play, *, stepped, most=None, after=None):
    """Run a play with nobody listening; return all that it tells and keeps."""
    errors = []
    listener = None if after is None else Listener(after, [])
    with bk.Engine() as engine, pytest.MonkeyPatch.context() as patch:
        looked = []
        if stepped:
            patch.setattr(ArrayResults, "ready", never)
        else:
            patch.setattr(ArrayResults, "take", lambda self: looked.append(0) or take(self))
        register(case, more, rows, play, None)
        bk.listen_error(lambda event: errors.append((event.where, str(event.error), event.when)))
        bk.add_frame(
            frame_name="f",
            interval=case.frame,
            start_date=to_datetime(play.timeline.start),
            end_date=to_datetime(play.timeline.stop - 1),
        )
        try:
            found = asyncio.run(results_of(case, most, listener))
        except bk.ConfigError as error:
            return ([str(error)],), []
        except bk.DataRangeError as error:
            found = [str(error)]
        record = engine.records.select(mode="backtest")[0]
        kept = {name: getattr(record, name) for name in KEPT}
        kinds = {kind: (seen.count, seen.when) for kind, seen in record.error_kinds.items()}
        heard = None if listener is None else listener.heard
        return (found, kept, kinds, errors, heard), looked


KEPT = {
    *("closed", "waited", "partials", "calls", "frames", "since", "until", "complete"),
    *("data_ended_at", "candles", "error_count", "rejections", "warming", "warm_at"),
}
take = ArrayResults.take


async def never(self, frame, next_ask):
    return False


def compare_results(case, more, **how):
    if more.easy:
        case = case._replace(config={**case.config, "max_stop_loss_distance_percent": 0.0})
        if case.interval not in ("1m", "3m", "5m"):  # or there are no candles for the warm-up
            case = case._replace(interval="3m")
    rows = market(case.seed, case.minutes, coarse=case.coarse)
    bars = bars_of(rows, case.config)
    play = play_of(case, more, bars, rows)
    from_kernel, looked = backtest(case, more, rows, play, stepped=False, **how)
    stepped, _ = backtest(case, more, rows, play, stepped=True, **how)
    for one, other in zip(from_kernel, stepped, strict=True):
        assert one == other
    return looked


@given(cases, st.one_of(mores, easy))
def test_the_results_of_a_backtest_from_the_kernel_are_those_of_its_steps(case, more):
    compare_results(case, more)


@given(cases, st.one_of(mores, easy), st.integers(1, 5))
def test_a_backtest_from_the_kernel_that_is_broken_off_has_the_record_of_its_steps(
    case, more, most
):
    compare_results(case, more, most=most)


@given(cases, st.one_of(mores, easy), st.integers(1, 3))
def test_who_listens_in_the_middle_hears_of_the_rest(case, more, after):
    compare_results(case, more, after=after)


def test_results_come_from_the_kernel_with_milestones_and_waiting_signals():
    config = {
        "exit_trigger": "wick",
        "schedule_await_minutes": 30,
        "avg_price_candles_count": 2,
        "max_stop_loss_distance_percent": 0.0,
        "fill_price": "market",
    }
    more = More(2, 30, 0.75, False, False, 0.0, True)
    for seed in range(40):
        case = Case(seed, 600, "1m", "3m", 0.3, False, config)
        rows = market(seed, 600)
        play = play_of(case, more, bars_of(rows, config), rows)
        found, looked = backtest(case, more, rows, play, stepped=False)
        if found[1]["partials"] and found[1]["waited"] and len(looked) > len(found[0]) > 3:
            break
    else:
        raise AssertionError("the kernel was not used in any of these markets")


def test_what_is_kept_of_the_kernel_is_named_after_the_rules():
    """Numba sees no change in the modules of the rules: another name is what it can't mistake."""
    kernel.compile_kernel()
    compiled = importlib.import_module("backtest_kit._arrays.kernel")
    folder = compiled.simulate.stats.cache_path
    if folder is None:
        pytest.skip("there is no folder to keep it in")
    assert [*Path(folder).glob(f"simulate.{compiled._named_after_sources()}-*.nbi")]

"""The start of a run, where the data don't reach back far enough, is a figure and no error."""

import asyncio
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit.testing import MemoryAdapter
from markets import MINUTE, START, market

NAMES = {"strategy_name": "s", "exchange_name": "frame"}
HOUR = INTERVALS["1h"]


def above_mean(candles):
    return candles.close[-1] > candles.close.mean()


def proposal(symbol):
    price = bk.average_price(symbol)
    return bk.Signal(
        position="long",
        price_take_profit=price * 1.01,
        price_stop_loss=price * 0.99,
        minute_estimated_time=7,
    )


def asking(limit, interval="1m", asked=None):
    def get_signal(symbol, when):
        if asked is not None:
            asked.append(when)
        window = bk.candles(symbol, interval, limit)
        return proposal(symbol) if above_mean(window) else None

    return get_signal


def async_asking(limit, interval):
    async def get_signal(symbol, when):
        window = await bk.get_candles(symbol, interval, limit)
        return proposal(symbol) if above_mean(window) else None

    return get_signal


def from_arrays(limit):
    def get_signals(candles):
        mean = bk.trailing_mean(candles.close, limit)
        return bk.Signals.bracket((candles.close > mean).astype(np.int8), 1.0, 1.0, 7)

    return get_signals


def setting(engine, interval="1m", shift=0, frame="1m", rows=300, ask_at="close", **strategy):
    engine.set_config(max_signal_lifetime_minutes=100, fill_price="average", ask_at=ask_at)
    bk.add_exchange(bk.exchanges.FrameExchange(market(4, rows, gaps=False)))
    bk.add_frame(
        frame_name="f",
        interval=frame,
        start_date=to_datetime(START + shift * MINUTE),
        end_date=to_datetime(START + rows * MINUTE),
    )
    bk.add_strategy(strategy_name="s", interval=interval, **strategy)


def backtest(*, listens=True, **how):
    """Return the data of a backtest and what was told of errors, if somebody `listens`."""
    errors = []
    with bk.Engine() as engine:
        setting(engine, **how)
        if listens:
            bk.listen_error(lambda event: errors.append(str(event.error)))
        bk.Backtest.run_sync("X", frame_name="f", **NAMES)
        report = bk.Backtest.get_report("X", strategy_name="s")
        return bk.Backtest.get_data("X", strategy_name="s"), errors, report


def live(start, **how):
    errors = []
    with bk.Engine() as engine:
        bk.use_persist_adapter(MemoryAdapter())
        setting(engine, **how)
        bk.listen_error(lambda event: errors.append(str(event.error)))
        clock = bk.VirtualClock(to_datetime(start), to_datetime(START + 300 * MINUTE))

        async def run():
            return [tick async for tick in bk.Live.run("X", clock=clock, **NAMES)]

        asyncio.run(run())
        report = bk.Live.get_report("X", strategy_name="s")
        return bk.Live.get_data("X", strategy_name="s"), errors, report


def test_requests_before_the_data_are_one_figure(caplog):
    with caplog.at_level(logging.INFO, "backtest_kit"):
        data, errors, report = backtest(shift=1, get_signal=asking(120))
    # minutes 1 to 4 have no average price, 5 to 119 not enough candles
    assert (data.warming, data.warm_at) == (119, START + 120 * MINUTE)
    assert data.error_count == 0 == len(errors)
    assert data.statistics.total_signals > 3
    assert "- Warming up: 119 steps, until 2024-01-01T02:00Z." in report
    told = [r.getMessage() for r in caplog.records if "warming" in r.getMessage()]
    assert told == ["s on X: warming up: 119 steps, until 2024-01-01T02:00Z"]


def test_the_same_request_later_is_an_error():
    def greedy(symbol, when):
        limit = 10 if when < to_datetime(START + 60 * MINUTE) else 10_000
        bk.candles(symbol, "1m", limit)

    data, errors, _ = backtest(shift=1, get_signal=greedy)
    assert (data.warming, data.warm_at) == (9, START + 10 * MINUTE)
    assert data.error_count == len(errors) == 300 - 60 + 1
    assert errors[0].startswith("10000 candles of X 1m of exchange 'frame' at 2024-01-01T01:00Z")
    assert errors[0].endswith(
        "would begin at 2023-12-25T02:20Z, but the data begin at 2024-01-01T00:00Z"
    )


@pytest.mark.parametrize(("limit", "interval"), [(1, "6h"), (3, "1d"), (400, "1m")])
def test_data_shorter_than_a_candle_are_no_error(limit, interval):
    data, errors, _ = backtest(shift=70, get_signal=asking(limit, interval))
    assert (data.warming, data.warm_at, errors) == (231, None, [])


def test_a_symbol_without_data_is_an_error():
    def get_signal(symbol, when):
        bk.candles("Z", "1m", 5)

    errors = []
    with bk.Engine():
        rows = market(4, 300, gaps=False)
        frames = {"X": rows, "Z": [(t - 9999 * MINUTE, *rest) for t, *rest in rows]}
        bk.add_exchange(bk.exchanges.FrameExchange(frames))
        frame = {
            "start_date": to_datetime(START + 10 * MINUTE),
            "end_date": to_datetime(START + 160 * MINUTE),
        }
        bk.add_frame(frame_name="f", interval="1m", **frame)
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
        bk.listen_error(errors.append)
        bk.Backtest.run_sync("X", frame_name="f", **NAMES)
        assert bk.Backtest.get_data("X", strategy_name="s").warming == 0
    assert len(errors) == 151
    assert "Z 1m of exchange 'frame' has no candles" in str(errors[0].error)


@pytest.mark.parametrize("error", [ValueError("mine"), bk.DataRangeError("mine")])
def test_other_errors_at_the_start_are_errors(error):
    def get_signal(symbol, when):
        raise error

    data, errors, _ = backtest(shift=10, get_signal=get_signal)
    assert (data.warming, data.warm_at) == (0, None)
    assert data.error_count == len(errors) == data.calls == 291


def test_data_that_never_reach_back_are_told():
    data, errors, report = backtest(shift=10, get_signal=asking(5000))
    assert (data.warming, data.warm_at, data.calls, errors) == (291, None, 0, [])
    assert "- Warming up: 291 steps, to the end: the data never reached back" in report


def test_a_strategy_with_a_warmup_is_not_asked_before_it():
    asked = []
    data, errors, _ = backtest(shift=1, interval="5m", warmup=12, get_signal=asking(3, asked=asked))
    assert asked[0] == to_datetime(START + 60 * MINUTE)
    assert data.warm_at == START + 60 * MINUTE
    assert not errors
    data, errors, _ = backtest(shift=1, interval="5m", warmup=12, get_signal=asking(2000))
    assert data.calls == data.error_count == len(errors) > 10  # it said that twelve are enough


@pytest.mark.slow
@given(
    st.sampled_from(["1m", "3m", "5m", "15m"]),
    st.integers(1, 25),
    st.integers(1, 40),
    st.sampled_from(["1m", "5m"]),
    st.sampled_from(["close", "elapsed"]),
)
def test_all_ways_to_ask_warm_up_alike(interval, limit, shift, frame, ask_at):
    """Steps with a sync, an async and an array strategy; with and without `warmup`; live."""
    how = {"interval": interval, "shift": shift, "frame": frame, "ask_at": ask_at}
    if frame != "1m":  # its frames may meet no close
        how["ask_at"] = "elapsed"
    ways = [
        {"get_signal": asking(limit, interval)},
        {"get_signal": async_asking(limit, interval)},
        {"get_signal": asking(limit, interval), "warmup": limit},
        {"get_signals": from_arrays(limit), "warmup": limit},
        {"make": lambda: asking(limit, interval), "warmup": limit},
    ]
    found = [backtest(**how, **way) for way in ways]
    trades = [
        [(t.signal.scheduled_at, t.close_timestamp) for t in data.signals] for data, _, _ in found
    ]
    figures = [(data.warming, data.warm_at, data.calls, errors) for data, errors, _ in found]
    assert all(figure == figures[0] for figure in figures)
    assert all(each == trades[0] for each in trades)
    assert figures[0][3] == []
    if frame == "1m":
        for way in ways[2:4]:
            data, errors, _ = live(START + shift * MINUTE, **how, **way)
            assert (data.warming, data.warm_at, data.calls, errors) == figures[0]


def test_a_walk_counts_the_same():
    with bk.Engine() as engine:
        setting(engine, interval="5m", shift=10, get_signals=from_arrays(20), warmup=20)
        bk.add_strategy(strategy_name="t", interval="5m", get_signal=asking(20, "5m"), warmup=20)
        bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s", "t"])
        arrays, steps = bk.Walker.run_sync("X", walker_name="w")
        assert arrays.statistics.total_signals == steps.statistics.total_signals > 0
        trials = engine.walks["w", ("X",)].results
        # candles of five minutes: the 20th closes at minute 100; asked at 10, 15, ... 95
        assert [(trial.warming, trial.error_count) for trial in trials] == [(18, 0), (18, 0)]


@pytest.mark.parametrize("warmup", [-1, 1.5, "3", True])
def test_a_warmup_is_a_whole_number(warmup):
    with pytest.raises(bk.RegistrationError, match="warmup"):
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=print, warmup=warmup)


@pytest.mark.parametrize("base", ["1m", "1h"])
def test_before_the_first_long_candle_has_closed_it_is_warming_up_on_any_base(base):
    step, listed = INTERVALS[base], START + 15 * HOUR
    rows = [[t, 100.0, 100.2, 99.9, 100.0, 1.0] for t in range(listed, listed + 9 * HOUR, step)]

    async def get_candles(symbol, interval, since, limit):
        there = rows if interval == base else []  # no day has closed yet
        return [row for row in there if row[0] >= since][:limit]

    bk.add_exchange(exchange_name="x", get_candles=get_candles, intervals=[base, "1d"])
    bk.add_frame(
        frame_name="f",
        interval="1h",
        start_date=to_datetime(listed + HOUR),
        end_date=to_datetime(listed + 7 * HOUR),
    )
    bk.add_strategy(strategy_name="s", interval="1h", get_signal=asking(3, "1d"))
    bk.Backtest.run_sync("X", strategy_name="s", exchange_name="x", frame_name="f")
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert (data.warming, data.error_count) == (7, 0)


@given(
    st.integers(1, 400),
    st.sampled_from(["1m", "3m", "5m"]),
    st.sampled_from(["close", "elapsed"]),
    st.sampled_from([asking(20), from_arrays(20)]),
)
def test_a_frame_from_before_the_data_finds_the_same(early, frame, ask_at, function):
    """Its steps before the data are passed over, and counted."""
    name = "get_signals" if "get_signals" in function.__name__ else "get_signal"
    how = {"frame": frame, "ask_at": ask_at, "interval": "1m", name: function}
    if name == "get_signals":
        how["warmup"] = 20
    whole, errors, _ = backtest(shift=15, **how)
    longer, more, _ = backtest(shift=15 * (1 - early), **how)
    alone, *_ = backtest(shift=15 * (1 - early), listens=False, **how)
    assert alone == longer
    assert [*longer.signals] == [*whole.signals]
    assert (longer.warm_at, longer.calls) == (whole.warm_at, whole.calls)
    assert longer.warming - whole.warming == 15 * early // (INTERVALS[frame] // MINUTE)
    assert errors == more == []

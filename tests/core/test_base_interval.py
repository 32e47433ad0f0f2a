"""The base interval of a run: which it is, and what depends on it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._data.base import base_interval, check_interval, run_config, timeline_of
from backtest_kit._values.config import Config, resolved
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._values.time import INTERVALS, interval_name, to_datetime
from markets import MINUTE, START, market

names = st.sampled_from([*INTERVALS])
DAY = INTERVALS["1d"]


def exchange(intervals=None, **fields):
    return ExchangeSchema(
        exchange_name="x", get_candles=lambda *_: [], intervals=intervals, **fields
    )


def test_auto_is_1m_where_there_is_any():
    config = Config()
    assert base_interval(exchange(), "X", config) == "1m"
    assert base_interval(exchange(["1d", "1m", "1h"]), "X", config) == "1m"
    assert base_interval(exchange(["1d", "1h"]), "X", config) == "1h"
    by_symbol = exchange(lambda symbol: ["1d"] if symbol == "SPY" else ["5m", "15m"])
    assert base_interval(by_symbol, "SPY", config) == "1d"
    assert base_interval(by_symbol, "BTCUSDT", config) == "5m"


def test_an_interval_by_name():
    assert base_interval(exchange(), "X", Config(base_interval="2h")) == "2h"
    with pytest.raises(bk.ConfigError, match=r"'1m': exchange 'x' has no such .* has: 1h 1d\)"):
        base_interval(exchange(["1d", "1h"]), "X", Config(base_interval="1m"))
    with pytest.raises(bk.ConfigError, match="has: 1w; known: 1m 3m"):
        base_interval(exchange(lambda symbol: ["1w"]), "X", Config())


def test_an_exchange_that_fails_is_told_of_by_the_run():
    def intervals(symbol):
        raise bk.DataRangeError("no such file")

    assert base_interval(exchange(intervals), "X", Config()) == "1m"


@pytest.mark.parametrize("given", ["1h", [], ["1h", "7m"]])
def test_intervals_that_are_none(given):
    with pytest.raises(bk.RegistrationError, match="interval"):
        exchange(given)


@pytest.mark.parametrize("given", ["", 7, ["XNYS"]])
def test_a_calendar_is_a_name(given):
    with pytest.raises(bk.RegistrationError, match="calendar="):
        exchange(calendar=given)


@given(names)
def test_settings_left_open_follow_the_base(base):
    found = resolved(Config(), base)
    assert found.base_interval == base
    minutes = base == "1m"
    assert (found.avg_price_candles_count, found.exit_trigger) == (
        (5, "vwap") if minutes else (1, "wick")
    )
    assert resolved(found, base) == found


@given(names, st.integers(1, 9), st.sampled_from(["vwap", "wick"]))
def test_settings_that_are_made_stay(base, count, trigger):
    found = resolved(Config(avg_price_candles_count=count, exit_trigger=trigger), base)
    assert (found.avg_price_candles_count, found.exit_trigger) == (count, trigger)


@given(names, names)
def test_a_strategy_is_asked_on_whole_base_candles(base, interval):
    strategy = StrategySchema(strategy_name="s", interval=interval, get_signal=lambda *_: None)
    config = resolved(Config(), base)
    if INTERVALS[interval] % INTERVALS[base]:
        with pytest.raises(bk.ConfigError, match=f"base interval is {base}"):
            check_interval(strategy, config)
    else:
        check_interval(strategy, config)


@given(names, names, st.integers(0, 5000), st.integers(0, 20_000))
def test_a_frame_steps_on_the_base(base, interval, begin, length):
    start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=begin)
    frame = FrameSchema(
        frame_name="f",
        interval=interval,
        start_date=start,
        end_date=start + timedelta(minutes=length),
    )
    config, size = resolved(Config(), base), INTERVALS[base]
    first = START + begin * MINUTE
    instants = [t for t in range(first, first + length * MINUTE + 1, MINUTE) if t % size == 0]
    step = max(size, INTERVALS[interval])
    if step % size or not instants:
        with pytest.raises(bk.RegistrationError, match="base interval"):
            timeline_of(frame, config)
        return
    line = timeline_of(frame, config)
    assert [*line] == [t for t in instants if (t - instants[0]) % step == 0]
    if base == "1m":
        assert line == frame.timeline


@given(st.sampled_from([n for n in INTERVALS if n != "3d"]), st.integers(0, 2**32))
def test_recorded_candles_tell_their_interval(name, seed):
    size = INTERVALS[name]
    rows = [[START + i * size, *row[1:]] for i, row in enumerate(market(seed, 40, gaps=False))]
    found = bk.exchanges.FrameExchange({"X": rows})
    assert [*found.intervals("X")] == [n for n, ms in INTERVALS.items() if ms % size == 0]
    schema = ExchangeSchema(
        exchange_name="y", get_candles=found.get_candles, intervals=found.intervals
    )
    assert run_config(Config(), schema, "X").base_interval == name


def test_symbols_of_one_folder_may_differ(tmp_path):
    for symbol, size in (("BTCUSDT", MINUTE), ("SPY", DAY)):
        rows = [(START + i * size, *row[1:]) for i, row in enumerate(market(1, 40, gaps=False))]
        text = "\n".join(",".join(map(str, row)) for row in rows)
        (tmp_path / f"{symbol}.csv").write_text(text + "\n")
    found = bk.exchanges.CsvExchange(tmp_path, calendar="data")
    bk.add_exchange(found)
    (schema,) = bk.list_exchanges()
    assert schema.calendar == "data"
    assert base_interval(schema, "BTCUSDT", Config()) == "1m"
    assert base_interval(schema, "SPY", Config()) == "1d"


def test_ready_made_exchanges_without_files():
    assert bk.exchanges.SyntheticExchange().intervals[0] == "1m"
    assert "1m" in bk.exchanges.CcxtExchange("binance").intervals


@given(names)
def test_names_of_intervals_are_found_by_their_length(name):
    assert interval_name(INTERVALS[name]) == name


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize(("base", "wait", "life"), [("1h", 90, 90), ("4h", 120, 300)])
def test_a_wait_and_a_life_off_the_base_grid_are_followed_to_their_end(base, wait, life, arrays):
    step = INTERVALS[base]
    waits, lives = (-(-minutes * MINUTE // step) for minutes in (wait, life))
    asked = START + 20 * step  # the last instant of the frame: what follows lies behind it
    rows = [[START + i * step, 100.0, 100.2, 99.9, 100.0, 1.0] for i in range(40)]
    rows[19 + waits][3] = 98.9  # the candle that closes when the order times out reaches it

    async def get_candles(symbol, interval, since, limit):
        begin = max(0, -(-(since - START) // step))
        return rows[begin : begin + limit]

    bk.set_config(schedule_await_minutes=wait)
    bk.add_exchange(exchange_name="x", get_candles=get_candles, intervals=[base])
    span = (to_datetime(START + 10 * step), to_datetime(asked))
    bk.add_frame(frame_name="f", interval=base, start_date=span[0], end_date=span[1])
    levels = {"price_open": 99.0, "price_take_profit": 110.0, "price_stop_loss": 90.0}
    proposal = levels | {"minute_estimated_time": life}

    def get_signals(candles):
        return bk.Signals(np.where(candles.timestamp + step == asked, 1, 0), **proposal)

    def get_signal(symbol, when):
        return {"position": "long", **proposal} if when == span[1] else None

    asks = {"get_signals": get_signals, "warmup": 2} if arrays else {"get_signal": get_signal}
    bk.add_strategy(strategy_name="s", interval=base, **asks)
    [tick] = bk.Backtest.run_sync("X", strategy_name="s", exchange_name="x", frame_name="f")
    assert tick.signal.pending_at == asked + waits * step
    assert tick.close_reason == "time_expired"
    assert tick.close_timestamp == asked + (waits + lives) * step

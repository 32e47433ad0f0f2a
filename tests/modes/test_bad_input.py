"""Bad input: each one clear error, and nothing lost."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk

pytestmark = pytest.mark.usefixtures("asyncio_debug")

START = datetime(2024, 1, 1, tzinfo=UTC)
T0 = int(START.timestamp() * 1000)
NAMES = {"strategy_name": "s", "exchange_name": "e", "frame_name": "f"}


def rows(since, limit, price=100.0):
    first = max(since, T0)
    return [
        [t, price, price + 1, price - 1, price, 1.0]
        for t in range(first, since + limit * 60_000, 60_000)
    ]


def setup(get_candles, get_signal=lambda symbol, when: None, minutes=30, interval="1m"):
    bk.add_exchange(exchange_name="e", get_candles=get_candles)
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=START + timedelta(minutes=10),
        end_date=START + timedelta(minutes=10 + minutes),
    )
    bk.add_strategy(strategy_name="s", interval=interval, get_signal=get_signal)


def good(symbol, interval, since, limit):
    return rows(since, limit)


def test_unknown_names_name_what_exists():
    setup(good)
    for key in NAMES:
        with pytest.raises(bk.UnknownNameError, match=r"unknown \w+ 'nope'.*there are: [sef]\)"):
            bk.Backtest.run("X", **(NAMES | {key: "nope"}))


def test_a_near_miss_is_suggested():
    bk.add_strategy(strategy_name="crossover", interval="1m", get_signal=lambda s, w: None)
    bk.add_exchange(exchange_name="e", get_candles=good)
    with pytest.raises(bk.UnknownNameError, match="did you mean 'crossover'"):
        bk.Backtest.run("X", strategy_name="crosover", exchange_name="e", frame_name="f")


def test_a_duplicate_name_keeps_the_first():
    setup(good)
    with pytest.raises(bk.RegistrationError, match="strategy 's' already exists"):
        bk.add_strategy(strategy_name="s", interval="5m", get_signal=lambda s, w: None)
    assert bk.list_strategies()[0].interval == "1m"


def test_a_failed_registration_does_not_poison_the_name():
    with pytest.raises(bk.RegistrationError, match="unknown interval '7m'"):
        bk.add_strategy(strategy_name="s", interval="7m", get_signal=lambda s, w: None)
    assert bk.list_strategies() == []
    bk.add_strategy(strategy_name="s", interval="5m", get_signal=lambda s, w: None)
    assert [schema.interval for schema in bk.list_strategies()] == ["5m"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_date": datetime(2024, 1, 1)}, "start_date=2024-01-01T00:00:00 is naive"),
        ({"end_date": START - timedelta(days=1)}, "is before"),
        ({"start_date": START + timedelta(seconds=1)}, "must be a whole minute"),
        ({"interval": "1w"}, "unknown interval '1w'"),
        ({"start_date": "2024-01-01"}, "must be a datetime"),
        ({"frame_name": ""}, "frame_name must be a non-empty string"),
        ({"callbacks": {"on_frame": print}}, "unknown callback 'on_frame'"),
        ({"colour": 1}, "has no field 'colour'"),
    ],
)
def test_bad_frames(fields, message):
    frame = {
        "frame_name": "f",
        "interval": "1m",
        "start_date": START,
        "end_date": START + timedelta(days=1),
    }
    with pytest.raises(bk.RegistrationError, match=message):
        bk.add_frame(**(frame | fields))
    assert bk.list_frames() == []


def spoiled(change):
    """get_candles whose answer is changed once it is complete."""

    def get_candles(symbol, interval, since, limit):
        answer = rows(since, limit)
        return change(answer) if len(answer) > 5 else answer

    return get_candles


def set_at(i, column, value):
    def change(answer):
        answer[i][column] = value
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: [a[1], a[0], *a[2:]], "is not after the one before it"),
        (lambda a: [a[0], a[0], *a[2:]], "is not after the one before it"),
        (set_at(3, 3, -5.0), r"candle 3 .*price of 0 or less"),
        (set_at(3, 4, float("nan")), r"candle 3 .*not finite"),
        (set_at(3, 2, float("inf")), r"candle 3 .*not finite"),
        (set_at(3, 5, -1.0), "negative volume"),
        (set_at(3, 2, 50.0), "high below its low"),
        (set_at(3, 4, 105.0), "close outside"),
        (set_at(3, 1, 105.0), "open outside"),
        (set_at(3, 2, 100_000.0), "1000 times off the close before it, 100.0"),
        (set_at(3, 0, T0 + 1), r"grid|after"),
        (
            lambda a: [*a, [4_000_000_000_000 // 60000 * 60000, 100, 101, 99, 100, 1]],
            "in the future",
        ),
        (lambda a: [row[:5] for row in a], "expected six values"),
        (lambda a: np.zeros((4, 5)), r"shape \(n, 6\), got \(4, 5\)"),
        (lambda a: "candles", "expected candles, got str"),
        (lambda a: None, "expected candles, got NoneType"),
        (lambda a: [{"timestamp": 1}], "has no open, high"),
    ],
)
def test_bad_candles_end_the_run_with_one_error_that_names_the_candle(change, message):
    setup(spoiled(change))
    with pytest.raises(bk.BadCandlesError, match=message) as caught:
        bk.Backtest.run_sync("X", **NAMES)
    assert "exchange 'e': X 1m from" in str(caught.value)
    assert not bk.Backtest.get_data("X", strategy_name="s").complete


def test_too_few_candles_end_the_run_early_and_the_report_says_so():
    setup(
        lambda symbol, interval, since, limit: [
            r for r in rows(since, limit) if r[0] < T0 + 20 * 60_000
        ]
    )
    bk.Backtest.run_sync("X", **NAMES)
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert data.data_ended_at == T0 + 20 * 60_000
    assert not data.complete
    assert "data ended before the frame did" in bk.Backtest.get_report("X", strategy_name="s")


def test_a_frame_far_beyond_the_data_ends_the_same_way_each_time():
    setup(
        lambda symbol, interval, since, limit: [
            r for r in rows(since, limit) if r[0] < T0 + 20 * 60_000
        ]
    )
    bk.add_frame(
        frame_name="long", interval="15m", start_date=START, end_date=START + timedelta(hours=9)
    )
    ends = []
    for _ in range(3):  # the later ones find the candles in the store
        bk.Backtest.run_sync("X", **(NAMES | {"frame_name": "long"}))
        data = bk.Backtest.get_data("X", strategy_name="s", frame_name="long")
        ends.append((data.data_ended_at, data.complete, data.calls))
    assert ends == [(T0 + 20 * 60_000, False, ends[0][2])] * 3


def test_no_candles_at_all():
    setup(lambda symbol, interval, since, limit: [])
    with pytest.raises(bk.DataRangeError, match="X 1m of exchange 'e' has no candles"):
        bk.Backtest.run_sync("X", **NAMES)


def test_a_gap_is_an_error_where_the_user_wants_it():
    bk.set_config(gap_policy="raise")
    setup(
        lambda symbol, interval, since, limit: [
            r for r in rows(since, limit) if r[0] != T0 + 20 * 60_000
        ]
    )
    with pytest.raises(bk.GapError, match="2024-01-01T00:20Z is missing"):
        bk.Backtest.run_sync("X", **NAMES)


def test_an_exchange_that_raises_twice_then_works():
    calls = []

    def flaky(symbol, interval, since, limit):
        calls.append(since)
        if len(calls) <= 2:
            raise ConnectionError("try again")
        return rows(since, limit)

    setup(flaky)
    bk.Backtest.run_sync("X", **NAMES)
    assert bk.Backtest.get_data("X", strategy_name="s").complete
    assert calls[0] == calls[1] == calls[2]


def test_an_exchange_that_always_raises():
    calls = []

    async def broken(symbol, interval, since, limit):
        calls.append(since)
        raise ConnectionError("down")

    setup(broken)
    with pytest.raises(bk.FetchError, match="failed 4 times, last with ConnectionError: down"):
        bk.Backtest.run_sync("X", **NAMES)
    assert len(calls) == 4


def test_no_wait_after_the_last_attempt_nor_after_bad_candles():
    bk.set_config(get_candles_retry_count=0, get_candles_retry_delay_ms=3_600_000)
    setup(spoiled(lambda a: [a[0], a[0], *a[2:]]))
    with pytest.raises(bk.BadCandlesError):
        bk.Backtest.run_sync("X", **NAMES)


@pytest.mark.parametrize("sync", [True, False])
def test_an_exchange_that_hangs(sync):
    bk.set_config(get_candles_timeout_ms=30, get_candles_retry_count=1)

    async def hangs(symbol, interval, since, limit):
        await asyncio.sleep(3600)

    setup((lambda *a: time.sleep(3)) if sync else hangs)
    with pytest.raises(bk.FetchError, match="no answer within 30 ms"):
        bk.Backtest.run_sync("X", **NAMES)


OK = {
    "position": "long",
    "price_take_profit": 110,
    "price_stop_loss": 95,
    "minute_estimated_time": 5,
}


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({"price_take_profit": 90}, ["price_take_profit=90.0 must be above"]),
        ({"price_stop_loss": 105}, ["price_stop_loss=105.0 must be below"]),
        ({"position": "short"}, ["price_take_profit=110.0 must be below", "must be above"]),
        ({"minute_estimated_time": 0}, ["minute_estimated_time=0 must be from 1 to 1440"]),
        ({"minute_estimated_time": 1441}, ["from 1 to 1440"]),
        ({"minute_estimated_time": 1.5}, ["whole number of minutes"]),
        ({"minute_estimated_time": True}, ["whole number of minutes"]),
        ({"price_take_profit": "110"}, ["price_take_profit='110' must be a number"]),
        ({"price_stop_loss": float("nan")}, ["price_stop_loss=nan must be finite"]),
        ({"price_stop_loss": None}, ["price_stop_loss is None", "require_stop_loss"]),
        ({"position": "wait", "price_open": 90}, ["position='wait' must be 'long' or 'short'"]),
        ({"price_take_profit": 100.3}, ["at least 0.5 % is needed"]),
        ({"price_stop_loss": 99.8}, ["min_stop_loss_distance_percent"]),
        ({"price_stop_loss": 70}, ["max_stop_loss_distance_percent"]),
        ({"prise_open": 3}, ["unknown key 'prise_open'; did you mean 'price_open'"]),
        ({"id": ""}, ["id='' must be a non-empty string"]),
        (
            {"position": "up", "price_stop_loss": -1, "minute_estimated_time": "5"},
            ["position='up'", "price_stop_loss=-1.0", "whole number of minutes"],
        ),
    ],
)
def test_invalid_signals_list_every_problem_and_the_run_goes_on(change, problems):
    errors = []
    answers = [OK | change, OK]

    def get_signal(symbol, when):
        return answers.pop(0) if answers else None

    setup(good, get_signal)
    bk.listen_error(errors.append)
    closed = bk.Backtest.run_sync("X", **NAMES)
    assert len(closed) == 1
    assert len(errors) == 1
    event = errors[0]
    for problem in problems:
        assert problem in str(event.error)
    assert isinstance(event.error, bk.SignalError)
    assert (event.symbol, event.strategy_name, event.exchange_name) == ("X", "s", "e")
    assert event.when == T0 + 10 * 60_000


@pytest.mark.parametrize("answer", [7, "long", [1], object()])
def test_an_answer_that_is_no_signal(answer):
    errors = []
    setup(good, lambda symbol, when: answer, minutes=0)
    bk.listen_error(errors.append)
    assert bk.Backtest.run_sync("X", **NAMES) == []
    assert "return a Signal, a mapping or None" in str(errors[0].error)


def test_a_strategy_that_raises_in_the_middle_is_counted_and_told():
    errors = []

    async def get_signal(symbol, when):
        if when.minute == 20:
            raise RuntimeError("in the middle")

    setup(good, get_signal)
    bk.listen_error(errors.append)
    bk.Backtest.run_sync("X", **NAMES)
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert data.complete
    assert (data.calls, data.error_count) == (31, 1)
    assert errors[0].when == T0 + 20 * 60_000
    assert "RuntimeError: in the middle" in bk.Backtest.get_report("X", strategy_name="s")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schedule_await_minutes", 0, "schedule_await_minutes=0"),
        ("schedule_await_minutes", "soon", "schedule_await_minutes='soon'"),
        ("exit_trigger", "touch", "exit_trigger='touch'"),
        ("percent_fee", -1, "percent_fee=-1"),
        ("percent_fee", float("nan"), "percent_fee=nan"),
        ("percent_fees", 1, "unknown setting 'percent_fees'; did you mean 'percent_fee'"),
        ("min_stop_loss_distance_percent", 50, "no stop-loss could satisfy both"),
    ],
)
def test_bad_settings_change_nothing(key, value, message):
    before = bk.get_config()
    with pytest.raises(bk.ConfigError, match=message):
        bk.set_config(avg_price_candles_count=9, **{key: value})
    assert bk.get_config() == before


def test_all_that_is_wrong_with_settings_is_told_at_once(monkeypatch):
    with pytest.raises(bk.ConfigError) as caught:
        bk.set_config(
            percent_fees=1,
            exit_trigger="touch",
            percent_slippage=-1,
            min_stop_loss_distance_percent=50,
        )
    assert str(caught.value).split("; ", 1)[0] == "unknown setting 'percent_fees'"
    for text in ("'percent_fee'", "exit_trigger='touch'", "percent_slippage=-1", "satisfy both"):
        assert text in str(caught.value)
    monkeypatch.setenv("CC_PERCENT_FEE", "cheap")
    monkeypatch.setenv("CC_FEED_WAIT_MS", "soon")
    with pytest.raises(bk.ConfigError, match=r"CC_PERCENT_FEE: .* variable CC_FEED_WAIT_MS: "):
        bk.Engine()


def test_settings_from_the_environment(monkeypatch):
    monkeypatch.setenv("CC_SCHEDULE_AWAIT_MINUTES", "60")
    monkeypatch.setenv("CC_EXIT_TRIGGER", "wick")
    config = bk.Engine().config
    assert (config.schedule_await_minutes, config.exit_trigger) == (60, "wick")
    monkeypatch.setenv("CC_PERCENT_FEE", "cheap")
    with pytest.raises(bk.ConfigError, match="CC_PERCENT_FEE"):
        bk.Engine()


async def test_a_run_keeps_the_settings_it_began_with():
    setup(good, lambda symbol, when: OK, minutes=600)
    results = bk.Backtest.run("X", **NAMES)
    first = await anext(results)
    bk.set_config(percent_fee=5.0)
    second = await anext(results)
    assert second.pnl == first.pnl
    await results.aclose()


@pytest.mark.parametrize(
    ("interval", "limit", "message"),
    [
        ("1m", 0, "limit=0 must be a whole number"),
        ("1m", -3, "limit=-3"),
        ("1m", 2.5, "limit=2.5"),
        ("1m", "5", "limit='5'"),
        ("1m", True, "limit=True"),
        ("7m", 5, "unknown interval '7m'"),
    ],
)
def test_asking_for_wrong_candles_names_the_values(interval, limit, message):
    errors, sizes = [], []

    async def get_signal(symbol, when):
        sizes.append(len(await bk.get_candles(symbol, "1m", np.int64(3))))
        await bk.get_candles(symbol, interval, limit)

    setup(good, get_signal, minutes=0)
    bk.listen_error(errors.append)
    bk.Backtest.run_sync("X", **NAMES)
    assert sizes == [3]
    assert message in str(errors[0].error)

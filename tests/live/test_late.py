"""What comes late: candles, a clock that leaps, a check that takes more than its minute."""

import asyncio
import threading

import pytest

import backtest_kit as bk
from backtest_kit._engine.engine import current_engine
from backtest_kit._values.time import to_datetime
from live.world import T0, Stage, flat, once, running
from markets import MINUTE, START

pytestmark = pytest.mark.usefixtures("asyncio_debug")


def test_a_series_whose_first_request_failed_is_asked_for_again():
    stage = Stage(flat(), get_candles_retry_delay_ms=10)
    honest, asked, seen = stage.venue.get_candles, [], []

    async def get_candles(symbol, interval, since, limit):
        if interval == "5m" and stage.world.now < T0 + 3 * MINUTE:
            raise ConnectionError("503")
        return await honest(symbol, interval, since, limit)

    async def get_signal(symbol, when):
        asked.append(when)
        seen.append(await bk.get_candles(symbol, "5m", 5))

    bk.add_exchange(exchange_name="shaky", get_candles=get_candles)
    bk.add_strategy(strategy_name="t", interval="1m", get_signal=get_signal)

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="shaky")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)

    stage.world.run(main())
    assert len(asked) >= 9
    assert len(seen) >= 6


def test_a_candle_of_a_long_interval_that_is_late_is_asked_for_each_minute():
    start = START + 117 * MINUTE
    stage = Stage(flat(), start=start)
    honest, good, bad = stage.venue.get_candles, [], []

    async def get_candles(symbol, interval, since, limit):
        candles = await honest(symbol, interval, since, limit)
        late = START + 120 * MINUTE <= stage.world.now < START + 120 * MINUTE + 40_000
        if interval == "1h" and late:
            return [candle for candle in candles if candle.timestamp < START + 60 * MINUTE]
        return candles

    async def get_signal(symbol, when):
        try:
            await bk.get_candles(symbol, "1h", 1)
            good.append(when)
        except bk.DataRangeError:
            bad.append(when)

    bk.add_exchange(exchange_name="late", get_candles=get_candles)
    bk.add_strategy(strategy_name="t", interval="1m", get_signal=get_signal)

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="late")
        async with running(task):
            await stage.world.until(START + 130 * MINUTE)

    stage.world.run(main())
    assert bad == [to_datetime(START + 120 * MINUTE)]
    assert to_datetime(START + 121 * MINUTE) in good


def test_a_clock_that_jumps_ahead_and_comes_back_stalls_nothing():
    stage = Stage(flat(3000), answer=once(T0 + MINUTE, minute_estimated_time=30))

    def jump(ms):
        return lambda task: setattr(stage.world, "skew", ms)

    moves = [(T0 + 3 * MINUTE + 20_000, jump(600 * MINUTE)), (T0 + 5 * MINUTE + 20_000, jump(0))]
    stage.play(T0 + 60 * MINUTE, moves)
    opened, closed = (t for t in stage.told if t.action in ("opened", "closed"))
    assert closed.close_timestamp - opened.timestamp == 30 * MINUTE


def test_errors_of_on_candle_data_are_events():
    stage = Stage(flat(), answer=once(T0 + MINUTE, minute_estimated_time=5))

    def on_candle_data(*arguments):
        raise RuntimeError("a slip")

    bk.add_exchange(
        exchange_name="told",
        get_candles=stage.venue.get_candles,
        callbacks={"on_candle_data": on_candle_data},
    )

    async def main():
        task = bk.Live.background("X", strategy_name="s", exchange_name="told")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)
            assert task.status == "running"

    stage.world.run(main())
    assert [t.action for t in stage.told if t.action in ("opened", "closed")] == [
        "opened",
        "closed",
    ]
    assert {event.where for event in stage.errors} == {"callback on_candle_data"}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_on_candle_data_that_never_returns_holds_up_nothing(kind):
    """The loop goes on, it is said once per page what happened, and no further thread is lost."""
    stage = Stage(flat(), answer=once(T0 + 3 * MINUTE, minute_estimated_time=5))
    released, calls = threading.Event(), []

    def block(*arguments):
        calls.append(bk.get_mode())
        released.wait(50)

    async def hang(*arguments):
        calls.append(bk.get_mode())
        await asyncio.Event().wait()

    bk.add_exchange(
        exchange_name="told",
        get_candles=stage.venue.get_candles,
        callbacks={"on_candle_data": block if kind == "sync" else hang},
    )
    stage.world.waits_for_threads = kind == "sync"

    async def main():
        task = bk.Live.background("X", strategy_name="s", exchange_name="told")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)

    try:
        stage.world.run(main())
    finally:
        released.set()
    assert {tick.action for tick in stage.told} >= {"opened", "closed"}
    assert set(calls) == {"live"}
    assert len(calls) == 1 or kind == "async"
    first, *others = stage.errors
    assert isinstance(first.error, bk.CallbackTimeoutError)
    assert "callback_timeout_seconds" in str(first.error)
    assert all("still hangs" in str(event.error) for event in others) or kind == "async"


def test_a_check_that_takes_longer_than_the_minute_opens_nothing():
    async def slow(check):
        await asyncio.sleep(150)

    stage = Stage(flat(), answer=once(T0 + MINUTE, minute_estimated_time=30))
    bk.add_risk(risk_name="r", validations=[slow])
    answer = once(T0 + MINUTE, minute_estimated_time=30)
    bk.add_strategy(
        strategy_name="t",
        interval="1m",
        get_signal=lambda symbol, when: answer(round(when.timestamp() * 1000), 100.0),
        risk_name="r",
    )

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="venue")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)

    stage.world.run(main())
    assert not [tick for tick in stage.told if tick.action == "opened"]
    assert any("the chance has gone" in str(event.error) for event in stage.errors)


def test_the_error_of_a_late_candle_names_the_newest_there_is():
    stage = Stage(flat(), feed_wait_ms=1000)
    honest = stage.venue.get_candles

    async def get_candles(symbol, interval, since, limit):
        candles = await honest(symbol, interval, since, limit)
        late = stage.world.now >= T0 + 3 * MINUTE  # stuck: nothing newer comes
        return [c for c in candles if not late or c.timestamp < T0 + 2 * MINUTE]

    bk.add_exchange(bk.ExchangeSchema(exchange_name="venue", get_candles=get_candles), replace=True)
    stage.play(T0 + 4 * MINUTE + 30_000)
    newest = "the newest closed at 2024-01-01T01:42Z"
    assert stage.error_texts("feed") == [
        f"the candle of X that closed at 2024-01-01T01:4{minute}Z is not there; {newest}"
        for minute in (3, 4)
    ]


@pytest.mark.parametrize("kind", [ConnectionError, bk.ExchangeRefusedError])
@pytest.mark.parametrize("waits", [False, True])
def test_what_is_open_outlives_a_refusal(kind, waits, caplog):
    """It is told each minute, logged again after a while, and the missed steps are followed."""
    caplog.set_level("ERROR")
    entry = {"price_open": 95.0} if waits else {}
    stage = Stage(
        flat(),
        answer=once(T0 + MINUTE, minute_estimated_time=40, **entry),
        get_candles_retry_count=0,
        feed_wait_ms=0,
        schedule_await_minutes=40,
    )
    honest = stage.venue.get_candles

    async def get_candles(*arguments):
        if T0 + 5 * MINUTE <= stage.world.now < T0 + 30 * MINUTE:
            raise kind("no: bad key")
        return await honest(*arguments)

    bk.add_exchange(bk.ExchangeSchema(exchange_name="venue", get_candles=get_candles), replace=True)
    assert stage.play(T0 + 60 * MINUTE) == "running"
    ended = [t for t in stage.told if t.action in ("closed", "cancelled")]
    assert [t.timestamp for t in ended] == [T0 + 41 * MINUTE]
    told = stage.error_texts("feed")
    assert len(told) == 25
    assert all("no: bad key" in text for text in told)
    logged = [r for r in caplog.records if r.levelname == "ERROR" and "bad key" in r.getMessage()]
    assert 2 <= len(logged) <= 4


def test_a_price_a_thousand_times_off_is_no_price_in_live_either():
    """A page of one candle has no median; the closes before it are what it is compared with."""
    rows = flat()
    k = 100 + 4
    rows[k] = (rows[k][0], 100.0, 100_000.0, 100.0, 100.0, 1.0)
    stage = Stage(rows, answer=once(T0 + 2 * MINUTE, minute_estimated_time=30), exit_trigger="wick")
    stage.play(T0 + 10 * MINUTE)
    assert [t.action for t in stage.transitions()] == ["opened"]
    told = stage.error_texts("feed")
    assert len(told) >= 5
    assert all("1000 times off the close before it, 100.0" in text for text in told)


@pytest.mark.parametrize("policy", ["hold", "accept"])
@pytest.mark.parametrize("trigger", ["wick", "vwap"])
def test_a_spike_is_told_once_and_triggers_only_where_it_may(policy, trigger):
    rows = flat()
    k = 100 + 4
    rows[k] = (rows[k][0], 100.0, 5_000.0, 100.0, 100.0, 1.0)
    stage = Stage(
        rows,
        answer=once(T0 + 2 * MINUTE, minute_estimated_time=30),
        exit_trigger=trigger,
        suspicious_candle=policy,
    )
    stage.play(T0 + 40 * MINUTE)
    closed = [t for t in stage.told if t.action == "closed"]
    reason, minute = ("time_expired", 32) if policy == "hold" else ("take_profit", 5)
    assert [(t.close_reason, t.timestamp) for t in closed] == [(reason, T0 + minute * MINUTE)]
    (told,) = stage.error_texts("candles")
    assert "a candle has a price 20 times or more off the closes before: 2024-01-01T01:44Z" in told
    assert policy in told
    (record,) = current_engine().records.select(mode="live")
    assert record.candles.suspicious == (rows[k][0],)

"""What comes late: candles, a clock that leaps, a check that takes more than its minute."""

import asyncio

import pytest

import backtest_kit as bk
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

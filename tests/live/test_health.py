"""How live runs are: told once a minute, and late where they are."""

import asyncio

import pytest

import backtest_kit as bk
from backtest_kit._data.calendar import is_ever_open
from backtest_kit._live.health import health
from backtest_kit.cli.live_row import Row
from backtest_kit.testing import FaultyExchange, MemoryAdapter, SimulatedTime
from live.world import BRACKET, T0, Stage, clock, flat, once, running
from markets import MINUTE, START


def test_health_is_told_each_minute_and_a_run_without_candles_is_late(engine):
    stage = Stage(
        flat(),
        faults=[(T0 + 10 * MINUTE, T0 + 20 * MINUTE, "fail")],
        answer=once(T0 + 2 * MINUTE, minute_estimated_time=60),
        get_candles_retry_delay_ms=1000,
    )
    told = []
    bk.listen_health(told.append)

    async def hang(tick):
        await asyncio.Event().wait()

    bk.listen_signal_live(hang)
    stage.play(T0 + 25 * MINUTE + 30_000)
    assert len(told) == 25
    minutes = {(event.timestamp - T0) // MINUTE: event for event in told}
    (calm,) = minutes[5].runs
    assert (calm.symbol, calm.status, calm.late) == ("X", "active", False)
    assert calm.step_age_seconds <= 61
    assert calm.feed_lag_seconds < 1
    assert (calm.missed, calm.errors, calm.unheard) == (0, 0, 0)
    assert minutes[5].healthy
    (cut_off,) = minutes[16].runs
    assert cut_off.late
    assert cut_off.feed_lag_seconds >= 4 * 60
    assert not minutes[16].healthy
    assert minutes[24].healthy
    assert minutes[24].runs[0].missed > 5
    (hanging,) = (each for each in minutes[24].listeners if "hang" in each.name)
    assert hanging.behind >= 10
    assert hanging.busy_seconds > 20 * 60
    assert not health(engine).healthy, "nothing runs any more"


def test_a_row_is_late_by_its_own_base_interval():
    hour = 60 * MINUTE
    minutely, hourly = Row("X", "s", "e", last_step=T0), Row("X", "s", "e", last_step=T0, base=hour)
    for row, base in ((minutely, MINUTE), (hourly, hour)):
        assert not row.late(T0 + base + 20_000)
        assert row.late(T0 + base + 40_000)


def hourly(minutes=600):
    rows = flat(minutes)
    return [(t, o, h, low, c, v * 60) for i, (t, o, h, low, c, v) in enumerate(rows) if i % 60 == 0]


@pytest.mark.parametrize("first", ["short", "long"])
def test_runs_of_different_bases_in_one_profile_do_not_wait_for_each_other(first):
    """The one of an hour does nothing before its next hour: nobody waits for it until then."""
    world = SimulatedTime(T0 + 500)
    bk.use_persist_adapter(MemoryAdapter())
    bk.add_risk(risk_name="r", validations=[lambda check: None])
    delays = []

    def get_signal(symbol, when):
        return BRACKET | {"minute_estimated_time": 1} if symbol == "S" else None

    def on_open(tick):
        delays.append(world.now - tick.timestamp)

    for name, rows, intervals in (("short", flat(), ["1m", "1h"]), ("long", hourly(), ["1h"])):
        venue = FaultyExchange(world, rows)
        bk.add_exchange(exchange_name=name, get_candles=venue.get_candles, intervals=intervals)
        bk.add_strategy(
            strategy_name=name,
            interval=intervals[0],
            get_signal=get_signal,
            risk_name="r",
            callbacks={"on_open": on_open},
        )

    async def main():
        runs = {"short": "S", "long": "L"}
        tasks = [
            bk.Live.background(runs[name], strategy_name=name, exchange_name=name)
            for name in sorted(runs, reverse=first == "short")
        ]
        async with running(*tasks):
            await world.until(T0 + 75 * MINUTE)

    world.run(main())
    assert len(delays) > 30
    assert max(delays[1:]) < 5_000, "the patience with another run is ten seconds"


@pytest.mark.parametrize(("interval", "told"), [("1d", True), ("1h", False)])
def test_a_live_strategy_that_is_due_in_closed_times_only_is_told_of(interval, told):
    """New York is closed at midnight UTC, when candles of a day close."""
    pytest.importorskip("exchange_calendars")
    is_ever_open("XNYS", START, MINUTE, MINUTE)  # loads the calendar, outside of an event loop
    stage = Stage(flat())
    bk.add_exchange(exchange_name="NY", get_candles=stage.venue.get_candles, calendar="XNYS")
    bk.add_strategy(strategy_name="t", interval=interval, get_signal=lambda symbol, when: None)

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="NY")
        async with running(task):
            await stage.world.until(T0 + 3 * MINUTE)

    stage.world.run(main())
    texts = stage.error_texts("frame")
    assert len(texts) == told
    assert all("'t' was never asked: whenever it is due" in text for text in texts)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_request_that_keeps_failing_ends_a_replay_and_no_run_by_the_wall_clock(recorded):
    if recorded:
        bk.use_persist_adapter(MemoryAdapter())

        async def down(symbol, interval, since, limit):
            raise ConnectionError("503")

        bk.add_exchange(exchange_name="down", get_candles=down)
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)

        async def main():
            await bk.Live.background(
                "X", strategy_name="s", exchange_name="down", clock=clock(50, 60)
            )

        with pytest.raises(bk.FetchError, match=r"503.*By a virtual clock this ends the run"):
            asyncio.run(main())
    else:
        stage = Stage(flat(), faults=[(T0, T0 + 5 * MINUTE, "fail")])
        assert stage.play(T0 + 8 * MINUTE) == "running"
        assert stage.asked


def test_methods_of_a_strategys_object_are_part_of_it():
    """At one step: closed, told, and asked again with what that has changed."""

    class Counting:
        def __init__(self):
            self.closed = 0

        def get_signal(self, symbol, when):
            seen.append(self.closed)
            return BRACKET | {"minute_estimated_time": 3}

        async def on_close(self, tick):
            await asyncio.sleep(0.2)
            self.closed += 1

    seen = []
    stage = Stage(flat())
    bk.add_strategy(strategy_name="t", interval="1m", make=Counting)

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="venue")
        async with running(task):
            await stage.world.until(T0 + 20 * MINUTE)

    stage.world.run(main())
    assert seen == [*range(len(seen))]
    assert len(seen) > 5


def test_a_strategy_that_never_answers_is_not_waited_for_and_can_be_stopped():
    hanging = []

    async def never():
        hanging.append(1)
        await asyncio.Event().wait()

    stage = Stage(flat(), answer=lambda at, price: never() if at >= T0 + 3 * MINUTE else None)

    async def main():
        task = stage.task()
        await stage.world.until(T0 + 6 * MINUTE + 20_000)
        task.stop()
        began = stage.world.now
        await task
        return stage.world.now - began

    assert stage.world.run(main()) < 1000
    assert len(hanging) == 4
    assert len(stage.error_texts("get_signal")) == 3


def test_a_stop_with_nothing_open_does_not_wait_for_a_late_candle():
    stage = Stage(flat(), faults=[(T0 + 3 * MINUTE, T0 + 30 * MINUTE, "empty")])

    async def main():
        task = stage.task()
        await stage.world.until(T0 + 5 * MINUTE + 3_000)
        task.stop()
        began = stage.world.now
        await task
        return stage.world.now - began

    assert stage.world.run(main()) < 1000

"""Live by the wall clock: on time, late, cut off, asleep, set back, stopped."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._values.time import INTERVALS
from effort import examples
from live.world import T0, Stage, always, flat, once, running
from markets import MINUTE, START, cases, market, script


@examples(15)
@given(cases)
def test_a_calm_live_run_equals_the_reference(case):
    rows = market(case.seed, case.minutes, gaps=False, coarse=case.coarse)
    answer = script(case.seed, case.ask_rate, case.coarse)
    start, end = START + 20 * MINUTE, START + (20 + case.minutes // 3) * MINUTE
    with bk.Engine():
        stage = Stage(rows, start=start, interval=case.interval, answer=answer, **case.config)
        stage.play(end + MINUTE // 2)
        found = []
        for t in stage.transitions():
            if t.action == "closed":
                pnl = t.pnl
                found.append(
                    (
                        "closed",
                        t.timestamp,
                        t.close_reason,
                        pnl.price_close,
                        pnl.pnl_percentage,
                        t.ambiguous,
                    )
                )
            elif t.action == "cancelled":
                found.append(("cancelled", t.timestamp, t.reason))
            else:
                found.append((t.action, t.timestamp, t.signal.price_open))
    expected = reference.backtest(
        rows, start, end, MINUTE, INTERVALS[case.interval], answer, case.config, live=True
    )
    assert found == [f for f in expected if f[1] <= end and f[0] != "partial"]


def test_steps_come_just_after_each_minute_and_do_not_drift():
    stage = Stage(flat(), step_delay_ms=500, answer=lambda at, price: asyncio.sleep(1.234))
    stage.venue.delay = 321
    stage.play(T0 + 200 * MINUTE)
    assert [at for at, _ in stage.asked] == [T0 + i * MINUTE for i in range(200)]
    late = {now - at for at, now in stage.asked[1:]}
    assert late == {500 + 321}


def test_one_request_serves_all_runs_of_a_minute():
    stage = Stage(flat())

    async def get_signal(symbol, when):
        await bk.get_candles(symbol, "5m", 10)
        await bk.get_candles(symbol, "1m", 30)

    for name in "abc":
        bk.add_strategy(strategy_name=name, interval="1m", get_signal=get_signal)

    async def main():
        tasks = [
            bk.Live.background("X", strategy_name=name, exchange_name="venue") for name in "abc"
        ]
        async with running(*tasks):
            await stage.world.until(T0 + 60 * MINUTE)

    stage.world.run(main())
    requests = [(symbol, kind, at // MINUTE) for symbol, kind, at in stage.venue.requests]
    later = [r for r in requests if r[2] > T0 // MINUTE + 1]
    assert len(later) == len(set(later)), "the same series was asked for twice in a minute"
    assert {kind: sum(r[1] == kind for r in later) for kind in ("1m", "5m")} == {
        "1m": 58,
        "5m": 11,
    }


@pytest.mark.parametrize("kind", ["hang", "fail", "empty", "shuffled", "late"])
def test_an_outage_is_followed_through_afterwards(kind):
    """Entry before it, stop-loss in the middle of it: closed at that minute, once it is over."""
    rows = flat()
    i = (T0 - START) // MINUTE
    for k in range(i + 9, i + 12):  # the price falls for three minutes and recovers
        rows[k] = (rows[k][0], 95.0, 95.1, 80.0, 80.0, 50.0)
    outage = (T0 + 5 * MINUTE, T0 + 30 * MINUTE, kind)
    stage = Stage(
        rows,
        faults=[outage],
        answer=once(T0 + 2 * MINUTE, minute_estimated_time=60),
        get_candles_timeout_ms=5_000,
        get_candles_retry_delay_ms=5_000,
    )
    stage.play(T0 + 40 * MINUTE)
    opened, closed = stage.transitions()
    assert (opened.timestamp, closed.close_reason) == (T0 + 2 * MINUTE, "stop_loss")
    assert closed.timestamp == T0 + 10 * MINUTE
    asked = [at for at, _ in stage.asked]
    assert not [at for at in asked if T0 + 2 * MINUTE < at < T0 + 30 * MINUTE]
    assert asked[-1] == T0 + 39 * MINUTE
    data = bk.Live.get_data("X", strategy_name="s")
    assert data.steps + data.missed == 40
    assert 23 <= data.missed <= 26
    assert stage.error_texts("missed steps")
    assert stage.error_texts("feed")
    assert len(set(stage.steps())) == len(stage.steps()), "a step was done twice"


@pytest.mark.parametrize(("late_ms", "missed"), [(20_000, 0), (45_000, 30)])
def test_a_late_candle_is_waited_for_with_a_bound(late_ms, missed):
    stage = Stage(flat())
    venue = stage.venue
    real = venue.get_candles

    async def slow(symbol, interval, since, limit):
        stage.world.start -= late_ms  # the exchange is that far behind
        try:
            return await real(symbol, interval, since, limit)
        finally:
            stage.world.start += late_ms

    bk.add_exchange(exchange_name="slow", get_candles=slow)

    async def main():
        task = bk.Live.background("X", strategy_name="s", exchange_name="slow")
        async with running(task):
            await stage.world.until(T0 + 30 * MINUTE + 55_000)

    stage.world.run(main())
    data = bk.Live.get_data("X", strategy_name="s")
    if missed:
        assert not stage.asked
        assert data.missed >= missed - 1
        assert "is not there" in stage.error_texts("feed")[0]
    else:
        assert data.missed == 0
        assert len(stage.asked) == 31


def test_a_clock_that_goes_back_is_reported_and_no_minute_comes_twice():
    stage = Stage(flat())

    def back(task):
        stage.world.skew = -5 * MINUTE

    stage.play(T0 + 30 * MINUTE, [(T0 + 10 * MINUTE + 5000, back)])
    asked = [at for at, _ in stage.asked]
    assert asked == sorted(set(asked))
    assert asked == [T0 + i * MINUTE for i in range(25)]
    (text,) = stage.error_texts("clock")
    assert "it has gone back" in text


def test_a_clock_that_leaps_ahead_waits_for_the_candles():
    stage = Stage(flat(), answer=once(T0 + 3 * MINUTE, minute_estimated_time=30))

    def ahead(task):
        stage.world.skew = 7 * MINUTE

    def right(task):
        stage.world.skew = 0

    stage.play(
        T0 + 60 * MINUTE, [(T0 + 10 * MINUTE + 5000, ahead), (T0 + 20 * MINUTE + 5000, right)]
    )
    _, closed = stage.transitions()
    assert closed.close_reason == "time_expired"
    assert closed.timestamp == T0 + 33 * MINUTE
    assert stage.steps() == sorted(set(stage.steps()))


def test_a_machine_that_slept_follows_what_lives_and_asks_only_for_now():
    """Suspended: the wall clock goes on, the loop's own clock does not."""
    stage = Stage(flat(), answer=once(T0 + 3 * MINUTE, minute_estimated_time=30))

    def sleep(task):
        stage.world.start += 20 * MINUTE

    stage.play(T0 + 50 * MINUTE, [(T0 + 5 * MINUTE + 5000, sleep)])
    _, closed = stage.transitions()
    assert closed.timestamp == T0 + 33 * MINUTE
    data = bk.Live.get_data("X", strategy_name="s")
    assert data.missed == 19
    assert data.steps == 50 - 19
    (text,) = stage.error_texts("missed steps")
    assert text.startswith("19 steps were missed, 2024-01-01T01:46Z to 2024-01-01T02:04Z")


def test_an_answer_that_comes_too_late_is_not_traded():
    def slowly(at, price):
        async def think():
            await asyncio.sleep(130)
            return once(at)(at, price)

        return think() if at == T0 + 5 * MINUTE else None

    stage = Stage(flat(), answer=slowly)
    stage.play(T0 + 10 * MINUTE)
    assert not stage.transitions()
    assert "the chance has gone" in stage.error_texts("get_signal")[0]
    assert [at - T0 for at, _ in stage.asked] == [MINUTE * i for i in range(10)]
    assert bk.Live.get_data("X", strategy_name="s").missed == 0, "it is not waited for"


def test_a_hanging_symbol_does_not_hold_up_another():
    stage = Stage(flat())

    async def get_candles(symbol, *rest):
        if symbol == "BAD":
            await asyncio.sleep(10**9)
        return await stage.venue.get_candles(symbol, *rest)

    bk.add_exchange(exchange_name="half", get_candles=get_candles)
    bk.add_risk(risk_name="book", validations=[lambda check: None])
    asked = []
    bk.add_strategy(
        strategy_name="t",
        interval="1m",
        risk_name="book",
        get_signal=lambda symbol, when: asked.append(when) or always(when, 100.0),
    )

    async def main():
        tasks = [
            bk.Live.background(symbol, strategy_name="t", exchange_name="half")
            for symbol in ("BAD", "GOOD")
        ]
        async with running(*tasks):
            await stage.world.until(T0 + 30 * MINUTE)

    stage.world.run(main())
    # positions of ten minutes, and the next one at the step at which each closes
    assert [(round(at.timestamp() * 1000) - T0) // MINUTE for at in asked] == [0, 10, 20]
    assert bk.Live.get_data("GOOD", strategy_name="t").missed == 0


def test_stop_drops_a_waiting_signal_at_once():
    stage = Stage(
        flat(),
        answer=once(
            T0 + 2 * MINUTE, price_open=97.0, price_stop_loss=90.0, minute_estimated_time=60
        ),
    )
    stage.play(T0 + 20 * MINUTE, [(T0 + 5 * MINUTE + 20_000, lambda task: task.stop())])
    _, cancelled = stage.transitions()
    assert (cancelled.reason, cancelled.timestamp) == ("user", T0 + 5 * MINUTE)
    assert stage.asked[-1][0] <= T0 + 2 * MINUTE


def test_stop_lets_a_filled_signal_run_to_its_close():
    stage = Stage(flat(), answer=always)
    status = stage.play(T0 + 60 * MINUTE, [(T0 + 5 * MINUTE, lambda task: task.stop())])
    _, closed = stage.transitions()
    assert closed.timestamp == T0 + 10 * MINUTE
    assert status == "done"


def test_stop_with_nothing_alive_ends_at_once():
    stage = Stage(flat())
    seen = []

    async def main():
        task = stage.task()
        await stage.world.until(T0 + 5 * MINUTE + 20_000)
        bk.Live.stop("X", strategy_name="s")
        await task
        seen.append(stage.world.now)

    done = []
    bk.listen_done_live(done.append)
    stage.world.run(main())
    assert seen[0] - (T0 + 5 * MINUTE + 20_000) < 1000
    assert len(done) == 1
    with pytest.raises(bk.UnknownNameError, match="does not run live"):
        bk.Live.stop("X", strategy_name="s")


def test_a_refused_symbol_ends_the_run_and_says_so():
    stage = Stage(flat())

    async def refuse(*arguments):
        raise bk.ExchangeRefusedError("venue has no market symbol X")

    bk.add_exchange(exchange_name="strict", get_candles=refuse)
    exits = []
    bk.listen_exit(exits.append)

    async def main():
        task = bk.Live.background("X", strategy_name="s", exchange_name="strict")
        with pytest.raises(bk.ExchangeRefusedError, match="no market symbol"):
            await task
        assert task.status == "failed"

    stage.world.run(main())
    assert len(exits) == 1


def test_a_disk_that_is_full_for_a_while_changes_nothing_but_the_time():
    """No transition is told that could not be stored; what lives is followed afterwards."""
    stage = Stage(flat(), answer=always)
    write = stage.adapter.write

    async def maybe(kind, key, document):
        if T0 + 8 * MINUTE <= stage.world.now < T0 + 14 * MINUTE:
            raise OSError(28, "No space left on device")
        await write(kind, key, document)

    stage.adapter.write = maybe
    stage.play(T0 + 22 * MINUTE)
    told = [(t.action, (t.timestamp - T0) // MINUTE) for t in stage.transitions()]
    assert told == [("opened", 0), ("closed", 10), ("opened", 14)]
    texts = stage.error_texts("state")
    assert len(texts) == 4
    assert all("No space left" in text and "nothing was reported" in text for text in texts)


def test_minutes_missed_over_a_restart_are_counted_once():
    stage = Stage(flat(), interval="15m")

    async def session(until):
        task = stage.task()
        async with running(task):
            await stage.world.until(until)
            return bk.Live.get_data("X", strategy_name="s")

    async def main():
        first = await session(T0 + 10 * MINUTE + 30_000)
        await stage.world.until(T0 + 15 * MINUTE + 20_000)
        second = await session(T0 + 20 * MINUTE + 30_000)
        return first, second

    first, second = stage.world.run(main())
    assert (first.steps, first.missed) == (11, 0)
    assert (second.steps, second.missed) == (6, 4)


@pytest.mark.slow
@examples(8)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 200), max_size=3), st.booleans())
def test_every_minute_is_on_time_or_counted_as_missed(seed, outages, restart):
    rows = market(seed, 400, gaps=False)
    answer = script(seed, 0.3)
    faults = [
        (T0 + at * MINUTE, T0 + (at + 3 + at % 7) * MINUTE, kind)
        for at, kind in zip(outages, ["fail", "empty", "late"], strict=False)
    ]
    with bk.Engine() as engine:
        engine.set_config(get_candles_retry_delay_ms=1000)
        stage = Stage(
            rows,
            faults=faults,
            answer=answer,
        )

        async def main():
            for part in (100, 220) if restart else (220,):
                task = stage.task()
                async with running(task):
                    await stage.world.until(T0 + part * MINUTE + 50_000)
                    data.append(bk.Live.get_data("X", strategy_name="s"))

        data = []
        stage.world.run(main())
        assert sum(d.steps for d in data) + data[-1].missed == 221
        steps = stage.steps()
        assert steps == sorted(set(steps))
        asked = [at for at, _ in stage.asked]
        assert asked == sorted(set(asked))
        assert all(0 <= now - at < MINUTE for at, now in stage.asked)

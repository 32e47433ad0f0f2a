"""Managed positions in live runs by the wall clock: what is late, missed, stopped or told."""

import asyncio

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit.testing import MemoryAdapter
from live.world import BRACKET, T0, Stage, clock, flat, once, running
from markets import MINUTE, START

WICK = {"exit_trigger": "wick", "avg_price_candles_count": 1}
LONG = BRACKET | {"minute_estimated_time": 200}


def rows(closes, minutes=300):
    """A market that is flat at 100 but for some closes, by the minute after `T0` at which it is."""
    found, price = [], 100.0
    for i, row in enumerate(flat(minutes)):
        opening, price = price, closes.get(i - 99, price)
        found.append((row[0], opening, max(opening, price), min(opening, price), price, 1.0))
    return found


def managing(function):
    return {"manage": function}


def test_what_manage_says_too_late_counts_for_nothing():
    asked = []

    async def manage(position, when):
        asked.append(when)
        if len(asked) == 1:
            await asyncio.sleep(70)
        return bk.Close(share=50)

    stage = Stage(flat(), answer=once(T0, minute_estimated_time=200), more=managing(manage), **WICK)
    stage.play(T0 + 5 * MINUTE + 5000)
    parts = [t for t in stage.transitions() if t.action == "partial"]
    assert parts[0].timestamp == T0 + 2 * MINUTE, "asked at the next step again"
    (late,) = stage.error_texts("manage")
    assert "after its minute was over; the chance has gone, and nothing was done" in late


def test_a_manage_that_never_returns_holds_up_no_stop_loss():
    async def manage(position, when):
        await asyncio.sleep(10_000)

    closes = {3: 89.0}
    answer = once(T0, minute_estimated_time=200)
    stage = Stage(rows(closes), answer=answer, more=managing(manage), **WICK)
    stage.play(T0 + 6 * MINUTE)
    (closed,) = [t for t in stage.transitions() if t.action == "closed"]
    assert (closed.timestamp, closed.close_reason) == (T0 + 3 * MINUTE, "stop_loss")


def test_the_best_and_the_worst_price_survive_a_restart():
    """Steps without an outcome are known to be done by the heartbeat alone."""
    closes = {1: 104.0, 2: 97.0, 3: 101.0, 4: 100.5}  # asked at the fifth minute
    restarts = [()] + [(T0 + minutes * MINUTE + 30_000,) for minutes in (1, 2, 3, 4)]
    found = []
    for times in restarts:
        with bk.Engine() as engine:
            engine.set_config(get_candles_retry_delay_ms=0)
            found.append(_best(closes, times))
    assert found == [found[0]] * len(restarts)
    assert found[0][0] == pytest.approx((4.0, -3.0))


def _best(closes, restarts):
    seen = []

    def manage(position, when):
        seen.append((position.best_percent, position.worst_percent))

    answer = once(T0, minute_estimated_time=200)
    more = managing(manage) | {"manage_interval": "15m"}
    stage = Stage(rows(closes), answer=answer, more=more, **WICK)

    async def main():
        for until in (*restarts, T0 + 16 * MINUTE):
            async with running(stage.task()):
                await stage.world.until(until)

    stage.world.run(main())
    return seen


def test_manage_is_asked_while_a_run_stops():
    asked = []

    def manage(position, when):
        asked.append(round(when.timestamp() * 1000))
        return bk.Close() if len(asked) == 4 else None

    answer = once(T0, minute_estimated_time=200)
    stage = Stage(flat(), answer=answer, more=managing(manage), **WICK)
    stage.play(T0 + 10 * MINUTE, [(T0 + 2 * MINUTE + 30_000, lambda task: task.stop())])
    assert asked == [T0 + i * MINUTE for i in range(1, 5)]
    assert stage.transitions()[-1].close_reason == "closed"
    assert len(stage.asked) == 1


def crossing(long_until):
    """Long at each close of 5m before an instant, which also says exit from then on."""

    def get_signals(candles):
        over = candles.timestamp + 5 * MINUTE >= long_until
        side = np.where(over, 0, 1)
        return bk.Signals.bracket(side, 5.0, 5.0, 500, exit_long=over)

    return {"get_signals": get_signals, "warmup": 3}


def test_the_row_that_says_exit_is_read_while_a_run_stops():
    stage = Stage(flat(), interval="5m", more=crossing(T0 + 10 * MINUTE), **WICK)
    stage.play(T0 + 15 * MINUTE, [(T0 + 6 * MINUTE, lambda task: task.stop())])
    (closed,) = [t for t in stage.transitions() if t.action == "closed"]
    assert (closed.timestamp, closed.close_reason) == (T0 + 10 * MINUTE, "closed")


def test_the_row_that_says_exit_is_read_for_steps_that_were_missed():
    """At the price of then, as levels are; what was told is told late."""
    closes = {10: 101.0, 13: 103.0}
    stage = Stage(rows(closes), interval="5m", more=crossing(T0 + 10 * MINUTE), **WICK)

    async def main():
        async with running(stage.task()):
            await stage.world.until(T0 + 7 * MINUTE)
        await stage.world.until(T0 + 17 * MINUTE)
        async with running(stage.task()):
            await stage.world.until(T0 + 19 * MINUTE)

    stage.world.run(main())
    (closed,) = [t for t in stage.transitions() if t.action == "closed"]
    assert (closed.timestamp, closed.pnl.price_close) == (T0 + 10 * MINUTE, 101.0)


def test_a_step_whose_exit_row_can_not_be_read_is_done_once_it_can():
    """Only the candles of its interval are missing for a while."""
    stage = Stage(rows({12: 101.0}), interval="5m", more=crossing(T0 + 10 * MINUTE), **WICK)
    honest = stage.venue.get_candles

    async def get_candles(symbol, interval, since, limit):
        if interval == "5m" and T0 + 10 * MINUTE <= stage.world.now < T0 + 13 * MINUTE:
            raise ConnectionError("503")
        return await honest(symbol, interval, since, limit)

    bk.add_exchange(exchange_name="venue", get_candles=get_candles, replace=True)
    bk.set_config(get_candles_retry_count=0, feed_wait_ms=1000)
    stage.play(T0 + 16 * MINUTE)
    (closed,) = [t for t in stage.transitions() if t.action == "closed"]
    assert (closed.timestamp, closed.pnl.price_close) == (T0 + 10 * MINUTE, 100.0)
    assert any("503" in text for text in stage.error_texts("feed"))


def test_a_command_is_done_at_the_newest_step_and_not_at_missed_ones():
    closes = {4: 99.0, 8: 98.0}
    stage = Stage(rows(closes), answer=once(T0, minute_estimated_time=200), **WICK)

    async def main():
        async with running(stage.task()):
            await stage.world.until(T0 + 2 * MINUTE)
        names = {"strategy_name": "s", "exchange_name": "venue"}
        sent = await bk.Live.send("X", **names, action="close", when_running=True)
        await stage.world.until(T0 + 10 * MINUTE + 2000)
        async with running(stage.task()):
            await stage.world.until(T0 + 11 * MINUTE)
            return await bk.Live.answer(sent)

    answer = stage.world.run(main())
    assert (answer.outcome, answer.timestamp) == ("done", T0 + 10 * MINUTE)
    assert stage.transitions()[-1].pnl.price_close == 98.0


def test_commands_reach_a_run_that_stops():
    stage = Stage(flat(), answer=once(T0, minute_estimated_time=200), **WICK)

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + MINUTE + 30_000)
            task.stop()
            sent = await bk.Live.send("X", strategy_name="s", action="open", signal=LONG)
            assert (await bk.Live.answer(sent)).outcome == "refused"
            sent = await bk.Live.send("X", strategy_name="s", action="close", note="by hand")
            answer = await bk.Live.answer(sent)
            await task
        return answer

    assert stage.world.run(main()).outcome == "done"
    assert stage.transitions()[-1].note == "by hand"


@pytest.mark.parametrize("action", ["pause", "close"])
def test_a_state_that_can_not_be_written_leaves_a_command_for_the_next_step(action):
    stage = Stage(flat(), answer=once(T0, minute_estimated_time=200), **WICK)
    write, failed = stage.adapter.write, []

    async def failing(kind, key, document):
        if kind == "run" and T0 + 2 * MINUTE <= stage.world.now < T0 + 3 * MINUTE:
            failed.append(key)
            raise OSError(28, "No space left on device")
        await write(kind, key, document)

    stage.adapter.write = failing

    async def main():
        async with running(stage.task()):
            await stage.world.until(T0 + MINUTE + 30_000)
            sent = await bk.Live.send("X", strategy_name="s", action=action)
            return await bk.Live.answer(sent)

    answer = stage.world.run(main())
    assert failed
    assert (answer.outcome, answer.timestamp) == ("done", T0 + 3 * MINUTE)
    assert len([t for t in stage.transitions() if t.action == "closed"]) == (action == "close")


def test_a_clock_set_back_while_manage_is_waited_for_does_not_end_the_run():
    asked = []

    async def manage(position, when):
        asked.append(when)
        if len(asked) == 2:
            await asyncio.sleep(10)
            stage.world.skew = -30_000
            await asyncio.sleep(10_000)

    answer = once(T0, minute_estimated_time=200)
    stage = Stage(flat(), answer=answer, more=managing(manage), **WICK)
    status = stage.play(T0 + 10 * MINUTE)
    assert status == "running"
    assert len(asked) > 2
    (late,) = stage.error_texts("manage")
    assert "nothing was done" in late


def test_an_extended_position_keeps_its_risk_slot_after_a_restart():
    """Its run ends with it open: others count it for as long as it may live."""
    found = [asyncio.run(_counted(restart)) for restart in (False, True)]
    assert found == [[1], [1]]


async def _counted(restart):
    seen = []

    def counts(check):
        if check.strategy_name == "other":
            seen.append(check.active_count)

    def at(minute, answer):
        return lambda symbol, when: (
            answer if round(when.timestamp() * 1000) == START + minute * MINUTE else None
        )

    with bk.Engine() as engine:
        engine.set_config(**WICK)
        bk.use_persist_adapter(MemoryAdapter())
        bk.add_exchange(bk.exchanges.FrameExchange(flat()))
        bk.add_risk(risk_name="shared", validations=[counts])
        extends = at(12, bk.Extend(100))
        signal = BRACKET | {"minute_estimated_time": 20}
        shared = {"interval": "1m", "risk_name": "shared"}
        bk.add_strategy(
            strategy_name="one",
            get_signal=at(10, signal),
            manage=lambda position, when: extends("X", when),
            **shared,
        )
        bk.add_strategy(strategy_name="other", get_signal=at(50, signal), **shared)

        async def run(name, since, until):
            names = {"strategy_name": name, "exchange_name": "frame"}
            async for _ in bk.Live.run("X", **names, clock=clock(since, until)):
                pass

        if restart:
            await run("one", 5, 15)
        await asyncio.gather(run("one", 16 if restart else 5, 18), run("other", 5, 60))
    return seen

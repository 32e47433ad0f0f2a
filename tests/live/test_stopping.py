"""A run that is asked to stop while something else goes on, or goes wrong."""

import asyncio

import pytest

import backtest_kit as bk
from backtest_kit.testing import MemoryAdapter
from command import PATIENCE
from live.world import BRACKET, T0, Full, Stage, clock, flat, once
from markets import MINUTE

pytestmark = pytest.mark.usefixtures("asyncio_debug")


@pytest.mark.slow
def test_asking_a_paced_replay_to_stop_again_and_again_does_not_hold_it_up():
    told, asked = [], []
    bk.listen_signal_live(told.append)
    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 10},
    )

    async def main():
        task = bk.Live.background(
            "X", strategy_name="s", exchange_name="frame", clock=clock(50, 250, speed=300)
        )
        async with asyncio.timeout(PATIENCE):  # ten minutes of the signal are two seconds
            while not any(tick.action == "opened" for tick in told):
                await asyncio.sleep(0.01)
            while task.status in ("running", "stopping"):
                task.stop()
                asked.append(task.status)
                await asyncio.sleep(0.01)
        await task

    asyncio.run(main())
    assert asked.count("stopping") > 5
    (closed,) = (tick for tick in told if tick.action == "closed")
    assert closed.close_timestamp - closed.signal.pending_at == 10 * MINUTE


def test_stopping_with_a_full_disk_is_tried_again():
    stage = Stage(flat(), answer=once(T0 + MINUTE, price_open=95.0, minute_estimated_time=30))
    adapter = Full()
    bk.use_persist_adapter(adapter)

    async def main():
        task = stage.task()
        await stage.world.until(T0 + 3 * MINUTE)
        adapter.full = True
        task.stop()
        await stage.world.until(T0 + 5 * MINUTE + 30_000)
        assert task.status == "stopping"
        adapter.full = False
        await task

    stage.world.run(main())
    actions = [tick.action for tick in stage.told if tick.action in ("scheduled", "cancelled")]
    assert actions == ["scheduled", "cancelled"]
    assert stage.told[-1].reason == "user"


def test_stopping_during_the_check_of_an_activation_drops_the_signal():
    rows = flat()
    rows[104:] = [(row[0], 95.0, 95.1, 94.9, 95.0, 1.0) for row in rows[104:]]
    stage = Stage(rows)
    answer = once(T0 + MINUTE, price_open=96.0, minute_estimated_time=30)

    inside = asyncio.Event()

    async def slow(check):
        if stage.world.now > T0 + 4 * MINUTE:
            inside.set()
            await asyncio.sleep(30)

    bk.add_risk(risk_name="r", validations=[slow])
    bk.add_strategy(
        strategy_name="t",
        interval="1m",
        get_signal=lambda symbol, when: answer(round(when.timestamp() * 1000), 100.0),
        risk_name="r",
    )

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="venue")
        await inside.wait()
        task.stop()
        await task

    stage.world.run(main())
    actions = [tick.action for tick in stage.told if tick.action not in ("idle", "active")]
    assert actions[0] == "scheduled"
    assert actions[-1] == "cancelled"
    assert "opened" not in actions
    assert stage.told[-1].reason == "user"

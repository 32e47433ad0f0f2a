"""What user code raises, in whichever way it is called, is one error of its step."""

import asyncio

import pytest

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from live.world import flat
from markets import MINUTE, START

SINCE, UNTIL = to_datetime(START + 100 * MINUTE), to_datetime(START + 120 * MINUTE)
NAMES = {"strategy_name": "s", "exchange_name": "frame"}


def backtest():
    bk.add_frame(frame_name="f", interval="1m", start_date=SINCE, end_date=UNTIL)
    bk.Backtest.run_sync("X", **NAMES, frame_name="f")


def live():
    async def main():
        await bk.Live.background("X", **NAMES, clock=bk.VirtualClock(SINCE, UNTIL))

    asyncio.run(main())


@pytest.mark.parametrize("play", [backtest, live])
@pytest.mark.parametrize("raised", [ValueError("no"), asyncio.CancelledError()])
def test_what_is_raised_after_candles_were_loaded_is_an_error_of_that_step_alone(play, raised):
    """The first call is abandoned twice, once for each interval, before it gets to raise."""
    begun, read, errors = [], [], []

    def get_signal(symbol, when):
        begun.append(when)
        bk.candles(symbol, "5m", 3)
        bk.candles(symbol, "15m", 2)
        read.append(when)
        if len(read) in (1, 4):
            raise raised

    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
    bk.listen_error(errors.append)
    play()
    assert begun[:3] == [SINCE] * 3, "once for each interval that was missing, and once with both"
    assert len(set(read)) == len(read) == 21
    assert [(event.where, event.when) for event in errors] == [
        ("get_signal", round(when.timestamp() * 1000)) for when in (read[0], read[3])
    ]
    told = RuntimeError if isinstance(raised, asyncio.CancelledError) else ValueError
    assert {type(event.error) for event in errors} == {told}

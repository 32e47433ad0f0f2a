"""Until a live run can keep the state of managed positions, it says so and opens none."""

import pytest

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from markets import MINUTE, START, market

FROM = to_datetime(START + 100 * MINUTE)
UNTIL = to_datetime(START + 120 * MINUTE)


def bracket(candles, **how):
    return bk.Signals.bracket(candles.close > 0, 2.0, 2.0, 5, **how)


@pytest.mark.parametrize(
    "how",
    [
        {"trailing_stop": bk.TrailingStop(1.0)},
        {"take_profits": ((1.0, 50.0),)},
        {"exit_long": True},
    ],
)
async def test_a_live_run_refuses_a_managed_signal(how):
    errors, opened = [], []

    def get_signals(candles):
        more = {name: [x] * len(candles) if x is True else x for name, x in how.items()}
        if "exit_long" in more:
            more["exit_long"] = candles.close < 0
        return bracket(candles, **more)

    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in market(1, 200)]))
    bk.add_strategy(strategy_name="s", interval="1m", get_signals=get_signals, warmup=2)
    bk.listen_error(lambda event: errors.append(str(event.error)))
    bk.listen_signal_live(opened.append)
    clock = bk.VirtualClock(FROM, UNTIL)
    async for _ in bk.Live.run("X", strategy_name="s", exchange_name="frame", clock=clock):
        pass
    assert not opened
    assert len(set(errors)) == 1
    assert "a live run does not manage positions yet" in errors[0]

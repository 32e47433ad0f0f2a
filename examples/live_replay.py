"""Live on a virtual clock, stopped and started again: nothing is lost, nothing happens twice.

Run it: `python examples/live_replay.py`. By the wall clock: `backtest-kit live
examples/live_replay.py --symbol BTCUSDT --paper`.
"""

import asyncio
import itertools
import tempfile
from datetime import UTC, datetime

import backtest_kit as bk

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=7))


def order(tick: bk.TickOpened | bk.TickClosed) -> None:
    """Here an order would be placed; the id tells a repeat after a crash."""
    print(f"{tick.action:7}{tick.current_price:10.2f}  {tick.transition_id}")


@bk.strategy("dip", interval="15m", callbacks={"on_open": order, "on_close": order})
async def dip(symbol: str, when: datetime) -> bk.Signal | None:
    """Buy what has fallen below the lows of the last day."""
    candles = await bk.get_candles(symbol, "1h", 25)
    price = await bk.get_average_price(symbol)
    if price > candles.low[:-1].min():
        return None
    return bk.Signal(
        position="long",
        price_take_profit=price * 1.01,
        price_stop_loss=price * 0.99,
        minute_estimated_time=720,
    )


async def process(start: datetime, end: datetime) -> None:
    """What one process does, from its start until it is gone."""
    clock = bk.VirtualClock(start, end)
    run = bk.Live.run("BTCUSDT", strategy_name="dip", exchange_name="synthetic", clock=clock)
    async for _ in run:
        pass


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        bk.set_config(state_dir=folder)
        days = [datetime(2024, 1, day, tzinfo=UTC) for day in (3, 5, 8)]
        for start, end in itertools.pairwise(days):
            print(f"a process from {start:%d %B} to {end:%d %B}")
            asyncio.run(process(start, end))
        print(bk.Live.get_report("BTCUSDT", strategy_name="dip"))

"""A moving-average crossover over a month of a synthetic market: the first backtest.

Run it: `python examples/first_backtest.py`, or `backtest-kit backtest examples/first_backtest.py
--symbol BTCUSDT`.
"""

from datetime import UTC, datetime

import backtest_kit as bk

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=7))
bk.add_frame(
    frame_name="january",
    interval="1m",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    end_date=datetime(2024, 1, 31, 23, 59, tzinfo=UTC),
)


@bk.strategy("crossover", interval="5m")
async def crossover(symbol: str, when: datetime) -> bk.Signal | None:
    """Buy when the fast average of closes rises above the slow one."""
    closes = (await bk.get_candles(symbol, "5m", 51)).close
    was_below = closes[-11:-1].mean() <= closes[:-1].mean()
    if not (was_below and closes[-10:].mean() > closes[1:].mean()):
        return None
    price = await bk.get_average_price(symbol)
    return bk.Signal(
        position="long",
        price_take_profit=price * 1.015,
        price_stop_loss=price * 0.99,
        minute_estimated_time=360,
    )


if __name__ == "__main__":
    bk.Backtest.run_sync(
        "BTCUSDT",
        strategy_name="crossover",
        exchange_name="synthetic",
        frame_name="january",
    )
    print(bk.Backtest.get_report("BTCUSDT", strategy_name="crossover"))

"""Limit orders: signals that wait below the market, and what became of them."""

from datetime import UTC, datetime

import backtest_kit as bk

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
bk.add_frame(
    frame_name="fortnight",
    interval="5m",
    start_date=datetime(2024, 3, 1, tzinfo=UTC),
    end_date=datetime(2024, 3, 14, tzinfo=UTC),
)
bk.set_config(schedule_await_minutes=90, exit_trigger="wick")


@bk.strategy("dip", interval="1h")
async def dip(symbol: str, when: datetime) -> bk.Signal:
    """Place a buy order 0.6 % below the market, every hour that nothing lives."""
    price = await bk.get_average_price(symbol)
    entry = price * 0.994
    return bk.Signal(
        position="long",
        price_open=entry,
        price_take_profit=entry * 1.012,
        price_stop_loss=entry * 0.988,
        minute_estimated_time=480,
    )


if __name__ == "__main__":
    bk.Backtest.run_sync(
        "ETHUSDT", strategy_name="dip", exchange_name="synthetic", frame_name="fortnight"
    )
    print(bk.Schedule.get_report("ETHUSDT", strategy_name="dip"))

"""Several intervals at once: an hourly trend decides the side, five minutes the moment."""

from datetime import UTC, datetime

import numpy as np

import backtest_kit as bk

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=11))
bk.add_frame(
    frame_name="spring",
    interval="1m",
    start_date=datetime(2024, 4, 1, tzinfo=UTC),
    end_date=datetime(2024, 4, 30, tzinfo=UTC),
)


def true_range(candles: bk.Candles) -> float:
    """Return the mean range of the candles, gaps between them included."""
    high = np.maximum(candles.high[1:], candles.close[:-1])
    low = np.minimum(candles.low[1:], candles.close[:-1])
    return float((high - low).mean())


@bk.strategy("trend", interval="5m")
async def trend(symbol: str, when: datetime) -> bk.Signal | None:
    """Follow the hourly trend after a pullback on five minutes, with stops of 3 true ranges."""
    hours = await bk.get_candles(symbol, "1h", 25)
    minutes = await bk.get_candles(symbol, "5m", 13)
    up = hours.close[-1] > hours.close[:-1].mean()
    pulled_back = (minutes.close[-2] < minutes.close[:-2].mean()) == up
    resumes = (minutes.close[-1] > minutes.open[-1]) == up
    if not (pulled_back and resumes):
        return None
    price = await bk.get_average_price(symbol)
    side = 1 if up else -1
    distance = max(3 * true_range(hours), price * 0.006)
    return bk.Signal(
        position="long" if up else "short",
        price_take_profit=price + side * distance,
        price_stop_loss=price - side * distance,
        minute_estimated_time=720,
        note="with the hourly trend",
    )


if __name__ == "__main__":
    bk.Backtest.run_sync(
        "BTCUSDT", strategy_name="trend", exchange_name="synthetic", frame_name="spring"
    )
    print(bk.Backtest.get_report("BTCUSDT", strategy_name="trend"))

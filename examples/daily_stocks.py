"""Daily candles of a stock in New York: the data say that a step is a day, the calendar that
weekends and holidays are no gaps.

With a file of your own (Yahoo's CSV for example): `backtest-kit backtest examples/daily_stocks.py
--symbol SPY --data SPY.csv --calendar XNYS --from 2016-01-04`.
"""

from datetime import UTC, date, datetime, timedelta

import numpy as np

import backtest_kit as bk


def trading_days(first: date, last: date) -> list[date]:
    """Return Mondays to Fridays without two fixed holidays; a file would have the real ones."""
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    return [d for d in days if d.weekday() < 5 and (d.month, d.day) not in {(1, 1), (12, 25)}]


def stock(seed: int) -> bk.Candles:
    """Return ten years of days: a slow drift, jumps overnight, and ranges within the day."""
    random = np.random.default_rng(seed)
    days = trading_days(date(2015, 1, 1), date(2024, 12, 31))
    n = len(days)
    overnight, daily = random.normal(0.0002, 0.005, n), random.normal(0.0002, 0.008, n)
    close = 200 * np.exp(np.cumsum(overnight + daily))
    opening = close / np.exp(daily)
    reach = 1 + np.abs(random.normal(0, 0.004, (2, n)))
    midnights = [datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp() * 1000 for d in days]
    return bk.Candles(
        midnights,
        opening,
        np.maximum(opening, close) * reach[0],
        np.minimum(opening, close) / reach[1],
        close,
        random.integers(50, 150, n) * 1e6,
    )


@bk.strategy("trend", interval="1d")
async def trend(symbol: str, when: datetime) -> bk.Signal | None:
    """Buy a pullback within a rising half year; hold for three weeks at most."""
    candles = await bk.get_candles(symbol, "1d", 180)
    closes = candles.close[candles.volume > 0]  # days of trade alone: the grid has weekends too
    if not (closes[-1] > closes.mean() and closes[-1] < closes[-5:].mean()):
        return None
    price = closes[-1]
    return bk.Signal(
        position="long",
        price_take_profit=price * 1.04,
        price_stop_loss=price * 0.97,
        minute_estimated_time=21 * 1440,
    )


bk.set_config(max_signal_lifetime_minutes=30 * 1440, percent_fee=0.01, percent_slippage=0.02)

if __name__ == "__main__":
    bk.add_exchange(bk.exchanges.FrameExchange(stock(1), calendar="weekdays"))
    bk.add_frame(
        frame_name="nine years",
        interval="1d",
        start_date=datetime(2016, 1, 4, tzinfo=UTC),
        end_date=datetime(2024, 12, 31, tzinfo=UTC),
    )
    bk.Backtest.run_sync(
        "STOCK", strategy_name="trend", exchange_name="frame", frame_name="nine years"
    )
    print(bk.Backtest.get_report("STOCK", strategy_name="trend"))

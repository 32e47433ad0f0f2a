"""Hourly candles of a market that never closes, written to a CSV file and run from there.

With a file of your own: `backtest-kit backtest examples/hourly_crypto.py --symbol BTCUSDT
--data BTCUSDT-1h.csv`.
"""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import backtest_kit as bk


@bk.strategy("breakout", interval="4h")
async def breakout(symbol: str, when: datetime) -> bk.Signal | None:
    """Follow a close above the highest or below the lowest of the two days before."""
    candles = await bk.get_candles(symbol, "4h", 13)
    close, before = candles.close[-1], candles[:-1]
    if before.low.min() <= close <= before.high.max():
        return None
    side = 1 if close > before.high.max() else -1
    return bk.Signal(
        position="long" if side > 0 else "short",
        price_take_profit=close * (1 + side * 0.03),
        price_stop_loss=close * (1 - side * 0.015),
        minute_estimated_time=1440,
    )


async def hours(days: int) -> bk.Candles:
    """Return some days of hourly candles of the synthetic market."""
    since = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
    market = bk.exchanges.SyntheticExchange(seed=3)
    return await market.get_candles("BTCUSDT", "1h", since, 24 * days)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "BTCUSDT-1h.csv"
        rows = ["timestamp,open,high,low,close,volume"]
        for candle in asyncio.run(hours(120)):
            prices = f"{candle.open},{candle.high},{candle.low},{candle.close}"
            rows.append(f"{candle.timestamp},{prices},{candle.volume}")
        path.write_text("\n".join(rows) + "\n")
        bk.add_exchange(bk.exchanges.CsvExchange(path))
        bk.add_frame(
            frame_name="spring",
            interval="1h",
            start_date=datetime(2024, 1, 5, tzinfo=UTC),
            end_date=datetime(2024, 4, 29, tzinfo=UTC),
        )
        bk.Backtest.run_sync(
            "BTCUSDT", strategy_name="breakout", exchange_name="csv", frame_name="spring"
        )
        print(bk.Backtest.get_report("BTCUSDT", strategy_name="breakout"))

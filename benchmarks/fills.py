"""What filling at the average price is worth: `python -m benchmarks.fills FILE` (1m candles).

A breakout (above the highest high, or below the lowest low, of 60 candles) and its opposite, which
buys dips, each with brackets of 1 % and no costs, filled at the average price and at the market.
"""

import sys
from datetime import timedelta

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._values.time import to_datetime

LOOK_BACK = 60


def strategy(sign):
    def get_signals(candles):
        highest, lowest = np.full((2, len(candles)), np.nan)
        highest[LOOK_BACK:] = sliding_window_view(candles.high, LOOK_BACK)[:-1].max(axis=1)
        lowest[LOOK_BACK:] = sliding_window_view(candles.low, LOOK_BACK)[:-1].min(axis=1)
        close = candles.close
        side = np.where(close > highest, sign, np.where(close < lowest, -sign, 0))
        return bk.Signals.bracket(side, 1.0, 1.0, 240)

    return get_signals


def trades(path, sign, interval, fill_price):
    """Return how many trades there are, their mean profit in percent and its standard error."""
    with bk.Engine():
        bk.set_config(fill_price=fill_price, percent_fee=0.0, percent_slippage=0.0)
        exchange = bk.exchanges.ParquetExchange(path)
        bk.add_exchange(exchange)
        first, end = exchange.data_range("X")
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=to_datetime(first) + timedelta(days=4),
            end_date=to_datetime(end) - timedelta(days=1),
        )
        bk.add_strategy(
            strategy_name="s",
            interval=interval,
            get_signals=strategy(sign),
            warmup=LOOK_BACK + 2,
        )
        closed = bk.Backtest.run_sync(
            "X", strategy_name="s", exchange_name="parquet", frame_name="f"
        )
        profit = np.array([tick.pnl.pnl_percentage for tick in closed])
        return len(profit), profit.mean(), profit.std(ddof=1) / len(profit) ** 0.5


def main():
    table = Table(title="mean profit per trade, percent, without costs", title_justify="left")
    for column in ("Strategy", "Trades", "At the average price", "At the market", "Difference"):
        table.add_column(column, justify="left" if column == "Strategy" else "right")
    for name, sign in (("breakout", 1), ("buying dips", -1)):
        for interval in ("5m", "15m", "1h"):
            _, average, one = trades(sys.argv[1], sign, interval, "average")
            count, market, other = trades(sys.argv[1], sign, interval, "market")
            table.add_row(
                f"{name}, {interval}",
                f"{count:,}",
                f"{average:+.3f} ± {one:.3f}",
                f"{market:+.3f} ± {other:.3f}",
                f"{average - market:+.3f}",
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

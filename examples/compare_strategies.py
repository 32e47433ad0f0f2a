"""A grid of parameters compared over two months of a random market, and walked forward.

There is nothing to find in this market, and the report says so.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import backtest_kit as bk

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=7))
bk.add_frame(
    frame_name="spring",
    interval="1m",
    start_date=datetime(2024, 3, 1, tzinfo=UTC),
    end_date=datetime(2024, 4, 30, 23, 59, tzinfo=UTC),
)


def crossover(fast: int, slow: int) -> dict[str, Any]:
    """Return a strategy that buys when the fast mean crosses above the slow one."""

    def get_signals(candles: bk.Candles) -> bk.Signals:
        above = bk.trailing_mean(candles.close, fast) > bk.trailing_mean(candles.close, slow)
        turned = above.copy()
        turned[1:] &= ~above[:-1]
        turned[0] = False
        return bk.Signals.bracket(turned, take_profit_percent=1.0, stop_loss_percent=0.6)

    return {"interval": "5m", "get_signals": get_signals, "warmup": slow + 1}


names = bk.grid(crossover, fast=[5, 10, 20], slow=range(30, 91, 30))
bk.add_walker(
    walker_name="crossovers",
    exchange_name="synthetic",
    frame_name="spring",
    strategies=names,
    windows=bk.Windows(
        train=timedelta(days=21), test=timedelta(days=7), embargo=timedelta(hours=4)
    ),
)

if __name__ == "__main__":  # `backtest-kit walk` imports this file
    for contract in bk.Walker.run_sync("BTCUSDT", walker_name="crossovers"):
        print(contract.strategy_name, contract.metric_value)
    print(bk.Walker.get_report("BTCUSDT", walker_name="crossovers"))

"""What the golden backtest and walk run: `backtest-kit walk tests/golden/strategies.py ...`."""

import backtest_kit as bk


def bracket(percent):
    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=price * (1 + percent / 100),
            price_stop_loss=price * (1 - percent / 100),
            minute_estimated_time=9,
        )

    return get_signal


for percent in (1, 2, 3):
    bk.add_strategy(strategy_name=f"bracket {percent}", interval="5m", get_signal=bracket(percent))

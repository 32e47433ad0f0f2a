"""A backtest of freqtrade without a network: `python freqtrade_offline.py STRATEGY CANDLES TRADES`.

STRATEGY is a file with the class Crossover, CANDLES a CSV file of hours, TRADES the CSV to write.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from freqtrade.data.history import get_timerange
from freqtrade.enums import CandleType, RunMode
from freqtrade.optimize.backtesting import Backtesting
from freqtrade.resolvers import ExchangeResolver

PAIR = "BTC/USDT"
NO_LIMIT = {"min": None, "max": None}
MARKET = {
    "id": "BTCUSDT",
    "symbol": PAIR,
    "base": "BTC",
    "quote": "USDT",
    "type": "spot",
    "active": True,
    "spot": True,
    "margin": False,
    "swap": False,
    "future": False,
    "contract": False,
    "contractSize": None,
    "linear": None,
    "taker": 0,
    "maker": 0,
    "precision": {"price": 1e-8, "amount": 1e-12},
    "limits": dict.fromkeys(("amount", "cost", "price", "leverage"), NO_LIMIT),
    "info": {},
}


def settings(folder, strategy):
    return {
        "user_data_dir": folder,
        "datadir": folder,
        "exportdirectory": folder,
        "strategy": "Crossover",
        "strategy_path": str(strategy.parent),
        "recursive_strategy_search": False,
        "exchange": {
            "name": "binance",
            "key": "",
            "secret": "",
            "pair_whitelist": [PAIR],
            "pair_blacklist": [],
        },
        "pairlists": [{"method": "StaticPairList"}],
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "max_open_trades": 1,
        "tradable_balance_ratio": 0.99,
        "last_stake_amount_min_ratio": 0.5,
        "dry_run": True,
        "dry_run_wallet": 1e6,
        "timeframe": "1h",
        "fee": 0.0,
        "trading_mode": "spot",
        "margin_mode": "",
        "candle_type_def": CandleType.SPOT,
        "runmode": RunMode.BACKTEST,
        "dataformat_ohlcv": "feather",
        "dataformat_trades": "feather",
        "entry_pricing": {"price_side": "same", "use_order_book": False},
        "exit_pricing": {"price_side": "same", "use_order_book": False},
        "unfilledtimeout": {"entry": 10, "exit": 10, "unit": "minutes"},
        "enable_protections": False,
        "internals": {},
        "original_config": {},
        "export": "none",
        "backtest_cache": "none",
    }


def trades(strategy, candles, folder):
    frame = pd.read_csv(candles, parse_dates=["timestamp"]).rename(columns={"timestamp": "date"})
    frame["date"] = frame["date"].astype("datetime64[ms, UTC]")
    frame.to_feather(folder / "BTC_USDT-1h.feather")
    config = settings(folder, strategy)
    exchange = ExchangeResolver.load_exchange(config, validate=False, load_leverage_tiers=False)
    exchange._markets = {PAIR: MARKET}
    for client in (exchange._api, exchange._api_async):
        client.set_markets(exchange._markets)
    exchange._last_markets_refresh = 2**62  # never
    test = Backtesting(config, exchange)
    data, _ = test.load_bt_data()
    (chosen,) = test.strategylist
    test._set_strategy(chosen)
    processed = chosen.advise_all_indicators(data)
    start, end = get_timerange(processed)
    return test.backtest(processed=processed, start_date=start, end_date=end)["results"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = trades(Path(sys.argv[1]), Path(sys.argv[2]), Path(scratch))
        found.to_csv(sys.argv[3], index=False)

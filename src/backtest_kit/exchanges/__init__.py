"""Exchanges ready to use, each one line to register with `backtest_kit.add_exchange`."""

from backtest_kit.exchanges._cached import CachedExchange
from backtest_kit.exchanges._catalog import CatalogExchange
from backtest_kit.exchanges._ccxt import CcxtExchange
from backtest_kit.exchanges._csv import CsvExchange
from backtest_kit.exchanges._frame import FrameExchange
from backtest_kit.exchanges._parquet import ParquetExchange
from backtest_kit.exchanges._synthetic import SyntheticExchange

__all__ = [
    "CachedExchange",
    "CatalogExchange",
    "CcxtExchange",
    "CsvExchange",
    "FrameExchange",
    "ParquetExchange",
    "SyntheticExchange",
]

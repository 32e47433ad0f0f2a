"""The result of a trial: the columns of its trades, and its statistics."""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np

from backtest_kit._statistics.equity import AccountStatistics
from backtest_kit._statistics.figures import Statistics, metric
from backtest_kit._values.candles import Floats, Ints

#: Figures of an account that are metrics of a walk, and -1 where less is better.
_OF_ACCOUNT: Final = {
    "account_growth": ("growth_percent", 1.0),
    "account_cagr": ("cagr_percent", 1.0),
    "account_sharpe": ("sharpe_ratio", 1.0),
    "account_sortino": ("sortino_ratio", 1.0),
    "account_calmar": ("calmar_ratio", 1.0),
    "account_max_drawdown_percent": ("max_drawdown_percent", -1.0),
}


class TradeColumns(msgspec.Struct, frozen=True):
    """Closed signals in the order of closing, as columns of bytes (little-endian, exact).

    `r` is profit in percent, float64; `opened_at`, `closed_at` int64 milliseconds; `symbol` the
    index of the symbol, int64.
    """

    profits: bytes
    opened: bytes
    closed: bytes
    symbols: bytes

    def __repr__(self) -> str:
        return f"<{self.count} trades>"

    @property
    def count(self) -> int:
        """The number of trades."""
        return len(self.profits) // 8

    @property
    def r(self) -> Floats:
        """Profit in percent, shape (N,)."""
        return np.frombuffer(self.profits, dtype="<f8")

    @property
    def opened_at(self) -> Ints:
        """When each position was opened, milliseconds, shape (N,)."""
        return np.frombuffer(self.opened, dtype="<i8")

    @property
    def closed_at(self) -> Ints:
        """When each position was closed, milliseconds, shape (N,)."""
        return np.frombuffer(self.closed, dtype="<i8")

    @property
    def symbol(self) -> Ints:
        """The index of each trade's symbol, shape (N,)."""
        return np.frombuffer(self.symbols, dtype="<i8")


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one strategy's backtest over some symbols; times in milliseconds UTC.

    `statistics` are over all symbols together, `by_symbol` for each one, in order, `account` those
    of the account, if there was one. `error` says why the strategy failed; then there are no
    figures. `warming` counts the steps at which it could not be asked yet.
    """

    strategy_name: str
    symbols: tuple[str, ...]
    since: int = 0
    until: int = 0
    statistics: Statistics | None = None
    by_symbol: tuple[Statistics, ...] = ()
    trades: TradeColumns = TradeColumns(b"", b"", b"", b"")
    calls: int = 0
    error_count: int = 0
    first_error: str | None = None
    warming: int = 0
    gaps_filled: int = 0
    ambiguous_closes: int = 0
    end_of_data_closes: int = 0
    complete: bool = False
    error: str | None = None
    account: AccountStatistics | None = None

    def metric(self, name: str) -> float | None:
        """Return one of the metrics of a walk, where it is a finite number.

        Raises:
            ArgumentError: no such metric.
        """
        if name not in _OF_ACCOUNT:
            return None if self.statistics is None else metric(self.statistics, name)
        if self.account is None:
            return None
        field, sign = _OF_ACCOUNT[name]
        value = getattr(self.account, field)
        return None if value is None or not math.isfinite(value) else sign * value

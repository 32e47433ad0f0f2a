"""The result of a trial: the columns of its trades, and its statistics."""

from __future__ import annotations

import msgspec
import numpy as np

from backtest_kit._statistics.figures import Statistics
from backtest_kit._values.candles import Floats, Ints


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


class WindowRun(msgspec.Struct, frozen=True):
    """The trades of a strategy's backtest over one window alone, from clean state.

    `since` and `until` are the window's in milliseconds UTC, its end excluded; the last trade may
    close later. `error` says why it failed; then there are none.
    """

    since: int
    until: int
    trades: TradeColumns = TradeColumns(b"", b"", b"", b"")
    error: str | None = None


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one strategy's backtest over some symbols; times in milliseconds UTC.

    `statistics` are over all symbols together, `by_symbol` for each one, in order. `error` says why
    the strategy failed; then there are no figures. `warming` counts the steps at which it could
    not be asked yet. `window_runs` are the runs over single windows, where the walk asks for them.
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
    window_runs: tuple[WindowRun, ...] = ()

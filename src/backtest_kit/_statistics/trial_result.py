"""The result of a trial: the columns of its trades, and its statistics."""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.brackets import Brackets
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
    index of the symbol, int64. `stop_loss` is what the trade would have lost at the stop that it
    was opened with, `worst_loss` at the worst price that it saw, both in percent after costs and
    positive for a loss, float64: NaN where there is none or where it is not known (all of them in
    results of an earlier release).
    """

    profits: bytes
    opened: bytes
    closed: bytes
    symbols: bytes
    stops: bytes = b""
    worst: bytes = b""

    @classmethod
    def of(
        cls,
        r: npt.ArrayLike,
        opened_at: npt.ArrayLike,
        closed_at: npt.ArrayLike,
        *,
        symbol: npt.ArrayLike | None = None,
        stop_loss: npt.ArrayLike | None = None,
        worst_loss: npt.ArrayLike | None = None,
    ) -> TradeColumns:
        """Return columns from arrays of shape (N,); a single number counts for every trade."""
        profits = np.asarray(r, dtype="<f8")

        def column(values: npt.ArrayLike | None, kind: str) -> bytes:
            if values is None:
                return b""
            return np.broadcast_to(np.asarray(values, dtype=kind), profits.shape).tobytes()

        return cls(
            profits.tobytes(),
            column(opened_at, "<i8"),
            column(closed_at, "<i8"),
            column(0 if symbol is None else symbol, "<i8"),
            column(stop_loss, "<f8"),
            column(worst_loss, "<f8"),
        )

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

    @property
    def stop_loss(self) -> Floats:
        """What each trade loses at its first stop, percent after costs, shape (N,); NaN: none."""
        return self._or_unknown(self.stops)

    @property
    def worst_loss(self) -> Floats:
        """What each trade had lost at its worst price, percent after costs, shape (N,), or NaN."""
        return self._or_unknown(self.worst)

    def _or_unknown(self, column: bytes) -> Floats:
        return np.frombuffer(column, dtype="<f8") if column else np.full(self.count, np.nan)


class WindowRun(msgspec.Struct, frozen=True):
    """The trades of a strategy's backtest over one window alone, from clean state.

    `since` and `until` are the window's in milliseconds UTC, its end excluded; the last trade may
    close later. `error` says why it failed; then there are none. `brackets` as in `TrialResult`.
    """

    since: int
    until: int
    trades: TradeColumns = TradeColumns(b"", b"", b"", b"")
    error: str | None = None
    brackets: Brackets = Brackets()


class OtherTrial(msgspec.Struct, frozen=True):
    """The trades of a trial of another walk on the same candles, which ran over its own period.

    `since` and `until` are its first and last step in milliseconds UTC.
    """

    trades: TradeColumns
    since: int
    until: int


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one strategy's backtest over some symbols; times in milliseconds UTC.

    `statistics` are over all symbols together, `by_symbol` for each one, in order, `account` those
    of the account, if there was one. `error` says why the strategy failed; then there are no
    figures. `warming` counts the steps at which it could not be asked yet. `interval` is how often
    the strategy was asked, in milliseconds; 0 in results of an earlier release. `window_runs` are
    the runs over single windows, where the walk asks for them. `brackets` say how the trades were
    meant to end; none in results of an earlier release. `changed` says where in its code the
    strategy has state that changed.
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
    interval: int = 0
    window_runs: tuple[WindowRun, ...] = ()
    brackets: Brackets = Brackets()
    account: AccountStatistics | None = None
    changed: tuple[str, ...] = ()

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

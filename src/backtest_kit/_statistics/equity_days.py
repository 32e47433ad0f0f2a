"""Daily and monthly returns of an account, by days in UTC."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from backtest_kit._rules.account import HAIR
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.equity_curve import EquityCurve
from backtest_kit._values.time import MINUTE

DAY_MS: Final = 1440 * MINUTE


class DailyReturns(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An account day by day; all columns of shape (N,), one row for each day that counts.

    Attributes:
        day: days since the epoch, UTC, int64.
        row: the last row of the curve in each day, int64.
        equity: the equity at that row.
        returns: its growth since the day before, as a fraction; 0 from an equity of 0, or what
            rounding leaves of it.
        benchmark: the same of buying and holding.
    """

    day: Ints
    row: Ints
    equity: Floats
    returns: Floats
    benchmark: Floats

    def __len__(self) -> int:
        return len(self.day)


def daily_returns(
    curve: EquityCurve, benchmark: Floats, balance: float, traded_days: Ints | None
) -> DailyReturns:
    """Return the returns of each day, of the account and of buying and holding.

    `benchmark` is what 1.0 comes to at the rows of the curve. A day without a row keeps the equity
    before it. With `traded_days` (since the epoch) the others are left out: what happened on them
    counts to the next day that is left, or at the end to the last.
    """
    day, row = days_of(curve.timestamp, traded_days)
    return returns_of(day, row, curve.equity[row], benchmark[row], balance)


def days_of(timestamp: Ints, traded_days: Ints | None) -> tuple[Ints, Ints]:
    """Return the days that count, and the last row of each; see `daily_returns`."""
    day, row = last_rows(timestamp)
    if traded_days is not None:
        kept = np.isin(day, traded_days)
        day, row = day[kept], row[kept]
        row[-1:] = len(timestamp) - 1
    return day, row


def returns_of(
    day: Ints, row: Ints, equity: Floats, benchmark: Floats, balance: float
) -> DailyReturns:
    """Return the returns of days, from equity and benchmark at their last rows."""
    return DailyReturns(
        day=day,
        row=row,
        equity=equity,
        returns=growth(equity, balance),
        benchmark=growth(benchmark, 1.0),
    )


def last_rows(timestamp: Ints) -> tuple[Ints, Ints]:
    """Return each day from the first to the last, and its last row (that of the day before).

    00:00 belongs to the day that ends; the first row alone to the day that begins with it.
    """
    if not len(timestamp):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    first = int(timestamp[0]) // DAY_MS
    last = max(int(timestamp[-1] - 1) // DAY_MS, first)
    days = np.arange(first, last + 1, dtype=np.int64)
    rows: Ints = np.searchsorted(timestamp, (days + 1) * DAY_MS, side="right") - 1
    return days, rows


def days_of_candles(closed_at: Ints) -> Ints:
    """Return the days since the epoch in which candles lie, by the instants (ms) they closed at."""
    return np.unique((closed_at - 1) // DAY_MS)


def growth(values: Floats, before: float) -> Floats:
    """Return the growth from each value to the next, as fractions, the first one from `before`.

    From next to nothing of `before` it is 0.
    """
    earlier = np.concatenate(([before], values[:-1])) if len(values) else values
    with np.errstate(all="ignore"):
        return np.where(np.abs(earlier) <= HAIR * before, 0.0, values / earlier - 1.0)


def monthly_returns(day: Ints, returns: Floats) -> tuple[Ints, Floats]:
    """Return months since 1970-01 and the compounded returns of their days, as fractions."""
    return _compounded(
        day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64), returns
    )


def yearly_returns(day: Ints, returns: Floats) -> tuple[Ints, Floats]:
    """Return years since 1970 and the compounded returns of their days, as fractions."""
    return _compounded(
        day.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64), returns
    )


def _compounded(period: Ints, returns: Floats) -> tuple[Ints, Floats]:
    found, starts = np.unique(period, return_index=True)
    if not len(found):
        return found, returns
    with np.errstate(over="ignore", invalid="ignore"):
        return found, np.multiply.reduceat(1.0 + returns, starts) - 1.0

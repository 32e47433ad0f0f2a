"""All that comes out of an account, from its fills and the marks of its symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from backtest_kit._statistics.equity import AccountCounts, AccountStatistics, account_statistics
from backtest_kit._statistics.equity_curve import (
    buy_and_hold,
    equity_curve,
    run_profits,
    stretches,
)
from backtest_kit._statistics.equity_days import (
    DailyReturns,
    daily_returns,
    days_of,
    returns_of,
)
from backtest_kit._statistics.equity_drawdown import max_drawdown
from backtest_kit._statistics.equity_minutes import over_minutes, stretches_of
from backtest_kit._statistics.equity_parts import AccountPart, account_parts, correlations
from backtest_kit._statistics.equity_trades import TradeSums, sums_by, trade_sums
from backtest_kit._values.candles import Floats
from backtest_kit._values.equity_curve import EquityCurve, Marks
from backtest_kit._values.fills import Fills

#: A year of so many days has no day without trading.
CALENDAR_DAYS: Final = 365


class AccountOutcome(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What came out of an account; `benchmark` is what 1.0 came to by buying and holding.

    `benchmark` has the rows of `curve`; `correlations` are of the daily profits of the runs, in
    their order, and `profits` what each has realised, after fees.
    """

    curve: EquityCurve
    benchmark: Floats
    daily: DailyReturns
    trades: TradeSums
    statistics: AccountStatistics
    profits: tuple[float, ...]
    parts: tuple[AccountPart, ...]
    correlations: tuple[tuple[float | None, ...], ...]


class PlayedAccount(NamedTuple):
    """What an account came to as a whole; see `AccountOutcome`."""

    curve: EquityCurve
    benchmark: Floats
    daily: DailyReturns
    trades: TradeSums
    statistics: AccountStatistics


def played_account(
    symbols: Sequence[str],
    fills: Fills,
    marks: Marks,
    counts: AccountCounts,
    balance: float,
    leverage: float,
    days_per_year: float,
) -> PlayedAccount:
    """Return what an account came to as a whole, without its parts; see `account_outcome`."""
    curve = equity_curve(fills, symbols, marks, balance, leverage)
    benchmark = buy_and_hold(symbols, marks)
    traded = marks.traded_days if days_per_year < CALENDAR_DAYS else None
    daily = daily_returns(curve, benchmark, balance, traded)
    trades = trade_sums(fills)
    minutes = over_minutes(stretches_of(curve), balance)
    found = account_statistics(minutes, daily, fills, trades, counts, balance, days_per_year)
    return PlayedAccount(curve, benchmark, daily, trades, found)


def account_figures(
    symbols: Sequence[str],
    fills: Fills,
    marks: Marks,
    counts: AccountCounts,
    balance: float,
    leverage: float,
    days_per_year: float,
) -> AccountStatistics:
    """Return the statistics of `played_account`, to the last bit, without keeping a curve."""
    traded = marks.traded_days if days_per_year < CALENDAR_DAYS else None
    day, row = days_of(marks.timestamp, traded)
    parts = stretches(fills, symbols, marks, balance, leverage)
    minutes = over_minutes(parts, balance, row)
    benchmark = buy_and_hold(symbols, marks, row)
    daily = returns_of(day, row, minutes.picked, benchmark, balance)
    trades = trade_sums(fills)
    return account_statistics(minutes, daily, fills, trades, counts, balance, days_per_year)


def account_outcome(
    runs: Sequence[tuple[str, str]],
    fills: Fills,
    marks: Marks,
    counts: AccountCounts,
    *,
    balance: float,
    leverage: float = 1.0,
    days_per_year: float = 365,
) -> AccountOutcome:
    """Return what came out of an account that began with `balance`.

    `runs` are (strategy, symbol), in the order that `fills.run` counts. `marks` go from the start
    of the frame to the later of its end and the last close, and have at least one instant.

    Raises:
        ArgumentError: fills and marks do not fit; see `equity_curve`.
    """
    symbols = [symbol for _, symbol in runs]
    played = played_account(symbols, fills, marks, counts, balance, leverage, days_per_year)
    curve, daily, trades = played.curve, played.daily, played.trades
    fall = max_drawdown(curve.equity, balance)
    ends = [-1, -1] if fall is None else [fall.peak, fall.trough]
    reached = run_profits(fills, symbols, marks, leverage, np.array(ends, dtype=np.int64))
    by_day = run_profits(fills, symbols, marks, leverage, daily.row)
    return AccountOutcome(
        curve=curve,
        benchmark=played.benchmark,
        daily=daily,
        trades=trades,
        statistics=played.statistics,
        profits=tuple(sums_by(fills.run, fills.profit - fills.fee, len(runs)).tolist()),
        parts=account_parts(runs, fills, trades, reached[..., 1] - reached[..., 0]),
        correlations=correlations(by_day.sum(axis=1), balance),
    )

"""Statistics of an account's equity: one function for each, with its source.

`r` are daily returns as fractions (float64, shape (N,)), `b` those of buying and holding,
`days` is the number of days in a year. A figure that is not defined, or that is beyond float64, is
`None`, never NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from backtest_kit._rules.account import HAIR
from backtest_kit._statistics import figures
from backtest_kit._statistics.equity_days import DailyReturns, monthly_returns
from backtest_kit._statistics.equity_drawdown import max_drawdown
from backtest_kit._statistics.equity_minutes import OverMinutes
from backtest_kit._statistics.equity_trades import TradeSums
from backtest_kit._values.candles import Floats
from backtest_kit._values.fills import Fills
from backtest_kit._values.table import Table, Tabular, figures_table
from backtest_kit._values.time import MINUTE

#: Nothing is divided by less than this.
LEAST: Final = 1e-9
#: Fewer days than this have no tail to speak of.
LEAST_TAIL_DAYS: Final = 20
_TAIL: Final = 0.05


class AccountCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the books of an account counted beside its fills.

    `not_charged` is what losses beyond the collateral would have cost, in currency. `refusals`
    (of whole trades) and `skips` (of averaging entries and partial closes) are counts by reason,
    `reductions` counts entries that were made smaller for want of cash.
    """

    not_charged: float = 0.0
    refusals: dict[str, int] = {}
    skips: dict[str, int] = {}
    reductions: int = 0


class AccountStatistics(Tabular, frozen=True, kw_only=True):
    """Statistics of an account; what ends in `_percent` is in percent, amounts in its currency.

    Instants are milliseconds UTC, durations minutes. Ratios are of daily returns, by the account's
    days per year. Drawdowns are taken over minutes; `max_daily_drawdown_percent` over the
    equity at the ends of days, as other libraries do. `None` is what is not defined.
    """

    balance: float
    final_equity: float
    days: int
    total_trades: int
    growth_percent: float | None
    cagr_percent: float | None
    benchmark_growth_percent: float | None
    volatility_percent: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    calmar_ratio: float | None
    max_drawdown_percent: float
    max_drawdown_amount: float
    drawdown_peak_at: int | None
    drawdown_trough_at: int | None
    drawdown_recovered_at: int | None
    drawdown_duration_minutes: float
    max_drawdown_duration_minutes: float
    max_daily_drawdown_percent: float
    value_at_risk_percent: float | None
    expected_shortfall_percent: float | None
    tail_ratio: float | None
    skew: float | None
    kurtosis: float | None
    beta: float | None
    alpha_percent: float | None
    correlation: float | None
    mean_leverage: float | None
    peak_leverage: float | None
    exposure_percent: float | None
    turnover: float | None
    best_day_percent: float | None
    worst_day_percent: float | None
    best_month_percent: float | None
    worst_month_percent: float | None
    fees: float
    slippage: float
    not_charged: float
    refusals: Mapping[str, int]
    skips: Mapping[str, int]
    reductions: int
    liquidations: int
    ruined: bool

    def table(self) -> Table:
        """Return two columns, `statistic` and `value` (NaN where it is not defined).

        Instants and counts by reason are left out.
        """
        return figures_table(
            {
                name: value
                for name, value in msgspec.structs.asdict(self).items()
                if not (name.endswith("_at") or isinstance(value, Mapping))
            }
        )


def account_statistics(
    minutes: OverMinutes,
    daily: DailyReturns,
    fills: Fills,
    trades: TradeSums,
    counts: AccountCounts,
    balance: float,
    days: float,
) -> AccountStatistics:
    """Return all statistics of an account that began with `balance`."""
    r, b = daily.returns, daily.benchmark
    final = minutes.final
    ruined = minutes.least <= HAIR * balance
    # returns from an equity of 0 or less say nothing
    ratio_r = r[:0] if ruined else r
    ratio_b = b[:0] if ruined else b
    worst = minutes.fall
    worst_daily = max_drawdown(daily.equity, balance)
    depth = 0.0 if worst is None else worst.depth
    yearly = cagr(final / balance, len(r), days)
    months = monthly_returns(daily.day, r)[1]

    under = 0
    if worst is not None:
        back = minutes.last_at if worst.recovered_at is None else worst.recovered_at
        under = back - worst.peak_at
    return AccountStatistics(
        balance=balance,
        final_equity=final,
        days=len(r),
        total_trades=int((trades.closed_at >= 0).sum()),
        growth_percent=_percent(final / balance - 1.0),
        cagr_percent=_percent(yearly),
        benchmark_growth_percent=_percent(float(np.prod(1.0 + b) - 1.0)) if len(b) else None,
        volatility_percent=_percent(volatility(ratio_r, days)),
        sharpe_ratio=sharpe_ratio(ratio_r, days),
        sortino_ratio=sortino_ratio(ratio_r, days),
        calmar_ratio=None if ruined else calmar_ratio(yearly, depth),
        max_drawdown_percent=depth * 100,
        max_drawdown_amount=0.0 if worst is None else worst.amount,
        drawdown_peak_at=None if worst is None else worst.peak_at,
        drawdown_trough_at=None if worst is None else worst.trough_at,
        drawdown_recovered_at=None if worst is None else worst.recovered_at,
        drawdown_duration_minutes=under / MINUTE,
        max_drawdown_duration_minutes=minutes.longest_fall / MINUTE,
        max_daily_drawdown_percent=0.0 if worst_daily is None else worst_daily.depth * 100,
        value_at_risk_percent=_percent(value_at_risk(ratio_r)),
        expected_shortfall_percent=_percent(expected_shortfall(ratio_r)),
        tail_ratio=tail_ratio(ratio_r),
        skew=skew(ratio_r),
        kurtosis=kurtosis(ratio_r),
        beta=beta(ratio_r, ratio_b),
        alpha_percent=_percent(alpha(ratio_r, ratio_b, days)),
        correlation=pearson(ratio_r, ratio_b),
        mean_leverage=_finite(minutes.mean_leverage),
        peak_leverage=_finite(minutes.peak_leverage),
        exposure_percent=_percent(minutes.exposure),
        turnover=turnover(fills, minutes.mean, len(r), days),
        best_day_percent=_percent(float(r.max())) if len(r) else None,
        worst_day_percent=_percent(float(r.min())) if len(r) else None,
        best_month_percent=_percent(float(months.max())) if len(months) else None,
        worst_month_percent=_percent(float(months.min())) if len(months) else None,
        fees=float(fills.fee.sum()),
        slippage=float(fills.slippage.sum()),
        not_charged=counts.not_charged,
        refusals=counts.refusals,
        skips=counts.skips,
        reductions=counts.reductions,
        liquidations=int(trades.liquidated.sum()),
        ruined=ruined,
    )


def cagr(growth: float, n: int, days: float) -> float | None:
    """Return compound growth per year of `n` days that ended at `growth` times the beginning.

    By days, as empyrical and quantstats; not by calendar years. What rounding leaves below 0 is 0.
    """
    if not n or growth < -HAIR:
        return None
    try:
        return finite(max(growth, 0.0) ** (days / n) - 1.0)
    except OverflowError:
        return None


def volatility(r: Floats, days: float) -> float | None:
    """Return the sample standard deviation (N - 1) times the root of the days per year."""
    deviation = figures.std_dev(r)
    return None if deviation is None else finite(deviation * math.sqrt(days))


def sharpe_ratio(r: Floats, days: float) -> float | None:
    """Return mean over deviation (N - 1) by the year, risk-free rate 0 (Sharpe, 1994)."""
    ratio = figures.sharpe_ratio(r)
    return None if ratio is None else finite(ratio * math.sqrt(days))


def sortino_ratio(r: Floats, days: float) -> float | None:
    """Return mean over downside deviation by the year, target 0 (Sortino and Price, 1994)."""
    ratio = figures.sortino_ratio(r) if len(r) > 1 else None
    return None if ratio is None else finite(ratio * math.sqrt(days))


def calmar_ratio(yearly: float | None, depth: float) -> float | None:
    """Return compound growth per year over the greatest drawdown, both fractions (Young, 1991)."""
    return None if yearly is None or depth < LEAST else finite(yearly / depth)


def value_at_risk(r: Floats) -> float | None:
    """Return the 5th percentile of the returns, between two of them by the line; needs 20 days."""
    return finite(float(np.percentile(r, 5))) if len(r) >= LEAST_TAIL_DAYS else None


def expected_shortfall(r: Floats) -> float | None:
    """Return the mean of the lowest 5 percent of returns (Acerbi and Tasche, 2002).

    Of N returns those are `floor((N - 1) * 0.05) + 1`, as in empyrical. Needs 20 days.
    """
    if len(r) < LEAST_TAIL_DAYS:
        return None
    count = int((len(r) - 1) * _TAIL) + 1
    return finite(float(np.partition(r, count - 1)[:count].mean()))


def tail_ratio(r: Floats) -> float | None:
    """Return the size of the 95th percentile over that of the 5th."""
    if len(r) < 2:
        return None
    low, high = (abs(float(value)) for value in np.percentile(r, (5, 95)))
    return None if low < LEAST else finite(high / low)


def skew(r: Floats) -> float | None:
    """Return the skewness `G1`, corrected for bias (Joanes and Gill, 1998); needs 3 days."""
    n = len(r)
    deviation = r - r.mean() if n > 2 else r
    if n < 3 or (spread := math.sqrt(float(np.square(deviation).mean()))) < LEAST:
        return None
    g1 = float(((deviation / spread) ** 3).mean())
    return finite(g1 * math.sqrt(n * (n - 1)) / (n - 2))


def kurtosis(r: Floats) -> float | None:
    """Return the excess kurtosis `G2`, corrected for bias (Joanes and Gill, 1998); needs 4 days."""
    n = len(r)
    deviation = r - r.mean() if n > 3 else r
    if n < 4 or (spread := math.sqrt(float(np.square(deviation).mean()))) < LEAST:
        return None
    g2 = float(((deviation / spread) ** 4).mean()) - 3.0
    return finite((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * g2 + 6))


def beta(r: Floats, b: Floats) -> float | None:
    """Return the covariance with buying and holding over its variance."""
    if len(r) < 2:
        return None
    covariance = np.cov(r, b)
    variance = float(covariance[1, 1])
    return None if variance < LEAST else finite(float(covariance[0, 1]) / variance)


def alpha(r: Floats, b: Floats, days: float) -> float | None:
    """Return the mean return beyond `beta` times that of buying and holding, by the year.

    Added up over the days (Jensen, 1968), as quantstats does; empyrical compounds it.
    """
    slope = beta(r, b)
    if slope is None:
        return None
    return finite(days * (float(r.mean()) - slope * float(b.mean())))


def pearson(x: Floats, y: Floats) -> float | None:
    """Return Pearson's correlation; `None` for fewer than two, or where one does not vary."""
    if len(x) < 2 or min(float(x.std()), float(y.std())) < LEAST:
        return None
    one, other = x - x.mean(), y - y.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))  # of twice the same its square
    return finite(max(-1.0, min(1.0, float(one @ other) / size)))


def turnover(fills: Fills, mean: float, n: int, days: float) -> float | None:
    """Return half of what was bought and sold over the mean equity, by the year.

    Half, because each position is entered and left.
    """
    if not n or mean < LEAST:
        return None
    return finite(float(fills.value.sum()) / 2 / mean * days / n)


def finite(value: float) -> float | None:
    """Return a number, `None` where it is beyond float64."""
    return value if math.isfinite(value) else None


def _finite(value: float | None) -> float | None:
    return None if value is None else finite(value)


def _percent(value: float | None) -> float | None:
    return None if value is None else finite(value * 100)

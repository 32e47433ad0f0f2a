"""Statistics of closed signals: pure functions over arrays, used by every report.

`r` is profit in percent per closed signal, float64 of shape (N,), in the order of closing. A ratio
that is not defined, or that is beyond float64, is `None`, never NaN or infinite.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.schemas import METRICS
from backtest_kit._values.table import Table, Tabular, figures_table
from backtest_kit._values.time import MINUTE

#: Below this deviation returns count as identical, and a Sharpe ratio is not defined.
LEAST_DEVIATION: Final = 1e-9
YEAR_MS: Final = 365.25 * 1440 * MINUTE
#: A run shorter than this has no compound annual growth rate.
LEAST_SPAN_MS: Final = 1440 * MINUTE


class Statistics(Tabular, frozen=True, kw_only=True):
    """Statistics of closed signals; percentages are in percent, durations in minutes.

    `total_pnl_by_cost` is the sum of each profit times the cost of its entries, in percent of one
    first entry: where positions are averaged down, percents of their own cost flatter, since they
    win on a small cost and lose on a large one. `None` where all costs are 1.

    `compounded_pnl` is what an account would have made that puts all it has into each trade.
    `sharpe_ratio_yearly` is the Sharpe ratio per trade times the root of the trades per year (Lo,
    2002), `annualized_sharpe_ratio` times the root of 365, however many trades there were. Both are
    `None` in data of an earlier release.
    """

    total_signals: int
    win_count: int
    loss_count: int
    win_rate: float | None
    avg_pnl: float | None
    total_pnl: float | None
    std_dev: float | None
    sharpe_ratio: float | None
    annualized_sharpe_ratio: float | None
    certainty_ratio: float | None
    expected_yearly_returns: float | None
    sortino_ratio: float | None
    calmar_ratio: float | None
    max_drawdown_percent: float | None
    max_drawdown_duration_minutes: float | None
    profit_factor: float | None
    expectancy: float | None
    recovery_factor: float | None
    max_win_streak: int
    max_loss_streak: int
    avg_duration_minutes: float | None
    exposure_percent: float | None
    compounded_pnl: float | None = None
    sharpe_ratio_yearly: float | None = None
    total_pnl_by_cost: float | None = None

    def table(self) -> Table:
        """Return two columns, `statistic` and `value` (NaN where it is not defined)."""
        return figures_table(msgspec.structs.asdict(self))


def summarize(
    r: Floats,
    opened_at: Ints,
    closed_at: Ints,
    span: tuple[int, int],
    cost: Floats | None = None,
) -> Statistics:
    """Return all statistics of closed signals.

    `opened_at` and `closed_at` are int64 milliseconds of shape (N,), in the order of closing;
    `span` is the start and end of the run in milliseconds. `cost` is that of each one's entries,
    relative to the first; `None`: 1.
    """
    n = len(r)
    with _quiet():
        mean, total = (float(r.mean()), float(r.sum())) if n else (math.nan, math.nan)
    sharpe = sharpe_ratio(r)
    depth, longest = drawdown(r, closed_at, span)
    return Statistics(
        total_signals=n,
        win_count=int((r > 0).sum()),
        loss_count=int((r < 0).sum()),
        win_rate=float((r > 0).mean() * 100) if n else None,
        avg_pnl=_finite(mean),
        total_pnl=_finite(total),
        std_dev=std_dev(r),
        sharpe_ratio=sharpe,
        annualized_sharpe_ratio=None if sharpe is None else _finite(sharpe * math.sqrt(365)),
        certainty_ratio=certainty_ratio(r),
        expected_yearly_returns=expected_yearly_returns(r, span),
        sortino_ratio=sortino_ratio(r),
        calmar_ratio=_calmar(r, depth, span),
        max_drawdown_percent=depth,
        max_drawdown_duration_minutes=longest,
        profit_factor=profit_factor(r),
        expectancy=expectancy(r),
        recovery_factor=_recovery(r, depth),
        max_win_streak=longest_streak(r > 0),
        max_loss_streak=longest_streak(r < 0),
        avg_duration_minutes=float((closed_at - opened_at).mean() / MINUTE) if n else None,
        exposure_percent=exposure(opened_at, closed_at, span) if n else None,
        compounded_pnl=_finite((float(equity(r)[-1]) - 1.0) * 100) if n else None,
        sharpe_ratio_yearly=sharpe_ratio_yearly(r, span),
        total_pnl_by_cost=total_pnl_by_cost(r, cost),
    )


def total_pnl_by_cost(r: Floats, cost: Floats | None) -> float | None:
    """Return the sum of profits times costs, percent of one first entry; `None`: all costs are 1.

    `cost` is relative to the first entry's, shape (N,).
    """
    if cost is None or bool((cost == 1.0).all()):
        return None
    with _quiet():
        return _finite(float((r * cost).sum()))


def std_dev(r: Floats) -> float | None:
    """Return the sample standard deviation (N - 1); `None` for fewer than two."""
    with _quiet():
        return _finite(float(r.std(ddof=1))) if len(r) > 1 else None


def sharpe_ratio(r: Floats) -> float | None:
    """Return mean over deviation per trade, risk-free rate 0 (Sharpe, 1994)."""
    deviation = std_dev(r)
    if deviation is None or deviation < LEAST_DEVIATION:
        return None
    with _quiet():
        return _finite(float(r.mean()) / deviation)


def sharpe_ratio_yearly(r: Floats, span: tuple[int, int]) -> float | None:
    """Return `sharpe_ratio` times the root of the trades per year of the run (Lo, 2002).

    It takes trades for independent. `None` for a run shorter than a day.
    """
    sharpe, length = sharpe_ratio(r), span[1] - span[0]
    if sharpe is None or length < LEAST_SPAN_MS:
        return None
    return _finite(sharpe * math.sqrt(len(r) * YEAR_MS / length))


def sortino_ratio(r: Floats) -> float | None:
    """Return mean over downside deviation, target 0, over all N (Sortino and Price, 1994)."""
    if not len(r):
        return None
    with _quiet():
        mean, downside = float(r.mean()), math.sqrt(float(np.square(np.minimum(r, 0.0)).mean()))
    if downside < LEAST_DEVIATION or math.isinf(downside):
        return None
    return _finite(mean / downside)


def certainty_ratio(r: Floats) -> float | None:
    """Return average win over average loss, as sizes; 0 without wins, `None` without losses."""
    wins, losses = r[r > 0], r[r < 0]
    if not len(losses):
        return None
    with _quiet():
        gain, loss = float(wins.mean()) if len(wins) else 0.0, -float(losses.mean())
    return _finite(gain / loss) if math.isfinite(loss) else None


def profit_factor(r: Floats) -> float | None:
    """Return gross profit over gross loss; `None` without losses."""
    with _quiet():
        gain, loss = float(r[r > 0].sum()), -float(r[r < 0].sum())
    return _finite(gain / loss) if 0 < loss < math.inf else None


def expectancy(r: Floats) -> float | None:
    """Return win share x average win - loss share x average loss (Tharp, 1998), in percent.

    Break-even trades count as neither win nor loss, so that this equals the mean.
    """
    if not len(r):
        return None
    with _quiet():
        return _finite((float(r[r > 0].sum()) + float(r[r < 0].sum())) / len(r))


def expected_yearly_returns(r: Floats, span: tuple[int, int]) -> float | None:
    """Return average profit x trades per year, from the calendar span of the run; percent."""
    length = span[1] - span[0]
    if not len(r) or length <= 0:
        return None
    with _quiet():
        return _finite(float(r.mean()) * len(r) * YEAR_MS / length)


def equity(r: Floats) -> Floats:
    """Return the compounded equity after each trade, from 1.0 before the first; shape (N + 1,).

    A loss of 100 % or more ends it at 0.
    """
    growth = np.maximum(1.0 + r / 100.0, 0.0)
    with _quiet():
        curve = np.concatenate(([1.0], np.cumprod(growth)))
    curve[1:][np.logical_or.accumulate(growth == 0)] = 0.0  # infinity * 0 would be NaN
    return curve


def drawdown(
    r: Floats, closed_at: Ints, span: tuple[int, int]
) -> tuple[float | None, float | None]:
    """Return the deepest fall of `equity` from its running peak in percent, and the longest.

    The longest, in minutes, is the time from a peak (the start of the run counts as one) to the
    close that is back at it, or to the end of the run (Magdon-Ismail and Atiya, 2004). Both are
    `None` without signals, and where the equity is beyond float64.
    """
    if not len(r):
        return None, None
    curve = equity(r)
    if not math.isfinite(curve[-1]):
        return None, None
    peaks = np.maximum.accumulate(curve)
    with _quiet():
        depth = np.nan_to_num(1.0 - curve / peaks)
    times = np.concatenate(([span[0]], closed_at))
    at_peak = np.flatnonzero(curve >= peaks)
    back = times[at_peak[1:]] - times[at_peak[:-1]]
    longest = int(back[np.diff(at_peak) > 1].max(initial=0))
    if at_peak[-1] < len(r):
        longest = max(longest, max(span[1], int(times[-1])) - int(times[at_peak[-1]]))
    return float(depth.max()) * 100, longest / MINUTE


def calmar_ratio(r: Floats, closed_at: Ints, span: tuple[int, int]) -> float | None:
    """Return compound annual growth over maximum drawdown, both in percent (Young, 1991).

    `None` without a drawdown, or for a run shorter than a day.
    """
    return _calmar(r, drawdown(r, closed_at, span)[0], span)


def _calmar(r: Floats, depth: float | None, span: tuple[int, int]) -> float | None:
    length = span[1] - span[0]
    if not depth or length < LEAST_SPAN_MS:
        return None
    final = float(equity(r)[-1])
    try:
        growth = (final ** (YEAR_MS / length) - 1.0) * 100
    except OverflowError:
        return None
    return _finite(growth / depth)


def recovery_factor(r: Floats, closed_at: Ints, span: tuple[int, int]) -> float | None:
    """Return total compounded return over maximum drawdown; `None` without a drawdown."""
    return _recovery(r, drawdown(r, closed_at, span)[0])


def _recovery(r: Floats, depth: float | None) -> float | None:
    return _finite((float(equity(r)[-1]) - 1.0) * 100 / depth) if depth else None


def longest_streak(hits: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """Return the length of the longest run of true values."""
    edges = np.flatnonzero(np.diff(hits, prepend=False, append=False))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def exposure(opened_at: Ints, closed_at: Ints, span: tuple[int, int]) -> float | None:
    """Return the share of the span with an open position, in percent; overlaps count once."""
    length = span[1] - span[0]
    if length <= 0:
        return None
    order = np.argsort(opened_at, kind="stable")
    begin = np.clip(opened_at[order], *span)
    end = np.clip(closed_at[order], *span)
    reached = np.concatenate(([span[0]], np.maximum.accumulate(end)[:-1])) if len(end) else end
    covered = np.maximum(end - np.maximum(begin, reached), 0).sum()
    return float(covered / length * 100)


def metric(statistics: Statistics, name: str) -> float | None:
    """Return one of `METRICS`, where it is a finite number.

    Raises:
        ArgumentError: no such metric; the message lists them.
    """
    if name not in METRICS:
        raise ArgumentError(f"unknown metric {name!r}; use one of: {', '.join(METRICS)}")
    value: float | None = getattr(statistics, name)
    return None if value is None else _finite(value)


def metric_of(r: Floats, name: str, span: tuple[int, int]) -> float | None:
    """Return one of `METRICS` of closed signals, as `metric(summarize(...), name)` does, sooner.

    Raises:
        ArgumentError: no such metric.
    """
    sharpe = sharpe_ratio(r) if name.endswith("sharpe_ratio") else None
    with _quiet():
        if name == "sharpe_ratio":
            return sharpe
        if name == "annualized_sharpe_ratio":
            return None if sharpe is None else _finite(sharpe * math.sqrt(365))
        if name == "certainty_ratio":
            return certainty_ratio(r)
        if name == "expected_yearly_returns":
            return expected_yearly_returns(r, span)
        if not len(r):
            return None
        if name == "win_rate":
            return float((r > 0).mean() * 100)
        if name == "avg_pnl":
            return _finite(float(r.mean()))
        if name == "total_pnl":
            return _finite(float(r.sum()))
    raise ArgumentError(f"unknown metric {name!r}; use one of: {', '.join(METRICS)}")


def _quiet() -> np.errstate:
    return np.errstate(over="ignore", invalid="ignore")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

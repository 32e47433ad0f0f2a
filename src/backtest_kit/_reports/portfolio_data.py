"""What runs that share an account have found: trades in money, the curve, statistics, parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from backtest_kit._reports.backtest import FEW_TRADES, BacktestData
from backtest_kit._reports.notebook import curve_svg, figures_html
from backtest_kit._reports.table import number, span
from backtest_kit._statistics.equity import AccountCounts, AccountStatistics
from backtest_kit._statistics.equity_days import DailyReturns, monthly_returns, yearly_returns
from backtest_kit._statistics.equity_outcome import account_outcome
from backtest_kit._statistics.equity_parts import AccountPart
from backtest_kit._statistics.equity_trades import TradeSums
from backtest_kit._values.account import Market
from backtest_kit._values.account_schemas import AccountSchema
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.equity_curve import EquityCurve, Marks, thin
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.fills import Fills
from backtest_kit._values.results import TickClosed
from backtest_kit._values.table import Table, Tabular
from backtest_kit._values.time import MINUTE, iso

if TYPE_CHECKING:
    import pandas as pd

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Points of a curve in a notebook.
_POINTS: Final = 600


class PortfolioData(Tabular, frozen=True, kw_only=True, eq=False):
    """All that runs on one account have found; times in milliseconds UTC, amounts in its currency.

    `runs` are the figures of each run in percent, in the order in which they were named; `profits`
    is what each has realised, after fees. `trades` are the closed results of all, in the order in
    which they happened, and `table` has their money. `benchmark` is what the balance would have
    come to by buying and holding the same symbols, at the rows of `curve`. `correlations` are those
    of the runs' daily profits. `refusals` are the newest of what the account refused or skipped;
    `statistics` counts all. `markets` is what the exchange said of each symbol, `None` where
    nothing. `daily` and `sums` are what `returns` and `table` are made of. `added` is
    what a person has added to an account of live runs since it began, which is in no other figure;
    `problems` are what is wrong with what is stored of one, or could not be had.
    """

    account: AccountSchema
    exchange_name: str
    frame_name: str | None
    since: int
    until: int
    runs: tuple[BacktestData, ...]
    profits: tuple[float, ...]
    trades: tuple[TickClosed, ...]
    curve: EquityCurve
    benchmark: Floats
    statistics: AccountStatistics
    parts: tuple[AccountPart, ...]
    correlations: tuple[tuple[float | None, ...], ...]
    refusals: tuple[RiskEvent, ...] = ()
    markets: Mapping[str, Market | None] = {}
    daily: DailyReturns
    sums: TradeSums
    added: float = 0.0
    problems: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The strategy and the symbol of each run."""
        return tuple((run.strategy_name, run.symbol) for run in self.runs)

    def returns(self) -> pd.Series[float]:
        """Return the account's daily returns as fractions, indexed by naive dates. Needs pandas.

        quantstats, empyrical, pyfolio and ffn take it as it is; give them the account's days per
        year.
        """
        return self._series(self.daily.returns)

    def benchmark_returns(self) -> pd.Series[float]:
        """Return the daily returns of buying and holding, as `returns` does."""
        return self._series(self.daily.benchmark)

    def monthly(self) -> pd.DataFrame:
        """Return compounded returns in percent: a row for each year, a column for each month.

        The last column, "Year", compounds the days of the year; NaN where there are none. Needs
        pandas.
        """
        import pandas as pd

        years, rows = self.months()
        return pd.DataFrame(rows, index=pd.Index(years, name="year"), columns=[*MONTHS, "Year"])

    def months(self) -> tuple[list[int], Floats]:
        """Return the years, and their returns in percent of shape (years, 13); see `monthly`."""
        month, by_month = monthly_returns(self.daily.day, self.daily.returns)
        year, by_year = yearly_returns(self.daily.day, self.daily.returns)
        rows = np.full((len(year), len(MONTHS) + 1), np.nan)
        place: Ints = np.searchsorted(year, month // 12)
        rows[place, month % 12] = by_month * 100
        rows[:, -1] = by_year * 100
        return (year + 1970).tolist(), rows

    def table(self) -> Table:
        """Return the closed trades in money, in the order of closing, as columns.

        Times are milliseconds, `quantity` and `cost` of all entries; `profit` is after `fees`, and
        `profit_percent` of the cost. `slippage` is in the prices. `equity_before` is what the size
        was measured by, `equity_after` that right after the close (NaN where it is not known).
        """
        sums = self.sums
        rows = np.flatnonzero(sums.closed_at >= 0)
        rows = rows[np.argsort(sums.last[rows])]
        names = [self.names[run] for run in sums.run[rows].tolist()]
        opened, closed = sums.opened_at[rows], sums.closed_at[rows]
        known = {
            (t.strategy_name, t.symbol, t.signal.pending_at, t.close_timestamp): t
            for t in self.trades
        }
        when = zip(names, opened.tolist(), closed.tolist(), strict=True)
        ticks = [known.get((*name, a, b)) for name, a, b in when]
        moneys = [None if tick is None else tick.money for tick in ticks]
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = sums.profit[rows] / sums.cost[rows] * 100
        return Table(
            {
                "strategy_name": np.array([strategy for strategy, _ in names], dtype=object),
                "symbol": np.array([symbol for _, symbol in names], dtype=object),
                "position": np.where(sums.side[rows] > 0, "long", "short").astype(object),
                "opened_at": opened,
                "closed_at": closed,
                "minutes": (closed - opened) // MINUTE,
                "quantity": sums.quantity[rows],
                "cost": sums.cost[rows],
                "fees": sums.fees[rows],
                "slippage": sums.slippage[rows],
                "profit": sums.profit[rows],
                "profit_percent": percent,
                "equity_before": np.array([m.equity_before if m else np.nan for m in moneys]),
                "equity_after": np.array(
                    [m.equity_after if m else np.nan for m in moneys], dtype=np.float64
                ),
                "reduced": np.array([bool(m and m.reduced) for m in moneys], dtype=np.bool_),
                "liquidated": sums.liquidated[rows],
                "not_charged": np.array([m.not_charged if m else 0.0 for m in moneys]),
                "close_reason": np.array(
                    [t.close_reason if t else "" for t in ticks], dtype=object
                ),
            },
            times=("opened_at", "closed_at"),
            title="trades",
        )

    def to_json(self) -> str:
        """Return all of it as JSON, the curve thinned as in reports; times in milliseconds.

        The runs are without their trades, which stand in `trades`, and `returns` are by date.
        """
        rows = thin(self.curve.equity)
        thinned = self.curve[rows]
        runs = [msgspec.structs.replace(run, signals=(), cancelled=()) for run in self.runs]
        days = self.daily.day.astype("datetime64[D]").astype(str).tolist()
        years, months = self.months()
        found: dict[str, Any] = {
            **{name: getattr(self, name) for name in _PLAIN},
            "runs": runs,
            "curve": {
                "timestamp": thinned.timestamp.tolist(),
                "equity": thinned.equity.tolist(),
                "balance": thinned.balance.tolist(),
                "held": thinned.held.tolist(),
                "benchmark": self.benchmark[rows].tolist(),
            },
            "returns": dict(zip(days, self.daily.returns.tolist(), strict=True)),
            "monthly": dict(zip(map(str, years), months.tolist(), strict=True)),
        }
        return msgspec.json.encode(found).decode()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PortfolioData):
            return NotImplemented
        mine, theirs = (
            [getattr(data, name) for name in (*_PLAIN, "runs", "curve")] for data in (self, other)
        )
        return mine == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        s, covered = self.statistics, span(self.since, self.until)
        return (
            f"<{type(self).__name__}: {self.account.account_name}, {len(self.runs)} runs, "
            f"{covered}, "
            f"{s.total_trades:,} trades, {money(s.balance)} to {money(s.final_equity)} "
            f"{self.account.currency}>"
        )

    def _repr_html_(self) -> str:
        shown = self.curve.thinned(_POINTS)
        title = f"Account {self.account.account_name}, {span(self.since, self.until)}"
        return (
            f"<h4>{escape(title)}</h4>"
            + "".join(f"<p><b>{escape(line)}</b></p>" for line in doubts(self))
            + figures_html((name, value) for name, value, _ in key_figures(self))
            + curve_svg(shown.timestamp, shown.equity, "Equity over time")
            + f"<details><summary>All statistics</summary>{self.statistics._repr_html_()}</details>"
        )

    def _series(self, values: Floats) -> pd.Series[float]:
        import pandas as pd

        days = self.daily.day.astype("datetime64[D]").astype("datetime64[ns]")
        return pd.Series(values.copy(), index=pd.DatetimeIndex(days))


_PLAIN: Final = (
    *("account", "exchange_name", "frame_name", "since", "until", "profits", "trades"),
    *("statistics", "parts", "correlations", "refusals", "markets", "added", "problems"),
)


def portfolio_data(
    account: AccountSchema,
    runs: Sequence[BacktestData],
    trades: Sequence[TickClosed],
    fills: Fills,
    marks: Marks,
    counts: AccountCounts,
    *,
    refusals: Sequence[RiskEvent] = (),
    markets: Mapping[str, Market | None] | None = None,
    added: float = 0.0,
) -> PortfolioData:
    """Return what runs on one account have found; `fills.run` counts `runs`, of which there is one.

    Raises:
        ArgumentError: fills and marks do not fit; see `equity_curve`.
    """
    outcome = account_outcome(
        [(run.strategy_name, run.symbol) for run in runs],
        fills,
        marks,
        counts,
        balance=account.balance,
        leverage=account.leverage,
        days_per_year=account.days_per_year,
    )
    return PortfolioData(
        account=account,
        exchange_name=runs[0].exchange_name,
        frame_name=runs[0].frame_name,
        since=int(outcome.curve.timestamp[0]),
        until=int(outcome.curve.timestamp[-1]),
        runs=tuple(runs),
        profits=outcome.profits,
        trades=tuple(trades),
        curve=outcome.curve,
        benchmark=outcome.benchmark * account.balance,
        statistics=outcome.statistics,
        parts=outcome.parts,
        correlations=outcome.correlations,
        refusals=tuple(refusals),
        markets=dict(markets or {}),
        added=added,
        daily=outcome.daily,
        sums=outcome.trades,
    )


def money(value: float | None) -> str:
    """Return an amount, with as many digits as its size asks for."""
    if value is None or abs(value) >= 1 or value == 0:
        return number(value, 2)
    return f"{value:.4g}"


def key_figures(data: PortfolioData) -> list[tuple[str, str, str]]:
    """Return (name, value, meaning) of what is looked at first."""
    s, currency = data.statistics, data.account.currency
    percent = " %"
    return [
        ("Final equity", money(s.final_equity), f"{currency}, from {money(s.balance)}"),
        ("Growth", number(s.growth_percent, 2, percent), "after fees and slippage"),
        (
            "Buy and hold",
            number(s.benchmark_growth_percent, 2, percent),
            "the same symbols in equal parts, before costs",
        ),
        (
            "Max drawdown",
            number(s.max_drawdown_percent, 2, percent),
            "of the equity, at every step",
        ),
        ("Sharpe ratio", number(s.sharpe_ratio), "of daily returns, by the year"),
        ("Calmar ratio", number(s.calmar_ratio), "yearly growth over max drawdown"),
        ("Trades", f"{s.total_trades:,}", f"{money(s.fees)} {currency} of fees"),
        ("Exposure", number(s.exposure_percent, 1, percent), "share of time with a position"),
    ]


def doubts(data: PortfolioData) -> list[str]:
    """Return what nobody should miss, in words."""
    s, found = data.statistics, [*data.problems]
    if s.ruined:
        found.append("The account was ruined: its equity fell to 0 or below.")
    if s.total_trades < FEW_TRADES:
        found.append(f"Too few trades to say anything about the strategies: {s.total_trades}.")
    for run in data.runs:
        name = f"{run.strategy_name} on {run.symbol}"
        if run.ended_by is not None:
            found.append(f"{name} failed: {run.ended_by}")
        elif run.data_ended_at is not None:
            ended = iso(run.data_ended_at)
            found.append(f"The data of {run.symbol} ended at {ended}, before the frame did.")
        elif not run.complete:
            found.append(f"{name} did not reach its end.")
    errors = sum(run.error_count for run in data.runs)
    if errors:
        found.append(f"{errors:,} errors happened; see how far to trust this.")
    if s.liquidations:
        found.append(f"{s.liquidations:,} positions were liquidated.")
    return [*dict.fromkeys(found)]

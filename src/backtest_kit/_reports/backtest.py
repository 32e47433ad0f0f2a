"""The report of one backtest: what was run, how far to trust it, what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from html import escape
from typing import Final

import numpy as np

from backtest_kit._data.market import CandleCount, SeriesGaps
from backtest_kit._data.series import Gap
from backtest_kit._engine.record import ASKING, RunRecord
from backtest_kit._reports.errors import ErrorCount, error_counts, error_lines, error_text
from backtest_kit._reports.notebook import curve_svg, figures_html
from backtest_kit._reports.table import markdown_table, minutes, number, plain, price, span
from backtest_kit._reports.trades import equity_of, outcomes_of, trades_of
from backtest_kit._statistics.figures import Statistics, summarize
from backtest_kit._values.config import Config
from backtest_kit._values.results import TickCancelled, TickClosed
from backtest_kit._values.schemas import source_of
from backtest_kit._values.signal import NEVER
from backtest_kit._values.table import Table, Tabular
from backtest_kit._values.time import MINUTE, iso

#: Fewer trades than this say little about a strategy (the rule of thumb of the central limit).
FEW_TRADES: Final = 30
_SHOWN_GAPS: Final = 5


class BacktestData(Tabular, frozen=True, kw_only=True):
    """All that a backtest has found; times in milliseconds UTC.

    `ended_by` is the error that ended a run that failed, `raised` how many calls of the strategy
    raised. `settings` are those of the run, `source` is the text of the strategy's function or
    class, where it can be read. `balance` is what the equity begins with.

    `warming` counts the steps at which the data did not reach back far enough to ask the strategy,
    `warm_at` is the first at which they did, `None` where there was none. `gaps` are those of each
    series that was read; `candles` counts the base candles of the steps alone, and `gaps_filled` is
    how many of them were missing. `filled_entries` and `filled_exits` count the trades that were
    opened and closed on one, `on_filled` are their places in `signals`. `data_end` is the last step
    at which anything happened where the data end with the frame, `None` where they go on.
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str | None
    since: int
    until: int
    total_frames: int
    frames: int
    calls: int
    warming: int = 0
    warm_at: int | None = None
    complete: bool
    ended_by: str | None = None
    raised: int = 0
    data_ended_at: int | None
    statistics: Statistics
    signals: tuple[TickClosed, ...]
    gaps: tuple[SeriesGaps, ...]
    gaps_filled: int
    ambiguous_closes: int
    end_of_data_closes: int
    error_count: int
    errors: tuple[ErrorCount, ...]
    left_behind: tuple[str, ...] = ()
    percent_fee: float
    percent_slippage: float
    exit_trigger: str
    ambiguous_candle: str
    base_interval: str = "1m"
    closed_candles: int = 0
    candles: CandleCount = CandleCount()
    filled_entries: int = 0
    filled_exits: int = 0
    on_filled: tuple[int, ...] = ()
    cancelled: tuple[TickCancelled, ...] = ()
    settings: Config | None = None
    source: str = ""
    balance: float = 1.0
    data_end: int | None = None

    @property
    def trades(self) -> Table:
        """The closed signals as columns; `table` is the same."""
        return trades_of(self.signals)

    @property
    def equity(self) -> Table:
        """What profits have come to after each close; see `equity_of`."""
        return equity_of(self.signals, self.since, self.balance)

    def table(self) -> Table:
        """Return the closed signals as columns."""
        return self.trades

    def __repr__(self) -> str:
        s, covered = self.statistics, span(self.since, self.until)
        return (
            f"<{type(self).__name__}: {self.strategy_name} on {self.symbol}, {covered}, "
            f"{s.total_signals:,} trades, total profit {number(s.total_pnl, 2, ' %')}>"
        )

    def _repr_html_(self) -> str:
        title = f"{self.strategy_name} on {self.symbol}, {span(self.since, self.until)}"
        s, curve = self.statistics, self.equity
        figures = [
            ("total profit", number(s.total_pnl, 2, " %")),
            ("compounded", number(s.compounded_pnl, 2, " %")),
            ("trades", f"{s.total_signals:,}"),
            ("won", number(s.win_rate, 1, " %")),
            ("max drawdown", number(s.max_drawdown_percent, 2, " %")),
            ("Sharpe ratio, yearly", number(s.sharpe_ratio_yearly)),
        ]
        doubts = [*failures(self)]
        if s.total_signals < FEW_TRADES:
            doubts.append(f"Too few trades to say anything about the strategy: {s.total_signals}.")
        return (
            f"<h4>{escape(title)}</h4>"
            + "".join(f"<p><b>{escape(line)}</b></p>" for line in doubts)
            + figures_html(figures)
            + curve_svg(curve["timestamp"], curve["total_pnl"], "Sum of profits over time")
            + f"<details><summary>All statistics</summary>{s._repr_html_()}</details>"
        )


def statistics_of(closed: Sequence[TickClosed], span: tuple[int, int]) -> Statistics:
    """Return the statistics of closed results in their order; `span` in milliseconds."""
    cost = np.array([tick.cost for tick in closed], dtype=np.float64)
    return summarize(*outcomes_of(closed), span, cost)


def backtest_data(record: RunRecord) -> BacktestData:
    """Return a run's facts and their statistics."""
    closed = tuple(record.closed)
    span = (record.since, max(record.until, record.since))
    reasons = Counter(tick.close_reason for tick in closed)
    entries, exits = record.on_filled
    return BacktestData(
        symbol=record.symbol,
        strategy_name=record.strategy_name,
        exchange_name=record.exchange_name,
        frame_name=record.frame_name,
        since=span[0],
        until=span[1],
        total_frames=record.total_frames,
        frames=record.frames,
        calls=record.calls,
        warming=record.warming,
        warm_at=record.warm_at,
        complete=record.complete,
        ended_by=record.ended_by,
        raised=record.raised,
        data_ended_at=record.data_ended_at,
        data_end=None if record.data_end == NEVER else record.data_end,
        statistics=statistics_of(closed, span),
        signals=closed,
        cancelled=tuple(w.cancelled for w in record.waited if w.cancelled is not None),
        gaps=tuple(record.gaps),
        gaps_filled=record.candles.missing,
        candles=record.candles,
        filled_entries=int(entries.sum()),
        filled_exits=int(exits.sum()),
        on_filled=tuple(np.flatnonzero(entries | exits).tolist()),
        ambiguous_closes=sum(tick.ambiguous for tick in closed),
        end_of_data_closes=reasons["end_of_data"],
        error_count=record.error_count,
        errors=error_counts(record),
        left_behind=record.left_behind,
        percent_fee=record.config.percent_fee,
        percent_slippage=record.config.percent_slippage,
        exit_trigger=record.config.exit_trigger,
        ambiguous_candle=record.config.ambiguous_candle,
        base_interval=record.config.base_interval,
        closed_candles=sum(series.closed for series in record.gaps),
        settings=record.config,
        source="" if record.strategy is None else source_of(record.strategy),
    )


def backtest_report(data: BacktestData) -> str:
    """Return the report as Markdown."""
    why = failures(data)
    parts = [
        f"# Backtest of {plain(data.strategy_name)} on {plain(data.symbol)}",
        *(f"**{plain(line)}**" for line in why),
        what_text(data),
        "## How far to trust this",
        trust_text(data),
    ]
    if data.signals or not why:  # figures of nothing, where it failed, would look like a result
        parts += ["## Statistics", statistics_table(data.statistics)]
    if data.signals:
        table = trades_table(data.signals, frozenset(data.on_filled))
        parts += ["## Why signals closed", _reasons(data), "## Trades", table]
    return "\n\n".join(parts) + "\n"


def failures(data: BacktestData) -> list[str]:
    """Return why a run came to nothing: what ended it, or that the strategy always raised."""
    lines = []
    if data.ended_by is not None:
        lines.append(f"The run failed at {iso(data.until)}: {data.ended_by}")
    if 0 < data.calls <= data.raised:
        first = next((e for e in data.errors if e.where == ASKING), None)
        what = "" if first is None else f", first with {error_text(first)}"
        lines.append(f"The strategy raised at each of its {data.calls:,} calls{what}")
    return lines


def what_text(data: BacktestData) -> str:
    """Return what was run, as a Markdown list."""
    frame = f"frame {plain(str(data.frame_name))}"
    lines = [
        f"- Exchange {plain(data.exchange_name)}, {frame}: {span(data.since, data.until)}",
        f"- {data.frames:,} of {data.total_frames:,} frames, {data.calls:,} calls of the strategy",
        f"- Base interval: {data.base_interval}; everything happens when such a candle closes",
    ]
    lines += warming_lines(data.warming, data.warm_at)
    if data.data_ended_at is not None:
        lines.append(f"- **The data ended before the frame did**, at {iso(data.data_ended_at)}.")
    elif not data.complete and data.ended_by is None:
        lines.append("- **The run did not reach its end**: it was stopped or interrupted.")
    return "\n".join(lines)


def trust_text(data: BacktestData) -> str:
    """Return how far to trust the figures, as a Markdown list."""
    n = data.statistics.total_signals
    lines = []
    if n < FEW_TRADES:
        lines.append(f"- **Too few trades** to say anything about the strategy: {n}.")
    lines += quality_lines(data.candles, data.symbol, data.base_interval)
    base = data.symbol, data.base_interval
    others = (series for series in data.gaps if (series.symbol, series.interval) != base)
    lines += [_gap_line(series) for series in others if series.filled]
    if data.on_filled:
        lines.append(
            f"- Trades on missing candles: {len(data.on_filled)} ({data.filled_entries} entries, "
            f"{data.filled_exits} exits): nobody could have traded then."
        )
    lines += [
        f"- Market closed: {plain(series.symbol)} {series.interval}, {series.closed:,} candles, "
        "which are no gaps; nothing happens then."
        for series in data.gaps
        if series.closed
    ]
    lines.append(f"- Fills: {_trigger(data)}; ambiguous closes: {data.ambiguous_closes}.")
    lines.append(f"- Signals closed because the data ended: {data.end_of_data_closes}.")
    lines.append(
        f"- Assumed costs: fee {data.percent_fee:g} % per side, "
        f"slippage {data.percent_slippage:g} % per side."
    )
    lines += leftover_lines(data.left_behind)
    if data.error_count or data.ended_by is None:
        lines += error_lines(data.error_count, data.errors)
    return "\n".join(lines)


def warming_lines(count: int, until: int | None) -> list[str]:
    """Return list items on steps at which the strategy could not be called yet."""
    if not count:
        return []
    steps = "step" if count == 1 else "steps"
    end = "to the end: the data never reached back far enough"
    return [f"- Warming up: {count:,} {steps}, {end if until is None else f'until {iso(until)}'}."]


def leftover_lines(left_behind: Sequence[str]) -> list[str]:
    """Return list items on a strategy's state that earlier runs left behind."""
    if not left_behind:
        return []
    return [f"- **Began with what an earlier run left behind**: {plain(', '.join(left_behind))}."]


def _trigger(data: BacktestData) -> str:
    if data.exit_trigger == "vwap":
        candle = "minute" if data.base_interval == "1m" else f"{data.base_interval} candle"
        return f"levels are compared with the average price of each {candle}"
    return f"levels are compared with each candle's low and high, {data.ambiguous_candle}"


def _gap_line(series: SeriesGaps) -> str:
    gaps = _largest(series.gaps)
    return f"- Read with gaps filled: {plain(series.symbol)} {series.interval}, {gaps}."


def _largest(gaps: Sequence[Gap]) -> str:
    """Return how many candles are missing in how many gaps, and the largest ones."""
    missing = sum(gap.count for gap in gaps)
    largest = sorted(gaps, key=lambda gap: -gap.count)[:_SHOWN_GAPS]
    shown = ", ".join(f"{iso(gap.start)} ({gap.count})" for gap in largest)
    more = f" and {len(gaps) - len(largest)} more" if len(gaps) > len(largest) else ""
    candles = "candle" if missing == 1 else "candles"
    return f"{missing} missing {candles} in {len(gaps)} gap{'s'[: len(gaps) > 1]}: {shown}{more}"


def quality_lines(count: CandleCount, symbol: str, interval: str) -> list[str]:
    """Return list items on missing and suspicious base candles."""
    lines = ["- Gaps filled: none."]
    if count.missing:
        share = number(count.missing_percent, 3, " %")
        lines = [f"- Gaps filled: {plain(symbol)} {interval}, {share}: {_largest(count.gaps)}."]
    if count.suspicious:
        shown = ", ".join(iso(when) for when in count.suspicious[:_SHOWN_GAPS])
        left = len(count.suspicious) - _SHOWN_GAPS
        lines.append(
            f"- **Suspicious candles** (a price 20 times off the closes before): "
            f"{len(count.suspicious)}: {shown}{f' and {left} more' if left > 0 else ''}."
        )
    return lines


def statistics_table(s: Statistics) -> str:
    """Return all statistics as a Markdown table with what they mean."""
    return markdown_table(("Statistic", "Value", "Meaning"), statistics_rows(s))


def statistics_rows(s: Statistics) -> list[tuple[str, str, str]]:
    """Return (name, value, meaning) of each statistic."""
    percent = " %"
    return [
        ("Trades", str(s.total_signals), f"{s.win_count} won, {s.loss_count} lost"),
        ("Win rate", number(s.win_rate, 1, percent), "share of trades with a profit"),
        ("Average profit", number(s.avg_pnl, 3, percent), "per trade, after costs"),
        ("Total profit", number(s.total_pnl, 2, percent), "sum, not compounded"),
        ("Compounded", number(s.compounded_pnl, 2, percent), "all of an account in each trade"),
        ("Standard deviation", number(s.std_dev, 3, percent), "of the profit per trade"),
        ("Sharpe ratio", number(s.sharpe_ratio, 3), "average over deviation, per trade"),
        ("Sharpe ratio, yearly", number(s.sharpe_ratio_yearly, 2), "by trades per year (Lo, 2002)"),
        ("Sharpe ratio, root of 365", number(s.annualized_sharpe_ratio, 2), "one trade a day"),
        ("Sortino ratio", number(s.sortino_ratio, 3), "average over downside deviation"),
        ("Calmar ratio", number(s.calmar_ratio, 2), "yearly growth over deepest drawdown"),
        ("Certainty ratio", number(s.certainty_ratio, 2), "average win over average loss"),
        ("Profit factor", number(s.profit_factor, 2), "gross profit over gross loss"),
        ("Expectancy", number(s.expectancy, 3, percent), "expected profit per trade"),
        ("Expected yearly", number(s.expected_yearly_returns, 1, percent), "sum, at this rate"),
        ("Max drawdown", number(s.max_drawdown_percent, 2, percent), "of the compounded equity"),
        ("Longest drawdown", minutes(s.max_drawdown_duration_minutes), "from peak to recovery"),
        ("Recovery factor", number(s.recovery_factor, 2), "total return over deepest drawdown"),
        ("Longest winning streak", str(s.max_win_streak), "trades in a row"),
        ("Longest losing streak", str(s.max_loss_streak), "trades in a row"),
        ("Average duration", minutes(s.avg_duration_minutes), "from fill to close"),
        ("Exposure", number(s.exposure_percent, 1, percent), "share of time with a position"),
    ]


def _reasons(data: BacktestData) -> str:
    counts = Counter(tick.close_reason for tick in data.signals)
    sums: Counter[str] = Counter()
    for tick in data.signals:
        sums[tick.close_reason] += tick.pnl.pnl_percentage  # type: ignore[assignment]
    rows = [(reason, n, number(sums[reason] / n, 3, " %")) for reason, n in counts.most_common()]
    return markdown_table(("Reason", "Trades", "Average profit"), rows)


def trades_table(signals: Sequence[TickClosed], on_filled: Collection[int] = ()) -> str:
    """Return the trades as a Markdown table, all of them; those `on_filled` are marked."""
    columns = (
        "Opened",
        "Closed",
        "Side",
        "Open",
        "Close",
        "Take-profit",
        "Stop-loss",
        "Profit",
        "Reason",
        "Minutes",
        "Note",
    )
    return markdown_table(
        columns, [trade_row(t, on_filled=i in on_filled) for i, t in enumerate(signals)]
    )


def trade_row(tick: TickClosed, *, on_filled: bool = False) -> tuple[str | int, ...]:
    """Return one trade as the cells of `trades_table`."""
    row = tick.signal
    opened = row.pending_at or 0
    return (
        iso(opened),
        iso(tick.close_timestamp),
        row.position,
        price(tick.pnl.price_open),
        price(tick.pnl.price_close),
        price(row.price_take_profit),
        price(row.price_stop_loss),
        number(tick.pnl.pnl_percentage, 3, " %"),
        tick.close_reason
        + (" (ambiguous)" if tick.ambiguous else "")
        + (" (on a missing candle)" if on_filled else ""),
        (tick.close_timestamp - opened) // MINUTE,
        row.note,
    )

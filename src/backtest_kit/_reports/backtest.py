"""The report of one backtest: what was run, how far to trust it, what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from backtest_kit._data.market import SeriesGaps
from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.table import markdown_table, minutes, number, plain, price, span
from backtest_kit._statistics.figures import Statistics, summarize
from backtest_kit._values.results import TickClosed
from backtest_kit._values.time import MINUTE, iso

#: Fewer trades than this say little about a strategy (the rule of thumb of the central limit).
FEW_TRADES: Final = 30
_SHOWN_GAPS: Final = 5
_SHOWN_ERRORS: Final = 10


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of one kind; `when` is the first one's instant in milliseconds."""

    where: str
    message: str
    count: int
    when: int | None


class BacktestData(msgspec.Struct, frozen=True, kw_only=True):
    """All that a backtest has found; times in milliseconds UTC.

    `warming` counts the steps at which the data did not reach back far enough to ask the strategy,
    `warm_at` is the first at which they did, `None` where there was none.
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


def statistics_of(closed: Sequence[TickClosed], span: tuple[int, int]) -> Statistics:
    """Return the statistics of closed results in their order; `span` in milliseconds."""
    return summarize(
        np.array([tick.pnl.pnl_percentage for tick in closed], dtype=np.float64),
        np.array([tick.signal.pending_at or 0 for tick in closed], dtype=np.int64),
        np.array([tick.close_timestamp for tick in closed], dtype=np.int64),
        span,
        np.array([tick.cost for tick in closed], dtype=np.float64),
    )


def backtest_data(record: RunRecord) -> BacktestData:
    """Return a run's facts and their statistics."""
    closed = tuple(record.closed)
    span = (record.since, max(record.until, record.since))
    reasons = Counter(tick.close_reason for tick in closed)
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
        data_ended_at=record.data_ended_at,
        statistics=statistics_of(closed, span),
        signals=closed,
        gaps=tuple(record.gaps),
        gaps_filled=sum(series.filled for series in record.gaps),
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
    )


def error_counts(record: RunRecord) -> tuple[ErrorCount, ...]:
    """Return the errors of a run by kind."""
    return tuple(
        ErrorCount(where=kind.where, message=kind.message, count=kind.count, when=kind.when)
        for kind in record.error_kinds.values()
    )


def backtest_report(data: BacktestData) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Backtest of {plain(data.strategy_name)} on {plain(data.symbol)}",
        _what(data),
        "## How far to trust this",
        _trust(data),
        "## Statistics",
        statistics_table(data.statistics),
    ]
    if data.signals:
        parts += ["## Why signals closed", _reasons(data), "## Trades", trades_table(data.signals)]
    return "\n\n".join(parts) + "\n"


def _what(data: BacktestData) -> str:
    lines = [
        f"- Exchange {data.exchange_name}, frame {data.frame_name}: {span(data.since, data.until)}",
        f"- {data.frames:,} of {data.total_frames:,} frames, {data.calls:,} calls of the strategy",
        f"- Base interval: {data.base_interval}; everything happens when such a candle closes",
    ]
    lines += warming_lines(data.warming, data.warm_at)
    if data.data_ended_at is not None:
        lines.append(f"- **The data ended before the frame did**, at {iso(data.data_ended_at)}.")
    elif not data.complete:
        lines.append("- **The run did not reach its end**: it was stopped, interrupted or failed.")
    return "\n".join(lines)


def _trust(data: BacktestData) -> str:
    n = data.statistics.total_signals
    lines = []
    if n < FEW_TRADES:
        lines.append(f"- **Too few trades** to say anything about the strategy: {n}.")
    filled = [_gap_line(series) for series in data.gaps if series.filled]
    lines += filled or ["- Gaps filled: none."]
    lines += [
        f"- Market closed: {series.symbol} {series.interval}, {series.closed:,} candles, "
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
    return "\n".join(lines + error_lines(data.error_count, data.errors))


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


def error_lines(count: int, errors: Sequence[ErrorCount]) -> list[str]:
    """Return list items on errors, the first kinds with their text."""
    lines = [f"- Errors: {count or 'none'}."]
    shown = errors[:_SHOWN_ERRORS]
    for error in shown:
        when = f", first at {iso(error.when)}" if error.when is not None else ""
        lines.append(f"  - {error.count} x {plain(f'{error.where}{when}: {error.message}')}")
    more = count - sum(error.count for error in shown)
    if more:
        lines.append(f"  - {more} more of other kinds")
    return lines


def _trigger(data: BacktestData) -> str:
    if data.exit_trigger == "vwap":
        candle = "minute" if data.base_interval == "1m" else f"{data.base_interval} candle"
        return f"levels are compared with the average price of each {candle}"
    return f"levels are compared with each candle's low and high, {data.ambiguous_candle}"


def _gap_line(series: SeriesGaps) -> str:
    largest = sorted(series.gaps, key=lambda gap: -gap.count)[:_SHOWN_GAPS]
    shown = ", ".join(f"{iso(gap.start)} ({gap.count})" for gap in largest)
    more = f" and {len(series.gaps) - len(largest)} more" if len(series.gaps) > len(largest) else ""
    candles = "candle" if series.filled == 1 else "candles"
    gaps = "gap" if len(series.gaps) == 1 else "gaps"
    return (
        f"- Gaps filled: {series.symbol} {series.interval}, {series.filled} missing {candles} in "
        f"{len(series.gaps)} {gaps}: {shown}{more}."
    )


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
        ("Standard deviation", number(s.std_dev, 3, percent), "of the profit per trade"),
        ("Sharpe ratio", number(s.sharpe_ratio, 3), "average over deviation, per trade"),
        ("Sharpe ratio, annualized", number(s.annualized_sharpe_ratio, 2), "times the root of 365"),
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


def trades_table(signals: Sequence[TickClosed]) -> str:
    """Return the trades as a Markdown table, all of them."""
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
    return markdown_table(columns, [trade_row(tick) for tick in signals])


def trade_row(tick: TickClosed) -> tuple[str | int, ...]:
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
        tick.close_reason + (" (ambiguous)" if tick.ambiguous else ""),
        (tick.close_timestamp - opened) // MINUTE,
        row.note,
    )

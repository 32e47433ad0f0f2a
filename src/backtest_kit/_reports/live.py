"""The report of a live run: what lives, how healthy it was, what came out."""

from __future__ import annotations

from collections import Counter
from typing import Final

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.backtest import (
    FEW_TRADES,
    leftover_lines,
    statistics_of,
    statistics_table,
    trades_table,
    warming_lines,
)
from backtest_kit._reports.errors import ErrorCount, error_counts, error_lines
from backtest_kit._reports.table import markdown_table, number, plain, price, span
from backtest_kit._reports.trades import equity_of, trades_of
from backtest_kit._statistics.figures import Statistics
from backtest_kit._values.results import TickCancelled, TickClosed
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.table import Table, Tabular
from backtest_kit._values.time import iso

#: Trades in the table; the statistics are of all of them.
SHOWN_TRADES: Final = 250


class LiveData(Tabular, frozen=True, kw_only=True):
    """All that a live run has done since its state began; times in milliseconds UTC.

    `steps` and `calls` of the strategy, filled gaps and errors are those of this process, and
    `None` or nothing where the data were read from the disk; `missed` steps, signals and statistics
    are of the whole history.
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    since: int
    until: int
    steps: int | None
    missed: int
    calls: int | None
    warming: int = 0
    warm_at: int | None = None
    signal: SignalRow | None
    statistics: Statistics
    signals: tuple[TickClosed, ...]
    cancelled: tuple[TickCancelled, ...]
    milestones: int
    gaps_filled: int | None
    ambiguous_closes: int
    error_count: int
    errors: tuple[ErrorCount, ...]
    left_behind: tuple[str, ...] = ()
    percent_fee: float
    percent_slippage: float
    base_interval: str = "1m"
    closed_candles: int | None = None
    suspicious_candles: int = 0

    @property
    def trades(self) -> Table:
        """The closed signals as columns; `table` is the same."""
        return trades_of(self.signals)

    @property
    def equity(self) -> Table:
        """What profits have come to after each close; see `equity_of`."""
        return equity_of(self.signals, self.since)

    def table(self) -> Table:
        """Return the closed signals as columns."""
        return self.trades


def live_data(record: RunRecord) -> LiveData:
    """Return a live run's facts and their statistics."""
    closed = tuple(record.closed)
    covered = (record.since, max(record.until, record.since))
    return LiveData(
        symbol=record.symbol,
        strategy_name=record.strategy_name,
        exchange_name=record.exchange_name,
        since=covered[0],
        until=covered[1],
        steps=record.frames,
        missed=record.missed,
        calls=record.calls,
        warming=record.warming,
        warm_at=record.warm_at,
        signal=record.signal,
        statistics=statistics_of(closed, covered),
        signals=closed,
        cancelled=tuple(w.cancelled for w in record.waited if w.cancelled is not None),
        milestones=len(record.partials),
        gaps_filled=record.candles.missing,
        ambiguous_closes=sum(tick.ambiguous for tick in closed),
        error_count=record.error_count,
        errors=error_counts(record),
        left_behind=record.left_behind,
        percent_fee=record.config.percent_fee,
        percent_slippage=record.config.percent_slippage,
        base_interval=record.config.base_interval,
        closed_candles=sum(series.closed for series in record.gaps),
        suspicious_candles=len(record.candles.suspicious),
    )


def live_report(data: LiveData) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# Live run of {plain(data.strategy_name)} on {plain(data.symbol)}",
        what_text(data),
        "## How far to trust this",
        trust_text(data),
        "## Statistics",
        statistics_table(data.statistics),
    ]
    if data.cancelled:
        counts = Counter(tick.reason for tick in data.cancelled)
        table = markdown_table(("Reason", "Signals"), counts.most_common())
        parts += ["## Why waiting signals were cancelled", table]
    if data.signals:
        newest = data.signals[-SHOWN_TRADES:]
        left = len(data.signals) - len(newest)
        title = f"## Trades\n\nThe newest {len(newest)}; {left} earlier ones count in the figures."
        parts += [title if left else "## Trades", trades_table(newest)]
    return "\n\n".join(parts) + "\n"


def what_text(data: LiveData) -> str:
    """Return what was run, as a Markdown list."""
    lines = [
        f"- Exchange {plain(data.exchange_name)}: {span(data.since, data.until)}",
    ]
    if data.base_interval != "auto":  # what is stored does not say it; the exchange would
        lines.append(
            f"- Base interval: {data.base_interval}; a step is taken when such a candle closes."
        )
    row = data.signal
    if row is None:
        lines.append("- Nothing lives now.")
    elif row.pending_at is None:
        lines.append(
            f"- A {row.position} signal waits for {price(row.price_open)} since "
            f"{iso(row.scheduled_at)}."
        )
    else:
        lasts = row.minute_estimated_time
        lines.append(
            f"- A {row.position} position is open since {iso(row.pending_at)} at "
            f"{price(row.price_open)}: take-profit {price(row.price_take_profit)}, stop-loss "
            f"{price(row.price_stop_loss)}, lifetime "
            f"{'without end' if lasts is None else f'{lasts} minutes'}."
        )
    return "\n".join(lines)


def trust_text(data: LiveData) -> str:
    """Return how far to trust the figures, as a Markdown list."""
    n = data.statistics.total_signals
    lines = []
    if n < FEW_TRADES:
        lines.append(f"- **Too few trades** to say anything about the strategy: {n}.")
    lines.append(
        f"- Minutes missed: {data.missed} (an open signal was followed through them, the "
        "strategy was not called)."
    )
    if data.gaps_filled is not None:
        lines.append(f"- Missing candles filled: {data.gaps_filled}.")
    if data.suspicious_candles:
        lines.append(f"- **Suspicious candles**, told one by one: {data.suspicious_candles}.")
    if data.closed_candles:
        lines.append(f"- Candles in closed times, which are no gaps: {data.closed_candles:,}.")
    lines.append(f"- Ambiguous closes: {data.ambiguous_closes}.")
    lines.append(
        f"- Assumed costs: fee {number(data.percent_fee, 3, ' %')} per side, slippage "
        f"{number(data.percent_slippage, 3, ' %')} per side; no order was placed by this library."
    )
    if data.steps is not None:
        lines += warming_lines(data.warming, data.warm_at)
        lines += leftover_lines(data.left_behind)
        lines += error_lines(data.error_count, data.errors)
    return "\n".join(lines)

"""What happens at a step, as results: the same for every mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backtest_kit._rules.bars import Bars
from backtest_kit._rules.fast_forward import milestones_until
from backtest_kit._rules.profit import profit, revenue_percent
from backtest_kit._rules.steps import Close
from backtest_kit._values.config import Config
from backtest_kit._values.events import Mode, PartialEvent
from backtest_kit._values.results import (
    CancelReason,
    ProfitLoss,
    TickActive,
    TickCancelled,
    TickClosed,
    TickOpened,
    TickScheduled,
    TickWaiting,
)
from backtest_kit._values.signal import SignalRow


def scheduled(row: SignalRow, when: int, price: float) -> TickScheduled:
    """Return that the signal begins to wait; `price` is the average price at `when` (ms)."""
    return TickScheduled(signal=row, **_place(row, when, price))


def waiting(row: SignalRow, when: int, price: float) -> TickWaiting:
    """Return that the signal still waits."""
    return TickWaiting(signal=row, **_place(row, when, price))


def opened(row: SignalRow, when: int, price: float) -> TickOpened:
    """Return that the signal is filled."""
    return TickOpened(signal=row, **_place(row, when, price))


def active(row: SignalRow, when: int, price: float, revenue: float) -> TickActive:
    """Return that the filled signal stays open, with `revenue` percent of open profit."""
    return TickActive(signal=row, revenue_percent=revenue, **_place(row, when, price))


def closed(row: SignalRow, when: int, price: float, close: Close, config: Config) -> TickClosed:
    """Return that the filled signal ends."""
    pnl = profit(
        row.position, row.price_open, close.price, config.percent_fee, config.percent_slippage
    )
    return TickClosed(
        signal=row,
        close_reason=close.reason,
        close_timestamp=when,
        pnl=ProfitLoss(pnl, row.price_open, close.price),
        ambiguous=close.ambiguous,
        **_place(row, when, price),
    )


def cancelled(row: SignalRow, when: int, price: float, reason: CancelReason) -> TickCancelled:
    """Return that the waiting signal ends without having been filled."""
    return TickCancelled(
        signal=row, reason=reason, close_timestamp=when, **_place(row, when, price)
    )


def milestone(
    row: SignalRow, mode: Mode, when: int, price: float, level: int, revenue: float
) -> PartialEvent:
    """Return that the open profit has reached `level` percent."""
    return PartialEvent(
        symbol=row.symbol,
        strategy_name=row.strategy_name,
        exchange_name=row.exchange_name,
        mode=mode,
        signal=row,
        level=level,
        revenue_percent=revenue,
        current_price=price,
        timestamp=when,
    )


def milestones(row: SignalRow, mode: Mode, bars: Bars, before: int) -> Iterator[PartialEvent]:
    """Yield the milestones of a filled signal at its steps earlier than `before` (ms), in order."""
    assert row.pending_at is not None
    for when, level in milestones_until(row, bars, row.pending_at, before, 0)[0]:
        price = bars.bar(when).price
        revenue = revenue_percent(row.position, row.price_open, price)
        yield milestone(row, mode, when, price, level, revenue)


def _place(row: SignalRow, when: int, price: float) -> dict[str, Any]:
    return {
        "symbol": row.symbol,
        "strategy_name": row.strategy_name,
        "exchange_name": row.exchange_name,
        "timestamp": when,
        "current_price": price,
    }

"""What happens at a step, as results: the same for every mode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from backtest_kit._rules.actions import By, Done
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.fast_forward import milestones_until
from backtest_kit._rules.holding import paid_and_got
from backtest_kit._rules.managed import Holding
from backtest_kit._rules.profit import ZERO_PROFIT, profit, revenue_percent
from backtest_kit._rules.steps import Close
from backtest_kit._values.config import Config
from backtest_kit._values.events import Mode, PartialEvent
from backtest_kit._values.results import (
    CancelReason,
    CloseReason,
    ProfitLoss,
    TickActive,
    TickAdded,
    TickCancelled,
    TickClosed,
    TickMoved,
    TickOpened,
    TickPartial,
    TickScheduled,
    TickWaiting,
)
from backtest_kit._values.signal import SignalRow

#: The legs of a position with one entry and one exit.
_PLAIN: Final = 2


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


def milestones(
    row: SignalRow, mode: Mode, bars: Bars, after: int, before: int, fired: int, entry: float
) -> tuple[list[PartialEvent], int]:
    """Return the milestones of a filled signal at its steps in (`after`, `before`), in order.

    `entry` is the effective entry, `fired` and the second value are as in `crossed`.
    """
    found, fired = milestones_until(row.position, entry, bars, after, before, fired)
    events = []
    for when, level in found:
        price = bars.bar(when).price
        revenue = revenue_percent(row.position, entry, price)
        events.append(milestone(row, mode, when, price, level, revenue))
    return events, fired


def all_milestones(
    row: SignalRow, mode: Mode, bars: Bars, before: int, added: Sequence[tuple[int, float]]
) -> Iterator[PartialEvent]:
    """Yield the milestones of a filled signal at its steps earlier than `before` (ms), in order.

    `added` are the instants of further entries, and the effective entry after each.
    """
    assert row.pending_at is not None
    entry, after, fired = row.price_open, row.pending_at, 0
    for until, average in [*added, (before, entry)]:
        events, fired = milestones(row, mode, bars, after, until, fired, entry)
        yield from events
        # at the step of a further entry, they are measured from the new effective entry
        after, entry = max(until - bars.step, row.pending_at), average


def happened(
    before: Holding | None,
    after: Holding,
    when: int,
    price: float,
    *,
    closes: bool,
    note: str = "",
) -> Iterator[TickAdded | TickPartial]:
    """Yield what a step did to a managed position, in order, but for its close (`closes`).

    `before` is `None` at the step that opened it. `note` is of who closed a part.
    """
    known = 1 if before is None else len(before.times)
    if len(after.times) == known:
        return
    rows, place = after.rows, _place(after.row, when, price)
    entered, added, parts = 0.0, 0, 0
    for i, leg in enumerate(rows[: len(rows) - closes]):
        quantity, reason, unsure = leg.quantity, leg.reason, leg.ambiguous
        if quantity > 0:
            entered, added = entered + quantity, added + 1
        else:
            parts += 1
        if i < known:
            continue
        if quantity > 0:
            yield TickAdded(
                signal=after.row,
                number=added - 1,
                price=leg.price,
                size=leg.cost,
                effective_entry=leg.effective_entry,
                reason=reason,  # type: ignore[arg-type]
                ambiguous=unsure,
                **place,
            )
        else:
            yield TickPartial(
                signal=after.row,
                number=parts,
                price=leg.price,
                share=-quantity / entered * 100,
                reason=reason,  # type: ignore[arg-type]
                note=note,
                ambiguous=unsure,
                **place,
            )


def moved(
    before: Holding | None, after: Holding, when: int, price: float, by: By | None = None
) -> TickMoved | None:
    """Return that a level or the lifetime of a position has moved, if one has.

    `by`: who moved it; without one, trailing or breakeven did at a step. `before` is `None` at the
    step that opened it.
    """
    if after.moves == (0 if before is None else before.moves):
        return None
    row = after.row
    what: Literal["stop", "target", "lifetime"] = "stop"
    was, now = row.stop if before is None else before.stop, after.stop
    if before is not None and after.target != before.target:
        what, was, now = "target", before.target, after.target
    elif before is not None and after.minutes is not None and after.minutes != before.minutes:
        assert before.minutes is not None
        what, was, now = "lifetime", float(before.minutes), float(after.minutes)
    return TickMoved(
        signal=row,
        number=after.moves,
        what=what,
        before=was if math.isfinite(was) else None,
        after=now,
        reason=by or ("breakeven" if after.stopped_by == "breakeven" else "trailing"),
        **_place(row, when, price),
    )


def acted(done: Done, when: int, price: float) -> Iterator[TickAdded | TickPartial | TickMoved]:
    """Yield what an action has done at a step, but for a close of all."""
    after, close = done.managed
    closes = close is not None
    yield from happened(done.before, after, when, price, closes=closes, note=done.note)
    move = moved(done.before, after, when, price, done.by)
    if move is not None:
        yield move


def closed_managed(
    holding: Holding,
    when: int,
    price: float,
    reason: CloseReason,
    config: Config,
    note: str = "",
) -> TickClosed:
    """Return that a managed position ends, with all that it held closed; `note` says why."""
    row, legs = holding.row, holding.legs
    paid, got = paid_and_got(holding.state)
    pnl = profit(row.position, paid, got, config.percent_fee, config.percent_slippage)
    if row.breakeven_percent is not None and abs(pnl) <= ZERO_PROFIT:
        pnl = 0.0
    several: dict[str, Any] = {"fills": legs} if len(legs) > _PLAIN else {}
    if holding.cost != 1.0:
        several["cost"] = holding.cost
    if note:
        several["note"] = note
    return TickClosed(
        signal=row,
        close_reason=reason,
        close_timestamp=when,
        pnl=ProfitLoss(pnl, paid, got),
        ambiguous=any(leg.ambiguous for leg in legs),
        **several,
        **_place(row, when, price),
    )


def _place(row: SignalRow, when: int, price: float) -> dict[str, Any]:
    return {
        "symbol": row.symbol,
        "strategy_name": row.strategy_name,
        "exchange_name": row.exchange_name,
        "timestamp": when,
        "current_price": price,
    }

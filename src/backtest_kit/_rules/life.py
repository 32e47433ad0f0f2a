"""The life of a signal, one step at a time: pure functions of the row and the market at a step.

The rules of every mode. `side` is +1 for long and -1 for short; multiplying both sides of a
comparison by it mirrors the long rule exactly, since negating a float never rounds.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from backtest_kit._values.config import Config
from backtest_kit._values.results import CloseReason
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import MINUTE

Verdict = Literal["wait", "activate", "activate_and_stop", "timeout", "price_reject"]

WAIT: Final = "wait"


class Bar(msgspec.Struct, frozen=True):
    """The market at a step: instant (ms), average price, and the 1m candle that has just closed."""

    when: int
    price: float
    open: float
    high: float
    low: float


class Close(msgspec.Struct, frozen=True):
    """How a pending signal ends; `price` before slippage and fee."""

    reason: CloseReason
    price: float
    ambiguous: bool = False


def side(row: SignalRow) -> int:
    """Return +1 for a long signal and -1 for a short one."""
    return 1 if row.position == "long" else -1


def scheduled_step(row: SignalRow, bar: Bar, config: Config) -> Verdict:
    """Say what becomes of a waiting signal at a step after `scheduled_at`.

    `activate_and_stop`: filled and stopped out by the same candle (trigger "wick" only).
    """
    s = side(row)
    stop, entry = s * row.price_stop_loss, s * row.price_open
    expired = bar.when - row.scheduled_at >= config.schedule_await_minutes * MINUTE
    if config.exit_trigger == "vwap":
        if expired:
            return "timeout"
        if s * bar.price <= stop:
            return "price_reject"
        return "activate" if s * bar.price <= entry else "wait"
    worst = s * (bar.low if s > 0 else bar.high)
    if s * bar.open <= stop:
        return "price_reject"
    if worst <= entry:
        return "activate_and_stop" if worst <= stop else "activate"
    return "timeout" if expired else "wait"


def activated(row: SignalRow, when: int) -> SignalRow:
    """Return the waiting signal as filled at `when`."""
    return msgspec.structs.replace(row, pending_at=when)


def pending_step(row: SignalRow, bar: Bar, config: Config) -> Close | None:
    """Say how a filled signal closes at a step after `pending_at`; `None`: it lives on."""
    assert row.pending_at is not None
    s = side(row)
    stop, goal = s * row.price_stop_loss, s * row.price_take_profit
    expired = bar.when - row.pending_at >= row.minute_estimated_time * MINUTE
    if config.exit_trigger == "vwap":
        if expired:
            return Close("time_expired", bar.price)
        if s * bar.price >= goal:
            return Close("take_profit", row.price_take_profit)
        if s * bar.price <= stop:
            return Close("stop_loss", bar.price)
        return None
    if s * bar.open <= stop:
        return Close("stop_loss", bar.open)
    if s * bar.open >= goal:
        return Close("take_profit", row.price_take_profit)
    best, worst = (bar.high, bar.low) if s > 0 else (-bar.low, -bar.high)
    reaches_goal, reaches_stop = best >= goal, worst <= stop
    if reaches_goal and reaches_stop:
        if config.ambiguous_candle == "stop_loss_first":
            return Close("stop_loss", row.price_stop_loss, ambiguous=True)
        return Close("take_profit", row.price_take_profit, ambiguous=True)
    if reaches_goal:
        return Close("take_profit", row.price_take_profit)
    if reaches_stop:
        return Close("stop_loss", row.price_stop_loss)
    return Close("time_expired", bar.price) if expired else None

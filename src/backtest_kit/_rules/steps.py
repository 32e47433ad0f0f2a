"""A step of a signal's life with the records of the engine: `life` asked about a row and a bar."""

from __future__ import annotations

from typing import Final

import msgspec

from backtest_kit._rules import life
from backtest_kit._rules.bars import Bar
from backtest_kit._values.config import Config
from backtest_kit._values.results import REASONS, CancelReason, CloseReason
from backtest_kit._values.signal import SignalRow, expires_at
from backtest_kit._values.time import MINUTE


class Close(msgspec.Struct, frozen=True):
    """How a pending signal ends; `price` before slippage and fee."""

    reason: CloseReason
    price: float
    ambiguous: bool = False


class Cancel(msgspec.Struct, frozen=True):
    """How a scheduled signal ends without having been filled."""

    reason: CancelReason


class Activation(msgspec.Struct, frozen=True):
    """A scheduled signal is filled: the row as it is then; `close`: the same candle ends it."""

    row: SignalRow
    close: Close | None = None


_CANCELS: Final = {
    life.TIMEOUT: Cancel("timeout"),
    life.PRICE_REJECT: Cancel("price_reject"),
}


def timeout_at(row: SignalRow, config: Config) -> int:
    """Return from when on a scheduled signal is cancelled, in milliseconds."""
    return row.scheduled_at + config.schedule_await_minutes * MINUTE


def scheduled_step(row: SignalRow, bar: Bar, config: Config) -> Activation | Cancel | None:
    """Return what becomes of a scheduled signal at a later step; `None`: it waits."""
    outcome, fill = life.scheduled_step(
        row.side,
        row.price_open,
        row.target,
        row.stop,
        bar.when >= timeout_at(row, config),
        bar.price,
        bar.fill,
        bar.open,
        bar.high,
        bar.low,
        config.exit_trigger == "wick",
    )
    if outcome == life.UNCHANGED:
        return None
    if outcome in _CANCELS:
        return _CANCELS[outcome]
    filled = msgspec.structs.replace(row, pending_at=bar.when, price_open=fill)
    if outcome == life.ACTIVATED:
        return Activation(filled)
    return Activation(filled, Close("stop_loss", row.stop))


def pending_step(row: SignalRow, bar: Bar, config: Config) -> Close | None:
    """Return how a filled signal closes at a later step; `None`: it stays open."""
    outcome, price, ambiguous = life.pending_step(
        row.side,
        row.target,
        row.stop,
        bar.when >= expires_at(row),
        bar.price,
        bar.fill,
        bar.open,
        bar.high,
        bar.low,
        config.exit_trigger == "wick",
        config.ambiguous_candle == "stop_loss_first",
    )
    if outcome == life.UNCHANGED:
        return None
    reason: CloseReason = REASONS[outcome]  # type: ignore[assignment]
    return Close(reason, price, ambiguous)

"""Schedule: what became of the signals that waited for their entry price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.table import markdown_table, minutes, number, plain, price
from backtest_kit._values.results import CancelReason
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.table import Table, Tabular, table_of
from backtest_kit._values.time import MINUTE, iso


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """How long signals waited, in minutes; `None` where none did."""

    count: int
    mean: float | None
    median: float | None
    maximum: float | None


class ScheduledSignal(msgspec.Struct, frozen=True, kw_only=True):
    """One signal that waited; `reason` is `None` where it was activated."""

    signal: SignalRow
    frame_name: str | None
    ended_at: int
    reason: CancelReason | None


class ScheduleData(Tabular, frozen=True, kw_only=True):
    """Scheduled signals; rates in percent of those scheduled."""

    symbol: str
    strategy_name: str
    scheduled: int
    activated: int
    cancelled: int
    activation_rate: float | None
    cancellation_rate: float | None
    reasons: dict[str, int]
    wait_until_activation: Waits
    wait_until_cancellation: Waits
    signals: tuple[ScheduledSignal, ...]

    def table(self) -> Table:
        """Return the scheduled signals as columns."""
        return table_of(self.signals, ScheduledSignal, "scheduled signals")


def schedule_data(records: Sequence[RunRecord]) -> ScheduleData:
    """Return what became of each scheduled signal."""
    signals = tuple(
        ScheduledSignal(
            signal=waited.signal,
            frame_name=record.frame_name,
            ended_at=waited.ended_at,
            reason=None if waited.cancelled is None else waited.cancelled.reason,
        )
        for record in records
        for waited in record.waited
    )
    filled = [s for s in signals if s.reason is None]
    dropped = [s for s in signals if s.reason is not None]
    n = len(signals)
    return ScheduleData(
        symbol=", ".join(dict.fromkeys(record.symbol for record in records)),
        strategy_name=records[0].strategy_name,
        scheduled=n,
        activated=len(filled),
        cancelled=len(dropped),
        activation_rate=len(filled) / n * 100 if n else None,
        cancellation_rate=len(dropped) / n * 100 if n else None,
        reasons=dict(Counter(str(s.reason) for s in dropped).most_common()),
        wait_until_activation=_waits(filled),
        wait_until_cancellation=_waits(dropped),
        signals=signals,
    )


def _waits(signals: Sequence[ScheduledSignal]) -> Waits:
    times = np.array([(s.ended_at - s.signal.scheduled_at) / MINUTE for s in signals])
    if not len(times):
        return Waits(count=0, mean=None, median=None, maximum=None)
    return Waits(
        count=len(times),
        mean=float(times.mean()),
        median=float(np.median(times)),
        maximum=float(times.max()),
    )


def schedule_report(data: ScheduleData) -> str:
    """Return the report as Markdown."""
    counts = [
        ("Scheduled", data.scheduled, "", "", "", ""),
        _counts("Activated", data.activated, data.activation_rate, data.wait_until_activation),
        _counts("Cancelled", data.cancelled, data.cancellation_rate, data.wait_until_cancellation),
    ]
    parts = [
        f"# Scheduled signals of {plain(data.strategy_name)} on {plain(data.symbol)}",
        markdown_table(("", "Signals", "Share", "Mean wait", "Median wait", "Longest"), counts),
    ]
    if data.reasons:
        parts += [
            "## Why signals were cancelled",
            markdown_table(("Reason", "Signals"), [*data.reasons.items()]),
        ]
    if data.signals:
        columns = (
            "Scheduled",
            "Ended",
            "Symbol",
            "Frame",
            "Side",
            "Entry",
            "Outcome",
            "Minutes",
            "Note",
        )
        rows = [
            (
                iso(s.signal.scheduled_at),
                iso(s.ended_at),
                s.signal.symbol,
                s.frame_name or "",
                s.signal.position,
                price(s.signal.price_open),
                "activated" if s.reason is None else f"cancelled: {s.reason}",
                (s.ended_at - s.signal.scheduled_at) // MINUTE,
                s.signal.note,
            )
            for s in data.signals
        ]
        parts += ["## Signals", markdown_table(columns, rows)]
    return "\n\n".join(parts) + "\n"


def _counts(name: str, count: int, rate: float | None, waits: Waits) -> tuple[str | int, ...]:
    return (
        name,
        count,
        number(rate, 1, " %"),
        minutes(waits.mean),
        minutes(waits.median),
        minutes(waits.maximum),
    )

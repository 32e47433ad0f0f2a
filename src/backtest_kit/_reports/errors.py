"""Errors of a run: their kinds, how many of each, and where they arose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.table import plain
from backtest_kit._values.places import Place
from backtest_kit._values.time import iso

_SHOWN_ERRORS: Final = 10


class ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of one kind; `when` is the first one's instant in milliseconds, `place` its line."""

    where: str
    message: str
    count: int
    when: int | None
    place: Place | None = None


def error_counts(record: RunRecord) -> tuple[ErrorCount, ...]:
    """Return the errors of a run by kind."""
    return tuple(
        ErrorCount(
            where=kind.where,
            message=kind.message,
            count=kind.count,
            when=kind.when,
            place=kind.place,
        )
        for kind in record.error_kinds.values()
    )


def error_text(error: ErrorCount) -> str:
    """Return the message of an error, and the line of user code at which it arose."""
    return error.message if error.place is None else f"{error.message} ({error.place})"


def error_lines(count: int, errors: Sequence[ErrorCount]) -> list[str]:
    """Return list items on errors, the first kinds with their text."""
    lines = [f"- Errors: {count or 'none'}."]
    shown = errors[:_SHOWN_ERRORS]
    for error in shown:
        when = f", first at {iso(error.when)}" if error.when is not None else ""
        lines.append(f"  - {error.count} x {plain(f'{error.where}{when}: {error_text(error)}')}")
    more = count - sum(error.count for error in shown)
    if more:
        lines.append(f"  - {more} more of other kinds")
    return lines

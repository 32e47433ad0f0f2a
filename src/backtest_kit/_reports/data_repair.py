"""Mend a file of candles knowingly: what is left out or moved is listed beside the new one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from backtest_kit._reports.data_export import write_parts
from backtest_kit._reports.table import write_bytes
from backtest_kit._values.candle_rules import Mask, check_series, rules
from backtest_kit._values.candles import Candles, Ints
from backtest_kit._values.errors import BadCandlesError, DataError
from backtest_kit._values.time import INTERVALS, iso
from backtest_kit.exchanges._layout import Layout
from backtest_kit.exchanges._parts import read_file

Kind = Literal["dropped", "duplicate", "moved"]
_LIST_ENDS: Final = ".changes.csv"
_YEAR_10000: Final = 253_402_300_800_000


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row that is not in the new file as it was; `row` counts the file's from 0."""

    kind: Kind
    row: int
    timestamp: int | None
    reason: str
    values: tuple[float, ...] = ()
    text: str = ""


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair came to: rows before and after, and each change."""

    source: str
    target: str
    changes_path: str
    interval: str
    rows: int
    written: int
    dropped: int
    duplicates: int
    moved: int
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def repair(
    source: Path,
    target: Path,
    given: Layout = Layout(),  # noqa: B008 - it is frozen
    *,
    drop_bad: bool = False,
    dedupe: bool = False,
    sort: bool = False,
    interval: str | None = None,
    force: bool = False,
) -> Repair:
    """Write the candles of a file that keep the rules into a new one, and a list of what changed.

    `drop_bad` leaves out rows that can't be read or break a rule, `sort` puts rows in the order of
    time, `dedupe` keeps the last of several rows with one time. The list is `target` with
    `.changes.csv` after its name. Nothing is written if the candles are not good then.

    Raises:
        DataError: the source can't be read, or the target is the source, or exists without `force`.
        BadCandlesError: something is wrong that was not to be mended; the message names the option.
        OSError: the target can't be written.
    """
    listed = target.with_name(target.name + _LIST_ENDS)
    for path in (target, listed):
        if path.exists() and source.exists() and path.samefile(source):
            raise DataError(f"{path} is the file to be repaired; it is never overwritten")
        if path.exists() and not force:
            raise DataError(f"{path} exists; use --force to replace it")
    reading = read_file(source, given, lenient=drop_bad)
    candles = reading.candles
    step = INTERVALS[interval] if interval else _usual_step(candles.timestamp, str(source))
    changes = [
        Change(kind="dropped", row=u.row, timestamp=None, reason=u.reason, text=u.text)
        for u in reading.unread
    ]
    rows = np.arange(len(candles)) if reading.rows is None else reading.rows
    if drop_bad:
        candles, rows = _drop(candles, rows, _broken(candles, step), changes)
    candles, rows = _in_order(candles, rows, changes, sort=sort, dedupe=dedupe)
    while drop_bad:  # the next one is judged by those that are left
        far = rules(candles, step)[-1]
        if not far[0].any():
            break
        first = np.zeros(len(rows), dtype=np.bool_)
        first[int(far[0].argmax())] = True
        off = "is 1000 times off the closes before it"
        candles, rows = _drop(candles, rows, [(first, off)], changes)
    try:
        check_series(candles, step)
    except BadCandlesError as error:
        raise BadCandlesError(f"{source}: {error}; --drop-bad would leave it out") from None
    if len(candles) < 2:
        raise BadCandlesError(f"{source}: {len(candles)} candles are left, which make no file")
    changes.sort(key=lambda change: (change.row, change.kind))
    write_bytes(_as_csv(changes), listed.parent, listed.name.removesuffix(".csv"), ".csv")
    write_parts((candles,), target)
    counts = {kind: sum(change.kind == kind for change in changes) for kind in _KINDS}
    return Repair(
        source=str(source),
        target=str(target),
        changes_path=str(listed),
        interval=next(name for name, ms in INTERVALS.items() if ms == step),
        rows=len(reading.candles) + len(reading.unread),
        written=len(candles),
        dropped=counts["dropped"],
        duplicates=counts["duplicate"],
        moved=counts["moved"],
        changes=tuple(changes),
        notes=reading.notes,
    )


_KINDS: Final[tuple[Kind, ...]] = ("dropped", "duplicate", "moved")


def _usual_step(t: Ints, where: str) -> int:
    """Return the interval that most neighbours are apart: bad rows are few."""
    distances, counts = np.unique(np.diff(np.unique(t)), return_counts=True)
    known = np.isin(distances, [*INTERVALS.values()])
    if not known.any():
        raise BadCandlesError(f"{where}: its candles follow no interval that is known")
    return int(distances[known][counts[known].argmax()])


def _broken(candles: Candles, step: int) -> Iterator[tuple[Mask, str]]:
    """Yield the rules that a candle breaks by itself, whatever its neighbours are."""
    for place, (mask, what) in enumerate(rules(candles, step)[:-1]):
        if place != 1:  # the order of times
            yield mask, what


def _drop(
    candles: Candles,
    rows: Ints,
    broken: Iterator[tuple[Mask, str]] | list[tuple[Mask, str]],
    changes: list[Change],
) -> tuple[Candles, Ints]:
    bad = np.zeros(len(rows), dtype=np.bool_)
    for mask, what in broken:
        found = np.flatnonzero(mask & ~bad).tolist()
        changes += [_change("dropped", candles, rows, i, what) for i in found]
        bad |= mask
    return _take(candles, np.flatnonzero(~bad)), rows[~bad]


def _in_order(
    candles: Candles, rows: Ints, changes: list[Change], *, sort: bool, dedupe: bool
) -> tuple[Candles, Ints]:
    t = candles.timestamp
    if not len(t):
        return candles, rows
    moved = np.flatnonzero(t < np.maximum.accumulate(t))
    if sort and len(moved):
        late = "came after a later one"
        changes += [_change("moved", candles, rows, i, late) for i in moved.tolist()]
        order = np.argsort(t, kind="stable")
        candles, rows = _take(candles, order), rows[order]
    elif len(moved):
        i = int(moved[0])
        raise BadCandlesError(
            f"candle {int(rows[i])} ({iso(int(t[i]))}) comes after a later one; --sort would "
            f"put {len(moved)} rows in order"
        )
    t = candles.timestamp
    again = np.flatnonzero(t[1:] == t[:-1])
    if not dedupe and len(again):
        i = int(again[0])
        raise BadCandlesError(
            f"{iso(int(t[i]))} is there more than once (candle {int(rows[i + 1])}); --dedupe would "
            f"keep the last of each ({len(again)} rows left out)"
        )
    kept = np.ones(len(t), dtype=np.bool_)
    kept[again] = False
    for i in again.tolist():
        same = candles[i] == candles[i + 1]
        reason = "the same again later" if same else "another with this time comes later"
        changes.append(_change("duplicate", candles, rows, i, reason))
    return _take(candles, np.flatnonzero(kept)), rows[kept]


def _take(candles: Candles, places: Ints) -> Candles:
    return Candles(*(column[places] for column in candles.columns()))


def _change(kind: Kind, candles: Candles, rows: Ints, i: int, reason: str) -> Change:
    x = candles[i]
    return Change(
        kind=kind,
        row=int(rows[i]),
        timestamp=x.timestamp,
        reason=reason,
        values=(x.open, x.high, x.low, x.close, x.volume),
    )


def time_text(change: Change) -> str:
    """Return the time of a change, as it can be read."""
    when = change.timestamp
    if when is None:
        return ""
    return iso(when) if 0 <= when < _YEAR_10000 else str(when)


def _as_csv(changes: list[Change]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ("change", "row", "time", "reason", "open", "high", "low", "close", "volume", "text")
    )
    for change in changes:
        values = change.values or ("",) * 5
        when = time_text(change)
        writer.writerow((change.kind, change.row, when, change.reason, *values, change.text))
    return stream.getvalue().encode()

"""How a CSV file is written: its separator, its decimal sign, where its rows begin."""

from __future__ import annotations

import csv
import re
from typing import Final

import msgspec

from backtest_kit._values.errors import BadCandlesError
from backtest_kit.exchanges._layout import Layout, Places, find_places, one_symbol
from backtest_kit.exchanges._times import COMPACT

#: Bytes at the beginning of a file that show how it is written.
HEAD: Final = 65_536
_SEPARATORS: Final = (",", ";", "\t", "|")
_NUMBER: Final = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_CLOCK: Final = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?")
#: Lines before the header that a banner may have.
_BANNER: Final = 30


class Dialect(msgspec.Struct, frozen=True):
    """How a file is written; `skip` lines come before its rows, which have `width` columns."""

    separator: str
    decimal: str
    skip: int
    banner: int
    width: int
    places: Places
    time_is: str


def detect(text: str, given: Layout, where: str) -> Dialect:
    """Return how a file is written that begins with `text`.

    Raises:
        BadCandlesError: it is no table of candles; the message says what was found.
    """
    lines = text.splitlines()[:200]
    best = max(_SEPARATORS, key=lambda separator: _score(lines, separator, given, where))
    rows = [_cells(line, best) for line in lines]
    header = _header(rows, given, where)
    start = header.stop if header else next((i for i, r in enumerate(rows) if _fits(r)), None)
    if start is None:
        first = rows[0] if rows else []
        raise BadCandlesError(
            f"{where}: the first line has {len(first) or 1} columns; expected 6, or 5 without a "
            f"volume: {(lines or [''])[0][:200]!r}"
        )
    sample = [row for row in rows[start:] if any(row)]
    if header is None:
        if start:  # lines before the rows, of which none is a header that is known
            find_places(rows[start - 1], given, where)
        places = _positions(sample[0], given, where)
        width = len(sample[0])
    else:
        places, width = header.places, len(rows[header.line])
    if sample and len(sample[0]) > width and not any(sample[0][width:]):
        width = len(sample[0])  # rows that end with a separator
    return Dialect(
        separator=best,
        decimal=_decimal(sample, places, where),
        skip=start,
        banner=0 if header is None else header.line,
        width=width,
        places=places,
        time_is=_time_kind(sample, places, given),
    )


class _Header(msgspec.Struct, frozen=True):
    """A header: its line, that of the first row, and where the columns are."""

    line: int
    stop: int
    places: Places


def _score(lines: list[str], separator: str, given: Layout, where: str) -> tuple[int, bool, int]:
    rows = [_cells(line, separator) for line in lines]
    headed = _header(rows, given, where, quiet=True) is not None
    return sum(map(_fits, rows)), headed, max(map(len, rows), default=0)


def _header(
    rows: list[list[str]], given: Layout, where: str, *, quiet: bool = False
) -> _Header | None:
    for i, row in enumerate(rows[:_BANNER]):
        if _fits(row):
            return None  # rows begin: none above was a header
        if len(row) < 5:
            continue
        names, stop = row, i + 1
        if len(rows) > i + 2 and rows[i + 1][:1] == ["Ticker"]:  # three lines, by yfinance
            if not quiet:
                one_symbol(sorted({*rows[i + 1][1:]} - {""}), where)
            names, stop = [rows[i + 2][0], *row[1:]], i + 3
        try:
            return _Header(i, stop, find_places(names, given, where))
        except BadCandlesError:
            continue
    return None


def _positions(row: list[str], given: Layout, where: str) -> Places:
    """Return where the columns are in a file without a header."""
    if given.columns:
        return find_places([str(i + 1) for i in range(len(row))], given, where)
    apart = _CLOCK.fullmatch(row[1]) or (
        COMPACT.fullmatch(row[0]) and len(row[0]) == 8 and re.fullmatch(r"\d{4}|\d{6}", row[1])
    )
    time = (0, 1) if apart else (0,)
    o = len(time)
    if len(row) < o + 4:
        raise BadCandlesError(
            f"{where}: the first line has {len(row)} columns; expected {o + 5}, or {o + 4} without "
            f"a volume: {' '.join(row)!r}"
        )
    has_volume = len(row) > o + 4 and (not row[o + 4] or _NUMBER.fullmatch(row[o + 4]))
    return Places(time, (o, o + 1, o + 2, o + 3), o + 4 if has_volume else None)


def _decimal(sample: list[list[str]], places: Places, where: str) -> str:
    cells = [row[i] for row in sample for i in places.values if i < len(row)]
    numbers = [cell for cell in cells if _NUMBER.fullmatch(cell)]
    comma = next((cell for cell in numbers if "," in cell), None)
    point = next((cell for cell in numbers if "." in cell), None)
    if comma and point:
        raise BadCandlesError(f"{where} has {comma!r} and {point!r}: one decimal sign is needed")
    return "," if comma else "."


def _time_kind(sample: list[list[str]], places: Places, given: Layout) -> str:
    """Return how times are to be parsed: as whole numbers, as fractions, or as text."""
    time, *more = places.time
    if more or not sample or "%" in (given.date_format or ""):
        return "text"
    cells = [row[time] for row in sample if len(row) > time]
    filled = [cell for cell in cells if cell]
    if not filled or COMPACT.fullmatch(filled[0]) or not _NUMBER.fullmatch(filled[0]):
        return "text"
    return "whole" if all(cell.lstrip("+-").isdecimal() for cell in filled) else "fraction"


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _fits(row: list[str]) -> bool:
    """Say whether this is a row of candles: four numbers among five cells at least."""
    return len(row) >= 5 and sum(_NUMBER.fullmatch(cell) is not None for cell in row) >= 4

"""Text for people: Markdown tables, numbers, durations, and files written whole."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np

from backtest_kit._values.text import for_markdown as plain
from backtest_kit._values.time import iso

#: File systems allow 255 bytes; a longer name ends in a hash of itself.
_LONGEST_NAME: Final = 180

__all__ = ["markdown_table", "minutes", "number", "plain", "price", "span", "write", "write_bytes"]

Cell = str | int | float | None


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a Markdown table; columns that hold only numbers are aligned right."""
    cells = [[*row] for row in rows]
    numeric = [
        all(isinstance(row[i], int | float) or _looks_numeric(row[i]) for row in cells)
        and bool(cells)
        for i in range(len(columns))
    ]
    lines = [
        "| " + " | ".join(_cell(column) for column in columns) + " |",
        "|" + "|".join("---:" if right else "---" for right in numeric) + "|",
    ]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in cells]
    return "\n".join(lines)


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Return a number with its unit, "n/a" for `None`."""
    if value is None:
        return "n/a"
    if abs(value) >= 1e9:
        return f"{value:.3e}{unit}"
    return f"{round(value, digits) + 0.0:,.{digits}f}{unit}"  # + 0.0: no "-0.00"


def price(value: float | None) -> str:
    """Return a price with at least ten significant digits, without noise or exponent."""
    if value is None:
        return "none"
    digits = 10 if abs(value) < 1e8 else 15  # never fewer than the whole part has
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def minutes(value: float | None) -> str:
    """Return a duration given in minutes as people say it."""
    if value is None:
        return "n/a"
    days, rest = divmod(round(value), 1440)
    hours, rest = divmod(rest, 60)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (rest, "min")) if n]
    return " ".join(parts[:2]) or f"{value:.1f} min"


def span(since: int, until: int) -> str:
    """Return a range of time given in milliseconds."""
    return f"{iso(since)} to {iso(until)}"


def file_name(*parts: str) -> str:
    """Return a name for a file from the names of what it is about.

    Where one of them has the dash that stands between them, a digest keeps the names distinct.
    """
    name = "-".join(parts)
    if not any("-" in part for part in parts):
        return name
    return f"{name}-{hashlib.blake2b(repr(parts).encode(), digest_size=4).hexdigest()}"


def write(text: str, folder: str | Path, name: str) -> Path:
    """Write a Markdown file whole (never half) and return its path; names can't leave the folder.

    Raises:
        OSError: the file can't be written.
    """
    return write_bytes(text.encode(), folder, name, ".md")


def write_bytes(data: bytes, folder: str | Path, name: str, suffix: str) -> Path:
    """Write a file whole and return its path, its name made safe; raises as `write`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{safe_name(name)}{suffix}"
    handle, temporary = tempfile.mkstemp(dir=target, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, 0o644)  # noqa: PTH101 - a path from mkstemp
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def safe_name(name: str) -> str:
    """Return a name for a file or a folder that holds any text, and can't leave its folder."""
    safe = re.sub(r"^\.", "%2E", quote(name, safe="").replace("~", "%7E"))
    if len(safe) > _LONGEST_NAME:
        digest = hashlib.blake2b(safe.encode(), digest_size=8).hexdigest()
        safe = f"{safe[:_LONGEST_NAME]}-{digest}"
    return safe


def _cell(value: Cell) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return number(value)
    return plain(str(value)).replace("|", "\\|")


def _looks_numeric(value: Cell) -> bool:
    return value is None or (
        isinstance(value, str)
        and re.fullmatch(r"n/a|[-+]?[\d,.]+(e[-+]?\d+)?\s?%?", value) is not None
    )

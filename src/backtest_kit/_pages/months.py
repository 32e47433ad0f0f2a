"""Profit by month, as numbers and as a table that is also a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from backtest_kit._values.candles import Floats, Ints

MONTHS: Final = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Month(msgspec.Struct, frozen=True):
    """The trades that closed in a month (UTC); `total` is the sum of their profits in percent."""

    year: int
    month: int
    trades: int
    total: float


def monthly(closed_at: Ints, profits: Floats) -> tuple[Month, ...]:
    """Return the months in which trades closed, in order; times in milliseconds."""
    months = closed_at.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    found, place = np.unique(months, return_inverse=True)
    totals = np.bincount(place, weights=profits, minlength=len(found))
    counts = np.bincount(place, minlength=len(found))
    return tuple(
        Month(1970 + m // 12, m % 12 + 1, n, total)
        for m, n, total in zip(found.tolist(), counts.tolist(), totals.tolist(), strict=True)
    )


def months_table(months: Sequence[Month]) -> str:
    """Return an HTML table, a row for each year; the deeper the colour, the larger the figure."""
    largest = max((abs(month.total) for month in months), default=0) or 1
    known = {(month.year, month.month): month for month in months}
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Year", *MONTHS, "Total"))
    rows = []
    for year in range(months[-1].year, months[0].year - 1, -1):
        cells = [_cell(known.get((year, month)), largest) for month in range(1, 13)]
        total = sum(month.total for month in months if month.year == year)
        rows.append(f'<tr><th scope="row">{year}</th>{"".join(cells)}<td>{total:+,.1f}</td></tr>')
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Profit by month">'
        f'<table class="months"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(month: Month | None, largest: float) -> str:
    if month is None:
        return "<td></td>"
    tone = "down" if month.total < 0 else "up"
    share = f"--share:{abs(month.total) / largest:.3f}"
    return (
        f'<td class="{tone}" style="{share}" title="{month.trades} trades">{month.total:+,.1f}</td>'
    )

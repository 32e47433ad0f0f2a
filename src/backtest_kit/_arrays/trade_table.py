"""Trades as columns: what the kernel finds, and what statistics and reports read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.results import CANCELLED, REASONS, CloseReason


class TradeTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Signals that came to an end, in order, as columns of shape (N,), and counts.

    `scheduled_at`, `pending_at` (-1: never filled), `closed_at`: int64 milliseconds. `reason`:
    int8, see `REASONS`. Prices: float64, before costs. `pnl`: float64, percent after costs; NaN,
    as `price_close`, for what was never filled. `price_limit` is the entry that was asked for (NaN:
    to enter at once), `average_price` that at the close. `asked`: the calls up to that of the
    signal.

    Of `frames` stepped through (not all, where the data ended) `calls` were asked (`unanswered` of
    them where there is no row, `invalid` with a bad signal, first at `first_invalid`, ms or -1),
    `unpriced` had no average price, `held` passed while a signal lived, `throttled` were skipped.
    """

    side: npt.NDArray[np.int8]
    scheduled_at: Ints
    pending_at: Ints
    closed_at: Ints
    minutes: Ints
    reason: npt.NDArray[np.int8]
    ambiguous: npt.NDArray[np.bool_]
    asked: Ints
    price_open: Floats
    price_limit: Floats
    price_take_profit: Floats
    price_stop_loss: Floats
    price_close: Floats
    average_price: Floats
    pnl: Floats
    frames: int
    calls: int
    unanswered: int
    invalid: int
    first_invalid: int
    unpriced: int
    held: int
    throttled: int

    def __len__(self) -> int:
        return len(self.side)

    def count(self, reason: CloseReason) -> int:
        """Return how many filled ones were closed for this reason."""
        return int((self.reason == REASONS.index(reason)).sum())

    def closed(self) -> TradeTable:
        """Return the filled ones alone, as statistics want them."""
        keep = self.reason < CANCELLED
        if keep.all():
            return self
        fields = msgspec.structs.asdict(self)
        columns = {n: v[keep] for n, v in fields.items() if not isinstance(v, int)}
        return msgspec.structs.replace(self, **columns)


def joined(tables: Sequence[TradeTable]) -> TradeTable:
    """Return one table of what was found one after another; there is at least one."""
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, Any] = {}
    for name in TradeTable.__struct_fields__:
        parts = [getattr(table, name) for table in tables]
        columns[name] = sum(parts) if isinstance(parts[0], int) else np.concatenate(parts)
    before = np.cumsum([0, *(table.calls for table in tables[:-1])])
    columns["asked"] = columns["asked"] + np.repeat(before, [len(table) for table in tables])
    columns["first_invalid"] = next((t.first_invalid for t in tables if t.invalid), -1)
    return TradeTable(**columns)

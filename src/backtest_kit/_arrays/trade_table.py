"""Trades as columns: what the kernel finds, and what statistics and reports read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._rules.holding import WIDTH
from backtest_kit._rules.managed import LegRow, leg_rows
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.results import CANCELLED, REASONS, CloseReason

#: No take profits, stop losses and entries.
NO_LEVELS: Final = ((), (), ())
_LEGS: Final = ("leg_at", "leg")


class TradeLegs(NamedTuple):
    """Legs of one trade, as `holding` lays them out, and their instants (ms)."""

    numbers: list[list[float]]
    times: list[int]

    @property
    def rows(self) -> list[LegRow]:
        """The legs by name."""
        return leg_rows([*chain.from_iterable(self.numbers)])


class ManagedTrades(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a table says beside, where positions are managed: columns of shape (N,), and M legs.

    Percents as on `Signal` (NaN: not used), `levels` a tuple of `take_profits`, `stop_losses` and
    `entries` each. `price_paid` is the mean price of all entries, `cost` their cost relative to the
    first. `legs` counts the legs of each trade in `leg_at` (int64 milliseconds) and `leg` (shape
    (M, 6), as `holding` lays them out); 0 where they are one entry and one exit.
    """

    trailing: Floats
    activation: Floats
    breakeven: Floats
    levels: npt.NDArray[np.object_]
    price_paid: Floats
    cost: Floats
    legs: Ints
    leg_at: Ints
    leg: Floats

    def legs_of(self, i: int) -> TradeLegs:
        """Return the legs of trade i; none where they are one entry and one exit."""
        return next(self.all_legs(i, i + 1))

    def all_legs(self, first: int = 0, stop: int | None = None) -> Iterator[TradeLegs]:
        """Yield the legs of the trades from `first` up to `stop` (excluded), in order."""
        at = int(self.legs[:first].sum())
        for count in self.legs[first:stop].tolist():
            which = slice(at, at := at + count)
            yield TradeLegs(self.leg[which].tolist(), self.leg_at[which].tolist())


def unmanaged(price_open: Floats) -> ManagedTrades:
    """Return what there is to say of trades that are not managed."""
    n, nothing = len(price_open), np.full(len(price_open), np.nan)
    levels = np.empty(n, dtype=object)
    levels[:] = [NO_LEVELS] * n
    return ManagedTrades(
        trailing=nothing,
        activation=nothing,
        breakeven=nothing,
        levels=levels,
        price_paid=price_open,
        cost=np.ones(n),
        legs=np.zeros(n, dtype=np.int64),
        leg_at=np.empty(0, dtype=np.int64),
        leg=np.empty((0, WIDTH)),
    )


class TradeTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Signals that came to an end, in order, as columns of shape (N,), and counts.

    `scheduled_at`, `pending_at` (-1: never filled), `closed_at`: int64 milliseconds. `reason`:
    int8, see `REASONS`. `minutes`: 0 without end. Prices: float64, before costs, NaN for a target
    or a stop that is not there. `pnl`: float64, percent after costs; NaN,
    as `price_close`, for what was never filled. `price_limit` is the entry that was asked for (NaN:
    to enter at once), `average_price` that at the close, `order_cost` and `order_quantity` the size
    that was asked for (NaN: none). `asked`: the calls up to that of the
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
    order_cost: Floats
    order_quantity: Floats
    pnl: Floats
    frames: int
    calls: int
    unanswered: int
    invalid: int
    first_invalid: int
    unpriced: int
    held: int
    throttled: int
    managed: ManagedTrades | None = None

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
        columns = _of_rows(self, keep)
        if self.managed is not None:  # what was never filled has no legs
            columns["managed"] = msgspec.structs.replace(
                self.managed, **_of_rows(self.managed, keep, *_LEGS)
            )
        return msgspec.structs.replace(self, **columns)

    @property
    def cost(self) -> Floats:
        """The cost of each trade's entries, relative to the first."""
        return np.ones(len(self)) if self.managed is None else self.managed.cost


def _of_rows(table: msgspec.Struct, keep: npt.NDArray[np.bool_], *but: str) -> dict[str, Any]:
    fields = msgspec.structs.asdict(table)
    return {
        name: column[keep]
        for name, column in fields.items()
        if isinstance(column, np.ndarray) and name not in but
    }


def joined(tables: Sequence[TradeTable]) -> TradeTable:
    """Return one table of what was found one after another; there is at least one."""
    if len(tables) == 1:
        return tables[0]
    columns: dict[str, Any] = {}
    managed = [table.managed for table in tables]
    if any(part is not None for part in managed):
        columns["managed"] = joined_managed(
            [table.managed or unmanaged(table.price_open) for table in tables]
        )
    for name in TradeTable.__struct_fields__:
        if name == "managed":
            continue
        parts = [getattr(table, name) for table in tables]
        columns[name] = sum(parts) if isinstance(parts[0], int) else np.concatenate(parts)
    before = np.cumsum([0, *(table.calls for table in tables[:-1])])
    columns["asked"] = columns["asked"] + np.repeat(before, [len(table) for table in tables])
    columns["first_invalid"] = next((t.first_invalid for t in tables if t.invalid), -1)
    return TradeTable(**columns)


def joined_managed(parts: Sequence[ManagedTrades]) -> ManagedTrades:
    """Return one of what was found one after another; there is at least one."""
    names = ManagedTrades.__struct_fields__
    return ManagedTrades(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )

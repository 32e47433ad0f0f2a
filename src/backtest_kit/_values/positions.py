"""Open positions as risk profiles count them, and when they were open."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import Final

import msgspec

from backtest_kit._values.signal import Position, SignalRow

#: The end of a position that is still open.
OPEN_END: Final = 2**62
_opened_at = attrgetter("opened_at")


class ActivePosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position that a risk profile counts; `opened_at` in milliseconds UTC."""

    symbol: str
    strategy_name: str
    exchange_name: str
    position: Position
    price_open: float
    price_take_profit: float | None
    price_stop_loss: float | None
    opened_at: int


def position_of(row: SignalRow) -> ActivePosition:
    """Return a filled signal as the position that risk profiles count."""
    return ActivePosition(
        symbol=row.symbol,
        strategy_name=row.strategy_name,
        exchange_name=row.exchange_name,
        position=row.position,
        price_open=row.price_open,
        price_take_profit=row.price_take_profit,
        price_stop_loss=row.price_stop_loss,
        opened_at=row.scheduled_at if row.pending_at is None else row.pending_at,
    )


#: A position, and the instant (ms) up to which it counts.
Until = tuple[ActivePosition, int]
#: Symbol, strategy and exchange of a run.
RunNames = tuple[str, str, str]


class PositionHistory:
    """The positions of one run in order of opening.

    At most two have no end: one that ends at this step, and one reserved for what opens at it.
    A position counts from `opened_at` up to, but not including, the instant at which it closed.
    """

    def __init__(self, names: RunNames) -> None:
        self.names = names
        self._positions: list[ActivePosition] = []
        self._closed_at: list[int] = []

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def is_open(self) -> bool:
        """Whether the newest position has no end yet."""
        return bool(self._closed_at) and self._closed_at[-1] == OPEN_END

    def open(self, position: ActivePosition, until: int = OPEN_END) -> None:
        """Add a position that opened after all others."""
        self._positions.append(position)
        self._closed_at.append(until)

    @property
    def open_count(self) -> int:
        """Number of positions that have no end yet."""
        return self._closed_at[-2:].count(OPEN_END)

    def close(self, when: int) -> None:
        """End the older of the open positions, or the newest of all."""
        self._closed_at[-2 if self.open_count == 2 else -1] = when

    def cancel(self) -> None:
        """Remove the newest position as if it had never been."""
        self._positions.pop()
        self._closed_at.pop()

    def at(self, when: int) -> ActivePosition | None:
        """Return the position that is open at `when`."""
        i = bisect_right(self._positions, when, key=_opened_at) - 1
        return self._positions[i] if i >= 0 and when < self._closed_at[i] else None

    def opened_between(self, after: int, before: int) -> list[int]:
        """Return the instants of opening that lie strictly between two instants."""
        first = bisect_right(self._positions, after, key=_opened_at)
        last = bisect_left(self._positions, before, key=_opened_at)
        return [position.opened_at for position in self._positions[first:last]]

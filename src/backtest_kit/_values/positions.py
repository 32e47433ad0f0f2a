"""Open positions as risk profiles count them."""

from __future__ import annotations

import msgspec

from backtest_kit._values.signal import Position, SignalRow


class ActivePosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position that a risk profile counts; `opened_at` in milliseconds UTC."""

    symbol: str
    strategy_name: str
    exchange_name: str
    position: Position
    price_open: float
    price_take_profit: float
    price_stop_loss: float
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

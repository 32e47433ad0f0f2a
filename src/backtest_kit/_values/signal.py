"""What a strategy proposes, and the row that the engine makes of it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from backtest_kit._values.time import MINUTE, Instant

Position = Literal["long", "short"]
POSITIONS: Final = ("long", "short")
#: Of the id of a signal: exchange, strategy, symbol, instant.
_PARTS: Final = 4


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A proposal: what `get_signal` returns (a mapping with these keys does as well).

    Prices are in the quote asset, the lifetime in whole minutes. Without `price_open` the signal
    opens at once, at the market price; with it, the signal waits for that price.
    """

    position: Position
    price_take_profit: float
    price_stop_loss: float
    minute_estimated_time: int
    price_open: float | None = None
    note: str = ""
    id: str | None = None


class SignalRow(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that the engine has accepted.

    `scheduled_at` is when it was proposed, `pending_at` when it was filled (`None` while it
    waits), both in milliseconds UTC. `price_open` is the fill once it is filled, and before that
    the price it waits for; `price_limit` keeps the `price_open` that was asked for, if any.
    """

    id: str
    symbol: str
    strategy_name: str
    exchange_name: str
    position: Position
    price_open: float
    price_take_profit: float
    price_stop_loss: float
    minute_estimated_time: Annotated[int, msgspec.Meta(ge=1)]
    scheduled_at: Instant
    pending_at: Instant | None = None
    note: str = ""
    price_limit: float | None = None


def signal_id(exchange_name: str, strategy_name: str, symbol: str, when: int) -> str:
    """Return the id of a signal that was proposed at `when` (ms) without one.

    A colon within a name is written `%3A`, so that no two names give the same id.
    """
    text = f"{exchange_name}:{strategy_name}:{symbol}:{when}"
    if text.count(":") > _PARTS - 1 or "%" in text:
        names = (exchange_name, strategy_name, symbol)
        quoted = (name.replace("%", "%25").replace(":", "%3A") for name in names)
        return ":".join((*quoted, str(when)))
    return text


def expires_at(row: SignalRow) -> int:
    """Return when a pending row's lifetime ends, in milliseconds."""
    assert row.pending_at is not None
    return row.pending_at + row.minute_estimated_time * MINUTE

"""What a strategy proposes, and the row that the engine makes of it."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import msgspec

from backtest_kit._values.time import MINUTE, Instant

Position = Literal["long", "short"]
POSITIONS: Final = ("long", "short")
#: Of the id of a signal: exchange, strategy, symbol, instant.
_PARTS: Final = 4
#: Pairs of a distance from the first entry in percent, and a share in percent or a size.
Levels = tuple[tuple[float, float], ...]
#: When a life without end ends, in milliseconds: later than any data.
NEVER: Final = 2**62


class TrailingStop(msgspec.Struct, frozen=True):
    """A stop that follows the best price at a distance of `percent`, and never goes back.

    It acts while the best price is at least `activate_percent` beyond the effective entry; 0: from
    the first entry on.
    """

    percent: float
    activate_percent: float = 0.0


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A proposal: what `get_signal` returns (a mapping with these keys does as well).

    Prices are in the quote asset, the lifetime in whole minutes. Without `price_open` the signal
    opens at once, at the market price; with it, the signal waits for that price.

    `None` for the target: there is none. For the stop as well, if the setting `require_stop_loss`
    is off. For the lifetime: the setting `max_signal_lifetime_minutes`, or no end where that is 0.

    The others say how the position is managed; percents are of a price, shares percents of the
    quantity entered so far, sizes multiples of the first entry's cost. `take_profits` and
    `stop_losses` close a share at each percent beyond and against the first entry, `entries` enter
    once more at each percent against it. `breakeven_percent` beyond the effective entry, the stop
    moves to where a close gives 0 after costs.
    """

    position: Position
    price_take_profit: float | None
    price_stop_loss: float | None
    minute_estimated_time: int | None
    price_open: float | None = None
    note: str = ""
    id: str | None = None
    trailing_stop: TrailingStop | None = None
    breakeven_percent: float | None = None
    take_profits: Levels = ()
    stop_losses: Levels = ()
    entries: Levels = ()


def _none() -> None:
    return None


def _empty() -> str:
    return ""


class SignalRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A signal that the engine has accepted.

    `scheduled_at` is when it was proposed, `pending_at` when it was filled (`None` while it
    waits), both in milliseconds UTC. `price_open` is the fill once it is filled, and before that
    the price it waits for; `price_limit` keeps the `price_open` that was asked for, if any. The
    last five are as in `Signal`, and left out of JSON where they are not used.
    """

    id: str
    symbol: str
    strategy_name: str
    exchange_name: str
    position: Position
    price_open: float
    price_take_profit: float | None
    price_stop_loss: float | None
    minute_estimated_time: Annotated[int, msgspec.Meta(ge=1)] | None
    scheduled_at: Instant
    # a default that a factory makes is written to JSON, as these always were
    pending_at: Instant | None = msgspec.field(default_factory=_none)
    note: str = msgspec.field(default_factory=_empty)
    price_limit: float | None = msgspec.field(default_factory=_none)
    trailing_stop: TrailingStop | None = None
    breakeven_percent: float | None = None
    take_profits: Levels = ()
    stop_losses: Levels = ()
    entries: Levels = ()

    @property
    def side(self) -> int:
        """+1 for long, -1 for short."""
        return 1 if self.position == "long" else -1

    @property
    def target(self) -> float:
        """The take profit; infinite, so that nothing reaches it, where there is none."""
        level = self.price_take_profit
        return self.side * math.inf if level is None else level

    @property
    def stop(self) -> float:
        """The stop; infinite, so that nothing reaches it, where there is none."""
        level = self.price_stop_loss
        return -self.side * math.inf if level is None else level

    @property
    def is_managed(self) -> bool:
        """Whether more can happen to the position than its target, its stop and its end."""
        return (
            self.trailing_stop is not None
            or self.breakeven_percent is not None
            or bool(self.take_profits or self.stop_losses or self.entries)
        )


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
    """Return when a pending row's lifetime ends, in milliseconds; `NEVER` without a lifetime."""
    assert row.pending_at is not None
    if row.minute_estimated_time is None:
        return NEVER
    return row.pending_at + row.minute_estimated_time * MINUTE

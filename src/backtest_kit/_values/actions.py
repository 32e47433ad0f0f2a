"""What may be decided while a position is open: what is seen of it, and what can be done."""

from __future__ import annotations

from typing import Final

import msgspec

from backtest_kit._values.results import Leg
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import Instant


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """An open position at a step, after the checks of that step: what `manage` is given.

    `signal` is the row as proposed and filled, `price` the average price that decides,
    `market_price` the close of the newest candle. `quantity` and `cost` are what is held, relative
    to the first entry; `share_open` is that in percent of the quantity entered. The levels are
    those of now, `None` where there is none.

    `revenue_percent`, `best_percent` and `worst_percent` are before costs, from the effective
    entry: of `price`, of the best price since the latest entry, and of the worst since the first.
    `best_at` and `worst_at` are when these were reached, in milliseconds UTC. `minutes_left` is
    `None` where life has no end.
    """

    signal: SignalRow
    price: float
    market_price: float
    first_entry: float
    effective_entry: float
    quantity: float
    cost: float
    share_open: float
    price_stop_loss: float | None
    price_take_profit: float | None
    legs: tuple[Leg, ...]
    revenue_percent: float
    best_percent: float
    worst_percent: float
    best_at: Instant
    worst_at: Instant
    minutes_held: int
    minutes_left: int | None


class _Action(msgspec.Struct, frozen=True, tag_field="action", forbid_unknown_fields=True):
    def to_json(self) -> str:
        """Return the action as JSON; `action_from_json` reads it back."""
        return msgspec.json.encode(self).decode()


class MoveStop(_Action, frozen=True, tag="move-stop"):
    """Move the stop to `price`, from the next step on; it may only become tighter.

    With the setting `allow_wider_stop` it may also be moved away from the market.
    """

    price: float


class MoveTarget(_Action, frozen=True, tag="move-target"):
    """Move the take profit to `price`, from the next step on."""

    price: float


class Close(_Action, frozen=True, tag="close"):
    """Close `share` percent of what is held, at the market."""

    share: float = 100
    note: str = ""


class Add(_Action, frozen=True, tag="add"):
    """Enter once more, at the market: `size` times the first entry's cost."""

    size: float = 1.0


class Extend(_Action, frozen=True, tag="extend"):
    """Let the position live for `minutes` longer."""

    minutes: int


Action = MoveStop | MoveTarget | Close | Add | Extend
ACTIONS: Final = (MoveStop, MoveTarget, Close, Add, Extend)
_decoder = msgspec.json.Decoder(Action)


def action_from_json(text: str | bytes) -> Action:
    """Return the action that `to_json` wrote.

    Raises:
        ValueError: the text is no action.
    """
    action: Action = _decoder.decode(text)
    return action

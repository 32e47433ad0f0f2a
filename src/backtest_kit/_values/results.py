"""What a step can find: ten kinds of result, a tagged union for `match`, JSON both ways."""

from __future__ import annotations

from typing import ClassVar, Final, Literal, get_args

import msgspec

from backtest_kit._values.account import Money
from backtest_kit._values.signal import SignalRow, signal_id
from backtest_kit._values.time import Instant

CloseReason = Literal[
    "take_profit",
    "stop_loss",
    "time_expired",
    "end_of_data",
    "trailing_stop",
    "breakeven",
    "closed",
    "liquidation",
]
#: Why an account refuses a trade, or skips an entry or a partial exit of one.
Refusal = Literal["cash", "liquidation", "minimum", "size"]
CancelReason = Literal["timeout", "price_reject", "risk", "user", "end_of_data", "exit"] | Refusal
#: Of tables of trades: the reason of each code; from `CANCELLED` on a signal was never filled.
REASONS: Final[tuple[CloseReason | CancelReason, ...]] = (
    *get_args(CloseReason),
    *("timeout", "end_of_data", "price_reject", "exit"),
)
CANCELLED: Final = 8
LegReason = (
    CloseReason
    | Literal["signal", "entry_level", "take_profit_level", "stop_loss_level", "manage", "user"]
)
#: The reason of each code of a leg; those below `CANCELLED` are close reasons, as in `REASONS`.
LEG_REASONS: Final[tuple[LegReason, ...]] = tuple(
    reason for part in get_args(LegReason) for reason in get_args(part)
)


class ProfitLoss(msgspec.Struct, frozen=True):
    """Profit of a closed signal: percent after slippage and fees, and the unadjusted prices."""

    pnl_percentage: float
    price_open: float
    price_close: float


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One fill of a position, at an instant in milliseconds UTC and a price before costs.

    `quantity` is relative to that of the first entry, `share` in percent of the cost of all
    entries: of an exit, the average cost of what it closes.
    """

    kind: Literal["entry", "exit"]
    timestamp: int
    price: float
    quantity: float
    share: float
    reason: LegReason
    ambiguous: bool = False


class _Tick(msgspec.Struct, frozen=True, kw_only=True, tag_field="action"):
    """What every result has; `timestamp` is the instant of the step in milliseconds UTC."""

    symbol: str
    strategy_name: str
    exchange_name: str
    timestamp: Instant
    current_price: float

    def to_json(self) -> str:
        """Return the result as JSON; `tick_from_json` reads it back."""
        return msgspec.json.encode(self).decode()


def transition_id(row: SignalRow, what: str) -> str:
    """Return the id of a transition: the same whenever, and however often, it is reported."""
    place = f"{row.exchange_name}:{row.strategy_name}:{row.symbol}:{row.scheduled_at}"
    # else release 0.1.0, which quoted no names, may have told of the signal
    if row.id != place:
        place = signal_id(row.exchange_name, row.strategy_name, row.symbol, row.scheduled_at)
    return f"{place}:{what}"


class _Transition(_Tick, frozen=True, kw_only=True):
    """A result that changes what lives."""

    signal: SignalRow

    @property
    def transition_id(self) -> str:
        """A stable id: a transition that is reported again after a crash has the same."""
        return transition_id(self.signal, self.action)  # type: ignore[attr-defined]


class TickIdle(_Tick, frozen=True, kw_only=True, tag="idle"):
    """Nothing lives, and nothing was proposed."""

    action: ClassVar[Literal["idle"]] = "idle"


class TickScheduled(_Transition, frozen=True, kw_only=True, tag="scheduled"):
    """A signal begins to wait for its entry price."""

    action: ClassVar[Literal["scheduled"]] = "scheduled"


class TickWaiting(_Tick, frozen=True, kw_only=True, tag="waiting"):
    """A scheduled signal still waits."""

    action: ClassVar[Literal["waiting"]] = "waiting"
    signal: SignalRow


class TickOpened(_Transition, frozen=True, kw_only=True, tag="opened", omit_defaults=True):
    """A signal is filled; `money`: in an account."""

    action: ClassVar[Literal["opened"]] = "opened"
    money: Money | None = None


class TickActive(_Tick, frozen=True, kw_only=True, tag="active"):
    """A filled signal stays open; `revenue_percent` is its open profit before costs."""

    action: ClassVar[Literal["active"]] = "active"
    signal: SignalRow
    revenue_percent: float


class _Numbered(_Transition, frozen=True, kw_only=True):
    """A result of which a position may have several, numbered from 1."""

    number: int

    @property
    def transition_id(self) -> str:
        """A stable id: a transition that is reported again after a crash has the same."""
        return transition_id(self.signal, f"{self.action} {self.number}")  # type: ignore[attr-defined]


class TickPartial(_Numbered, frozen=True, kw_only=True, tag="partial", omit_defaults=True):
    """A part of a position is closed: `share` percent of the quantity entered so far."""

    action: ClassVar[Literal["partial"]] = "partial"
    price: float
    share: float
    reason: Literal["take_profit_level", "stop_loss_level", "manage", "user"]
    note: str = ""
    ambiguous: bool = False
    money: Money | None = None


class TickAdded(_Numbered, frozen=True, kw_only=True, tag="added", omit_defaults=True):
    """A further entry of `size` times the first one's cost; `effective_entry` is that after it."""

    action: ClassVar[Literal["added"]] = "added"
    price: float
    size: float
    effective_entry: float
    reason: Literal["entry_level", "manage", "user"]
    ambiguous: bool = False
    money: Money | None = None


class TickMoved(_Numbered, frozen=True, kw_only=True, tag="moved"):
    """A level has moved: prices, or the lifetime in minutes from `pending_at`; `None`: none."""

    action: ClassVar[Literal["moved"]] = "moved"
    what: Literal["stop", "target", "lifetime"]
    before: float | None
    after: float
    reason: Literal["trailing", "breakeven", "manage", "user"]


def _false() -> bool:
    return False


class TickClosed(_Transition, frozen=True, kw_only=True, tag="closed", omit_defaults=True):
    """A signal is closed; `ambiguous` marks a candle that reached levels at both ends.

    `cost` is that of all entries, relative to the first one's. `note` is of who closed it, `money`
    of an account.
    """

    action: ClassVar[Literal["closed"]] = "closed"
    close_reason: CloseReason
    close_timestamp: Instant
    pnl: ProfitLoss
    # a default that a factory makes is written to JSON, as this always was
    ambiguous: bool = msgspec.field(default_factory=_false)
    cost: float = 1.0
    note: str = ""
    #: Of a position with more than one entry and one exit; else they are made when asked for.
    fills: tuple[Leg, ...] = msgspec.field(default=(), name="legs")
    money: Money | None = None

    @property
    def legs(self) -> tuple[Leg, ...]:
        """Every entry and exit, in order."""
        if self.fills:
            return self.fills
        entry, close = self.pnl.price_open, self.pnl.price_close
        at = self.signal.pending_at
        assert at is not None
        first = Leg(
            kind="entry", timestamp=at, price=entry, quantity=1.0, share=100.0, reason="signal"
        )
        last = Leg(
            kind="exit",
            timestamp=self.close_timestamp,
            price=close,
            quantity=1.0,
            share=100.0,
            reason=self.close_reason,
            ambiguous=self.ambiguous,
        )
        return first, last


class TickCancelled(_Transition, frozen=True, kw_only=True, tag="cancelled"):
    """A scheduled signal ends without having been filled."""

    action: ClassVar[Literal["cancelled"]] = "cancelled"
    reason: CancelReason
    close_timestamp: Instant


Tick = (
    TickIdle
    | TickScheduled
    | TickWaiting
    | TickOpened
    | TickActive
    | TickPartial
    | TickAdded
    | TickMoved
    | TickClosed
    | TickCancelled
)
_decoder = msgspec.json.Decoder(Tick)


def tick_from_json(text: str | bytes) -> Tick:
    """Return the result that `to_json` wrote.

    Raises:
        ValueError: the text is no result.
    """
    tick: Tick = _decoder.decode(text)
    return tick

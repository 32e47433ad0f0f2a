"""What a step can find: seven kinds of result, a tagged union for `match`, JSON both ways."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

from backtest_kit._values.signal import SignalRow, signal_id
from backtest_kit._values.time import Instant

CloseReason = Literal["take_profit", "stop_loss", "time_expired", "end_of_data"]
CancelReason = Literal["timeout", "price_reject", "risk", "user", "end_of_data"]
#: Of tables of trades: the reason of each code; from `CANCELLED` on a signal was never filled.
REASONS: Final[tuple[CloseReason | CancelReason, ...]] = (
    *("take_profit", "stop_loss", "time_expired", "end_of_data"),
    *("timeout", "end_of_data", "price_reject"),
)
CANCELLED: Final = 4


class ProfitLoss(msgspec.Struct, frozen=True):
    """Profit of a closed signal: percent after slippage and fees, and the unadjusted prices."""

    pnl_percentage: float
    price_open: float
    price_close: float


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


class TickOpened(_Transition, frozen=True, kw_only=True, tag="opened"):
    """A signal is filled."""

    action: ClassVar[Literal["opened"]] = "opened"


class TickActive(_Tick, frozen=True, kw_only=True, tag="active"):
    """A filled signal stays open; `revenue_percent` is its open profit before costs."""

    action: ClassVar[Literal["active"]] = "active"
    signal: SignalRow
    revenue_percent: float


class TickClosed(_Transition, frozen=True, kw_only=True, tag="closed"):
    """A signal is closed; `ambiguous` marks a candle that reached both levels."""

    action: ClassVar[Literal["closed"]] = "closed"
    close_reason: CloseReason
    close_timestamp: Instant
    pnl: ProfitLoss
    ambiguous: bool = False


class TickCancelled(_Transition, frozen=True, kw_only=True, tag="cancelled"):
    """A scheduled signal ends without having been filled."""

    action: ClassVar[Literal["cancelled"]] = "cancelled"
    reason: CancelReason
    close_timestamp: Instant


Tick = TickIdle | TickScheduled | TickWaiting | TickOpened | TickActive | TickClosed | TickCancelled
_decoder = msgspec.json.Decoder(Tick)


def tick_from_json(text: str | bytes) -> Tick:
    """Return the result that `to_json` wrote.

    Raises:
        ValueError: the text is no result.
    """
    tick: Tick = _decoder.decode(text)
    return tick

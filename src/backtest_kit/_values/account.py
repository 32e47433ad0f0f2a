"""An account and what it is told by: markets, and the money of a position."""

from __future__ import annotations

import msgspec

from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.numbers import is_amount, is_number
from backtest_kit._values.signal import Position


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """What an exchange says of one of its markets; `None`: it does not say.

    `base` and `quote` are assets. Steps and least amounts are those of orders: `price_step` and
    `min_notional` in the quote asset, `quantity_step` and `min_quantity` in the base asset. Fees in
    percent are shown, and not used: costs are the settings `percent_fee` and `percent_slippage`.

    Raises:
        ValueError: a number is not finite and above 0 (a fee: not finite), or a name is empty.
    """

    base: str
    quote: str
    price_step: float | None = None
    quantity_step: float | None = None
    min_quantity: float | None = None
    min_notional: float | None = None
    maker_percent: float | None = None
    taker_percent: float | None = None

    def __post_init__(self) -> None:
        for name in ("base", "quote"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ArgumentError(f"Market: {name}={getattr(self, name)!r} must be an asset")
        for name in ("price_step", "quantity_step", "min_quantity", "min_notional"):
            value = getattr(self, name)
            if value is not None and not is_amount(value):
                raise ArgumentError(
                    f"Market: {name}={value!r} must be a number above 0, or None where the "
                    "exchange does not say"
                )
        for name in ("maker_percent", "taker_percent"):
            value = getattr(self, name)
            if value is not None and not is_number(value):
                raise ArgumentError(f"Market: {name}={value!r} must be a number, or None")


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """The money of a position so far, in the account's currency.

    `quantity` and `cost` are of all entries; `first_cost` is what the relative quantities and costs
    of legs are parts of. `fees` have been paid, `slippage` is in the prices of both sides. `profit`
    is realised, less the fees; `profit_percent` is of `cost`. `equity_before` is the account's
    equity that its first entry was measured by, `equity_after` that right after the close (before
    it `None`). `reduced`: the first entry was, for want of cash. `liquidated`: the collateral is
    lost, `not_charged` is what would have been lost beyond it.
    """

    quantity: float
    cost: float
    first_cost: float
    fees: float
    slippage: float
    profit: float
    profit_percent: float
    equity_before: float
    equity_after: float | None = None
    reduced: bool = False
    liquidated: bool = False
    not_charged: float = 0.0


class AccountPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position of an account as a sizing function sees it.

    `cost` is the cost basis of the `quantity` that is held, `price` the last close.
    """

    symbol: str
    strategy_name: str
    position: Position
    quantity: float
    cost: float
    price: float


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account as a sizing function sees it, in its currency.

    `equity` is that of the instant before anything is entered, `free` what can be paid now.
    """

    equity: float
    free: float
    balance: float
    positions: tuple[AccountPosition, ...]

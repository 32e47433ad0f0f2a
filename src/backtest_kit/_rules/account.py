"""The books of an account: what entries and exits do to its money, as functions of numbers.

Margin is isolated: a position binds its cost basis over the leverage as collateral, and can lose
that and its fees, no more. Fees of both sides are a part of the entry's cost. `side` is +1 of a
long and -1 of a short; amounts are in the account's currency, quantities in the base asset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

#: Of a limit: what rounding may take from it.
HAIR: Final = 1e-12
_NO_FRACTION: Final = 2.0**53


class Terms(NamedTuple):
    """On what terms an account trades: all but the leverage are fractions."""

    leverage: float
    maintenance: float
    fee: float
    slippage: float


class Rules(NamedTuple):
    """A market's rules as numbers: a step of `step / scale` (0: none), and least amounts."""

    step: float = 0.0
    scale: float = 1.0
    min_quantity: float = 0.0
    min_notional: float = 0.0


class Exit(NamedTuple):
    """What an exit does: `balance` is `profit - fee`, `basis` what it takes of the cost basis.

    `not_charged`: what it would have lost beyond the collateral.
    """

    basis: float
    profit: float
    fee: float
    balance: float
    slippage: float
    value: float
    not_charged: float
    liquidated: bool


def slipped(price: float, direction: float, slippage: float) -> float:
    """Return the price after slippage; `direction` is +1 when buying and -1 when selling."""
    return price * (1 + direction * slippage)


def liquidation_price(side: float, entry: float, leverage: float, maintenance: float) -> float:
    """Return where collateral and open profit are `maintenance` times the value; `entry` slipped.

    0 or less: nowhere. One tier, without fees, as Binance and freqtrade have it.
    """
    return entry * (1 - side / leverage) / (1 - side * maintenance)


def is_beyond(side: float, price: float, liquidation: float) -> bool:
    """Say whether a price is at or beyond the liquidation price."""
    return side * price <= side * liquidation + HAIR * abs(liquidation) and liquidation > 0


def exit_of(
    side: float, quantity: float, price: float, held: float, basis: float, terms: Terms
) -> Exit:
    """Return what it does to close `quantity` at `price`, of what is `held` at a cost `basis`."""
    taken = basis if quantity >= held else basis * quantity / held
    filled = slipped(price, -side, terms.slippage)
    gross = side * (quantity * filled - taken)
    fee, collateral = terms.fee * taken, taken / terms.leverage
    net = gross - fee
    level = liquidation_price(side, basis / held, terms.leverage, terms.maintenance)
    if is_beyond(side, price, level) or net < -collateral:
        spared = max(0.0, -collateral - net)
        value = quantity * filled
        return Exit(taken, -collateral, 0.0, -collateral, 0.0, value, spared, True)
    slippage = quantity * abs(filled - price)
    return Exit(taken, gross, fee, net, slippage, quantity * filled, 0.0, False)


def open_profit(side: float, quantity: float, basis: float, mark: float, leverage: float) -> float:
    """Return the profit of what is held at the price `mark`; at worst the collateral is lost."""
    return max(side * (quantity * mark - basis), -basis / leverage)


def needed(cost: float, leverage: float, fee: float) -> float:
    """Return how much free money an entry of this cost needs: its collateral and its fee."""
    return cost / leverage + fee * cost


def most_payable(free: float, leverage: float, fee: float) -> float:
    """Return the greatest cost that an entry can have."""
    return free / (1 / leverage + fee)


def is_short(cost: float, free: float, leverage: float, fee: float) -> bool:
    """Say whether an entry of this cost can't be paid whole."""
    return needed(cost, leverage, fee) * (1 - HAIR) > free


def is_too_small(quantity: float, price: float, min_quantity: float, min_notional: float) -> bool:
    """Say whether a market takes no order of this quantity at this price."""
    return (
        not quantity > 0
        or quantity < min_quantity * (1 - HAIR)
        or quantity * price < min_notional * (1 - HAIR)
    )


def rounded_down(quantity: float, step: float, scale: float) -> float:
    """Return the whole steps in a quantity; what is short of one by a hair is one.

    Where a hair is more than a step, the nearest one: whole steps stay as they are.
    """
    if step == 0:
        return quantity
    steps = quantity * scale / step
    whole = whole_of(steps)
    missing = whole + 1 - steps
    if 0 < missing <= 0.5 and missing <= HAIR * steps:
        whole += 1
    return whole * step / scale


def whole_of(value: float) -> float:
    """Return the whole number in a value; one so great that it has no fraction is one itself.

    Compiled, `floor` makes an integer of 64 bits, which a great one would not fit into.
    """
    return value if value >= _NO_FRACTION else float(math.floor(value))


def in_turn(values: Iterable[float]) -> float:
    """Return a sum, added one by one as the kernel does: `sum` is more exact from 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total


class Held(msgspec.Struct):
    """What one run holds: a quantity at a cost basis."""

    side: float
    quantity: float
    basis: float

    @property
    def entry(self) -> float:
        """The average price paid, after slippage."""
        return self.basis / self.quantity


class Books:
    """The money of one account: its balance, and what each run holds, by the run's index."""

    def __init__(self, balance: float, leverage: float) -> None:
        self.balance = balance
        self.leverage = leverage
        self.held: dict[int, Held] = {}

    @property
    def collateral(self) -> float:
        """What open positions bind."""
        return in_turn(held.basis / self.leverage for held in self.held.values())

    @property
    def free(self) -> float:
        """What further entries may use; open profit is not free."""
        return self.balance - self.collateral

    def equity(self, marks: Mapping[int, float]) -> float:
        """Return the balance with all open profit, at the price of what each run holds."""
        return self.balance + in_turn(
            open_profit(held.side, held.quantity, held.basis, marks[run], self.leverage)
            for run, held in self.held.items()
        )

    def enter(self, run: int, side: float, quantity: float, price: float, terms: Terms) -> float:
        """Enter once more, or for the first time; return the cost."""
        cost = quantity * slipped(price, side, terms.slippage)
        held = self.held.setdefault(run, Held(side, 0.0, 0.0))
        held.quantity += quantity
        held.basis += cost
        self.balance -= terms.fee * cost
        return cost

    def leave(self, run: int, quantity: float, price: float, terms: Terms) -> Exit:
        """Close `quantity` of what a run holds; all of it, where it holds no more."""
        held = self.held[run]
        done = exit_of(held.side, quantity, price, held.quantity, held.basis, terms)
        self.balance += done.balance
        if quantity >= held.quantity:
            del self.held[run]
        else:
            held.quantity -= quantity
            held.basis -= done.basis
        return done

"""The books of an account by the book: exact fractions, written from the specification alone."""

import math
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

HAIR = Fraction(1, 10**12)


@dataclass
class Trade:
    """What a run holds, and what has come of it: `Q`, `K`, and sums over its life."""

    side: int
    Q: Fraction = Fraction(0)
    K: Fraction = Fraction(0)
    entered: Fraction = Fraction(0)
    gross: Fraction = Fraction(0)
    fees: Fraction = Fraction(0)
    not_charged: Fraction = Fraction(0)
    liquidated: bool = False


@dataclass
class Reference:
    """An account; percents and prices as they come, all arithmetic exact."""

    balance: Fraction
    leverage: Fraction
    maintenance_percent: Fraction
    percent_fee: Fraction
    percent_slippage: Fraction
    B: Fraction = Fraction(0)
    open: dict = field(default_factory=dict)

    def __post_init__(self):
        for name in (
            "balance",
            "leverage",
            "maintenance_percent",
            "percent_fee",
            "percent_slippage",
        ):
            setattr(self, name, Fraction(getattr(self, name)))
        self.B = self.balance

    @property
    def f(self):
        return self.percent_fee / 100

    def slip(self, price, buying):
        s = self.percent_slippage / 100
        return Fraction(price) * (1 + s if buying else 1 - s)

    def enter(self, run, side, quantity, price):
        trade = self.open.setdefault(run, Trade(side))
        c = Fraction(quantity) * self.slip(price, side > 0)
        trade.Q += Fraction(quantity)
        trade.K += c
        trade.entered += c
        trade.fees += self.f * c
        self.B -= self.f * c

    def liquidation(self, trade):
        e, mm = trade.K / trade.Q, self.maintenance_percent / 100
        if trade.side > 0:
            return e * (1 - 1 / self.leverage) / (1 - mm)
        return e * (1 + 1 / self.leverage) / (1 + mm)

    def close(self, run, quantity, price, *, everything):
        trade = self.open[run]
        q = trade.Q if everything else Fraction(quantity)
        k = trade.K * q / trade.Q
        value = q * self.slip(price, trade.side < 0)
        g = value - k if trade.side > 0 else k - value
        level, x = self.liquidation(trade), Fraction(price)
        beyond = level > 0 and (
            x <= level * (1 + HAIR) if trade.side > 0 else x >= level * (1 - HAIR)
        )
        if beyond or g - self.f * k < -k / self.leverage:
            trade.gross -= k / self.leverage
            trade.not_charged += max(0, -k / self.leverage - (g - self.f * k))
            trade.liquidated = True
            self.B -= k / self.leverage
        else:
            trade.gross += g
            trade.fees += self.f * k
            self.B += g - self.f * k
        trade.Q -= q
        trade.K -= k
        return self.open.pop(run) if everything else trade

    @property
    def collateral(self):
        return sum(t.K / self.leverage for t in self.open.values())

    @property
    def free(self):
        return self.B - self.collateral

    def equity(self, marks):
        total = self.B
        for run, t in self.open.items():
            u = t.side * (t.Q * Fraction(marks[run]) - t.K)
            total += max(u, -t.K / self.leverage)
        return total


def steps_in(quantity, step):
    """Return the quantity rounded down to whole steps, in decimals.

    What is short of the nearest one by a hair is one.
    """
    if step is None:
        return quantity
    unit = Decimal(repr(step))
    steps = Fraction(quantity) / Fraction(unit)
    whole, nearest = math.floor(steps), math.floor(steps + Fraction(1, 2))
    if nearest - steps <= HAIR * nearest:
        whole = nearest
    return float(whole * unit)

"""Profit of a signal: slippage, fees, open revenue, milestones."""

from __future__ import annotations

from typing import Final, TypeVar

from backtest_kit._values.candles import Floats

#: Levels of open revenue, in percent, that each fire once per signal, up and down.
MILESTONES: Final = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)

#: Of a signal that moves its stop to breakeven: a profit (percent) that is rounding, and none.
ZERO_PROFIT: Final = 1e-9

Price = TypeVar("Price", float, Floats)


def profit(
    position: str, price_open: Price, price_close: Price, fee: float, slippage: float
) -> Price:
    """Return the profit in percent after `slippage` on each price and `fee` per side, percent.

    For one trade, or for arrays of them, bit for bit.
    """
    s = slippage / 100
    if position == "long":
        paid, got = price_open * (1 + s), price_close * (1 - s)
        return (got - paid) / paid * 100 - 2 * fee
    got, paid = price_open * (1 - s), price_close * (1 + s)
    return (got - paid) / got * 100 - 2 * fee


def revenue_percent(position: str, price_open: float, price: Price) -> Price:
    """Return the open revenue in percent before costs; for one price or an array, bit for bit."""
    if position == "long":
        return (price - price_open) / price_open * 100
    return (price_open - price) / price_open * 100


def crossed(revenue: float, fired: int) -> tuple[list[int], int]:
    """Return the milestones newly reached at one step, nearest first, and the new mask.

    `fired` is a bit mask: bits 0 to 9 the profit levels, 10 to 19 the loss levels.
    """
    shift, sign = (0, 1) if revenue >= 0 else (len(MILESTONES), -1)
    levels = []
    for i, level in enumerate(MILESTONES):
        bit = 1 << (i + shift)
        if revenue * sign >= level and not fired & bit:
            fired |= bit
            levels.append(level * sign)
    return levels, fired

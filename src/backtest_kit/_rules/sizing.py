"""How large an entry is: what is asked for, and what of it cash and market allow.

Numbers alone. Costs are notional, in the account's currency; quantities in the base asset.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from backtest_kit._rules.account import (
    Rules,
    Terms,
    is_short,
    is_too_small,
    most_payable,
    rounded_down,
)
from backtest_kit._values.account import Market
from backtest_kit._values.candles import Floats
from backtest_kit._values.results import Refusal

#: True ranges that an average true range is made of, for each candle of its period.
ATR_PERIODS: Final = 10
#: A standard deviation below this is none.
LEAST_DEVIATION: Final = 1e-9


#: Why a first entry does not fit, as numbers.
NO_CASH, NO_SIZE, TOO_SMALL = range(1, 4)
_REFUSALS: Final[dict[int, Refusal]] = {NO_CASH: "cash", NO_SIZE: "size", TOO_SMALL: "minimum"}


class Wanted(NamedTuple):
    """What is to be entered: a quantity, or a cost (the other one is NaN)."""

    cost: float = math.nan
    quantity: float = math.nan


class Entry(NamedTuple):
    """What of it is entered: `quantity`, and what it costs; `reduced` for want of cash."""

    quantity: float
    cost: float
    reduced: bool


def rules_of(market: Market | None) -> Rules:
    """Return the rules of a market for quantities; what it does not say is not applied."""
    if market is None:
        return Rules()
    step, scale = (0.0, 1.0) if market.quantity_step is None else in_decimals(market.quantity_step)
    return Rules(step, scale, market.min_quantity or 0.0, market.min_notional or 0.0)


def in_decimals(step: float) -> tuple[float, float]:
    """Return a step, by its shortest text, as a fraction of whole numbers."""
    above, below = Decimal(repr(float(step))).as_integer_ratio()
    # a power of ten below: whole numbers over it round to the float that the decimal text names
    digits = max(0, -int(Decimal(repr(float(step))).normalize().as_tuple().exponent))
    return float(above * 10**digits // below), float(10**digits)


def default_cost(equity: float, percent: float, runs: int, terms: Terms) -> float:
    """Return the cost of an entry without a size: `percent` of equity, or a run's equal part.

    The part (a `percent` of NaN) is of what equity can pay.
    """
    if percent == percent:
        return equity * percent / 100
    return most_payable(equity / runs, terms.leverage, terms.fee)


def risked_quantity(equity: float, risk_percent: float, distance: float) -> float:
    """Return the quantity that loses `risk_percent` of equity over a price distance.

    Fixed-fractional sizing (Vince, 1990). NaN where there is no distance.
    """
    return equity * (risk_percent / 100) / distance if distance > 0 else math.nan


def kelly_share(win_share: float, win_loss_ratio: float) -> float:
    """Return the share of the money that Kelly (1956) bets, 0 or more."""
    return max(0.0, (win_share * win_loss_ratio - (1 - win_share)) / win_loss_ratio)


def kelly_of(profits: Sequence[float], min_trades: int) -> float | None:
    """Return `kelly_share` by the profits of closed trades.

    `None` where there are too few, or no loss to measure by.
    """
    wins, losses = [r for r in profits if r > 0], [-r for r in profits if r < 0]
    if len(profits) < min_trades or not losses:
        return None
    if not wins:
        return 0.0
    ratio = (math.fsum(wins) / len(wins)) / (math.fsum(losses) / len(losses))
    return kelly_share(len(wins) / len(profits), ratio)


def average_true_range(high: Floats, low: Floats, close: Floats, period: int) -> float | None:
    """Return Wilder's average true range (1978), begun with the mean of the first `period`.

    `None` where there are not `period` true ranges: one less than candles.
    """
    if len(close) < period + 1:
        return None
    ranges: list[float] = [
        max(h, before) - min(low_, before)
        for h, low_, before in zip(
            high[1:].tolist(), low[1:].tolist(), close[:-1].tolist(), strict=True
        )
    ]
    average = sum(ranges[:period]) / period
    for true_range in ranges[period:]:
        average = (average * (period - 1) + true_range) / period
    return average


def yearly_volatility(close: Floats, days_per_year: int) -> float | None:
    """Return the standard deviation of daily returns, for a year; `None` where it can't be told."""
    prices: list[float] = close.tolist()
    returns = [after / before - 1 for before, after in itertools.pairwise(prices)]
    if len(returns) < 2:
        return None
    mean = math.fsum(returns) / len(returns)
    deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1))
    return None if deviation < LEAST_DEVIATION else deviation * math.sqrt(days_per_year)


def bounded(
    wanted: Wanted,
    price: float,
    equity: float,
    least: float | None,
    most_percent: float | None,
    most: float | None,
) -> Wanted:
    """Return what a sizing gave raised to its least quantity first, then capped.

    `most_percent` is of `equity`, as a cost; `price` is slipped. What is no size stays as it is.
    """
    limits = (math.nan if limit is None else limit for limit in (least, most_percent, most))
    return Wanted(*bounded_amounts(wanted.cost, wanted.quantity, price, equity, *limits))


def bounded_amounts(
    cost: float,
    quantity: float,
    price: float,
    equity: float,
    least: float,
    most_percent: float,
    most: float,
) -> tuple[float, float]:
    """Do what `bounded` does with numbers; NaN: no such one."""
    wanted = quantity * price if cost != cost else cost
    if not 0 < wanted < math.inf:
        return cost, quantity
    if (cost / price if quantity != quantity else quantity) < least:
        cost, quantity = math.nan, least
    if (quantity * price if cost != cost else cost) > equity * most_percent / 100:
        cost, quantity = equity * most_percent / 100, math.nan
    if (cost / price if quantity != quantity else quantity) > most:
        cost, quantity = math.nan, most
    return cost, quantity


def fit(
    wanted: Wanted,
    price: float,
    equity: float,
    free: float,
    terms: Terms,
    rules: Rules,
    *,
    refuses: bool,
    dust: float = 0.0,
) -> Entry | Refusal:
    """Return what of a first entry cash and market allow at `price` (slipped), or why nothing.

    `refuses`: what can't be paid whole is refused; else it is reduced to what can. Not more than
    `dust` is nothing: rounding leaves it where all is lost.
    """
    account = equity, free, terms.leverage, terms.fee
    why, quantity, reduced = fitted(*wanted, price, *account, *rules, refuses, dust)
    return Entry(quantity, quantity * price, reduced) if why == 0 else _REFUSALS[why]


def fitted(
    cost: float,
    quantity: float,
    price: float,
    equity: float,
    free: float,
    leverage: float,
    fee: float,
    step: float,
    scale: float,
    min_quantity: float,
    min_notional: float,
    refuses: bool,
    dust: float,
) -> tuple[int, float, bool]:
    """Do what `fit` does with numbers; return why not (0: it fits), what of it, whether reduced."""
    if equity <= dust:
        return NO_CASH, 0.0, False
    wanted = quantity * price if cost != cost else cost
    if not 0 < wanted < math.inf:
        return NO_SIZE, 0.0, False
    reduced = is_short(wanted, free, leverage, fee)
    if reduced:
        if refuses or free <= dust:
            return NO_CASH, 0.0, False
        cost, quantity = most_payable(free, leverage, fee), math.nan
    amount = rounded_down(cost / price if quantity != quantity else quantity, step, scale)
    if is_too_small(amount, price, min_quantity, min_notional):
        return NO_CASH if reduced else TOO_SMALL, 0.0, False
    return 0, amount, reduced

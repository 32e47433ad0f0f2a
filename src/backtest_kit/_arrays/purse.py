"""The money of an account as numbers: what its entries are to cost, and what its fills do.

This is plain Python, for tables of trades (`pay`) and simulations (`lone`); the kernel compiles it.
"""

from __future__ import annotations

from typing import NamedTuple

from backtest_kit._rules.account import Exit, Terms, slipped
from backtest_kit._rules.sizing import bounded_amounts, default_cost, risked_quantity
from backtest_kit._values.candles import Floats, Ints

#: Ways to size by numbers alone: the default, a cost, a percent of equity, a percent at risk.
DEFAULT, COST, OF_EQUITY, AT_RISK = range(4)
#: Of a fill, in whole numbers: when, of which run and trade, its side, whether it was liquidated.
WHEN, RUN, TRADE, SIDE, LIQUIDATED = range(5)
#: Of a fill, in the account's currency (and the quantity); see `Fills`.
QUANTITY, BASIS, BALANCE, FEE, SLIPPAGE, PROFIT, VALUE = range(7)


class Purse(NamedTuple):
    """An account and its runs, as numbers; NaN: not used.

    `terms` are leverage, maintenance, fee and slippage of each run, `rules` step, scale, least
    quantity and least notional, `sizes` way, number, least quantity, greatest percent of equity and
    greatest quantity.
    """

    balance: float
    default_percent: float
    refuses: bool
    terms: Floats
    rules: Floats
    sizes: Floats


def terms_of(purse: Purse, run: int) -> Terms:
    """Return on what terms a run trades."""
    terms = purse.terms
    return Terms(terms[run, 0], terms[run, 1], terms[run, 2], terms[run, 3])


def wanted(
    purse: Purse,
    run: int,
    equity: float,
    cost: float,
    quantity: float,
    price: float,
    stop: float,
    paid: float,
) -> tuple[float, float]:
    """Return the cost of an entry at `price`, `paid` after slippage, or its quantity (else NaN).

    `cost` or `quantity` is what the signal asks for; where it does not, the run's sizing does.
    """
    if cost == cost or quantity == quantity:
        return cost, quantity
    sizes = purse.sizes
    way, number = sizes[run, 0], float(sizes[run, 1])
    if way == DEFAULT:
        runs = len(purse.terms)
        return default_cost(equity, purse.default_percent, runs, terms_of(purse, run)), quantity
    if way == AT_RISK:
        quantity = risked_quantity(equity, number, abs(price - stop))
    elif way == OF_EQUITY:
        cost = equity * number / 100
    else:
        cost = number
    limits = float(sizes[run, 2]), float(sizes[run, 3]), float(sizes[run, 4])
    return bounded_amounts(cost, quantity, paid, equity, *limits)


def write_entry(
    whole: Ints, real: Floats, i: int, side: float, amount: float, price: float, terms: Terms
) -> tuple[float, float]:
    """Write what it does to enter `amount` into row i of the fills; return its cost and its fee."""
    paid = slipped(price, side, terms.slippage)
    spent = amount * paid
    fee = terms.fee * spent
    whole[i, LIQUIDATED] = 0
    real[i, QUANTITY], real[i, BASIS] = amount, spent
    real[i, BALANCE], real[i, FEE] = -fee, fee
    real[i, SLIPPAGE] = amount * abs(paid - price)
    real[i, PROFIT], real[i, VALUE] = 0.0, spent
    return spent, fee


def write_exit(whole: Ints, real: Floats, i: int, amount: float, done: Exit) -> None:
    """Write what an exit of `amount` has done into row i of the fills."""
    whole[i, LIQUIDATED] = done.liquidated
    real[i, QUANTITY], real[i, BASIS] = -amount, -done.basis
    real[i, BALANCE], real[i, FEE] = done.balance, done.fee
    real[i, SLIPPAGE], real[i, PROFIT] = done.slippage, done.profit
    real[i, VALUE] = done.value


def write_place(whole: Ints, i: int, when: int, run: int, trade: int, side: float) -> None:
    """Write into row i of the fills when it was, of which run and trade, and its side."""
    whole[i, WHEN], whole[i, RUN] = when, run
    whole[i, TRADE], whole[i, SIDE] = trade, int(side)

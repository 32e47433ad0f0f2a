"""The account of a lone run, paid from while its trades are simulated.

Nothing is held where its strategy is asked, so its equity is its balance then. What is refused is
known at once, and the run goes on from there, as it does where runs take turns.

This is plain Python; the kernel compiles it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest_kit._arrays.purse import (
    Purse,
    terms_of,
    wanted,
    write_entry,
    write_exit,
    write_place,
)
from backtest_kit._rules.account import (
    HAIR,
    Rules,
    exit_of,
    is_beyond,
    liquidation_price,
    slipped,
)
from backtest_kit._rules.holding import (
    BEYOND_LIQUIDATION,
    FREE,
    PRICE,
    QUANTITY,
    SHORT_OF_CASH,
    SIDE,
    TOO_SMALL,
    WIDTH,
    Numbers,
    amount_of,
    open_account,
)
from backtest_kit._rules.sizing import fitted
from backtest_kit._values.candles import Floats, Ints

#: Of `money`: the balance, the equity by which sizes are measured, what was not charged, and what
#: is held and its cost.
BALANCE, TAKEN, NOT_CHARGED, OWNED, BASIS = range(5)
#: Of `counts`: fills since they were taken out, trades so far, the step at which equity was taken,
#: entries that were reduced; trades refused since their stop lies beyond the liquidation price, and
#: `REFUSED + why` (see `fitted`); further fills that were skipped, for the same three reasons.
(
    FILLS,
    TRADES,
    TAKEN_AT,
    REDUCED,
    REFUSED,
    REFUSED_CASH,
    REFUSED_SIZE,
    REFUSED_MINIMUM,
    SKIPPED_LIQUIDATION,
    SKIPPED_CASH,
    SKIPPED_MINIMUM,
) = range(11)


class Lone(NamedTuple):
    """An account of one run (its `purse` has none: nothing is paid), and what it did so far.

    `cost` and `quantity` are what rows ask for, NaN where they don't; a column of length 1 holds
    for all rows. Fills are written into `whole` (F, 5) and `real` (F, 7), instants in steps.
    """

    purse: Purse
    cost: Floats
    quantity: Floats
    money: Floats
    counts: Ints
    whole: Ints
    real: Floats


def pays(lone: Lone) -> bool:
    """Say whether there is an account at all."""
    return len(lone.purse.terms) > 0


def may_be_liquidated(lone: Lone, side: float, stop: float) -> bool:
    """Say whether a trade without a stop has one at its liquidation price."""
    return math.isinf(stop) and (side < 0 or lone.purse.terms[0, 0] > 1)


def is_liquidated_first(lone: Lone, side: float, price: float, stop: float) -> bool:
    """Say whether a stop lies beyond the liquidation price of an entry; it is refused, counted."""
    terms = terms_of(lone.purse, 0)
    paid = slipped(price, side, terms.slippage)
    level = liquidation_price(side, paid, terms.leverage, terms.maintenance)
    if math.isinf(stop) or not is_beyond(side, stop, level):
        return False
    lone.counts[REFUSED] += 1
    return True


def admitted(lone: Lone, row: int, side: float, price: float, stop: float, when: int) -> float:
    """Return how much a trade enters at step `when`; 0: it is refused, and that is counted."""
    if is_liquidated_first(lone, side, price, stop):
        return 0.0
    purse, money, counts = lone.purse, lone.money, lone.counts
    terms, rules = terms_of(purse, 0), purse.rules
    if counts[TAKEN_AT] != when:
        money[TAKEN], counts[TAKEN_AT] = money[BALANCE], when
    taken = float(money[TAKEN])
    paid = slipped(price, side, terms.slippage)
    cost = float(lone.cost[min(row, len(lone.cost) - 1)])
    quantity = float(lone.quantity[min(row, len(lone.quantity) - 1)])
    stop = math.nan if math.isinf(stop) else stop
    cost, quantity = wanted(purse, 0, taken, cost, quantity, price, stop, paid)
    why, amount, reduced = fitted(
        cost,
        quantity,
        paid,
        taken,
        float(money[BALANCE]),
        terms.leverage,
        terms.fee,
        float(rules[0, 0]),
        float(rules[0, 1]),
        float(rules[0, 2]),
        float(rules[0, 3]),
        purse.refuses,
        HAIR * purse.balance,
    )
    if why != 0:
        counts[REFUSED + why] += 1
        return 0.0
    counts[REDUCED] += reduced
    return amount


def begin(lone: Lone, state: Numbers, amount: float) -> None:
    """Let a managed position that has just been opened be one of the account."""
    rules = lone.purse.rules
    market = Rules(rules[0, 0], rules[0, 1], rules[0, 2], rules[0, 3])
    open_account(state, amount, float(lone.money[BALANCE]), terms_of(lone.purse, 0), market)


def pay_entry(lone: Lone, side: float, amount: float, price: float, when: int, first: bool) -> None:
    """Enter, for the first time or once more."""
    money, counts, i = lone.money, lone.counts, lone.counts[FILLS]
    if first:
        money[OWNED] = money[BASIS] = 0.0
        counts[TRADES] += 1
    write_place(lone.whole, i, when, 0, counts[TRADES] - 1, side)
    terms = terms_of(lone.purse, 0)
    spent, fee = write_entry(lone.whole, lone.real, i, side, amount, price, terms)
    money[BALANCE] -= fee
    money[OWNED] += amount
    money[BASIS] += spent
    counts[FILLS] += 1


def pay_exit(lone: Lone, side: float, amount: float, price: float, when: int) -> None:
    """Close an amount of what is held, at most all of it."""
    money, counts, i = lone.money, lone.counts, lone.counts[FILLS]
    owned, basis = float(money[OWNED]), float(money[BASIS])
    amount = min(amount, owned)
    done = exit_of(side, amount, price, owned, basis, terms_of(lone.purse, 0))
    write_place(lone.whole, i, when, 0, counts[TRADES] - 1, side)
    write_exit(lone.whole, lone.real, i, amount, done)
    money[BALANCE] += done.balance
    money[NOT_CHARGED] += done.not_charged
    money[OWNED], money[BASIS] = owned - amount, basis - done.basis
    counts[FILLS] += 1


def book(lone: Lone, state: Numbers, legs: Numbers, number: int, when: int, closes: bool) -> None:
    """Take a leg of a managed position into the books; `closes`: it closes all."""
    leg, side = WIDTH * number, float(state[SIDE])
    quantity, price = float(legs[leg + QUANTITY]), float(legs[leg + PRICE])
    if quantity > 0:
        pay_entry(lone, side, amount_of(state, quantity), price, when, number == 0)
    elif closes:
        pay_exit(lone, side, math.inf, price, when)
    else:
        pay_exit(lone, side, amount_of(state, -quantity), price, when)


def fund(lone: Lone, state: Numbers) -> None:
    """Tell a managed position what is free."""
    money = lone.money
    state[FREE] = money[BALANCE] - money[BASIS] / lone.purse.terms[0, 0]


def count_skips(lone: Lone, state: Numbers) -> None:
    """Count what of a position that has ended did not fill."""
    counts = lone.counts
    counts[SKIPPED_LIQUIDATION] += int(state[BEYOND_LIQUIDATION])
    counts[SKIPPED_CASH] += int(state[SHORT_OF_CASH])
    counts[SKIPPED_MINIMUM] += int(state[TOO_SMALL])

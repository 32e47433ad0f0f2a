"""An account pays the trades of its runs, or refuses them, while they are simulated.

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
    open_profit,
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

#: Of `money`: the balance, and the equity by which sizes are measured.
BALANCE, TAKEN = range(2)
#: Of a run: the quantity that it holds, its cost, the side, and what it was not charged so far.
OWNED, BASIS, WAY, NOT_CHARGED = range(4)
#: Of `counts`: fills since they were taken out, trades so far, the step at which equity was taken,
#: runs that hold something, entries that were reduced; trades refused since their stop lies beyond
#: the liquidation price, and `REFUSED + why` (see `fitted`); further fills that were skipped, for
#: the same three reasons.
(
    FILLS,
    TRADES,
    TAKEN_AT,
    HOLDING,
    REDUCED,
    REFUSED,
    REFUSED_CASH,
    REFUSED_SIZE,
    REFUSED_MINIMUM,
    SKIPPED_LIQUIDATION,
    SKIPPED_CASH,
    SKIPPED_MINIMUM,
) = range(12)


class Account(NamedTuple):
    """An account of R runs (its `purse` has none: nothing is paid), and what it did so far.

    `cost` and `quantity` are what the rows of one run after the other ask for, NaN where they
    don't; those of run i begin at `rows[0, i]` and `rows[1, i]`, and the last one holds for all
    that follow. `held` is what the runs hold, shape (R, 4), `order` those that do in the order in
    which they entered, `number` that of the newest trade of each. Fills are written into `whole`
    (F, 5) and `real` (F, 7), instants in steps.
    """

    purse: Purse
    cost: Floats
    quantity: Floats
    rows: Ints
    money: Floats
    held: Floats
    order: Ints
    number: Ints
    counts: Ints
    whole: Ints
    real: Floats


def pays(account: Account) -> bool:
    """Say whether there is an account at all."""
    return len(account.purse.terms) > 0


def may_be_liquidated(account: Account, run: int, side: float, stop: float) -> bool:
    """Say whether a trade without a stop has one at its liquidation price."""
    return math.isinf(stop) and (side < 0 or account.purse.terms[run, 0] > 1)


def free_of(account: Account) -> float:
    """Return what further entries may use; open profit is not free."""
    bound = 0.0
    for n in range(account.counts[HOLDING]):
        run = account.order[n]
        bound += account.held[run, BASIS] / account.purse.terms[run, 0]
    return float(account.money[BALANCE]) - bound


def take(account: Account, when: int, marks: Floats) -> None:
    """Take the equity of step `when`, once; `marks` are the prices of what the runs hold."""
    if account.counts[TAKEN_AT] == when:
        return
    profit = 0.0
    for n in range(account.counts[HOLDING]):
        run = int(account.order[n])
        held, leverage = account.held[run], account.purse.terms[run, 0]
        profit += open_profit(held[WAY], held[OWNED], held[BASIS], float(marks[run]), leverage)
    account.money[TAKEN] = account.money[BALANCE] + profit
    account.counts[TAKEN_AT] = when


def is_liquidated_first(account: Account, run: int, side: float, price: float, stop: float) -> bool:
    """Say whether a stop lies beyond the liquidation price of an entry; it is refused, counted."""
    terms = terms_of(account.purse, run)
    paid = slipped(price, side, terms.slippage)
    level = liquidation_price(side, paid, terms.leverage, terms.maintenance)
    if math.isinf(stop) or not is_beyond(side, stop, level):
        return False
    account.counts[REFUSED] += 1
    return True


def admitted(account: Account, run: int, row: int, side: float, price: float, stop: float) -> float:
    """Return how much a trade enters; 0: it is refused, and that is counted.

    The equity of its instant has been taken.
    """
    if is_liquidated_first(account, run, side, price, stop):
        return 0.0
    purse, counts, rows = account.purse, account.counts, account.rows
    terms, rules = terms_of(purse, run), purse.rules
    taken = float(account.money[TAKEN])
    paid = slipped(price, side, terms.slippage)
    cost = float(account.cost[min(rows[0, run] + row, rows[0, run + 1] - 1)])
    quantity = float(account.quantity[min(rows[1, run] + row, rows[1, run + 1] - 1)])
    stop = math.nan if math.isinf(stop) else stop
    cost, quantity = wanted(purse, run, taken, cost, quantity, price, stop, paid)
    why, amount, reduced = fitted(
        cost,
        quantity,
        paid,
        taken,
        free_of(account),
        terms.leverage,
        terms.fee,
        float(rules[run, 0]),
        float(rules[run, 1]),
        float(rules[run, 2]),
        float(rules[run, 3]),
        purse.refuses,
        HAIR * purse.balance,
    )
    if why != 0:
        counts[REFUSED + why] += 1
        return 0.0
    counts[REDUCED] += reduced
    return amount


def begin(account: Account, run: int, state: Numbers, amount: float) -> None:
    """Let a managed position that has just been opened be one of the account."""
    rules = account.purse.rules
    market = Rules(rules[run, 0], rules[run, 1], rules[run, 2], rules[run, 3])
    open_account(state, amount, free_of(account), terms_of(account.purse, run), market)


def pay_entry(
    account: Account, run: int, side: float, amount: float, price: float, when: int, first: bool
) -> None:
    """Enter, for the first time or once more."""
    held, counts, i = account.held[run], account.counts, account.counts[FILLS]
    if first:
        held[OWNED], held[BASIS], held[WAY] = 0.0, 0.0, side
        account.order[counts[HOLDING]] = run
        account.number[run] = counts[TRADES]
        counts[HOLDING] += 1
        counts[TRADES] += 1
    write_place(account.whole, i, when, run, account.number[run], side)
    terms = terms_of(account.purse, run)
    spent, fee = write_entry(account.whole, account.real, i, side, amount, price, terms)
    account.money[BALANCE] -= fee
    held[OWNED] += amount
    held[BASIS] += spent
    counts[FILLS] += 1


def pay_exit(account: Account, run: int, amount: float, price: float, when: int) -> None:
    """Close an amount of what is held, at most all of it."""
    held, money, counts = account.held[run], account.money, account.counts
    owned, basis, side, i = float(held[OWNED]), float(held[BASIS]), float(held[WAY]), counts[FILLS]
    amount = min(amount, owned)
    done = exit_of(side, amount, price, owned, basis, terms_of(account.purse, run))
    write_place(account.whole, i, when, run, account.number[run], side)
    write_exit(account.whole, account.real, i, amount, done)
    money[BALANCE] += done.balance
    held[NOT_CHARGED] += done.not_charged
    held[OWNED], held[BASIS] = owned - amount, basis - done.basis
    counts[FILLS] += 1
    if amount < owned:
        return
    n = 0
    while account.order[n] != run:
        n += 1
    counts[HOLDING] -= 1
    while n < counts[HOLDING]:
        account.order[n] = account.order[n + 1]
        n += 1


def book(
    account: Account,
    run: int,
    state: Numbers,
    legs: Numbers,
    number: int,
    when: int,
    closes: bool,
) -> None:
    """Take a leg of a managed position into the books; `closes`: it closes all."""
    leg = WIDTH * number
    quantity, price = float(legs[leg + QUANTITY]), float(legs[leg + PRICE])
    if quantity > 0:
        amount = amount_of(state, quantity)
        pay_entry(account, run, float(state[SIDE]), amount, price, when, number == 0)
    elif closes:
        pay_exit(account, run, math.inf, price, when)
    else:
        pay_exit(account, run, amount_of(state, -quantity), price, when)


def fund(account: Account, state: Numbers) -> None:
    """Tell a managed position what is free."""
    state[FREE] = free_of(account)


def count_skips(account: Account, state: Numbers) -> None:
    """Count what of a position that has ended did not fill."""
    counts = account.counts
    counts[SKIPPED_LIQUIDATION] += int(state[BEYOND_LIQUIDATION])
    counts[SKIPPED_CASH] += int(state[SHORT_OF_CASH])
    counts[SKIPPED_MINIMUM] += int(state[TOO_SMALL])

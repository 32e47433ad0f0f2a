"""A managed position as a record of numbers, and what it does to it to enter, to leave, to tighten.

`position` has the rules of a step, which are made of these. Both are called as Python (numbers in
lists) and compiled by Numba (in arrays). `legs` is where each fill is written, one row of `WIDTH`
numbers after the other.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from typing import Final

from backtest_kit._rules.account import (
    Rules,
    Terms,
    exit_of,
    is_beyond,
    is_short,
    is_too_small,
    liquidation_price,
    needed,
    rounded_down,
    slipped,
    whole_of,
)
from backtest_kit._rules.life import (
    BREAKEVEN,
    CLOSED,
    END_OF_DATA,
    LIQUIDATION,
    STOP_LOSS,
    TAKE_PROFIT,
    TIME_EXPIRED,
    TRAILING_STOP,
)
from backtest_kit._values.candles import Floats
from backtest_kit._values.results import CANCELLED, LEG_REASONS

Numbers = MutableSequence[float] | Floats
Levels = Sequence[float] | Floats

#: Of `state`. Prices: `FIRST` is the first fill, `AVERAGE` the effective entry, `BEST` the best
#: since the latest entry. Quantities relative to the first entry: `HELD`, `ENTERED`. `COST` of all
#: entries, relative to the first; `PROCEEDS` quantity times price of all exits. `KIND` says what
#: the stop was last moved by: a close reason. `NEXT_...` counts the levels that have acted, `MOVES`
#: the moves of levels, `FILLS` the legs. Settings come next, percents but for `SLIPPAGE` and `FEE`,
#: which are fractions; NaN: not used.
#:
#: The others are of an account (all 0 without one), in its currency, quantities in the base asset:
#: `UNIT` and `FIRST_COST` are what quantities and costs are relative to, `OWNED` and `BASIS` what
#: is held and its cost after slippage, `FREE` what entries can be paid from. `STEP / STEP_SCALE`
#: and the two least amounts are the market's rules. The last three count what did not fill: for
#: want of cash, with its stop beyond the liquidation price, too small for the market.
(
    SIDE,
    FIRST,
    TARGET,
    STOP,
    KIND,
    HELD,
    ENTERED,
    AVERAGE,
    COST,
    PROCEEDS,
    BEST,
    WORST,
    NEXT_ENTRY,
    NEXT_PROFIT,
    NEXT_LOSS,
    MOVES,
    FILLS,
    TRAILING,
    ACTIVATION,
    BREAKEVEN_AT,
    SLIPPAGE,
    FEE,
    UNIT,
    FIRST_COST,
    OWNED,
    BASIS,
    FREE,
    LEVERAGE,
    MAINTENANCE,
    STEP,
    STEP_SCALE,
    MIN_QUANTITY,
    MIN_NOTIONAL,
    SHORT_OF_CASH,
    BEYOND_LIQUIDATION,
    TOO_SMALL,
) = range(36)
#: How many numbers a state is.
SIZE: Final = 36
#: Of a leg: the code of `LEG_REASONS`, price, quantity (below 0: an exit), cost relative to the
#: first entry's (of an exit, at average cost), the effective entry after it, if it is ambiguous.
REASON, PRICE, QUANTITY, LEG_COST, LEG_AVERAGE, AMBIGUOUS = range(6)
WIDTH: Final = 6
#: Reasons of legs, and if they are ambiguous, as numbers: every argument of these functions is a
#: float or an array, so that Numba compiles each of them once.
BY_TARGET, BY_STOP, BY_TIME, BY_END_OF_DATA, BY_CLOSE = map(
    float, (TAKE_PROFIT, STOP_LOSS, TIME_EXPIRED, END_OF_DATA, CLOSED)
)
SIGNAL, ENTRY_LEVEL, TAKE_PROFIT_LEVEL, STOP_LOSS_LEVEL, MANAGE, USER = map(
    float, range(CANCELLED, len(LEG_REASONS))
)
CLEAR, UNCLEAR = 0.0, 1.0
#: What would leave less than this part of the quantity entered closes all.
_LEAST_LEFT: Final = 1e-9
#: Of a sum of shares: what rounding may take from it.
_WHOLE: Final = 100 * (1 - 1e-12)


def fix_levels(percents: Levels, direction: float, first: float, levels: Numbers) -> None:
    """Write the prices of levels, `percents` from the price `first`, and their amounts."""
    for i in range(len(percents) // 2):
        levels[2 * i] = first * (1 + direction * percents[2 * i] / 100)
        levels[2 * i + 1] = percents[2 * i + 1]


def open_position(
    state: Numbers,
    legs: Numbers,
    side: float,
    first: float,
    target: float,
    stop: float,
    begin: float,
    trailing: float,
    activation: float,
    breakeven: float,
    slippage: float,
    fee: float,
) -> None:
    """Begin a position with its first entry at `first`.

    `begin` is where the best price begins: the fill, or the average price where that decides.
    """
    for i in range(SIZE):
        state[i] = 0.0
    state[SIDE], state[FIRST], state[TARGET], state[STOP] = side, first, target, stop
    state[KIND] = BY_STOP
    state[HELD] = state[ENTERED] = state[COST] = 1.0
    state[AVERAGE] = first
    state[BEST] = state[WORST] = begin
    state[TRAILING], state[ACTIVATION], state[BREAKEVEN_AT] = trailing, activation, breakeven
    state[SLIPPAGE], state[FEE] = slippage, fee
    write_leg(state, legs, SIGNAL, first, 1.0, 1.0, CLEAR)


def tighten(state: Numbers) -> None:
    """Move the stop, for the next step, to the tighter of what trailing and breakeven ask for."""
    side, stop, kind = state[SIDE], state[STOP], state[KIND]
    if follows(state):
        price = state[BEST] * trailing_factor(state)
        if side * price > side * stop:
            stop, kind = price, float(TRAILING_STOP)
    if side * state[BEST] >= side * breakeven_from(state):
        price = breakeven_price(side, state[AVERAGE], state[SLIPPAGE], state[FEE])
        if side * price > side * stop:
            stop, kind = price, float(BREAKEVEN)
    if stop != state[STOP]:
        state[STOP], state[KIND] = stop, kind
        state[MOVES] += 1


def follow_to(state: Numbers, best: float) -> None:
    """Do what steps between two acts do where the stop follows: the best price has come to `best`.

    Several moves of the stop count as one.
    """
    state[BEST] = best
    tighten(state)


def trailing_factor(state: Levels) -> float:
    """Return what the best price is multiplied with to get a trailing stop."""
    return 1 - state[SIDE] * state[TRAILING] / 100


def follows(state: Levels) -> bool:
    """Say whether a trailing stop acts at the best price."""
    if not state[TRAILING] > 0:
        return False
    side = state[SIDE]
    return state[ACTIVATION] == 0 or side * state[BEST] >= side * active_from(state)


def active_from(state: Levels) -> float:
    """Return from which best price on a trailing stop acts, unless from the first entry on."""
    return state[AVERAGE] * (1 + state[SIDE] * state[ACTIVATION] / 100)


def breakeven_from(state: Levels) -> float:
    """Return from which best price on the stop is at breakeven; NaN where that is not used."""
    return state[AVERAGE] * (1 + state[SIDE] * state[BREAKEVEN_AT] / 100)


def breakeven_price(side: float, entry: float, slippage: float, fee: float) -> float:
    """Return the price at which a close gives 0 after costs, which are fractions."""
    return entry * (1 + side * slippage) * (1 + side * 2 * fee) / (1 - side * slippage)


def enter(
    state: Numbers,
    legs: Numbers,
    reason: float,
    price: float,
    size: float,
    begin: float,
    ambiguous: float,
) -> None:
    """Enter `size` times the first entry's cost more; the best price begins anew, at `begin`."""
    cost = size * state[FIRST]
    quantity = cost / price
    held = state[HELD] + quantity
    state[AVERAGE] = (state[AVERAGE] * state[HELD] + cost) / held
    state[HELD] = held
    state[ENTERED] += quantity
    state[COST] += size
    state[BEST] = begin
    if state[UNIT] > 0:
        book_entry(state, quantity, price)
    write_leg(state, legs, reason, price, quantity, size, ambiguous)


def leave(
    state: Numbers, legs: Numbers, reason: float, price: float, quantity: float, ambiguous: float
) -> None:
    """Close `quantity` of what is held, at its average cost, which it leaves as it is."""
    if state[UNIT] > 0:
        book_exit(state, quantity, price)
    state[HELD] -= quantity
    state[PROCEEDS] += quantity * price
    cost = quantity * state[AVERAGE] / state[FIRST]
    write_leg(state, legs, reason, price, -quantity, cost, ambiguous)


def close_rest(state: Numbers, legs: Numbers, reason: float, price: float, ambiguous: float) -> int:
    """Close all that is held; return the code of `reason`."""
    leave(state, legs, reason, price, state[HELD], ambiguous)
    return int(reason)


def open_account(
    state: Numbers,
    quantity: float,
    free: float,
    terms: Terms,
    rules: Rules,
) -> None:
    """Let a position that has just been opened be one of an account, of which `free` is free.

    Its first entry has this `quantity`. Without a stop, the liquidation price is one.
    """
    state[UNIT], state[FREE] = quantity, free
    state[LEVERAGE], state[MAINTENANCE] = terms.leverage, terms.maintenance
    state[STEP], state[STEP_SCALE] = rules.step, rules.scale
    state[MIN_QUANTITY], state[MIN_NOTIONAL] = rules.min_quantity, rules.min_notional
    if math.isinf(state[STOP]):
        state[KIND] = float(LIQUIDATION)
    book_entry(state, 1.0, state[FIRST])
    state[FIRST_COST] = state[BASIS]


def book_entry(state: Numbers, quantity: float, price: float) -> None:
    """Take an entry into the books; a stop at the liquidation price goes where that is then."""
    side = state[SIDE]
    bought = amount_of(state, quantity)
    cost = bought * slipped(price, side, state[SLIPPAGE])
    state[OWNED] += bought
    state[BASIS] += cost
    state[FREE] -= needed(cost, state[LEVERAGE], state[FEE])
    if state[KIND] == LIQUIDATION:
        level = liquidation_of(state, state[OWNED], state[BASIS])
        if level > 0:
            state[STOP] = level


def book_exit(state: Numbers, quantity: float, price: float) -> None:
    """Take an exit into the books."""
    owned, basis = state[OWNED], state[BASIS]
    sold = owned if quantity >= state[HELD] else amount_of(state, quantity)
    terms = Terms(state[LEVERAGE], state[MAINTENANCE], state[FEE], state[SLIPPAGE])
    done = exit_of(state[SIDE], sold, price, owned, basis, terms)
    state[OWNED] = owned - sold
    state[BASIS] = basis - done.basis
    state[FREE] += done.basis / state[LEVERAGE] + done.balance


def amount_of(state: Levels, quantity: float) -> float:
    """Return a relative quantity, which is one of whole steps, in the base asset."""
    amount = quantity * state[UNIT]
    if state[STEP] == 0:
        return amount
    steps = whole_of(amount * state[STEP_SCALE] / state[STEP] + 0.5)
    return steps * state[STEP] / state[STEP_SCALE]


def liquidation_of(state: Levels, owned: float, basis: float) -> float:
    """Return the liquidation price of a quantity that was `owned` at a cost `basis`."""
    return liquidation_price(state[SIDE], basis / owned, state[LEVERAGE], state[MAINTENANCE])


def payable(state: Numbers, price: float, size: float) -> float:
    """Return what can be entered of `size` costs of the first entry: less in whole steps, or 0.

    What the account does not pay whole, or the market does not take, is skipped, and counted.
    """
    if state[UNIT] == 0:
        return size
    cost = size * state[FIRST_COST]
    paid = slipped(price, state[SIDE], state[SLIPPAGE])
    if state[KIND] != LIQUIDATION:
        level = liquidation_of(state, state[OWNED] + cost / paid, state[BASIS] + cost)
        if is_beyond(state[SIDE], state[STOP], level):
            state[BEYOND_LIQUIDATION] += 1
            return 0.0
    if is_short(cost, state[FREE], state[LEVERAGE], state[FEE]):
        state[SHORT_OF_CASH] += 1
        return 0.0
    amount = rounded_down(cost / paid, state[STEP], state[STEP_SCALE])
    if is_too_small(amount, paid, state[MIN_QUANTITY], state[MIN_NOTIONAL]):
        state[TOO_SMALL] += 1
        return 0.0
    if state[STEP] == 0:
        return size
    return amount / state[UNIT] * price / state[FIRST]


def closable(state: Numbers, quantity: float) -> float:
    """Return what of a relative quantity can be closed in whole steps; 0 is skipped, and counted.

    Less than all that is held: that is always closed as it is.
    """
    if state[UNIT] == 0 or state[STEP] == 0:
        return quantity
    amount = rounded_down(quantity * state[UNIT], state[STEP], state[STEP_SCALE])
    if amount <= 0:
        state[TOO_SMALL] += 1
        return 0.0
    return amount / state[UNIT]


def share_of(state: Numbers, levels: Levels, i: int) -> float:
    """Return what the level at `i` closes: all, if hardly anything would be left.

    The last one of a ladder whose shares add up to all closes what was entered in between as well.
    """
    if i + 2 == len(levels):
        total = 0.0
        for k in range(1, len(levels), 2):
            total += levels[k]
        if total >= _WHOLE:
            return state[HELD]
    return at_most_held(state, levels[i + 1] / 100 * state[ENTERED])


def at_most_held(state: Numbers, quantity: float) -> float:
    """Return `quantity`, or all that is held if that would leave next to nothing."""
    if state[HELD] - quantity < _LEAST_LEFT * state[ENTERED]:
        return state[HELD]
    return quantity


def paid_and_got(state: Levels) -> tuple[float, float]:
    """Return the mean prices of all that was entered, and of all that was closed."""
    paid = state[COST] * state[FIRST] / state[ENTERED]
    return paid, state[PROCEEDS] / state[ENTERED]


def worse(side: float, one: float, other: float) -> float:
    """Return the worse of two prices to get out at."""
    return other if side * other < side * one else one


def write_leg(
    state: Numbers,
    legs: Numbers,
    reason: float,
    price: float,
    quantity: float,
    cost: float,
    ambiguous: float,
) -> None:
    """Write a fill behind the others; there has to be room for it."""
    at = WIDTH * int(state[FILLS])
    legs[at + REASON], legs[at + PRICE] = reason, price
    legs[at + QUANTITY], legs[at + LEG_COST] = quantity, cost
    legs[at + LEG_AVERAGE], legs[at + AMBIGUOUS] = state[AVERAGE], ambiguous
    state[FILLS] += 1

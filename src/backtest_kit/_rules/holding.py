"""A managed position as a record of numbers, and what it does to it to enter, to leave, to tighten.

`position` has the rules of a step, which are made of these. Both are called as Python (numbers in
lists) and compiled by Numba (in arrays). `legs` is where each fill is written, one row of `WIDTH`
numbers after the other.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Final

from backtest_kit._rules.life import (
    BREAKEVEN,
    CLOSED,
    END_OF_DATA,
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
#: the moves of levels, `FILLS` the legs. The last five are settings, percents but for `SLIPPAGE`
#: and `FEE`, which are fractions; NaN: not used.
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
) = range(22)
#: How many numbers a state is.
SIZE: Final = 22
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
    write_leg(state, legs, reason, price, quantity, size, ambiguous)


def leave(
    state: Numbers, legs: Numbers, reason: float, price: float, quantity: float, ambiguous: float
) -> None:
    """Close `quantity` of what is held, at its average cost, which it leaves as it is."""
    state[HELD] -= quantity
    state[PROCEEDS] += quantity * price
    cost = quantity * state[AVERAGE] / state[FIRST]
    write_leg(state, legs, reason, price, -quantity, cost, ambiguous)


def close_rest(state: Numbers, legs: Numbers, reason: float, price: float, ambiguous: float) -> int:
    """Close all that is held; return the code of `reason`."""
    leave(state, legs, reason, price, state[HELD], ambiguous)
    return int(reason)


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

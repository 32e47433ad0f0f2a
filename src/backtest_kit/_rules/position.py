"""The rules of a managed position: what a candle does to it, as functions of numbers.

Like `life`, which has those of a signal with one target and one stop, this is the only statement of
these rules; searches only find the step at which to ask it (`watched`).

The position is laid out as `holding` says. Levels are flat: price, amount, price, amount ...,
nearest first; the amount is a share in percent of the quantity entered so far, or for `entries` a
size in costs of the first entry.
"""

from __future__ import annotations

from backtest_kit._rules.holding import (
    AVERAGE,
    BEST,
    BREAKEVEN_AT,
    BY_STOP,
    BY_TARGET,
    BY_TIME,
    CLEAR,
    ENTRY_LEVEL,
    FEE,
    HELD,
    KIND,
    NEXT_ENTRY,
    NEXT_LOSS,
    NEXT_PROFIT,
    SIDE,
    SLIPPAGE,
    STOP,
    STOP_LOSS_LEVEL,
    TAKE_PROFIT_LEVEL,
    TARGET,
    TRAILING,
    UNCLEAR,
    WORST,
    Levels,
    Numbers,
    active_from,
    breakeven_from,
    breakeven_price,
    close_rest,
    enter,
    follows,
    leave,
    share_of,
    tighten,
    worse,
)
from backtest_kit._rules.life import UNCHANGED


def opening_step(
    state: Numbers,
    entries: Levels,
    losses: Levels,
    waited: bool,
    fill: float,
    open_: float,
    high: float,
    low: float,
    wick: bool,
    legs: Numbers,
) -> int:
    """Do what the step of the first fill does after it; return why it closes, or `UNCHANGED`.

    An order that waited (`waited`) in the market is filled on the way to the candle's worst price,
    so that this is reached as well, and nothing on the other side.
    """
    if waited and wick:
        side = state[SIDE]
        worst = low if side > 0 else high
        outcome = fall_to(state, entries, losses, worst, open_, fill, wick, worst, CLEAR, legs)
        if outcome != UNCHANGED:
            return outcome
        if side * worst < side * state[WORST]:
            state[WORST] = worst
    tighten(state)
    return UNCHANGED


def managed_step(
    state: Numbers,
    entries: Levels,
    profits: Levels,
    losses: Levels,
    expired: bool,
    average: float,
    fill: float,
    open_: float,
    high: float,
    low: float,
    wick: bool,
    loss_first: bool,
    legs: Numbers,
) -> int:
    """Do what a later step's candle does; return why it closes the position, or `UNCHANGED`.

    `loss_first` is the setting for candles that reach something at both ends.
    """
    side, stop = state[SIDE], state[STOP]
    bound = open_
    if not wick:  # a flat candle at the average price, every fill at the worse of level and market
        if expired:
            return close_rest(state, legs, BY_TIME, fill, CLEAR)
        open_ = high = low = average
        bound = worse(side, stop, fill)
    if side * open_ <= side * stop:
        return close_rest(state, legs, state[KIND], bound, CLEAR)
    added, bound = state[NEXT_ENTRY], (open_ if wick else fill)
    worst, best = (low, high) if side > 0 else (high, low)
    outcome = UNCHANGED
    # first to the open, then to both ends
    if falls_first(state, entries, losses, open_) != 0:
        outcome = fall_to(state, entries, losses, open_, bound, fill, wick, average, CLEAR, legs)
    if outcome == UNCHANGED and rises(state, profits, open_):
        outcome = rise_to(state, profits, open_, fill, wick, CLEAR, legs)
    if outcome == UNCHANGED and wick:
        down = falls_first(state, entries, losses, worst)
        up = rises(state, profits, best)
        unclear = UNCLEAR if down != 0 and up else CLEAR
        last = up and down != 0 and (down > 0) != loss_first
        if down != 0 and not last:
            outcome = fall_to(
                state, entries, losses, worst, bound, fill, wick, average, unclear, legs
            )
        if outcome == UNCHANGED and up:
            outcome = rise_to(state, profits, best, fill, wick, unclear, legs)
        if outcome == UNCHANGED and last:
            outcome = fall_to(
                state, entries, losses, worst, bound, fill, wick, average, unclear, legs
            )
        if outcome == UNCHANGED and expired:
            outcome = close_rest(state, legs, BY_TIME, fill, CLEAR)
    if outcome != UNCHANGED:
        return outcome
    if state[NEXT_ENTRY] == added and side * best > side * state[BEST]:
        state[BEST] = best
    if side * worst < side * state[WORST]:
        state[WORST] = worst
    tighten(state)
    return UNCHANGED


def fall_to(
    state: Numbers,
    entries: Levels,
    losses: Levels,
    to: float,
    bound: float,
    fill: float,
    wick: bool,
    average: float,
    ambiguous: float,
    legs: Numbers,
) -> int:
    """Let the price fall (for a short: rise) to `to`; return why it closes, or `UNCHANGED`.

    Losing levels before the stop act, nearest first, at the same distance entries first. An exit is
    at the worse of its level and `bound`. Where the average price decides, no entry fills while the
    market is at or beyond stop or target.
    """
    side, stop = state[SIDE], state[STOP]
    reached = max(side * stop, side * to)
    enters = wick or side * stop < side * fill < side * state[TARGET]
    while True:
        i, j = 2 * int(state[NEXT_ENTRY]), 2 * int(state[NEXT_LOSS])
        add = enters and i < len(entries) and is_reached(side, entries[i], reached, stop)
        cut = j < len(losses) and is_reached(side, losses[j], reached, stop)
        if add and (not cut or side * entries[i] >= side * losses[j]):
            price = entries[i] if wick or side * fill <= side * entries[i] else fill
            state[NEXT_ENTRY] += 1
            begin = price if wick else average
            enter(state, legs, ENTRY_LEVEL, price, entries[i + 1], begin, ambiguous)
        elif cut:
            price = worse(side, losses[j], bound)
            state[NEXT_LOSS] += 1
            quantity = share_of(state, losses, j)
            if quantity >= state[HELD]:
                return close_rest(state, legs, BY_STOP, price, ambiguous)
            leave(state, legs, STOP_LOSS_LEVEL, price, quantity, ambiguous)
        else:
            break
    if side * to <= side * stop:
        return close_rest(state, legs, state[KIND], worse(side, stop, bound), ambiguous)
    return UNCHANGED


def rise_to(
    state: Numbers,
    profits: Levels,
    to: float,
    fill: float,
    wick: bool,
    ambiguous: float,
    legs: Numbers,
) -> int:
    """Let the price rise (for a short: fall) to `to`; return why it closes, or `UNCHANGED`.

    Profit levels before the target act, nearest first, each at its level, or where the average
    price decides at the worse of it and the market.
    """
    side, target = state[SIDE], state[TARGET]
    ends = side * to >= side * target
    while True:
        i = 2 * int(state[NEXT_PROFIT])
        if i >= len(profits) or side * profits[i] > side * to:
            break
        if side * profits[i] >= side * target:  # a target that was moved comes before it
            break
        price = profits[i] if wick else worse(side, profits[i], fill)
        state[NEXT_PROFIT] += 1
        quantity = share_of(state, profits, i)
        if quantity >= state[HELD]:
            return close_rest(state, legs, BY_TARGET, price, ambiguous)
        leave(state, legs, TAKE_PROFIT_LEVEL, price, quantity, ambiguous)
    if ends:
        price = target if wick else worse(side, target, fill)
        return close_rest(state, legs, BY_TARGET, price, ambiguous)
    return UNCHANGED


def falls_first(state: Numbers, entries: Levels, losses: Levels, worst: float) -> int:
    """Say what there is to reach at the worst price of a candle; 0: nothing.

    1: what as a rule costs more if it comes first (the stop, or a loss level and no entry); -1:
    what costs more if it comes last, since buying low before selling high would flatter.
    """
    side, stop = state[SIDE], state[STOP]
    if side * worst <= side * stop:
        return 1
    i, j = 2 * int(state[NEXT_ENTRY]), 2 * int(state[NEXT_LOSS])
    if i < len(entries) and is_reached(side, entries[i], side * worst, stop):
        return -1
    return 1 if j < len(losses) and is_reached(side, losses[j], side * worst, stop) else 0


def rises(state: Numbers, profits: Levels, best: float) -> bool:
    """Say whether there is something to reach at the best price of a candle."""
    side, i = state[SIDE], 2 * int(state[NEXT_PROFIT])
    if side * best >= side * state[TARGET]:
        return True
    return i < len(profits) and side * best >= side * profits[i]


def watched(state: Levels, entries: Levels, profits: Levels, losses: Levels) -> tuple[float, float]:
    """Return the lower and the upper price at which anything can happen next.

    Between them a step changes nothing that matters later: neither a fill, nor the stop, unless it
    `follows` the best price.
    """
    side = state[SIDE]
    near, far = side * state[STOP], side * state[TARGET]
    i, j, k = 2 * int(state[NEXT_ENTRY]), 2 * int(state[NEXT_LOSS]), 2 * int(state[NEXT_PROFIT])
    if i < len(entries):
        near = max(near, side * entries[i])
    if j < len(losses):
        near = max(near, side * losses[j])
    if k < len(profits):
        far = min(far, side * profits[k])
    if state[TRAILING] > 0 and not follows(state):
        far = min(far, side * active_from(state))
    if state[BREAKEVEN_AT] > 0:
        price = breakeven_price(side, state[AVERAGE], state[SLIPPAGE], state[FEE])
        if side * price > side * state[STOP]:
            far = min(far, side * breakeven_from(state))
    return (near, far) if side > 0 else (-far, -near)


def is_reached(side: float, level: float, reached: float, stop: float) -> bool:
    """Say whether a losing level is reached, and before the stop."""
    return reached <= side * level and side * level > side * stop

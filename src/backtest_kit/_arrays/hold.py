"""Managed positions of a simulation: from the fill to the end, asking the rules where they act."""

from __future__ import annotations

from typing import Final

from backtest_kit._arrays.layout import (
    AIM,
    BREAKEVEN_FROM,
    ENDED_AT,
    ENDED_BY,
    ENTERED_AT,
    FILLED_AT,
    IS_AMBIGUOUS,
    LASTS,
    NOTED,
    PROPOSED_AT,
    SIDE_OF,
    STOP_AT,
    TRAILED_BY,
    TRAILED_FROM,
    Columns,
    Rules,
    Work,
)
from backtest_kit._arrays.searches import exit_after, first_touch, open_step
from backtest_kit._rules.fast_forward import trailing_touch
from backtest_kit._rules.holding import (
    AMBIGUOUS,
    BEST,
    BY_CLOSE,
    BY_END_OF_DATA,
    CLEAR,
    FILLS,
    WIDTH,
    close_rest,
    fix_levels,
    follow_to,
    follows,
    open_position,
    trailing_factor,
)
from backtest_kit._rules.life import UNCHANGED
from backtest_kit._rules.position import managed_step, opening_step, watched

#: The legs of a position with one entry and one exit, which are not written.
PLAIN: Final = 2


def open_hold(columns: Columns, rules: Rules, work: Work) -> None:
    """Open a position at its first fill, without any account."""
    prices, side, entry = work.prices, work.prices[SIDE_OF], work.prices[ENTERED_AT]
    fix_levels(columns.profits, side, entry, work.profits)
    fix_levels(columns.losses, -side, entry, work.losses)
    fix_levels(columns.entries, -side, entry, work.entries)
    work.trade[NOTED] = 0
    open_position(
        work.state,
        work.legs,
        side,
        entry,
        prices[AIM],
        prices[STOP_AT],
        entry if rules.wick else columns.price[work.trade[FILLED_AT]],
        prices[TRAILED_BY],
        prices[TRAILED_FROM],
        prices[BREAKEVEN_FROM],
        rules.limits.slippage,
        rules.limits.fee,
    )


def first_step(columns: Columns, rules: Rules, work: Work) -> None:
    """Do what the step of the fill does to a position after it."""
    trade = work.trade
    at, waited = trade[FILLED_AT], trade[FILLED_AT] != trade[PROPOSED_AT]
    reason = opening_step(
        work.state,
        work.entries,
        work.losses,
        waited,
        columns.fill[at],
        columns.open[at],
        columns.high[at],
        columns.low[at],
        rules.wick,
        work.legs,
    )
    if reason == UNCHANGED and waited and _exit_at(columns, work) == at:
        reason = close_rest(work.state, work.legs, BY_CLOSE, columns.fill[at], CLEAR)
    trade[ENDED_BY] = reason


def next_act(columns: Columns, rules: Rules, work: Work) -> int:
    """Return the next step at which the rules have to be asked; -1: the data end before."""
    trade, state = work.trade, work.state
    last = open_step(columns.next_open, trade[FILLED_AT] + trade[LASTS])
    last = min(last, _exit_at(columns, work))
    lower, upper = watched(state, work.entries, work.profits, work.losses)
    low, high, since = columns.touch_low, columns.touch_high, trade[ENDED_AT]
    if not follows(state):
        return first_touch(low, high, since, last, lower, upper)
    best, factor = state[BEST], trailing_factor(state)
    side = work.prices[SIDE_OF]
    at, best = trailing_touch(low, high, since, last, lower, upper, side, best, factor)
    follow_to(state, best)
    return at


def act(columns: Columns, rules: Rules, work: Work, at: int) -> None:
    """Do what a later step does to a position."""
    trade, state = work.trade, work.state
    reason = managed_step(
        state,
        work.entries,
        work.profits,
        work.losses,
        at - trade[FILLED_AT] >= trade[LASTS],
        columns.price[at],
        columns.fill[at],
        columns.open[at],
        columns.high[at],
        columns.low[at],
        rules.wick,
        rules.stop_first,
        work.legs,
    )
    if reason == UNCHANGED and at == _exit_at(columns, work):
        reason = close_rest(state, work.legs, BY_CLOSE, columns.fill[at], CLEAR)
    trade[ENDED_AT], trade[ENDED_BY] = at, reason


def data_end_at(rules: Rules, work: Work) -> int:
    """Return the step at which the data end for a position."""
    return max(rules.last, work.trade[FILLED_AT])


def close_at_data_end(columns: Columns, rules: Rules, work: Work) -> None:
    """Close a position where the data end."""
    at = data_end_at(rules, work)
    work.trade[ENDED_AT] = at
    reason = close_rest(work.state, work.legs, BY_END_OF_DATA, columns.fill[at], CLEAR)
    work.trade[ENDED_BY] = reason


def keep_legs(work: Work, written: int) -> int:
    """Write the legs of a position that has ended behind the `written` ones; return how many.

    Not those of one entry and one exit, which follow from its prices.
    """
    legs, count, unclear = work.legs, int(work.state[FILLS]), False
    for i in range(count):
        unclear = unclear or legs[i * WIDTH + AMBIGUOUS] > 0
    work.trade[IS_AMBIGUOUS] = unclear
    if count <= PLAIN:
        return 0
    for i in range(count):
        work.all_steps[written + i] = work.steps[i]
        for j in range(WIDTH):
            work.all_legs[(written + i) * WIDTH + j] = legs[i * WIDTH + j]
    return count


def _exit_at(columns: Columns, work: Work) -> int:
    """Return the first step from the fill on, of one that waited, or after it at which to exit."""
    filled, waited = work.trade[FILLED_AT], work.trade[FILLED_AT] != work.trade[PROPOSED_AT]
    return exit_after(columns, work.prices[SIDE_OF], filled - waited)

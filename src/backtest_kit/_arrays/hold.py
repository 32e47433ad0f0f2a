"""Managed positions of a simulation: from the fill to the end, asking the rules where they act."""

from __future__ import annotations

from typing import Final

from backtest_kit._arrays.layout import Columns, Rules, Work
from backtest_kit._arrays.lone import Lone, begin, book, count_skips, fund, pays
from backtest_kit._arrays.searches import exit_after, first_touch
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
from backtest_kit._values.candles import Ints

#: The legs of a position with one entry and one exit, which are not written.
PLAIN: Final = 2


def hold(
    columns: Columns,
    rules: Rules,
    work: Work,
    side: float,
    entry: float,
    goal: float,
    stop: float,
    how: tuple[float, float, float],
    exits: Ints,
    scheduled: int,
    filled: int,
    lasts: int,
    lone: Lone,
    amount: float,
) -> tuple[int, int]:
    """Follow a managed position from the step `filled` on; return why it ends, and at which step.

    It was proposed at step `scheduled`, and lives for `lasts` steps. `how` is the trailing stop,
    from where on, and breakeven, in percent. An account of a `lone` run enters `amount` first.
    """
    state, legs = work.state, work.legs
    fix_levels(columns.profits, side, entry, work.profits)
    fix_levels(columns.losses, -side, entry, work.losses)
    fix_levels(columns.entries, -side, entry, work.entries)
    fill, wick, at, known = columns.fill[filled], rules.wick, filled, 0
    best = entry if wick else columns.price[filled]
    trailing, activation, breakeven = how
    costs = rules.limits.slippage, rules.limits.fee
    open_position(
        state, legs, side, entry, goal, stop, best, trailing, activation, breakeven, *costs
    )
    on_account = pays(lone)
    if on_account:
        begin(lone, state, amount)
    waited = filled != scheduled
    reason = opening_step(
        state,
        work.entries,
        work.losses,
        waited,
        fill,
        columns.open[filled],
        columns.high[filled],
        columns.low[filled],
        wick,
        legs,
    )
    exit_at = exit_after(exits, filled - waited)
    if reason == UNCHANGED and exit_at == filled:
        reason = close_rest(state, legs, BY_CLOSE, fill, CLEAR)
    last = filled + lasts
    if len(columns.next_open) > 0 and last < len(columns.fill):
        last = columns.next_open[last]
    last = min(last, exit_at)
    while True:
        while known < state[FILLS]:
            work.steps[known] = at
            if on_account:
                closes = reason != UNCHANGED and known + 1 == state[FILLS]
                book(lone, state, legs, known, rules.epoch + at, closes)
            known += 1
        if reason != UNCHANGED:
            if on_account:
                count_skips(lone, state)
            return reason, at
        lower, upper = watched(state, work.entries, work.profits, work.losses)
        low, high = columns.touch_low, columns.touch_high
        if follows(state):
            best, factor = state[BEST], trailing_factor(state)
            at, best = trailing_touch(low, high, at, last, lower, upper, side, best, factor)
            follow_to(state, best)
        else:
            at = first_touch(low, high, at, last, lower, upper)
        if at < 0:
            at = max(rules.last, filled)
            reason = close_rest(state, legs, BY_END_OF_DATA, columns.fill[at], CLEAR)
            continue
        if on_account:
            fund(lone, state)
        reason = managed_step(
            state,
            work.entries,
            work.profits,
            work.losses,
            at - filled >= lasts,
            columns.price[at],
            columns.fill[at],
            columns.open[at],
            columns.high[at],
            columns.low[at],
            wick,
            rules.stop_first,
            legs,
        )
        if reason == UNCHANGED and at == exit_at:
            reason = close_rest(state, legs, BY_CLOSE, columns.fill[at], CLEAR)


def keep_legs(work: Work, written: int) -> tuple[int, bool]:
    """Write the legs of a position behind the `written` ones; return how many, and if unclear.

    Not those of one entry and one exit, which follow from its prices.
    """
    legs, count, unclear = work.legs, int(work.state[FILLS]), False
    for i in range(count):
        unclear = unclear or legs[i * WIDTH + AMBIGUOUS] > 0
    if count <= PLAIN:
        return 0, unclear
    for i in range(count):
        work.all_steps[written + i] = work.steps[i]
        for j in range(WIDTH):
            work.all_legs[(written + i) * WIDTH + j] = legs[i * WIDTH + j]
    return count, unclear

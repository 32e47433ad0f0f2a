"""The stages of a trade under way: proposed, filled, ended, and when the strategy is asked again.

What becomes of it is asked of the rules (`_rules`); `searches` find where they have to be asked.
Between two stages somebody may have a say: an account that pays or refuses. Each writes into the
`trade` and the `prices` of `Work`; positions that are managed are followed by `hold`.

This is plain Python over NumPy's searches; the kernel is the same functions, compiled.
"""

from __future__ import annotations

import numpy as np

from backtest_kit._arrays.layout import (
    AIM,
    AMBIGUOUS,
    ASKED,
    ASKED_PRICE,
    ASKS_FROM,
    BREAKEVEN_FROM,
    CALLS,
    CLOSE,
    CLOSED_FOR,
    ENDED,
    ENDED_AT,
    ENDED_BY,
    ENTERED_AT,
    ENTRY,
    FILLED,
    FILLED_AT,
    FIRST_INVALID,
    FRAME,
    GOAL,
    HELD,
    INVALID,
    IS_AMBIGUOUS,
    IS_IMMEDIATE,
    IS_MANAGED,
    LASTS,
    LEGS,
    LIMIT,
    NO_STEP,
    OF_ROW,
    PAID,
    PROPOSED_AT,
    REASON,
    ROW,
    SCHEDULED,
    SIDE_OF,
    STOP,
    STOP_AT,
    TRAILED_BY,
    TRAILED_FROM,
    UNANSWERED,
    WHOLE_COST,
    Columns,
    Rules,
    Work,
)
from backtest_kit._arrays.searches import (
    exit_after,
    first_open_frame,
    first_touch,
    next_signal,
    open_step,
)
from backtest_kit._rules.asking import next_due
from backtest_kit._rules.holding import COST, paid_and_got
from backtest_kit._rules.life import (
    ACTIVATED,
    CANCELLED_END_OF_DATA,
    CANCELLED_EXIT,
    CLOSED,
    END_OF_DATA,
    STOP_LOSS,
    UNCHANGED,
    opens_now,
    pending_step,
    scheduled_step,
)
from backtest_kit._rules.management import management_problems
from backtest_kit._rules.proposal import never_reached, problems_of
from backtest_kit._values.candles import Floats, Ints


def propose(columns: Columns, rules: Rules, state: Ints, work: Work) -> bool:
    """Ask on, up to the next valid signal; return whether there is one."""
    steps, next_open, limits = len(columns.fill), columns.next_open, rules.limits
    goals, stops, lives = columns.goal, columns.stop, columns.minutes
    trailings, activations = columns.trailing, columns.activation
    trade, prices = work.trade, work.prices
    levels = len(columns.profits) + len(columns.losses) + len(columns.entries)
    while state[FRAME] < rules.until:
        frame = int(state[FRAME])
        if rules.start + frame * rules.step >= steps:
            return False
        due = next_due(max(frame, int(state[ASKS_FROM])), rules.hop, rules.phase)
        if len(next_open) > 0:
            due = max(due, first_open_frame(rules, next_open, due))
        if frame < due:
            state[FRAME] = min(due, rules.frames)
            continue
        k = rules.start + frame * rules.step
        asked, missing, row = next_signal(rules, columns.side, k, steps, next_open)
        last = frame + (asked - 1) * rules.hop
        state[FRAME], state[ASKS_FROM] = last + 1, last + rules.hop
        state[CALLS] += asked
        state[UNANSWERED] += missing
        if row < 0:
            continue
        k = rules.start + last * rules.step
        side, average, fill = float(columns.side[row]), columns.price[k], columns.fill[k]
        goal, stop = goals[min(row, len(goals) - 1)], stops[min(row, len(stops) - 1)]
        minutes = lives[min(row, len(lives) - 1)]
        limit = columns.entry[min(row, len(columns.entry) - 1)]
        if rules.relative:
            goal, stop = fill * (1 + side * goal / 100), fill * (1 - side * stop / 100)
        problems = problems_of(side, limit, goal, stop, minutes, average, fill, rules.wick, limits)
        goal, stop = never_reached(side, goal, stop)
        now = opens_now(side, limit, fill)
        trailing = trailings[min(row, len(trailings) - 1)]
        breakeven = columns.breakeven[min(row, len(columns.breakeven) - 1)]
        managed = rules.managed and (levels > 0 or trailing == trailing or breakeven == breakeven)
        activation = activations[min(row, len(activations) - 1)]
        activation = activation if activation == activation else 0.0
        if managed and problems == 0:
            problems = management_problems(
                side,
                fill if now else limit,
                goal,
                stop,
                trailing,
                activation,
                breakeven,
                columns.profits,
                columns.losses,
                columns.entries,
                limits,
            )
        if problems != 0:
            state[FIRST_INVALID] = rules.epoch + k if state[INVALID] == 0 else state[FIRST_INVALID]
            state[INVALID] += 1
            continue
        if minutes == minutes:
            lasts = -(-int(minutes) // rules.minutes)
        elif limits.lifetime > 0:
            lasts = -(-limits.lifetime // rules.minutes)
        else:
            lasts = NO_STEP // 2
        trade[OF_ROW], trade[PROPOSED_AT], trade[LASTS] = row, k, lasts
        trade[FILLED_AT] = trade[ENDED_AT] = k
        trade[ENDED_BY], trade[IS_AMBIGUOUS] = UNCHANGED, False
        trade[IS_IMMEDIATE], trade[IS_MANAGED] = now, managed
        prices[SIDE_OF], prices[AIM], prices[STOP_AT] = side, goal, stop
        prices[ASKED_PRICE], prices[ENTERED_AT], prices[CLOSED_FOR] = limit, fill, stop
        prices[TRAILED_BY], prices[TRAILED_FROM] = trailing, activation
        prices[BREAKEVEN_FROM] = breakeven
        return True
    return False


def await_fill(columns: Columns, rules: Rules, work: Work) -> None:
    """Find when a signal that waits is filled, or why it ends without."""
    trade, prices = work.trade, work.prices
    k, side, limit = trade[PROPOSED_AT], prices[SIDE_OF], prices[ASKED_PRICE]
    lower, upper = (limit, np.inf) if side > 0 else (-np.inf, limit)
    last = min(open_step(columns.next_open, k + rules.wait), exit_after(columns, side, k))
    at = first_touch(columns.touch_low, columns.touch_high, k, last, lower, upper)
    reason, entry = CANCELLED_END_OF_DATA, limit
    if at < 0:
        at = max(rules.last, k)
    else:
        reason, entry = scheduled_step(
            side,
            limit,
            prices[AIM],
            prices[STOP_AT],
            at - k >= rules.wait,
            columns.price[at],
            columns.fill[at],
            columns.open[at],
            columns.high[at],
            columns.low[at],
            rules.wick,
        )
    if reason == UNCHANGED:  # it waits, until a row ends that
        reason = CANCELLED_EXIT
    trade[FILLED_AT] = trade[ENDED_AT] = at
    trade[ENDED_BY], prices[ENTERED_AT] = reason, entry


def settle(work: Work) -> None:
    """Go on with a signal that has waited and is filled: it is open, or stopped out at once."""
    trade = work.trade
    lives = trade[ENDED_BY] == ACTIVATED or trade[IS_MANAGED]
    trade[ENDED_BY] = UNCHANGED if lives else STOP_LOSS


def find_end(columns: Columns, rules: Rules, work: Work) -> None:
    """Find how a trade ends that is not managed and has just been filled."""
    trade, prices = work.trade, work.prices
    side, goal, stop = prices[SIDE_OF], prices[AIM], prices[STOP_AT]
    filled = trade[FILLED_AT]
    if filled != trade[PROPOSED_AT] and exit_after(columns, side, filled - 1) == filled:
        trade[ENDED_BY], prices[CLOSED_FOR] = CLOSED, columns.fill[filled]
        return
    lower, upper = (stop, goal) if side > 0 else (goal, stop)
    last = open_step(columns.next_open, filled + trade[LASTS])
    last = min(last, exit_after(columns, side, filled))
    at = first_touch(columns.touch_low, columns.touch_high, filled, last, lower, upper)
    if at < 0:
        trade[ENDED_AT] = at = max(rules.last, filled)
        trade[ENDED_BY], prices[CLOSED_FOR] = END_OF_DATA, columns.fill[at]
        return
    reason, close, ambiguous = pending_step(
        side,
        goal,
        stop,
        at - filled >= trade[LASTS],
        columns.price[at],
        columns.fill[at],
        columns.open[at],
        columns.high[at],
        columns.low[at],
        rules.wick,
        rules.stop_first,
    )
    if reason == UNCHANGED:  # it lives on, until a row ends that
        reason, close = CLOSED, columns.fill[at]
    trade[ENDED_AT], trade[ENDED_BY], trade[IS_AMBIGUOUS] = at, reason, ambiguous
    prices[CLOSED_FOR] = close


def write_trade(
    rules: Rules, state: Ints, work: Work, whole: Ints, real: Floats, i: int, legs: int, held: bool
) -> None:
    """Write a trade that has ended into column i, with so many `legs`; `held`: it was managed."""
    trade, prices, epoch = work.trade, work.prices, rules.epoch
    paid, close, cost = prices[ENTERED_AT], prices[CLOSED_FOR], 1.0
    if held:
        paid, close = paid_and_got(work.state)
        cost = work.state[COST]
    whole[ROW, i], whole[SCHEDULED, i] = trade[OF_ROW], epoch + trade[PROPOSED_AT]
    whole[FILLED, i], whole[ENDED, i] = epoch + trade[FILLED_AT], epoch + trade[ENDED_AT]
    whole[REASON, i], whole[AMBIGUOUS, i] = trade[ENDED_BY], trade[IS_AMBIGUOUS]
    whole[ASKED, i], whole[LEGS, i] = state[CALLS], legs
    real[ENTRY, i], real[GOAL, i] = prices[ENTERED_AT], prices[AIM]
    real[STOP, i], real[CLOSE, i] = prices[STOP_AT], close
    real[LIMIT, i], real[PAID, i] = prices[ASKED_PRICE], paid
    real[WHOLE_COST, i] = cost


def ask_again(columns: Columns, rules: Rules, state: Ints, work: Work) -> None:
    """Go on to the frame at which the strategy may be asked again after a trade."""
    trade, frame = work.trade, state[FRAME]
    at, reason = trade[ENDED_AT], trade[ENDED_BY]
    free = 0 if exit_after(columns, work.prices[SIDE_OF], at - 1) == at else rules.free
    if reason in (END_OF_DATA, CANCELLED_END_OF_DATA):
        free = 1
    after = -((rules.start - at - free) // rules.step)
    after = min(max(after, frame), rules.frames)
    state[HELD] += after - frame
    state[FRAME] = after

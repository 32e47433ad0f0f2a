"""From arrays of signals to closed trades: one signal after another, without visiting each step.

What becomes of a signal is asked of the rules (`_rules`); `searches` find where they have to be
asked. Bit for bit the same as the engine's steps. Not here: risk profiles, milestones, events.

This is plain Python over NumPy's searches; the kernel is the same function, compiled by Numba
together with the rules and with searches of its own (`kernel`).
"""

from __future__ import annotations

import numpy as np

from backtest_kit._arrays.hold import PLAIN, hold, keep_legs
from backtest_kit._arrays.layout import (
    AMBIGUOUS,
    ASKED,
    ASKS_FROM,
    CALLS,
    CLOSE,
    ENDED,
    ENTRY,
    FILLED,
    FIRST_INVALID,
    FRAME,
    GOAL,
    HELD,
    INVALID,
    LEGS,
    LIMIT,
    NO_STEP,
    PAID,
    REASON,
    ROW,
    SCHEDULED,
    STOP,
    UNANSWERED,
    WHOLE_COST,
    WRITTEN_LEGS,
    Columns,
    Rules,
    Work,
)
from backtest_kit._arrays.lone import (
    Lone,
    admitted,
    is_liquidated_first,
    may_be_liquidated,
    pay_entry,
    pay_exit,
    pays,
)
from backtest_kit._arrays.searches import (
    exit_after,
    first_open_frame,
    first_touch,
    next_signal,
)
from backtest_kit._rules.asking import next_due
from backtest_kit._rules.holding import COST, paid_and_got
from backtest_kit._rules.life import (
    ACTIVATED,
    ACTIVATED_AND_STOPPED,
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
from backtest_kit._values.results import CANCELLED


def simulate(
    columns: Columns, rules: Rules, state: Ints, whole: Ints, real: Floats, work: Work, lone: Lone
) -> int:
    """Write trades until the columns are full or the frames are played; return how many.

    `state`, `whole` and `real` are laid out as the constants above say. Each is paid by the account
    of a `lone` run, if that has one, or refused.
    """
    averages, fills, opens = columns.price, columns.fill, columns.open
    highs, lows = columns.high, columns.low
    sides, goals, stops = columns.side, columns.goal, columns.stop
    lives, entries, next_open = columns.minutes, columns.entry, columns.next_open
    touch_low, touch_high = columns.touch_low, columns.touch_high
    closes = len(next_open) > 0
    written, frame, asks_from, steps = 0, state[FRAME], state[ASKS_FROM], len(fills)
    wick, limits = rules.wick, rules.limits
    trailings, activations = columns.trailing, columns.activation
    breakevens, state[WRITTEN_LEGS] = columns.breakeven, 0
    levels = len(columns.profits) + len(columns.losses) + len(columns.entries)
    room = len(work.all_steps) - levels // 2 - PLAIN
    on_account, amount = pays(lone), 0.0
    while frame < rules.until and written < whole.shape[1] and state[WRITTEN_LEGS] <= room:
        if rules.start + frame * rules.step >= steps:
            break
        due = next_due(max(frame, asks_from), rules.hop, rules.phase)
        if closes:
            due = max(due, first_open_frame(rules, next_open, due))
        if frame < due:
            frame = min(due, rules.frames)
            continue
        k = rules.start + frame * rules.step
        asked, missing, row = next_signal(rules, sides, k, steps, next_open)
        last = frame + (asked - 1) * rules.hop
        frame, asks_from, k = last + 1, last + rules.hop, rules.start + last * rules.step
        state[CALLS] += asked
        state[UNANSWERED] += missing
        if row < 0:
            continue
        side, average, fill = float(sides[row]), averages[k], fills[k]
        goal, stop = goals[min(row, len(goals) - 1)], stops[min(row, len(stops) - 1)]
        minutes, limit = lives[min(row, len(lives) - 1)], entries[min(row, len(entries) - 1)]
        if rules.relative:
            goal, stop = fill * (1 + side * goal / 100), fill * (1 - side * stop / 100)
        problems = problems_of(side, limit, goal, stop, minutes, average, fill, wick, limits)
        goal, stop = never_reached(side, goal, stop)
        now = opens_now(side, limit, fill)
        trailing = trailings[min(row, len(trailings) - 1)]
        breakeven = breakevens[min(row, len(breakevens) - 1)]
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
        if on_account and now:
            amount = admitted(lone, row, side, fill, stop, rules.epoch + k)
            if amount == 0:
                continue
        elif on_account and is_liquidated_first(lone, side, limit, stop):
            continue
        at, filled, entry, close, ambiguous, reason = k, k, fill, stop, False, UNCHANGED
        exits = columns.exit_long if side > 0 else columns.exit_short
        exit_at = exit_after(exits, k)
        if minutes == minutes:
            lasts = -(-int(minutes) // rules.minutes)
        elif limits.lifetime > 0:
            lasts = -(-limits.lifetime // rules.minutes)
        else:
            lasts = NO_STEP // 2
        if not now:
            lower, upper = (limit, np.inf) if side > 0 else (-np.inf, limit)
            last = k + rules.wait
            if closes and last < steps:
                last = next_open[last]
            at = first_touch(touch_low, touch_high, k, min(last, exit_at), lower, upper)
            if at < 0:
                at, reason, entry = max(rules.last, k), CANCELLED_END_OF_DATA, limit
            else:
                expired = at - k >= rules.wait
                reason, entry = scheduled_step(
                    side,
                    limit,
                    goal,
                    stop,
                    expired,
                    averages[at],
                    fills[at],
                    opens[at],
                    highs[at],
                    lows[at],
                    wick,
                )
            filled = at
            if reason == UNCHANGED:  # it waits, until a row ends that
                reason = CANCELLED_EXIT
            elif reason in (ACTIVATED, ACTIVATED_AND_STOPPED):
                if on_account:
                    amount = admitted(lone, row, side, entry, stop, rules.epoch + at)
                if on_account and amount == 0:
                    reason = CANCELLED_EXIT  # the counts say by what
                elif reason == ACTIVATED or managed:
                    reason = UNCHANGED
                else:
                    reason = STOP_LOSS
        legs, paid, cost = 0, entry, 1.0
        bare = on_account and may_be_liquidated(lone, side, stop)
        held = (managed or bare) and reason == UNCHANGED
        if held:
            how = trailing, activation, breakeven
            reason, at = hold(
                columns,
                rules,
                work,
                side,
                entry,
                goal,
                stop,
                how,
                exits,
                k,
                filled,
                lasts,
                lone,
                amount,
            )
            legs, ambiguous = keep_legs(work, state[WRITTEN_LEGS])
            state[WRITTEN_LEGS] += legs
            paid, close = paid_and_got(work.state)
            cost = work.state[COST]
        elif reason == UNCHANGED and filled != k and exit_at == filled:
            reason, close = CLOSED, fills[filled]
        elif reason == UNCHANGED:
            lower, upper = (stop, goal) if side > 0 else (goal, stop)
            last = filled + lasts
            if closes and last < steps:
                last = next_open[last]
            last = min(last, exit_after(exits, filled))
            at = first_touch(touch_low, touch_high, filled, last, lower, upper)
            if at < 0:
                at, reason = max(rules.last, filled), END_OF_DATA
                close = fills[at]
            else:
                expired = at - filled >= lasts
                reason, close, ambiguous = pending_step(
                    side,
                    goal,
                    stop,
                    expired,
                    averages[at],
                    fills[at],
                    opens[at],
                    highs[at],
                    lows[at],
                    wick,
                    rules.stop_first,
                )
                if reason == UNCHANGED:  # it lives on, until a row ends that
                    reason, close = CLOSED, fills[at]
        if on_account and not held and reason < CANCELLED:
            pay_entry(lone, side, amount, entry, rules.epoch + filled, first=True)
            pay_exit(lone, side, amount, close, rules.epoch + at)
        whole[ROW, written], whole[SCHEDULED, written] = row, rules.epoch + k
        whole[FILLED, written], whole[ENDED, written] = rules.epoch + filled, rules.epoch + at
        whole[REASON, written], whole[AMBIGUOUS, written] = reason, ambiguous
        whole[ASKED, written], whole[LEGS, written] = state[CALLS], legs
        real[ENTRY, written], real[GOAL, written] = entry, goal
        real[STOP, written], real[CLOSE, written] = stop, close
        real[LIMIT, written], real[PAID, written] = limit, paid
        real[WHOLE_COST, written] = cost
        written += 1
        ended = reason in (END_OF_DATA, CANCELLED_END_OF_DATA)
        free = 0 if exit_after(exits, at - 1) == at else rules.free
        after = -((rules.start - at - max(free, int(ended))) // rules.step)
        after = min(max(after, frame), rules.frames)
        state[HELD] += after - frame
        frame = after
    state[FRAME], state[ASKS_FROM] = min(frame, rules.frames), asks_from
    return written

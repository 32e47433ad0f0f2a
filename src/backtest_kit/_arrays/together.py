"""Runs that share an account, simulated together, in the order of simulated time.

Each goes from stage to stage as `simulate` does. What it does next with the account is an event;
that of all runs which comes first is done, in the order of `turns`.

This is plain Python; the kernel is the same function, compiled.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from backtest_kit._arrays.hold import (
    act,
    close_at_data_end,
    data_end_at,
    first_step,
    keep_legs,
    next_act,
    open_hold,
)
from backtest_kit._arrays.layout import (
    AMOUNT,
    ASKED_PRICE,
    CLOSED_FOR,
    ENDED_AT,
    ENDED_BY,
    ENTERED_AT,
    FILLED_AT,
    FRAME,
    IS_IMMEDIATE,
    IS_MANAGED,
    NO_STEP,
    OF_ROW,
    PROPOSED_AT,
    SIDE_OF,
    STOP_AT,
    Columns,
    Rules,
    Work,
)
from backtest_kit._arrays.paying import (
    Account,
    admitted,
    begin,
    count_skips,
    fund,
    is_liquidated_first,
    may_be_liquidated,
    pay_entry,
    pay_exit,
    take,
)
from backtest_kit._arrays.simulate import note_legs
from backtest_kit._arrays.stages import (
    ask_again,
    await_fill,
    find_end,
    propose,
    settle,
    write_trade,
)
from backtest_kit._rules.holding import FILLS, NEXT_ENTRY, NEXT_LOSS, NEXT_PROFIT, SIZE
from backtest_kit._rules.life import ACTIVATED, ACTIVATED_AND_STOPPED, CANCELLED_EXIT, UNCHANGED
from backtest_kit._values.candles import Floats, Ints

#: At one instant come first positions that close anything, then those that do anything else,
#: signals that waited, and new ones, as in `turns`; and before all, each run begins to ask.
BEGINNING, CLOSING, HOLDING, FILLING, OPENING = range(5)
#: Of an event: the step since the epoch (`NO_STEP`: none), one of these, and whether a position is
#: held as a managed one, and whether its data end.
WHEN, WHAT, IS_HELD, AT_END = range(4)
#: Of the rules, what is each run's own: first step of the frame, frames in all and to be played,
#: the step that step 0 is since the epoch, the row of step 0, and the last step.
START, FRAMES, UNTIL, EPOCH, BASE, LAST = range(6)
#: Of `Columns`, the number.
FIELDS: Final = 21


class Runs(NamedTuple):
    """R runs: their columns one after the other, and room for the trade of each.

    Those of run i begin at `begins[i]`, one number for each of the `columns` and one for the
    `marks`, the closes of candles by which what is held is marked. `own` are the rules that differ,
    shape (R, 6), `work` has rows of `trade` and `prices` as `Work` has, and so on; `saved` is room
    for one state.
    """

    columns: Columns
    marks: Floats
    begins: Ints
    rules: Rules
    own: Ints
    states: Ints
    events: Ints
    trades: Ints
    prices: Floats
    holds: Floats
    profits: Floats
    losses: Floats
    entries: Floats
    legs: Floats
    steps: Ints
    saved: Floats
    now: Floats
    all_legs: Floats
    all_steps: Ints


def play_together(runs: Runs, account: Account, whole: Ints, real: Floats, of: Ints) -> int:
    """Write trades until the columns are full or all is played; return how many.

    As `simulate` does, and the run of each into `of`. All events are 0 in the beginning.
    """
    written = 0
    legs_written: int = 0
    room = len(runs.all_steps) - runs.steps.shape[1]
    while written < len(of) and legs_written <= room:
        run = 0
        for other in range(1, len(runs.own)):
            if comes_before(runs.events[other], runs.events[run]):
                run = other
        event = runs.events[run]
        if event[WHEN] == NO_STEP:
            break
        columns, rules, work = columns_of(runs, run), rules_of(runs, run), work_of(runs, run)
        if event[WHAT] >= HOLDING:
            take_at(runs, account, event[WHEN])
        if event[WHAT] == BEGINNING:
            ask_on(runs, run, columns, rules, work)
            continue
        if event[WHAT] == OPENING:
            goes_on = look(runs, account, run, columns, rules, work)
        elif event[WHAT] == FILLING:
            goes_on = enter_waiting(runs, account, run, columns, rules, work)
        elif event[IS_HELD]:
            goes_on = step_on(runs, account, run, columns, rules, work)
        else:
            leave_plain(account, run, rules, work)
            goes_on = False
        if goes_on:
            continue
        if work.trade[ENDED_BY] != UNCHANGED:
            legs, held = 0, bool(event[IS_HELD])
            if held:
                count_skips(account, work.state)
                legs = keep_legs(work, legs_written)
                legs_written += legs
            write_trade(rules, runs.states[run], work, whole, real, written, legs, held)
            of[written] = run
            written += 1
            ask_again(columns, rules, runs.states[run], work)
        ask_on(runs, run, columns, rules, work)
    return written


def comes_before(one: Ints, other: Ints) -> bool:
    """Say whether an event comes before that of an earlier run."""
    first, second = int(one[WHEN]), int(other[WHEN])
    return first < second or (first == second and int(one[WHAT]) < int(other[WHAT]))


def ask_on(runs: Runs, run: int, columns: Columns, rules: Rules, work: Work) -> None:
    """Go on to the next signal of a run; none: nothing more happens there."""
    event, state = runs.events[run], runs.states[run]
    event[IS_HELD], event[AT_END], event[WHAT] = False, False, OPENING
    if propose(columns, rules, state, work):
        event[WHEN] = rules.epoch + work.trade[PROPOSED_AT]
    else:
        event[WHEN] = NO_STEP
        state[FRAME] = min(state[FRAME], rules.frames)


def take_at(runs: Runs, account: Account, when: int) -> None:
    """Take the equity of step `when`."""
    for run in range(len(runs.own)):
        first, last = runs.begins[run, FIELDS], runs.begins[run + 1, FIELDS]
        k = min(when - runs.own[run, EPOCH], last - first - 1)
        runs.now[run] = runs.marks[first + k] if k >= 0 else 0.0
    take(account, when, runs.now)


def look(
    runs: Runs, account: Account, run: int, columns: Columns, rules: Rules, work: Work
) -> bool:
    """Enter a new signal, or let it wait; return whether it goes on."""
    trade, prices, event = work.trade, work.prices, runs.events[run]
    side, stop = prices[SIDE_OF], prices[STOP_AT]
    if not trade[IS_IMMEDIATE]:
        if is_liquidated_first(account, run, side, prices[ASKED_PRICE], stop):
            return False
        await_fill(columns, rules, work)
        event[WHEN], event[WHAT] = rules.epoch + trade[FILLED_AT], FILLING
        return True
    prices[AMOUNT] = admitted(account, run, trade[OF_ROW], side, prices[ENTERED_AT], stop)
    return bool(prices[AMOUNT] > 0) and open_trade(runs, account, run, columns, rules, work)


def enter_waiting(
    runs: Runs, account: Account, run: int, columns: Columns, rules: Rules, work: Work
) -> bool:
    """Enter a signal that has waited, unless it has ended; return whether it goes on."""
    trade, prices = work.trade, work.prices
    if trade[ENDED_BY] not in (ACTIVATED, ACTIVATED_AND_STOPPED):
        return False
    side, entry, stop = prices[SIDE_OF], prices[ENTERED_AT], prices[STOP_AT]
    prices[AMOUNT] = admitted(account, run, trade[OF_ROW], side, entry, stop)
    if prices[AMOUNT] == 0:
        trade[ENDED_BY] = CANCELLED_EXIT  # the counts say by what
        return False
    settle(work)
    return open_trade(runs, account, run, columns, rules, work)


def open_trade(
    runs: Runs, account: Account, run: int, columns: Columns, rules: Rules, work: Work
) -> bool:
    """Enter a position that was admitted; return whether it lives on after its first step."""
    trade, prices, event = work.trade, work.prices, runs.events[run]
    side, stop, when = prices[SIDE_OF], prices[STOP_AT], rules.epoch + trade[FILLED_AT]
    bare = may_be_liquidated(account, run, side, stop)
    if trade[ENDED_BY] == UNCHANGED and (bare or trade[IS_MANAGED]):
        event[IS_HELD] = True
        open_hold(columns, rules, work)
        begin(account, run, work.state, prices[AMOUNT])
        first_step(columns, rules, work)
        note_legs(rules, work, account, run)
        return search_on(runs, run, columns, rules, work)
    if trade[ENDED_BY] == UNCHANGED:
        find_end(columns, rules, work)
    pay_entry(account, run, side, prices[AMOUNT], prices[ENTERED_AT], when, True)
    event[WHEN], event[WHAT] = rules.epoch + trade[ENDED_AT], CLOSING
    if event[WHEN] > when:
        return True
    leave_plain(account, run, rules, work)
    return False


def leave_plain(account: Account, run: int, rules: Rules, work: Work) -> None:
    """Close a position that is not managed."""
    when, price = rules.epoch + work.trade[ENDED_AT], work.prices[CLOSED_FOR]
    pay_exit(account, run, work.prices[AMOUNT], price, when)


def search_on(runs: Runs, run: int, columns: Columns, rules: Rules, work: Work) -> bool:
    """Go on to the next step at which a managed position may do anything; false: it has ended."""
    event = runs.events[run]
    if work.trade[ENDED_BY] != UNCHANGED:
        return False
    at = next_act(columns, rules, work)
    event[AT_END], event[WHAT] = at < 0, CLOSING
    event[WHEN] = rules.epoch + (data_end_at(rules, work) if at < 0 else at)
    return True


def step_on(
    runs: Runs, account: Account, run: int, columns: Columns, rules: Rules, work: Work
) -> bool:
    """Do what a managed position does at a step; return whether it lives on.

    What closes nothing is done anew after all that does: what is free then may be more.
    """
    event, state, trade, saved = runs.events[run], work.state, work.trade, runs.saved
    at = event[WHEN] - rules.epoch
    if event[AT_END]:
        close_at_data_end(columns, rules, work)
    else:
        before = trade[ENDED_AT]
        for i in range(SIZE):
            saved[i] = state[i]
        fund(account, state)
        act(columns, rules, work, at)
        if event[WHAT] == CLOSING and trade[ENDED_BY] == UNCHANGED and at < rules.last:
            exits = saved[NEXT_PROFIT] != state[NEXT_PROFIT] or saved[NEXT_LOSS] != state[NEXT_LOSS]
            acts = saved[NEXT_ENTRY] != state[NEXT_ENTRY] or saved[FILLS] != state[FILLS]
            if acts and not exits:
                for i in range(SIZE):
                    state[i] = saved[i]
                trade[ENDED_AT], event[WHAT] = before, HOLDING
                return True
    note_legs(rules, work, account, run)
    return search_on(runs, run, columns, rules, work)


def columns_of(runs: Runs, run: int) -> Columns:
    """Return the columns of one run."""
    c, a, b = runs.columns, runs.begins[run], runs.begins[run + 1]
    return Columns(
        c.price[a[0] : b[0]],
        c.fill[a[1] : b[1]],
        c.open[a[2] : b[2]],
        c.high[a[3] : b[3]],
        c.low[a[4] : b[4]],
        c.side[a[5] : b[5]],
        c.goal[a[6] : b[6]],
        c.stop[a[7] : b[7]],
        c.minutes[a[8] : b[8]],
        c.entry[a[9] : b[9]],
        c.touch_low[a[10] : b[10]],
        c.touch_high[a[11] : b[11]],
        c.next_open[a[12] : b[12]],
        c.trailing[a[13] : b[13]],
        c.activation[a[14] : b[14]],
        c.breakeven[a[15] : b[15]],
        c.profits[a[16] : b[16]],
        c.losses[a[17] : b[17]],
        c.entries[a[18] : b[18]],
        c.exit_long[a[19] : b[19]],
        c.exit_short[a[20] : b[20]],
    )


def rules_of(runs: Runs, run: int) -> Rules:
    """Return the rules of one run."""
    rules, own = runs.rules, runs.own[run]
    return Rules(
        rules.relative,
        own[START],
        rules.step,
        own[FRAMES],
        own[UNTIL],
        rules.hop,
        rules.phase,
        rules.rows,
        rules.rest,
        own[EPOCH],
        rules.interval,
        own[BASE],
        rules.first_row,
        rules.free,
        rules.wick,
        rules.stop_first,
        rules.wait,
        rules.minutes,
        rules.limits,
        own[LAST],
        rules.managed,
    )


def work_of(runs: Runs, run: int) -> Work:
    """Return the room of one run."""
    a, b = runs.begins[run], runs.begins[run + 1]
    return Work(
        runs.trades[run],
        runs.prices[run],
        runs.holds[run],
        runs.profits[run, : b[16] - a[16]],
        runs.losses[run, : b[17] - a[17]],
        runs.entries[run, : b[18] - a[18]],
        runs.legs[run],
        runs.steps[run],
        runs.all_legs,
        runs.all_steps,
    )

"""From arrays of signals to closed trades: one signal after another, without visiting each step.

Bit for bit the same as the engine's steps. Not here: risk profiles, milestones, events.

This is plain Python; the kernel is the same function, compiled by Numba together with the stages of
a trade, the rules, and searches of its own (`kernel`).
"""

from __future__ import annotations

from backtest_kit._arrays.hold import (
    PLAIN,
    act,
    close_at_data_end,
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
    NOTED,
    OF_ROW,
    SIDE_OF,
    STOP_AT,
    WRITTEN_LEGS,
    Columns,
    Rules,
    Work,
)
from backtest_kit._arrays.paying import (
    BALANCE,
    TAKEN,
    TAKEN_AT,
    Account,
    admitted,
    begin,
    book,
    count_skips,
    fund,
    is_liquidated_first,
    may_be_liquidated,
    pay_entry,
    pay_exit,
    pays,
)
from backtest_kit._arrays.stages import (
    ask_again,
    await_fill,
    find_end,
    propose,
    settle,
    write_trade,
)
from backtest_kit._rules.holding import FILLS
from backtest_kit._rules.life import ACTIVATED, ACTIVATED_AND_STOPPED, CANCELLED_EXIT, UNCHANGED
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.results import CANCELLED


def simulate(
    columns: Columns,
    rules: Rules,
    state: Ints,
    whole: Ints,
    real: Floats,
    work: Work,
    account: Account,
) -> int:
    """Write trades until the columns are full or the frames are played; return how many.

    `state`, `whole` and `real` are laid out as `layout` says. Each is paid by the account, if there
    is one, or refused: where its strategy is asked, a lone run holds nothing, so that its equity is
    its balance.
    """
    trade, prices, on_account = work.trade, work.prices, pays(account)
    levels = len(columns.profits) + len(columns.losses) + len(columns.entries)
    room = len(work.all_steps) - levels // 2 - PLAIN
    written = state[WRITTEN_LEGS] = 0
    while written < whole.shape[1] and state[WRITTEN_LEGS] <= room:
        if not propose(columns, rules, state, work):
            break
        if not trade[IS_IMMEDIATE]:
            if on_account and is_liquidated_first(
                account, 0, prices[SIDE_OF], prices[ASKED_PRICE], prices[STOP_AT]
            ):
                continue
            await_fill(columns, rules, work)
        waited = trade[ENDED_BY] in (ACTIVATED, ACTIVATED_AND_STOPPED)
        if on_account and (waited or trade[IS_IMMEDIATE]):
            when = rules.epoch + trade[FILLED_AT]
            if account.counts[TAKEN_AT] != when:
                account.money[TAKEN], account.counts[TAKEN_AT] = account.money[BALANCE], when
            side, entry, stop = prices[SIDE_OF], prices[ENTERED_AT], prices[STOP_AT]
            prices[AMOUNT] = admitted(account, 0, trade[OF_ROW], side, entry, stop)
            if prices[AMOUNT] == 0 and not waited:
                continue
            if prices[AMOUNT] == 0:
                trade[ENDED_BY], waited = CANCELLED_EXIT, False  # the counts say by what
        if waited:
            settle(work)
        legs, held = 0, False
        if trade[ENDED_BY] == UNCHANGED:
            held = bool(trade[IS_MANAGED]) or (
                on_account and may_be_liquidated(account, 0, prices[SIDE_OF], prices[STOP_AT])
            )
            if held:
                hold(columns, rules, work, account)
                legs = keep_legs(work, state[WRITTEN_LEGS])
                state[WRITTEN_LEGS] += legs
            else:
                find_end(columns, rules, work)
        if on_account and not held and trade[ENDED_BY] < CANCELLED:
            side, amount, entry = prices[SIDE_OF], prices[AMOUNT], prices[ENTERED_AT]
            pay_entry(account, 0, side, amount, entry, rules.epoch + trade[FILLED_AT], True)
            pay_exit(account, 0, amount, prices[CLOSED_FOR], rules.epoch + trade[ENDED_AT])
        write_trade(rules, state, work, whole, real, written, legs, held)
        written += 1
        ask_again(columns, rules, state, work)
    state[FRAME] = min(state[FRAME], rules.frames)
    return written


def hold(columns: Columns, rules: Rules, work: Work, account: Account) -> None:
    """Follow a managed position from its fill to its end."""
    trade, on_account = work.trade, pays(account)
    open_hold(columns, rules, work)
    if on_account:
        begin(account, 0, work.state, work.prices[AMOUNT])
    first_step(columns, rules, work)
    while True:
        note_legs(rules, work, account, 0)
        if trade[ENDED_BY] != UNCHANGED:
            break
        at = next_act(columns, rules, work)
        if at < 0:
            close_at_data_end(columns, rules, work)
        else:
            if on_account:
                fund(account, work.state)
            act(columns, rules, work, at)
    if on_account:
        count_skips(account, work.state)


def note_legs(rules: Rules, work: Work, account: Account, run: int) -> None:
    """Note the step of the legs that are new, and take them into the books of an account."""
    trade, state = work.trade, work.state
    while trade[NOTED] < state[FILLS]:
        number = trade[NOTED]
        work.steps[number] = trade[ENDED_AT]
        trade[NOTED] += 1
        if pays(account):
            closes = trade[ENDED_BY] != UNCHANGED and trade[NOTED] == state[FILLS]
            when = rules.epoch + trade[ENDED_AT]
            book(account, run, state, work.legs, number, when, closes)

"""An account pays trades whose fills are known: turn by turn, over arrays of numbers.

This is plain Python; the kernel is the same function, compiled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    exit_of,
    is_beyond,
    is_short,
    liquidation_price,
    open_profit,
    slipped,
)
from backtest_kit._rules.sizing import fitted
from backtest_kit._values.candles import Floats, Ints

#: What is done at a turn: a signal that is to wait is looked at, a position is entered or left;
#: nothing, where a signal that waited ends; a part of a position is filled at a step that closes
#: something, or at one that does not.
LOOK, ENTER, LEAVE, NOTHING, PART, ADD = range(6)


class Turns(NamedTuple):
    """What is done in order, shape (T,): when (ms), what, by which run, with which trade.

    Of a part, `trade` is its place among the `Trades.part_of`.

    `marks` are the closes of all runs then, shape (T, runs).
    """

    when: Ints
    act: Ints
    run: Ints
    trade: Ints
    marks: Floats


class Trades(NamedTuple):
    """The trades of all runs, shape (N,); see `TradeTable`.

    And their fills between the first and the last, shape (L,): of which trade, quantity (negative:
    an exit) and cost relative to the first entry's, price.
    """

    side: Ints
    closed_at: Ints
    price_open: Floats
    price_limit: Floats
    price_close: Floats
    stop: Floats
    cost: Floats
    quantity: Floats
    part_of: Ints
    part_quantity: Floats
    part_cost: Floats
    part_price: Floats


def pay(
    turns: Turns, trades: Trades, purse: Purse, whole: Ints, real: Floats, held: Floats, order: Ints
) -> tuple[int, float, int]:
    """Fill in a row of `whole` (F, 5) and `real` (F, 7) for each fill, and return how many.

    And what was not charged, and how many entries were reduced. -1: a trade is refused. `held` is
    room for quantity, basis and number of the trade of each run, and for quantity and cost of its
    first entry, shape (runs, 5); `order` for the runs that hold something, in the order in which
    they entered.
    """
    balance, holding = purse.balance, 0
    dust = HAIR * purse.balance
    fills = opened = reductions = 0
    not_charged, taken, taken_at = 0.0, purse.balance, -1
    for k in range(len(turns.when)):
        when, act = int(turns.when[k]), int(turns.act[k])
        run, i = int(turns.run[k]), int(turns.trade[k])
        part = i
        if act in (PART, ADD):
            i = int(trades.part_of[part])
        side, stop = int(trades.side[i]), float(trades.stop[i])
        terms = terms_of(purse, run)
        if act not in (LEAVE, PART):
            if taken_at != when:
                profit = 0.0
                for n in range(holding):
                    j = int(order[n])
                    amount, basis, mark = held[j, 0], held[j, 1], turns.marks[k, j]
                    way = 1 if amount > 0 else -1
                    profit += open_profit(way, abs(amount), basis, mark, terms.leverage)
                taken, taken_at = balance + profit, when
            if act == NOTHING:
                continue
        if act in (PART, ADD):
            price, owned, basis = float(trades.part_price[part]), abs(held[run, 0]), held[run, 1]
            amount = abs(float(trades.part_quantity[part])) * held[run, 3]
            write_place(whole, fills, when, run, int(held[run, 2]), side)
            if trades.part_quantity[part] < 0:
                if amount >= owned:
                    return -1, 0.0, 0
                done = exit_of(side, amount, price, owned, basis, terms)
                balance += done.balance
                not_charged += done.not_charged
                held[run, 0], held[run, 1] = side * (owned - amount), basis - done.basis
                write_exit(whole, real, fills, amount, done)
            else:
                paid = slipped(price, side, terms.slippage)
                cost, bound = float(trades.part_cost[part]) * held[run, 4], 0.0
                level = liquidation_price(
                    side, (basis + cost) / (owned + cost / paid), terms.leverage, terms.maintenance
                )
                for n in range(holding):
                    bound += held[order[n], 1] / terms.leverage
                if is_beyond(side, stop, level) or is_short(
                    cost, balance - bound, terms.leverage, terms.fee
                ):
                    return -1, 0.0, 0
                spent, fee = write_entry(whole, real, fills, side, amount, price, terms)
                balance -= fee
                held[run, 0], held[run, 1] = side * (owned + amount), basis + spent
            fills += 1
            continue
        if act != LEAVE:
            price = float(trades.price_limit[i] if act == LOOK else trades.price_open[i])
            paid = slipped(price, side, terms.slippage)
            level = liquidation_price(side, paid, terms.leverage, terms.maintenance)
            if stop == stop and is_beyond(side, stop, level):
                return -1, 0.0, 0
            if act == LOOK:
                continue
            cost, quantity = float(trades.cost[i]), float(trades.quantity[i])
            cost, quantity = wanted(purse, run, taken, cost, quantity, price, stop, paid)
            bound = 0.0
            for n in range(holding):
                bound += held[order[n], 1] / terms.leverage
            why, amount, reduced = fitted(
                cost,
                quantity,
                paid,
                taken,
                balance - bound,
                terms.leverage,
                terms.fee,
                purse.rules[run, 0],
                purse.rules[run, 1],
                purse.rules[run, 2],
                purse.rules[run, 3],
                purse.refuses,
                dust,
            )
            if why != 0:
                return -1, 0.0, 0
            reductions += reduced
            write_place(whole, fills, when, run, opened, side)
            spent, fee = write_entry(whole, real, fills, side, amount, price, terms)
            balance -= fee
            held[run, 0], held[run, 1], held[run, 2] = side * amount, spent, opened
            held[run, 3], held[run, 4] = amount, spent
            order[holding] = run
            holding += 1
            fills += 1
            opened += 1
            if trades.closed_at[i] != when:
                continue
        amount, basis, close = abs(held[run, 0]), held[run, 1], float(trades.price_close[i])
        done = exit_of(side, amount, close, amount, basis, terms)
        balance += done.balance
        not_charged += done.not_charged
        write_place(whole, fills, when, run, int(held[run, 2]), side)
        write_exit(whole, real, fills, amount, done)
        fills += 1
        held[run, 0] = 0.0
        n = 0
        while order[n] != run:
            n += 1
        holding -= 1
        while n < holding:
            order[n] = order[n + 1]
            n += 1
    return fills, not_charged, reductions


def room(trades: Trades, runs: int) -> tuple[Ints, Floats, Floats, Ints]:
    """Return room for `pay`: for the fills, and for what is held."""
    rows = 2 * len(trades.side) + len(trades.part_of)
    return (
        np.zeros((rows, 5), dtype=np.int64),
        np.zeros((rows, 7)),
        np.zeros((runs, 5)),
        np.zeros(runs + 1, dtype=np.int64),
    )

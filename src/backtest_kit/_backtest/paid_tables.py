"""The trades of an account from whole tables of them: nobody has to wait for a turn.

Where trades enter once and leave once, an account changes how large they are, and when they happen
only if it refuses one. So all turns are put into their order at once (`turns`), and each is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._engine.account_size import wanted_by_numbers
from backtest_kit._engine.fill_book import FillBook
from backtest_kit._engine.turns import ACTIVATES, CLOSES, OPENS
from backtest_kit._rules.account import (
    HAIR,
    Books,
    Rules,
    Terms,
    is_beyond,
    liquidation_price,
    slipped,
)
from backtest_kit._rules.sizing import Entry, Wanted, default_cost, fit
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.candles import Ints
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.fills import Fills
from backtest_kit._values.results import CANCELLED

#: What is done at a turn: a signal is looked at that is to wait, a position is entered or left, or
#: nothing, where a signal that waited ends.
_LOOK, _ENTER, _LEAVE, _NOTHING = range(4)


class PaidRun(NamedTuple):
    """A run of an account: its trades, and what it trades by."""

    symbol: str
    table: TradeTable
    sizing: SizingSchema | None
    terms: Terms
    rules: Rules


class Paid(NamedTuple):
    """What an account did with the trades of its runs."""

    fills: Fills
    counts: AccountCounts


#: Methods of sizing that take nothing but the numbers of the signal and the equity.
_BY_NUMBERS: Final = ("fixed-cost", "equity-percentage", "fixed-percentage")


def sizes_by_numbers(sizing: SizingSchema | None) -> bool:
    """Say whether a sizing asks neither candles, earlier trades nor a function."""
    return sizing is None or (sizing.method in _BY_NUMBERS and sizing.callbacks is None)


def is_plain(table: TradeTable, leverage: float) -> bool:
    """Say whether trades enter once, leave once, and have stops where they may be liquidated."""
    bare = np.isnan(table.price_stop_loss)
    return table.managed is None and not (bare & ((table.side < 0) | (leverage > 1))).any()


def pay(runs: Sequence[PaidRun], schema: AccountSchema, marks: Marks) -> Paid | None:
    """Let an account pay the trades of its runs, in the order of simulated time.

    `marks` reach the last close. `None`: one is refused, so that what follows it is not known.
    """
    books, fills = Books(schema.balance, schema.leverage), FillBook()
    dust, refuses = HAIR * schema.balance, schema.on_cash_shortage == "refuse"
    since = int(marks.timestamp[0])
    step = int(marks.timestamp[1]) - since if len(marks.timestamp) > 1 else 1
    prices = [marks.prices[run.symbol] for run in runs]
    columns = [_columns(run.table) for run in runs]
    trade_of, opened = [0] * len(runs), 0
    taken, taken_at = float(schema.balance), -1
    not_charged, reductions = 0.0, 0

    def leave(number: int, when: int, price: float) -> float:
        side = int(books.held[number].side)
        amount = books.held[number].quantity
        done = books.leave(number, amount, price, runs[number].terms)
        fills.add(
            *(when, number, trade_of[number], side, -amount, -done.basis, done.balance, done.fee),
            *(done.slippage, done.profit, done.value),
            liquidated=done.liquidated,
        )
        return done.not_charged

    for when, act, number, i in zip(*_turns([run.table for run in runs]), strict=True):
        run, row = runs[number], columns[number][i]
        if act == _LEAVE:
            not_charged += leave(number, when, row.price_close)
            continue
        if taken_at != when:
            at = (when - since) // step
            taken = books.equity({held: float(prices[held][at]) for held in books.held})
            taken_at = when
        if act == _NOTHING:
            continue
        terms, side = run.terms, row.side
        price = row.price_limit if act == _LOOK else row.price_open
        paid = slipped(price, side, terms.slippage)
        level = liquidation_price(side, paid, terms.leverage, terms.maintenance)
        if row.stop == row.stop and is_beyond(side, row.stop, level):
            return None
        if act == _LOOK:
            continue
        default = default_cost(taken, schema.default_percent, len(runs), terms)
        wanted = _wanted(run.sizing, row, paid, taken, default)
        entry = fit(wanted, paid, taken, books.free, terms, run.rules, refuses=refuses, dust=dust)
        if not isinstance(entry, Entry):
            return None
        reductions += entry.reduced
        trade_of[number], opened = opened, opened + 1
        cost = books.enter(number, side, entry.quantity, price, terms)
        fee = terms.fee * cost
        fills.add(
            *(when, number, trade_of[number], side, entry.quantity, cost, -fee, fee),
            *(entry.quantity * abs(paid - price), 0.0, cost),
            liquidated=False,
        )
        if row.closed_at == when:
            not_charged += leave(number, when, row.price_close)
    counts = AccountCounts(not_charged=not_charged, reductions=reductions)
    return Paid(fills.columns(), counts)


class _Row(NamedTuple):
    """What of a trade is paid by; prices before costs, NaN: none."""

    side: int
    closed_at: int
    price_open: float
    price_limit: float
    price_close: float
    stop: float
    order_cost: float
    order_quantity: float


def _columns(table: TradeTable) -> list[_Row]:
    columns = (
        *(table.side, table.closed_at, table.price_open, table.price_limit, table.price_close),
        *(table.price_stop_loss, table.order_cost, table.order_quantity),
    )
    return [*map(_Row, *(column.tolist() for column in columns))]


def _wanted(
    sizing: SizingSchema | None, row: _Row, paid: float, equity: float, default: float
) -> Wanted:
    """Return what is to be entered; as `wanted_by` does."""
    if row.order_cost == row.order_cost:
        return Wanted(cost=row.order_cost)
    if row.order_quantity == row.order_quantity:
        return Wanted(quantity=row.order_quantity)
    if sizing is None:
        return Wanted(cost=default)
    return wanted_by_numbers(sizing, row.price_open, row.stop, paid, equity)


def _turns(tables: Sequence[TradeTable]) -> tuple[list[int], ...]:
    """Return the turns of all runs in order: when (ms), what is done, by which run, its trade."""
    parts: list[tuple[Ints, ...]] = []
    for number, table in enumerate(tables):
        waits = table.pending_at != table.scheduled_at
        filled = table.reason < CANCELLED
        later = filled & (table.closed_at != table.pending_at)
        for rows, times, what, act in (
            (waits, table.scheduled_at, OPENS, _LOOK),
            (~waits, table.scheduled_at, OPENS, _ENTER),
            (waits & filled, table.pending_at, ACTIVATES, _ENTER),
            (~filled, table.closed_at, ACTIVATES, _NOTHING),
            (later, table.closed_at, CLOSES, _LEAVE),
        ):
            place = np.flatnonzero(rows)
            whole = np.ones(len(place), dtype=np.int64)
            parts.append((times[place], whole * what, whole * number, whole * act, place))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    times, kinds, numbers, acts, places = columns
    order = np.lexsort((numbers, kinds, times))
    return (
        *(times[order].tolist(), acts[order].tolist()),
        *(numbers[order].tolist(), places[order].tolist()),
    )

"""The trades of an account from whole tables of them: nobody has to wait for a turn.

Where trades enter once and leave once, an account changes how large they are, and when they happen
only if it refuses one. So all turns are put into their order at once, and each is done.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from backtest_kit._arrays import pay as plain
from backtest_kit._arrays import purse
from backtest_kit._arrays.kernel_ready import kernel_ready
from backtest_kit._arrays.pay import Trades, Turns
from backtest_kit._arrays.purse import Purse
from backtest_kit._arrays.signals import Signals
from backtest_kit._arrays.simulation import announce
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._engine.turns import ACTIVATES, CLOSES, HOLDS, OPENS
from backtest_kit._rules import holding
from backtest_kit._rules.account import Rules, Terms
from backtest_kit._rules.sizing import rules_of
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.equity_curve import Marks
from backtest_kit._values.fills import Fills
from backtest_kit._values.results import CANCELLED

#: Methods of sizing that take nothing but the numbers of the signal and the equity.
_WAYS: Final = {
    "fixed-cost": (purse.COST, "cost"),
    "equity-percentage": (purse.OF_EQUITY, "equity_percentage"),
    "fixed-percentage": (purse.AT_RISK, "risk_percentage"),
}


class Paying(NamedTuple):
    """What a run of an account trades by."""

    sizing: SizingSchema | None
    terms: Terms
    rules: Rules


class PaidRun(NamedTuple):
    """A run of an account, and its trades."""

    symbol: str
    table: TradeTable
    by: Paying


class Paid(NamedTuple):
    """What an account did with the trades of its runs."""

    fills: Fills
    counts: AccountCounts


def sizes_by_numbers(sizing: SizingSchema | None) -> bool:
    """Say whether a sizing asks neither candles, earlier trades nor a function."""
    return sizing is None or (sizing.method in _WAYS and sizing.callbacks is None)


def can_be_paid(signals: Signals, leverage: float, rules: Rules) -> bool:
    """Say whether fills are known: trades have stops where they may be liquidated.

    And, where they are filled in parts, no rules of the market change those.
    """
    in_parts = bool(signals.take_profits or signals.stop_losses or signals.entries)
    busy = signals.busy()
    bare = np.isnan(signals.price_stop_loss[busy])
    if in_parts and rules != rules_of(None):
        return False
    return not (bare & ((signals.side[busy] < 0) | (leverage > 1))).any()


def pay(
    runs: Sequence[PaidRun], schema: AccountSchema, marks: Marks, logger: logging.Logger
) -> Paid | None:
    """Let an account pay the trades of its runs, in the order of simulated time.

    `marks` reach the last close. `None`: one is refused, so that what follows it is not known.
    """
    tables = [run.table for run in runs]
    parts = _parts(runs)
    if parts is None:
        return None
    (side, closed_at), (opened, limit, stop, cost, quantity) = (
        [np.concatenate([getattr(table, name) for table in tables]) for name in names]
        for names in (
            ("side", "closed_at"),
            ("price_open", "price_limit", "price_stop_loss", "order_cost", "order_quantity"),
        )
    )
    trades = Trades(
        side=side.astype(np.int64),
        closed_at=closed_at,
        price_open=opened,
        price_limit=limit,
        price_close=np.concatenate([_last_price(table) for table in tables]),
        stop=stop,
        cost=cost,
        quantity=quantity,
        part_of=parts.trade,
        part_quantity=parts.quantity,
        part_cost=parts.cost,
        part_price=parts.price,
    )
    whole, real, *state = plain.room(trades, len(runs))
    turns = _turns(runs, marks, parts)
    done = _payer(logger)(
        turns, trades, purse_of([run.by for run in runs], schema), whole, real, *state
    )
    count, not_charged, reductions = done
    if count < 0:
        return None
    fills = fills_of(whole[:count], real[:count])
    return Paid(fills, AccountCounts(not_charged=not_charged, reductions=int(reductions)))


def purse_of(runs: Sequence[Paying], schema: AccountSchema) -> Purse:
    """Return an account and its runs as numbers."""
    return Purse(
        float(schema.balance),
        math.nan if schema.default_percent is None else float(schema.default_percent),
        schema.on_cash_shortage == "refuse",
        np.array([run.terms for run in runs], dtype=np.float64),
        np.array([run.rules for run in runs], dtype=np.float64),
        np.array([_size(run.sizing) for run in runs], dtype=np.float64),
    )


def fills_of(whole_rows: Ints, real_rows: Floats) -> Fills:
    """Return fills that were written as rows; see `purse`."""
    whole, real = whole_rows.T.copy(), real_rows.T.copy()
    return Fills(
        timestamp=whole[purse.WHEN],
        run=whole[purse.RUN],
        trade=whole[purse.TRADE],
        side=whole[purse.SIDE].astype(np.int8),
        quantity=real[purse.QUANTITY],
        basis=real[purse.BASIS],
        balance=real[purse.BALANCE],
        fee=real[purse.FEE],
        slippage=real[purse.SLIPPAGE],
        profit=real[purse.PROFIT],
        value=real[purse.VALUE],
        liquidated=whole[purse.LIQUIDATED] != 0,
    )


def _payer(logger: logging.Logger) -> Callable[..., tuple[int, float, int]]:
    """Return `pay`, compiled where the kernel is loaded."""
    return _compiled(logger) if kernel_ready.is_set() else plain.pay


@cache
def _compiled(logger: logging.Logger) -> Callable[..., tuple[int, float, int]]:
    from backtest_kit._arrays import kernel

    announce(kernel.pay, logger)
    return kernel.pay


def _size(sizing: SizingSchema | None) -> tuple[float, ...]:
    """Return how a run sizes; see `Purse`."""
    if sizing is None:
        return purse.DEFAULT, *(math.nan,) * 4
    way, field = _WAYS[sizing.method]
    limits = (sizing.min_position_size, sizing.max_position_percentage, sizing.max_position_size)
    return way, *(math.nan if n is None else n for n in (getattr(sizing, field), *limits))


def _last_price(table: TradeTable) -> Floats:
    """Return at what price the rest of each trade was closed."""
    managed = table.managed
    if managed is None or not len(managed.leg_at):
        return table.price_close
    last = np.cumsum(managed.legs) - 1
    return np.where(managed.legs > 0, managed.leg[last, holding.PRICE], table.price_close)


class _Parts(NamedTuple):
    """Fills between the first and the last of trades: their turns, and the columns of `Trades`."""

    when: Ints
    kind: Ints
    run: Ints
    act: Ints
    trade: Ints
    quantity: Floats
    cost: Floats
    price: Floats


def _parts(runs: Sequence[PaidRun]) -> _Parts | None:
    """Return the parts of the trades of all runs; `None`: some belong to the step of an opening."""
    found: list[tuple[Any, ...]] = [(*(np.empty(0, np.int64),) * 5, *(np.empty(0),) * 3)]
    before = 0
    for number, run in enumerate(runs):
        table, managed = run.table, run.table.managed
        if managed is not None and len(managed.leg_at):
            trade, at = np.repeat(np.arange(len(table)), managed.legs), managed.leg_at
            begins = np.append(True, trade[1:] != trade[:-1])
            between = ~begins & ~np.append(begins[1:], True)
            if (at[between] == table.pending_at[trade[between]]).any():
                return None
            quantity = managed.leg[:, holding.QUANTITY]
            steps = np.cumsum(begins | np.append(True, at[1:] != at[:-1])) - 1
            closes = (np.bincount(steps, weights=quantity < 0) > 0)[steps][between]
            found.append(
                (
                    at[between],
                    np.where(closes, CLOSES, HOLDS),
                    np.full(len(closes), number),
                    np.where(closes, plain.PART, plain.ADD),
                    before + trade[between],
                    quantity[between],
                    managed.leg[between, holding.LEG_COST],
                    managed.leg[between, holding.PRICE],
                )
            )
        before += len(table)
    return _Parts(*map(np.concatenate, zip(*found, strict=True)))


def _turns(runs: Sequence[PaidRun], marks: Marks, between: _Parts) -> Turns:
    """Return the turns of all runs in order; `trade` counts the trades of all runs."""
    places_of_parts = np.arange(len(between.when))
    parts: list[tuple[Ints, ...]] = [
        (between.when, between.kind, between.run, between.act, places_of_parts)
    ]
    before = 0
    for number, run in enumerate(runs):
        table = run.table
        waits = table.pending_at != table.scheduled_at
        filled = table.reason < CANCELLED
        later = filled & (table.closed_at != table.pending_at)
        for rows, times, kind, act in (
            (waits, table.scheduled_at, OPENS, plain.LOOK),
            (~waits, table.scheduled_at, OPENS, plain.ENTER),
            (waits & filled, table.pending_at, ACTIVATES, plain.ENTER),
            (~filled, table.closed_at, ACTIVATES, plain.NOTHING),
            (later, table.closed_at, CLOSES, plain.LEAVE),
        ):
            place = np.flatnonzero(rows)
            ones = np.ones(len(place), dtype=np.int64)
            parts.append((times[place], ones * kind, ones * number, ones * act, before + place))
        before += len(table)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    when, kinds, numbers, acts, places = columns
    order = np.lexsort((numbers, kinds, when))
    when = when[order]
    at = np.searchsorted(marks.timestamp, when, side="right") - 1
    closes = [marks.prices[run.symbol][at] for run in runs]
    return Turns(when, acts[order], numbers[order], places[order], np.column_stack(closes))

"""The equity curve of an account, from its fills and the prices that its symbols were marked at.

A run holds one position at a time. Between two fills its quantity `Q` and cost basis `K` are
constant, so its open profit is `Q * mark - K` (of a short `K - Q * mark`) along the whole stretch.
No position loses more than its collateral `K / leverage`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.equity_curve import EquityCurve, Marks
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.fills import Fills
from backtest_kit._values.time import iso


def equity_curve(
    fills: Fills, symbols: Sequence[str], marks: Marks, balance: float, leverage: float
) -> EquityCurve:
    """Return the equity after all that happens at each instant of `marks`.

    `symbols` is the symbol of each run; `balance` is what the account begins with. An exit takes of
    the quantity and the basis exactly what the books took, so that nothing is left after the last.

    Raises:
        ArgumentError: a fill lies after the last instant, or a position is open before the data
            of its symbol begin.
    """
    rows = _rows_of(fills, marks.timestamp)
    wallet = _constant(rows, np.cumsum(np.concatenate(([balance], fills.balance))), marks)
    equity, held = wallet.copy(), np.zeros(len(marks.timestamp))
    for run, symbol in enumerate(symbols):
        own = np.flatnonzero(fills.run == run)
        if not len(own):
            continue
        price = marks.prices[symbol]
        if rows[own[0]] < _first_known(price):
            when = iso(int(fills.timestamp[own[0]]))
            raise ArgumentError(f"{symbol} has a fill at {when}, and no mark by then")
        quantity, basis = (_constant(rows[own], values, marks) for values in _held(fills, own))
        profit, value = _marked(quantity, basis, _known(price), leverage)
        equity += profit
        held += np.abs(value, out=value)
    return EquityCurve(marks.timestamp, equity, wallet, held)


def run_profits(
    fills: Fills, symbols: Sequence[str], marks: Marks, leverage: float, at: Ints
) -> Floats:
    """Return realised plus open profit of each run and side, after fees.

    `at` are rows of `marks`; one of -1 stands for the time before the first. The shape is
    (runs, 2, len(at)), longs before shorts.
    """
    found = np.zeros((len(symbols), 2, len(at)))
    rows = _rows_of(fills, marks.timestamp)
    for run, symbol in enumerate(symbols):
        own = np.flatnonzero(fills.run == run)
        reached = np.searchsorted(rows[own], at, side="right")  # fills up to each of these rows
        side = fills.side[own]
        quantity, basis = _held(fills, own)
        for place, sign in enumerate((1, -1)):
            gains = np.where(side == sign, fills.profit[own] - fills.fee[own], 0.0)
            realised = np.concatenate(([0.0], np.cumsum(gains)))[reached]
            mine = np.concatenate(([False], side == sign))[reached]
            profit, _ = _marked(
                np.where(mine, quantity[reached], 0.0),
                np.where(mine, basis[reached], 0.0),
                np.nan_to_num(marks.prices[symbol][np.maximum(at, 0)]),
                leverage,
            )
            found[run, place] = realised + profit
    return found


def buy_and_hold(symbols: Sequence[str], marks: Marks) -> Floats:
    """Return what 1.0 comes to that is put in equal parts into the symbols and left there.

    Each symbol is bought once, at its first mark, without costs; until then its part is cash.
    Shape (M,), at the instants of `marks`.
    """
    names = [*dict.fromkeys(symbols)]
    worth = np.zeros(len(marks.timestamp))
    for name in names:
        price = marks.prices[name]
        first = _first_known(price)
        worth[:first] += 1.0
        if first < len(price):
            worth[first:] += price[first:] / price[first]
    return worth / len(names)


def _rows_of(fills: Fills, timestamp: Ints) -> Ints:
    """Return the row of the curve that is the first to show each fill."""
    rows: Ints = np.searchsorted(timestamp, fills.timestamp)
    if len(rows) and rows[-1] >= len(timestamp):
        raise ArgumentError(
            f"the fill at {iso(int(fills.timestamp[-1]))} lies after the last instant of the "
            "marks; they go on to the last close"
        )
    return rows


def _held(fills: Fills, own: Ints) -> tuple[Floats, Floats]:
    """Return signed quantity and basis before the first and after each fill of one run."""
    side, before = fills.side[own], [0.0]
    quantity = np.concatenate((before, np.cumsum(fills.quantity[own]) * side))
    return quantity, np.concatenate((before, np.cumsum(fills.basis[own]) * side))


def _marked(
    quantity: Floats, basis: Floats, price: Floats, leverage: float
) -> tuple[Floats, Floats]:
    """Return open profit, at least minus the collateral, and signed value; reuses `basis`."""
    value = quantity * price
    profit = value - basis
    least = np.abs(basis, out=basis)
    least /= -leverage
    return np.maximum(profit, least, out=profit), value


def _constant(rows: Ints, values: Floats, marks: Marks) -> Floats:
    """Return values that hold from a row on (the first from the beginning) at all rows."""
    bounds = np.concatenate(([0], rows, [len(marks.timestamp)]))
    return np.repeat(values, np.diff(bounds))


def _known(price: Floats) -> Floats:
    """Return prices with 0 where there is none yet: nothing is held there."""
    first = _first_known(price)
    if not first:
        return price
    price = price.copy()
    price[:first] = 0.0
    return price


def _first_known(price: Floats) -> int:
    """Return the first row with a price, their number where there is none."""
    if len(price) and price[0] == price[0]:
        return 0
    known = np.flatnonzero(~np.isnan(price))
    return int(known[0]) if len(known) else len(price)

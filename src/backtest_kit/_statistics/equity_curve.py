"""The equity curve of an account, from its fills and the prices that its symbols were marked at.

A run holds one position at a time. Between two fills its quantity `Q` and cost basis `K` are
constant, so its open profit is `Q * mark - K` (of a short `K - Q * mark`) along the whole stretch.
No position loses more than its collateral `K / leverage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from backtest_kit._statistics.equity_minutes import ROWS, Stretch
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
    count, begin = len(marks.timestamp), 0
    equity, held = np.empty(count), np.empty(count)
    for part in stretches(fills, symbols, marks, balance, leverage):
        rows = slice(begin, begin + len(part.equity))
        equity[rows], held[rows], begin = part.equity, part.held, rows.stop
    wallet = _Steps(_rows_of(fills, marks.timestamp), _wallet(fills, balance)).between(0, count)
    return EquityCurve(marks.timestamp, equity, np.broadcast_to(wallet, (count,)), held)


def stretches(
    fills: Fills, symbols: Sequence[str], marks: Marks, balance: float, leverage: float
) -> Iterator[Stretch]:
    """Yield the equity curve in stretches; arguments and errors as `equity_curve`."""
    rows = _rows_of(fills, marks.timestamp)
    wallet = _Steps(rows, _wallet(fills, balance))
    runs = []
    for run, symbol in enumerate(symbols):
        own = np.flatnonzero(fills.run == run)
        if not len(own):
            continue
        price = marks.prices[symbol]
        if rows[own[0]] < _first_known(price):
            when = iso(int(fills.timestamp[own[0]]))
            raise ArgumentError(f"{symbol} has a fill at {when}, and no mark by then")
        quantity, basis = (_Steps(rows[own], values) for values in _held(fills, own))
        runs.append((quantity, basis, _known(price)))
    for begin in range(0, len(marks.timestamp), ROWS):
        end = min(begin + ROWS, len(marks.timestamp))
        equity = np.full(end - begin, wallet.between(begin, end))
        held = np.zeros(end - begin)
        for quantity, basis, price in runs:
            if quantity.is_zero(begin, end):
                continue
            q, k = quantity.between(begin, end), basis.between(begin, end)
            profit, value = _marked(q, k, price[begin:end], leverage)
            equity += profit
            held += np.abs(value, out=value)
        yield Stretch(marks.timestamp[begin:end], equity, held)


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


def buy_and_hold(symbols: Sequence[str], marks: Marks, rows: Ints | None = None) -> Floats:
    """Return what 1.0 comes to that is put in equal parts into the symbols and left there.

    Each symbol is bought once, at its first mark, without costs; until then its part is cash.
    Shape (M,), at the instants of `marks`, or at some `rows` of them.
    """
    names = [*dict.fromkeys(symbols)]
    instants = marks.timestamp if rows is None else marks.timestamp[rows]
    worth = np.zeros(len(instants))
    for name in names:
        prices = marks.prices[name]
        first, price = _first_known(prices), prices if rows is None else prices[rows]
        # of its own rows, those from the first mark on
        begin = first if rows is None else int(np.searchsorted(rows, first))
        worth[:begin] += 1.0
        if begin < len(price):
            worth[begin:] += price[begin:] / prices[first]
    return worth / len(names)


class _Steps:
    """Values that hold from a row on: the first from the beginning, each other from its row."""

    def __init__(self, rows: Ints, values: Floats) -> None:
        self._rows = rows
        self._values = values

    def between(self, begin: int, end: int) -> Floats | float:
        """Return the value of each row from `begin` to `end`, or the one that all have."""
        first, last = self._places(begin, end)
        if first == last:
            return float(self._values[first])
        bounds = np.concatenate(([begin], self._rows[first:last], [end]))
        return np.repeat(self._values[first : last + 1], np.diff(bounds))

    def is_zero(self, begin: int, end: int) -> bool:
        """Say whether it is 0 from `begin` to `end`."""
        first, last = self._places(begin, end)
        return first == last and self._values[first] == 0

    def _places(self, begin: int, end: int) -> tuple[int, int]:
        found = np.searchsorted(self._rows, (begin, end - 1), side="right")
        return int(found[0]), int(found[1])


def _wallet(fills: Fills, balance: float) -> Floats:
    """Return the wallet balance before the first and after each fill."""
    return np.cumsum(np.concatenate(([balance], fills.balance)))


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
    quantity: Floats | float, basis: Floats | float, price: Floats, leverage: float
) -> tuple[Floats, Floats]:
    """Return open profit, at least minus the collateral, and signed value."""
    value = quantity * price
    profit = value - basis
    if leverage == 1 and float(np.min(quantity)) >= 0:
        return profit, value  # a long loses no more than it has cost
    return np.maximum(profit, np.abs(basis) / -leverage, out=profit), value


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

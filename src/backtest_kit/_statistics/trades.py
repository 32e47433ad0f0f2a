"""Closed trades of many strategies in one table: a window is cut out of all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.figures import LEAST_DEVIATION, YEAR_MS
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Floats, Ints

Mask = npt.NDArray[np.bool_]


class Trades(NamedTuple):
    """Closed trades, one strategy after another, each in the order of closing; shape (N,).

    Profit in percent, times in ms, and the symbol; `stop` is what each would have lost at its stop,
    `worst` what it had lost at the worst price that it saw, percent, NaN where that is not known.
    `of` is the number of the strategy, ascending, `row` the trade's place among those of its run.
    """

    r: Floats
    opened: Ints
    closed: Ints
    symbol: Ints
    stop: Floats
    worst: Floats
    of: Ints
    row: Ints

    def at(self, rows: Mask | Ints | slice) -> Trades:
        """Return some of them, by a mask, their places, or a stretch."""
        if not isinstance(rows, slice) and rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)  # once, for every column
        r, opened, closed, symbol, stop, worst, of, row = self
        return Trades(
            *(r[rows], opened[rows], closed[rows], symbol[rows], stop[rows], worst[rows]),
            *(of[rows], row[rows]),
        )

    def one(self, number: int) -> Trades:
        """Return those of one strategy."""
        first, last = np.searchsorted(self.of, [number, number + 1])
        return self.at(slice(int(first), int(last)))

    def columns(self) -> TradeColumns:
        """Return them as those of one strategy."""
        return TradeColumns.of(
            self.r,
            self.opened,
            self.closed,
            symbol=self.symbol,
            stop_loss=self.stop,
            worst_loss=self.worst,
        )


def all_trades(strategies: Sequence[TradeColumns]) -> Trades:
    """Return the trades of strategies, numbered from 0."""
    counts = [each.count for each in strategies]
    return Trades(
        np.concatenate([np.zeros(0), *(each.r for each in strategies)]),
        _whole([each.opened_at for each in strategies]),
        _whole([each.closed_at for each in strategies]),
        _whole([each.symbol for each in strategies]),
        np.concatenate([np.zeros(0), *(each.stop_loss for each in strategies)]),
        np.concatenate([np.zeros(0), *(each.worst_loss for each in strategies)]),
        np.repeat(np.arange(len(counts)), counts),
        _whole([np.arange(count) for count in counts]),
    )


def together(parts: Sequence[Trades]) -> Trades:
    """Return trades of several sources, those of each strategy in the order of closing."""
    joined = stacked(parts)
    return joined.at(np.lexsort((joined.closed, joined.of)))


def stacked(parts: Sequence[Trades]) -> Trades:
    """Return trades one part after another."""
    every = parts or [all_trades([])]
    return Trades(
        np.concatenate([part.r for part in every]),
        np.concatenate([part.opened for part in every]),
        np.concatenate([part.closed for part in every]),
        np.concatenate([part.symbol for part in every]),
        np.concatenate([part.stop for part in every]),
        np.concatenate([part.worst for part in every]),
        np.concatenate([part.of for part in every]),
        np.concatenate([part.row for part in every]),
    )


def renumbered(trades: Trades, chosen: Ints, count: int) -> Trades:
    """Return the trades of chosen ones of `count` strategies, numbered from 0 as they are given."""
    place = np.full(count, -1)
    place[chosen] = np.arange(len(chosen))
    of = place[trades.of]
    if len(chosen) < count:
        trades, of = trades.at(of >= 0), of[of >= 0]
    if (np.diff(of) < 0).any():
        order = np.argsort(of, kind="stable")
        trades, of = trades.at(order), of[order]
    return trades._replace(of=of)


def counted(trades: Trades, count: int) -> Ints:
    """Return how many trades each of `count` strategies has."""
    return np.bincount(trades.of, minlength=count)


def greatest(values: Floats | Ints, of: Ints, count: int, initial: float) -> Floats:
    """Return the greatest value of each of `count` strategies, at least `initial`."""
    found = np.full(count, initial, dtype=np.float64)
    if len(of):
        first = np.flatnonzero(np.diff(of, prepend=-1))
        found[of[first]] = np.maximum(np.maximum.reduceat(values, first), initial)
    return found


def metrics(trades: Trades, count: int, name: str, span: tuple[int, int]) -> Floats:
    """Return a metric of each of `count` strategies; NaN where it is not defined.

    To rounding, that of `figures.metric_of`: sums are taken in another order.
    """
    r, of = trades.r, trades.of
    n = counted(trades, count).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        total = np.bincount(of, r, count)
        if name == "win_rate":
            value = np.bincount(of, r > 0, count) / n * 100
        elif name == "avg_pnl":
            value = total / n
        elif name == "total_pnl":
            value = np.where(n > 0, total, np.nan)
        elif name == "expected_yearly_returns":
            length = span[1] - span[0]
            value = np.where(n > 0, total * YEAR_MS / length if length > 0 else np.nan, np.nan)
        elif name == "certainty_ratio":
            wins, losses = np.bincount(of, r > 0, count), np.bincount(of, r < 0, count)
            won = np.where(wins > 0, np.bincount(of, np.maximum(r, 0), count) / wins, 0.0)
            value = won / (np.bincount(of, np.maximum(-r, 0), count) / losses)
        else:
            mean = total / n
            deviation = np.sqrt(np.bincount(of, np.square(r - mean[of]), count) / (n - 1))
            value = mean / np.where(deviation < LEAST_DEVIATION, np.nan, deviation)
            if name == "annualized_sharpe_ratio":
                value = value * np.sqrt(365)
    return np.where(np.isfinite(value), value, np.nan)


def _whole(columns: Sequence[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, dtype=np.int64), *columns])

"""What the choices of windows are tested against: the walk's benchmark, within the windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._arrays.brackets import Brackets
from backtest_kit._statistics.benchmarks import Market, hold_profits, random_profits
from backtest_kit._statistics.trades import Trades
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.schemas import Benchmark
from backtest_kit._values.windows import Window

#: Draws of random entries for the bins of a test, which takes their mean for each strategy.
BIN_DRAWS: Final = 50


class Entered(NamedTuple):
    """A strategy's trades that opened in a window, and how they were meant to end."""

    window: Window
    trades: Trades
    brackets: Brackets


class Against(NamedTuple):
    """A benchmark other than 0, the walk's markets, and the seed of random entries.

    `edges` are those of bins (ms, ascending) of the windows put one after another, as if nothing
    lay between them: they begin where the first one does.
    """

    benchmark: Benchmark
    markets: Sequence[Market]
    seed: int
    draws: int = BIN_DRAWS

    def held(self, windows: Sequence[Window], edges: Ints) -> Floats:
        """Return what holding earned in each bin: bought and sold in each window anew."""
        found, begin = np.zeros(len(edges) - 1), int(edges[0])
        for window in windows:
            inner, place = _pieces(window, edges, begin)
            for market in self._within(window):
                parts = hold_profits(market, inner)
                found[place : place + len(parts)] += parts
            begin += window.length
        return found

    def entered(self, parts: Sequence[Entered], edges: Ints) -> Floats:
        """Return what as many random entries earn in each bin, the mean of draws.

        Within each window, with the brackets and sides of the trades that opened there.
        """
        found, begin = np.zeros(len(edges) - 1), int(edges[0])
        for window, trades, brackets in parts:
            if len(trades.r):
                inner, place = _pieces(window, edges, begin)
                taken = trades.symbol, trades.closed - trades.opened, brackets
                markets = self._within(window)
                profits = random_profits(markets, *taken, inner, self.seed, self.draws)
                found[place : place + len(profits)] += profits
            begin += window.length
        return found

    def _within(self, window: Window) -> list[Market]:
        return [market.within(window) for market in self.markets]


def _pieces(window: Window, edges: Ints, begin: int) -> tuple[Ints, int]:
    """Return the edges of the bins within a window, its own time, and the bin of the first."""
    end = begin + window.length
    inner = edges[(edges > begin) & (edges < end)] - begin + window.since
    place = max(int(np.searchsorted(edges, begin, side="right")) - 1, 0)
    return np.concatenate(([window.since], inner, [window.until])), place

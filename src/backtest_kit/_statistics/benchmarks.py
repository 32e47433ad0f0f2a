"""What a ranking is compared with: buying and holding, and entries at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from backtest_kit._arrays.brackets import Brackets
from backtest_kit._arrays.draws import Draws, draw_entries
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import profit
from backtest_kit._statistics.figures import metric_of
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.windows import Window

#: How often random entries are drawn for a row.
DRAWS: Final = 200
HOLD: Final = "buy and hold"
RANDOM: Final = "random entries"


class BenchmarkRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a ranking that nobody registered, and that never wins.

    Buying and holding is one position for the whole frame, cut into as many equal parts as the best
    strategy has trades on the symbol, so that its figures per trade can be compared; they add up to
    what it earned, in percent of what was paid.

    Random entries have the best strategy's brackets, sides and number of trades: `metric_value` is
    the median of `draws`, `percentile_95` what 5 in 100 exceed, `share_below` the share that the
    best strategy beats; `total_pnl` the median. Its name says how many draws there were, if fewer
    than 200. `error` says why there are no figures.
    """

    kind: Literal["hold", "random"]
    name: str
    metric_value: float | None = None
    percentile_95: float | None = None
    share_below: float | None = None
    total_pnl: float | None = None
    trades: int = 0
    draws: int = 0
    error: str | None = None


class Market(NamedTuple):
    """The market of one symbol of a walk: its bars, the frame's instants on them, the settings."""

    bars: Bars
    timeline: range
    config: Config

    def within(self, window: Window) -> Market:
        """Return the market of a frame that is as long as a window, of one step at least."""
        line = self.timeline
        first, last = (
            min(max(-((line.start - at) // line.step), 0), len(line))
            for at in (window.since, window.until)
        )
        return self._replace(timeline=line[first:last] or line[first:][:1] or line[-1:])


def benchmark_rows(
    markets: Sequence[Market], best: TrialResult | None, name: str, seed: int, draws: int = DRAWS
) -> tuple[BenchmarkRow, BenchmarkRow]:
    """Return both rows of a ranking by a metric; `markets` are those of the walk's symbols."""
    return hold_row(markets, best, name), random_row(markets, best, name, seed, draws)


def hold_row(markets: Sequence[Market], best: TrialResult | None, name: str) -> BenchmarkRow:
    """Return what buying each symbol and holding it comes to."""
    parts = []
    for number, market in enumerate(markets):
        trades = 0 if best is None else int((best.trades.symbol == number).sum())
        line = market.timeline
        edges = np.linspace(line[0], line[-1], max(trades, 1) + 1).astype(np.int64)
        parts.append(hold_profits(market, edges))
    r = np.concatenate(parts)
    return BenchmarkRow(
        kind="hold",
        name=HOLD,
        metric_value=metric_of(r, name, _span(markets)),
        total_pnl=metric_of(r, "total_pnl", _span(markets)),
        trades=len(r),
    )


def hold_profits(market: Market, edges: Ints) -> Floats:
    """Return what holding earned between edges (ms, ascending): percent of what was paid, (B,).

    It is bought at the first step of the frame and sold at the last, at the price at which a fill
    can be had; the first part bears the costs of the one, the last those of the other. What lies
    outside of the edges is in the first part and in the last. The sum is the profit of one trade.
    """
    bars, line, config = market
    first, last = bars.row(max(line[0], bars.first)), bars.row(line[-1])
    rows = np.clip((edges - bars.first) // bars.step, first, min(last, len(bars.fill) - 1))
    prices = bars.fill[rows]
    known = bars.fill[first : rows.max() + 1]
    bought = float(known[np.isfinite(known)][0]) if np.isfinite(known).any() else np.nan
    paid = bought * (1 + config.percent_slippage / 100)
    worth = (prices - paid) / paid * 100 - config.percent_fee
    worth[0] = 0.0
    sold = float(bars.fill[min(last, len(bars.fill) - 1)])
    worth[-1] = profit("long", bought, sold, config.percent_fee, config.percent_slippage)
    return np.diff(worth)


def random_row(
    markets: Sequence[Market], best: TrialResult | None, name: str, seed: int, draws: int
) -> BenchmarkRow:
    """Return what entering at random with the best strategy's brackets comes to."""
    name_of_row = RANDOM if draws >= DRAWS else f"{RANDOM} ({draws} draws)"
    row = BenchmarkRow(kind="random", name=name_of_row, draws=draws)
    if best is None or not best.trades.count:
        return msgspec.structs.replace(row, draws=0, error="the best strategy has no trades")
    if best.brackets.count != best.trades.count:
        text = "how the trades of the best strategy were meant to end is not known"
        return msgspec.structs.replace(row, draws=0, error=text)
    span = _span(markets)
    trades = best.trades
    drawn = random_draws(
        *(markets, trades.symbol, trades.closed_at - trades.opened_at, best.brackets, seed, draws)
    )
    r = np.concatenate([part.r for part in drawn], axis=1)
    entered = [one[np.isfinite(one)] for one in r]
    values = [v for v in (metric_of(one, name, span) for one in entered) if v is not None]
    mine = metric_of(best.trades.r, name, span)
    middle, high = np.percentile(values, (50, 95)).tolist() if values else (None, None)
    beaten = None if mine is None or not values else float((np.array(values) < mine).mean())
    return msgspec.structs.replace(
        row,
        metric_value=middle,
        percentile_95=high,
        share_below=beaten,
        total_pnl=float(np.median([one.sum() for one in entered])),
        trades=best.trades.count,
    )


def random_draws(
    markets: Sequence[Market],
    symbol: Ints,
    held: Ints,
    brackets: Brackets,
    seed: int,
    draws: int,
) -> list[Draws]:
    """Return draws of random entries for each symbol, with the brackets of given trades.

    `symbol` and `held`, how long each was open in ms, are of shape (N,). The numbers are drawn from
    the seed, the symbol's place and the number of trades alone, so that copies of a strategy stay
    copies.
    """
    found = []
    for number, market in enumerate(markets):
        of_symbol = symbol == number
        mine = brackets.at(of_symbol)
        lasted = held[of_symbol].astype(np.float64)
        found.append(draw_entries(*market, mine, lasted, draws, (seed, number, mine.count)))
    return found


def random_profits(
    markets: Sequence[Market],
    symbol: Ints,
    held: Ints,
    brackets: Brackets,
    edges: Ints,
    seed: int,
    draws: int,
) -> Floats:
    """Return what random entries earn between edges (ms, ascending): the mean of draws, (B,).

    As `random_draws`. A trade counts where it closed, in the part with
    edges[i] < closed_at <= edges[i + 1], and outside of all parts in the nearest.
    """
    total = np.zeros(len(edges) - 1)
    for part in random_draws(markets, symbol, held, brackets, seed, draws):
        entered = np.isfinite(part.r)
        at = np.searchsorted(edges[1:-1], part.closed_at[entered], side="left")
        total += np.bincount(at, weights=part.r[entered], minlength=len(total))
    return total / draws


def _span(markets: Sequence[Market]) -> tuple[int, int]:
    lines = [market.timeline for market in markets]
    return min(line[0] for line in lines), max(line[-1] for line in lines)

"""What the symbols, strategies and sides of an account had in its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.equity import pearson
from backtest_kit._statistics.equity_trades import TradeSums, sums_by
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.fills import Fills

PartKind = Literal["symbol", "strategy", "side"]


class AccountPart(msgspec.Struct, frozen=True, kw_only=True):
    """What one symbol, strategy or side earned; amounts in the account's currency.

    `profit` is realised, after `fees`. `in_drawdown` is the change of realised and open profit
    between peak and trough of the greatest drawdown: within a kind they add up to it.
    """

    kind: PartKind
    name: str
    trades: int
    profit: float
    fees: float
    in_drawdown: float


def account_parts(
    runs: Sequence[tuple[str, str]], fills: Fills, trades: TradeSums, in_drawdown: Floats
) -> tuple[AccountPart, ...]:
    """Return the parts of the symbols, the strategies and the two sides, in their order.

    `runs` are (strategy, symbol); `in_drawdown` is what each run and side earned in the greatest
    drawdown, of shape (runs, 2), longs before shorts.
    """
    profit = _by_run_and_side(fills.run, fills.side, fills.profit - fills.fee, len(runs))
    fees = _by_run_and_side(fills.run, fills.side, fills.fee, len(runs))
    closed = (trades.closed_at >= 0).astype(np.float64)
    counts = _by_run_and_side(trades.run, trades.side, closed, len(runs))

    def part(kind: PartKind, name: str, mask: npt.NDArray[np.bool_]) -> AccountPart:
        return AccountPart(
            kind=kind,
            name=name,
            trades=int(counts[mask].sum()),
            profit=float(profit[mask].sum()),
            fees=float(fees[mask].sum()),
            in_drawdown=float(in_drawdown[mask].sum()),
        )

    symbols = np.array([symbol for _, symbol in runs], dtype=object)
    strategies = np.array([strategy for strategy, _ in runs], dtype=object)
    both = np.ones((1, 2), dtype=np.bool_)
    return (
        *(part("symbol", s, (symbols == s)[:, None] & both) for s in dict.fromkeys(symbols)),
        *(
            part("strategy", s, (strategies == s)[:, None] & both)
            for s in dict.fromkeys(strategies)
        ),
        *(
            part("side", name, np.tile(np.arange(2) == place, (len(runs), 1)))
            for place, name in enumerate(("long", "short"))
        ),
    )


def correlations(profits: Floats, balance: float) -> tuple[tuple[float | None, ...], ...]:
    """Return Pearson's correlation of the daily profits of each run with each.

    `profits` is realised plus open profit at the end of each day, of shape (runs, days). `None`
    where one of the two has fewer than two days, or does not vary.
    """
    daily = np.diff(profits, axis=1, prepend=0.0) / balance
    return tuple(tuple(pearson(one, other) for other in daily) for one in daily)


def _by_run_and_side(run: Ints, side: npt.NDArray[np.int8], values: Floats, runs: int) -> Floats:
    place = run * 2 + (side < 0)
    return sums_by(place, values, 2 * runs).reshape(runs, 2)

"""The fills of each trade of an account added up."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.fills import Fills


class TradeSums(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The fills of each trade added up, in the order of opening; amounts in the currency.

    `closed_at` is -1 for a trade that is still open, `last` the row of its last fill. `quantity`
    and `cost` are those of all entries, `profit` is after fees.
    """

    run: Ints
    side: npt.NDArray[np.int8]
    opened_at: Ints
    closed_at: Ints
    last: Ints
    quantity: Floats
    cost: Floats
    fees: Floats
    slippage: Floats
    profit: Floats
    liquidated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.run)


def trade_sums(fills: Fills) -> TradeSums:
    """Return what each trade came to."""
    _, first, trade = np.unique(fills.trade, return_index=True, return_inverse=True)
    last = len(trade) - 1 - np.unique(fills.trade[::-1], return_index=True)[1]

    def sums(values: Floats) -> Floats:
        return sums_by(trade, values, len(first))

    fees = sums(fills.fee)
    return TradeSums(
        run=fills.run[first],
        side=fills.side[first],
        opened_at=fills.timestamp[first],
        # in the order of the fills, so that nothing is left over of what was all closed
        closed_at=np.where(sums(fills.quantity) == 0, fills.timestamp[last], -1),
        last=last,
        quantity=sums(np.maximum(fills.quantity, 0.0)),
        cost=sums(np.maximum(fills.basis, 0.0)),
        fees=fees,
        slippage=sums(fills.slippage),
        profit=sums(fills.profit) - fees,
        liquidated=sums(fills.liquidated.astype(np.float64)) > 0,
    )


def sums_by(place: Ints, values: Floats, count: int) -> Floats:
    """Return the sum of the values of each place from 0 to `count`, added in their order."""
    found: Floats = np.bincount(place, weights=values, minlength=count).astype(np.float64)
    return found

"""What the fills of an account did to its money, as columns."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Floats, Ints


class Fills(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One row for each fill of an account, in the order in which they happened; shape (N,).

    Amounts are in the account's currency, quantities in the base asset, prices after slippage.

    Attributes:
        timestamp: the instant of the step at which it filled, int64 milliseconds UTC; ascending.
        run: the index of its run among those of the portfolio, int64.
        trade: the index of its trade among all that were opened, in the order of their first
            fills, int64.
        side: +1 of a long, -1 of a short (of the position, not of the order), int8.
        quantity: change of the quantity that is held: above 0 for an entry, below for an exit.
        basis: change of the cost basis `K`: the cost of an entry, minus what an exit takes of it.
        balance: change of the wallet balance `B`, fees included.
        fee: what was paid of it in fees, 0 or more. Both sides' are a part of the entry's cost.
        slippage: `quantity * |slipped price - price|`, 0 or more; in the prices, not beside them.
        profit: of an exit the gross profit that the wallet got or lost, else 0: that of the
            slipped prices, or where the loss was capped, minus the collateral. So
            `balance = profit - fee`.
        value: `quantity * slipped price`, 0 or more.
        liquidated: whether the exit lost its collateral.
    """

    timestamp: Ints
    run: Ints
    trade: Ints
    side: npt.NDArray[np.int8]
    quantity: Floats
    basis: Floats
    balance: Floats
    fee: Floats
    slippage: Floats
    profit: Floats
    value: Floats
    liquidated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.timestamp)

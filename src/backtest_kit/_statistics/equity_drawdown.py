"""Drawdowns of an account: how far below its highest equity it was, when, and for how long."""

from __future__ import annotations

import msgspec
import numpy as np

from backtest_kit._values.candles import Floats


class Drawdown(msgspec.Struct, frozen=True, kw_only=True):
    """The greatest drawdown of a curve; `peak`, `trough` and `recovered` are rows of it.

    `depth` is a fraction of the peak, `amount` in currency. A `peak` of -1 is what the account
    began with, before its first row; `recovered` is `None` where it was not.
    """

    depth: float
    amount: float
    peak: int
    trough: int
    recovered: int | None


def max_drawdown(equity: Floats, balance: float) -> Drawdown | None:
    """Return the greatest fall from a peak, `None` without one (Magdon-Ismail and Atiya, 2004).

    The first peak is `balance`. Where the equity stays at its peak, the fall begins at its end.
    """
    values = np.concatenate(([balance], equity))
    peaks = np.maximum.accumulate(values)
    depth = 1.0 - values / peaks
    trough = int(depth.argmax())
    if not depth[trough] > 0:
        return None
    top = peaks[trough]
    peak = int(np.flatnonzero(values[:trough] == top)[-1])
    back = np.flatnonzero(values[trough:] >= top)
    return Drawdown(
        depth=float(depth[trough]),
        amount=float(top - values[trough]),
        peak=peak - 1,
        trough=trough - 1,
        recovered=trough + int(back[0]) - 1 if len(back) else None,
    )


def drawdowns(equity: Floats, balance: float) -> Floats:
    """Return how far each value is below the highest before it, as fractions, 0 or less."""
    peaks = np.maximum(np.maximum.accumulate(equity), balance) if len(equity) else equity
    return equity / peaks - 1.0

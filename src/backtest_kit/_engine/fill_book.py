"""The fills of an account as they come, to be made columns of."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from backtest_kit._values.fills import Fills

_TYPES: Final[dict[str, Any]] = {
    "timestamp": np.int64,
    "run": np.int64,
    "trade": np.int64,
    "side": np.int8,
    "liquidated": np.bool_,
}


class FillBook:
    """Rows of `Fills`, in order."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self,
        timestamp: int,
        run: int,
        trade: int,
        side: int,
        quantity: float,
        basis: float,
        balance: float,
        fee: float,
        slippage: float,
        profit: float,
        value: float,
        *,
        liquidated: bool,
    ) -> None:
        """Add a fill; see `Fills`."""
        key = timestamp, run, trade, side
        self._rows.append(
            (*key, quantity, basis, balance, fee, slippage, profit, value, liquidated)
        )

    def columns(self) -> Fills:
        """Return all fills so far."""
        columns = zip(*self._rows, strict=True) if self._rows else [()] * 12
        names = Fills.__struct_fields__
        return Fills(
            **{
                name: np.array(column, dtype=_TYPES.get(name, np.float64))
                for name, column in zip(names, columns, strict=True)
            }
        )

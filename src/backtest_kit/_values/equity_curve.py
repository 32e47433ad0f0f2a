"""The equity of an account over time: read-only columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.table import Table
from backtest_kit._values.time import iso

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

COLUMNS: Final = ("timestamp", "equity", "balance", "held")
#: Rows of a curve in reports and JSON: more can't be told apart on a screen.
REPORT_ROWS: Final = 2000


class Marks(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What the symbols of an account were worth at each step.

    Attributes:
        timestamp: the instants of the curve, int64 milliseconds UTC, ascending, shape (M,).
        prices: for each symbol the close of its last closed candle at each instant, float64 of
            shape (M,): flat across gaps and after its data end, NaN before they begin.
        traded_days: days on which a symbol has a real candle, as days since the epoch, int64. The
            others are left out of the days of a year that has fewer than 365; `None` leaves out
            none.
    """

    timestamp: Ints
    prices: dict[str, Floats]
    traded_days: Ints | None = None


class EquityCurve:
    """The equity of an account at each step, oldest first; columnar and read-only.

    `timestamp` is int64 milliseconds UTC. `equity` is `balance` plus open profit, `balance` the
    wallet balance, `held` the value of all that is held, long and short alike; all three are
    float64, in the account's currency. All are of shape `(len(self),)`.

    Raises:
        ArgumentError: columns differ in length.
    """

    __slots__ = ("balance", "equity", "held", "timestamp")
    timestamp: Ints
    equity: Floats
    balance: Floats
    held: Floats

    def __init__(
        self,
        timestamp: npt.ArrayLike,
        equity: npt.ArrayLike,
        balance: npt.ArrayLike,
        held: npt.ArrayLike,
    ) -> None:
        self.timestamp = np.asarray(timestamp, dtype=np.int64).view()
        self.equity = np.asarray(equity, dtype=np.float64).view()
        self.balance = np.asarray(balance, dtype=np.float64).view()
        self.held = np.asarray(held, dtype=np.float64).view()
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ArgumentError(f"columns differ in length: {lengths}")
        for name in COLUMNS:
            getattr(self, name).flags.writeable = False

    def columns(self) -> tuple[Ints, Floats, Floats, Floats]:
        """Return the four columns, in the order of their names above."""
        return self.timestamp, self.equity, self.balance, self.held

    def __getitem__(self, rows: slice | Ints) -> EquityCurve:
        return EquityCurve(*(column[rows] for column in self.columns()))

    def thinned(self, rows: int = REPORT_ROWS) -> EquityCurve:
        """Return at most about `rows` rows: the lowest and highest equity of equal parts.

        The first and the last row stay, so that no drawdown looks smaller than it was.
        """
        return self[thin(self.equity, rows)]

    def __len__(self) -> int:
        return len(self.timestamp)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EquityCurve):
            return NotImplemented
        return all(
            np.array_equal(a, b) for a, b in zip(self.columns(), other.columns(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[EquityCurve], tuple[Ints, Floats, Floats, Floats]]:
        return EquityCurve, self.columns()

    def __repr__(self) -> str:
        if not len(self):
            return "<EquityCurve: none>"
        first, last = iso(int(self.timestamp[0])), iso(int(self.timestamp[-1]))
        return f"<EquityCurve: {len(self):,} from {first} to {last}>"

    def table(self) -> Table:
        """Return the columns as a table, which can be written as Parquet."""
        columns: dict[str, npt.ArrayLike] = {}
        columns |= zip(COLUMNS, self.columns(), strict=True)
        return Table(columns, times=("timestamp",), title="equity")

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame (a copy) indexed by UTC time. Needs pandas."""
        return self.table().to_pandas().set_index("timestamp")

    def to_polars(self) -> pl.DataFrame:
        """Return a polars frame (a copy) whose `timestamp` is a UTC datetime. Needs polars."""
        return self.table().to_polars()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def thin(values: Floats, rows: int = REPORT_ROWS) -> Ints:
    """Return which of `values` to show where there is room for about `rows`; see `thinned`."""
    n = len(values)
    if n <= rows:
        return np.arange(n, dtype=np.int64)
    bounds = np.linspace(0, n, max(rows // 2, 1) + 1).astype(np.int64)
    picked = [np.array([0, n - 1], dtype=np.int64)]
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        part = values[start:stop]
        picked.append(np.array([start + part.argmin(), start + part.argmax()], dtype=np.int64))
    return np.unique(np.concatenate(picked))

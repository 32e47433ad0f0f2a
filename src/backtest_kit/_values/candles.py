"""Candles: read-only columns over NumPy, and the shapes that are accepted for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, overload

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.errors import ArgumentError, BadCandlesError
from backtest_kit._values.time import interval_ms, iso

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Columns = tuple[Ints, Floats, Floats, Floats, Floats, Floats]

COLUMNS: Final = ("timestamp", "open", "high", "low", "close", "volume")


class Candle(msgspec.Struct, frozen=True):
    """One candle; `timestamp` is its open time in milliseconds UTC."""

    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class Candles:
    """Columnar, read-only candles, oldest first.

    `timestamp` is int64 milliseconds UTC (open times), the other columns float64, all of shape
    `(len(self),)`. Columns and slices are views: nothing is copied, nothing can be written.
    """

    __slots__ = ("_columns", "_start", "_stop")
    _columns: Columns
    _start: int
    _stop: int

    def __init__(
        self,
        timestamp: npt.ArrayLike,
        open: npt.ArrayLike,  # noqa: A002 - the field's own name
        high: npt.ArrayLike,
        low: npt.ArrayLike,
        close: npt.ArrayLike,
        volume: npt.ArrayLike,
    ) -> None:
        """Copy six columns of one length.

        Raises:
            BadCandlesError: a column is not one-dimensional, not numeric, or of another length.
        """
        columns = []
        for name, values in zip(COLUMNS, (timestamp, open, high, low, close, volume), strict=True):
            columns.append(_column(name, values))
        _same_length(columns)
        for column in columns:
            column.flags.writeable = False
        self._columns = tuple(columns)  # type: ignore[assignment]
        self._start = 0
        self._stop = len(columns[0])

    @classmethod
    def view(cls, columns: Columns, start: int, stop: int) -> Candles:
        """Return rows `start` to `stop` of columns that are already read-only, without a copy."""
        candles = cls.__new__(cls)
        candles._columns = columns  # noqa: SLF001 - its own class
        candles._start = start  # noqa: SLF001 - its own class
        candles._stop = stop  # noqa: SLF001 - its own class
        return candles

    @property
    def timestamp(self) -> Ints:
        """Open times, int64 milliseconds UTC."""
        return self._columns[0][self._start : self._stop]

    @property
    def open(self) -> Floats:
        """First prices."""
        return self._columns[1][self._start : self._stop]

    @property
    def high(self) -> Floats:
        """Highest prices."""
        return self._columns[2][self._start : self._stop]

    @property
    def low(self) -> Floats:
        """Lowest prices."""
        return self._columns[3][self._start : self._stop]

    @property
    def close(self) -> Floats:
        """Last prices."""
        return self._columns[4][self._start : self._stop]

    @property
    def volume(self) -> Floats:
        """Volumes in the base asset."""
        return self._columns[5][self._start : self._stop]

    def columns(self) -> Columns:
        """Return the six columns, in the order of `COLUMNS`."""
        rows = slice(self._start, self._stop)
        t, o, h, low, c, v = self._columns
        return t[rows], o[rows], h[rows], low[rows], c[rows], v[rows]

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, index: int) -> Candle: ...
    @overload
    def __getitem__(self, index: slice) -> Candles: ...
    def __getitem__(self, index: int | slice) -> Candle | Candles:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ArgumentError(f"candles are sliced in order, without a step, not [::{step}]")
            return Candles.view(self._columns, self._start + start, self._start + max(start, stop))
        row = range(self._start, self._stop)[index]
        t, o, h, low, c, v = self._columns
        return Candle(
            int(t[row]), float(o[row]), float(h[row]), float(low[row]), float(c[row]), float(v[row])
        )

    def __iter__(self) -> Iterator[Candle]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Candles):
            return NotImplemented
        return all(
            np.array_equal(a, b) for a, b in zip(self.columns(), other.columns(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Candles], Columns]:
        return Candles, self.columns()

    def __repr__(self) -> str:
        if not len(self):
            return "<Candles: none>"
        t = self.timestamp
        return f"<Candles: {len(self)} from {iso(int(t[0]))} to {iso(int(t[-1]))}>"

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame (a copy) indexed by UTC open time. Needs pandas."""
        import pandas as pd

        index = pd.to_datetime(self.timestamp, unit="ms", utc=True)
        data = {n: c.copy() for n, c in zip(COLUMNS[1:], self.columns()[1:], strict=True)}
        return pd.DataFrame(data, index=pd.Index(index, name="timestamp"))

    def to_polars(self) -> pl.DataFrame:
        """Return a polars frame (a copy) whose `timestamp` is a UTC datetime. Needs polars."""
        import polars as pl

        frame = pl.DataFrame({n: c.copy() for n, c in zip(COLUMNS, self.columns(), strict=True)})
        return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("ms", "UTC")))

    def _repr_html_(self) -> str:
        from backtest_kit._values.table import Table

        columns: dict[str, npt.ArrayLike] = {}
        columns |= zip(COLUMNS, self.columns(), strict=True)
        return Table(columns, times=("timestamp",), title="candles")._repr_html_()

    def resample(self, interval: str) -> Candles:
        """Return candles of a longer interval, on the grid that exchanges use.

        A bucket is made of the candles there are; a bucket with none is left out, as an exchange
        leaves out a candle without trades. Buckets that the rows cover only in part (at either
        end) are made of that part. Volumes that are decimal fractions add up exactly.

        Raises:
            ArgumentError: unknown interval, or one that is not a multiple of the candles' own.
        """
        step = interval_ms(interval)
        if not len(self):
            return self
        own = spacing(self.timestamp) or step
        if step % own:
            raise ArgumentError(f"can't resample candles of {own // 1000} s into {interval}")
        return regroup(self, step)


def concatenate(parts: Iterable[Candles]) -> Candles:
    """Return candles that follow each other as one."""
    some = [part for part in parts if len(part)]
    if len(some) == 1:
        return some[0]
    if not some:
        return Candles([], [], [], [], [], [])
    columns = zip(*(part.columns() for part in some), strict=True)
    return Candles(*(np.concatenate(pieces) for pieces in columns))


def regroup(candles: Candles, step: int) -> Candles:
    """Return candles of `step`, for a caller who knows that the rows' own interval divides it.

    `Candles.resample` has to guess it, and two candles of 1m may be 7 minutes apart.
    """
    if not len(candles):
        return candles
    t, o, h, low, c, v = candles.columns()
    starts = np.flatnonzero(np.diff(t // step, prepend=-1))
    ends = np.append(starts[1:], len(t)) - 1
    return Candles(
        t[starts] // step * step,
        o[starts],
        np.maximum.reduceat(h, starts),
        np.minimum.reduceat(low, starts),
        c[ends],
        _sums(v, starts),
    )


def spacing(timestamp: Ints) -> int:
    """Return the smallest distance between neighbours in milliseconds; 0 for fewer than two."""
    return int(np.diff(timestamp).min()) if len(timestamp) > 1 else 0


def _sums(volume: Floats, starts: Ints) -> Floats:
    """Sum each group as decimals where its values are decimals, so that no rounding creeps in.

    Each group is decided for itself: a later candle must not change the sum of an earlier one.
    """
    sums = np.add.reduceat(volume, starts)
    undecided = np.ones(len(starts), dtype=np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        for digits in range(9):
            scale = 10.0**digits
            units = np.rint(volume * scale)
            exact = np.logical_and.reduceat(units / scale == volume, starts) & undecided
            total = np.add.reduceat(units, starts)
            exact &= total < 2.0**53
            sums[exact] = total[exact] / scale
            undecided &= ~exact
            if not undecided.any():
                break
    return sums


def read_candles(source: object) -> Candles:
    """Return `source` as `Candles`, whatever accepted shape it has; the values are not checked.

    Accepted: `Candles`; a sequence of `Candle`, of mappings, or of rows `[ms, o, h, l, c, v]`;
    a NumPy array of shape (n, 6); a pandas or polars frame with the six columns (pandas: the time
    may be the index). Times are integer milliseconds or datetimes.

    Raises:
        BadCandlesError: the shape is none of these; the message says what it was.
    """
    if isinstance(source, Candles):
        return source
    if isinstance(source, np.ndarray):
        return _from_rows(source)
    if hasattr(source, "columns") and hasattr(source, "__getitem__"):
        return _from_frame(source)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return _from_sequence(source)
    raise BadCandlesError(
        f"expected candles, got {type(source).__name__}; give a list of Candle, dicts or rows "
        "[ms, open, high, low, close, volume], a NumPy array (n, 6), a pandas or polars frame, "
        "or Candles"
    )


def _from_rows(rows: npt.NDArray[Any]) -> Candles:
    if rows.size == 0:
        return Candles([], [], [], [], [], [])
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise BadCandlesError(f"expected an array of shape (n, 6), got {rows.shape}")
    return Candles(*(rows[:, i] for i in range(6)))


def _from_sequence(source: Sequence[Any]) -> Candles:
    if not source:
        return Candles([], [], [], [], [], [])
    first = source[0]
    if isinstance(first, Candle):
        rows: list[Any] = [[getattr(x, n, None) for n in COLUMNS] for x in source]
    elif isinstance(first, Mapping):
        missing = [n for n in COLUMNS if n not in first]
        if missing:
            raise BadCandlesError(f"candle 0 has no {', '.join(missing)}: {dict(first)!r}")
        rows = [[x.get(n) for n in COLUMNS] if isinstance(x, Mapping) else x for x in source]
    else:
        rows = list(source)
    for i, row in enumerate(rows):
        if not isinstance(row, Sequence | np.ndarray) or isinstance(row, str) or len(row) != 6:
            raise BadCandlesError(
                f"candle {i} is {row!r}; expected six values [ms, open, high, low, close, volume]"
            )
    return Candles(*zip(*rows, strict=True))


def _from_frame(frame: Any) -> Candles:
    names = {str(name).lower(): name for name in frame.columns}
    columns = []
    for wanted in COLUMNS:
        if wanted in names:
            columns.append(frame[names[wanted]].to_numpy())
        elif wanted == "timestamp" and hasattr(frame, "index"):
            columns.append(frame.index.to_numpy())
        else:
            have = ", ".join(map(str, frame.columns))
            raise BadCandlesError(f"the frame has no column {wanted!r}; it has: {have}")
    return Candles(*columns)


def _column(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    column: npt.NDArray[Any]
    try:
        array = np.asarray(values)
        if name != "timestamp":
            column = np.array(array, dtype=np.float64)
        elif array.dtype.kind == "M":
            column = array.astype("datetime64[ms]").astype(np.int64)
        else:
            column = _whole(array)
    except (TypeError, ValueError) as error:
        raise BadCandlesError(f"column {name!r} is not numeric: {error}") from error
    if column.ndim != 1:
        raise BadCandlesError(f"column {name!r} has shape {column.shape}; expected (n,)")
    return np.ascontiguousarray(column)


def _whole(array: npt.NDArray[Any]) -> Ints:
    if array.dtype.kind in "iu":
        return np.array(array, dtype=np.int64)
    if array.dtype.kind == "O" and array.size and hasattr(array.flat[0], "timestamp"):
        from backtest_kit._values.time import to_ms

        return np.array([to_ms(moment, "timestamp") for moment in array.flat], dtype=np.int64)
    real = np.array(array, dtype=np.float64)
    bad = np.flatnonzero(~(np.abs(real) < 2.0**53) | (real != np.rint(real)))
    if len(bad):
        i = int(bad[0])
        raise BadCandlesError(f"candle {i} has timestamp {real[i]!r}; expected whole milliseconds")
    return real.astype(np.int64)


def _same_length(columns: Sequence[npt.NDArray[Any]]) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        shown = ", ".join(f"{n} {k}" for n, k in zip(COLUMNS, lengths, strict=True))
        raise BadCandlesError(f"columns differ in length: {shown}")

"""Columns of equal length under names: what results look like to pandas, polars and a notebook."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.time import iso

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

#: Rows that a notebook shows at the beginning and at the end of a long table.
_SHOWN: Final = 12
_INSTANTS: Final = ("timestamp", "when", "since", "until")


class Table:
    """Read-only columns under names, NumPy arrays of one length; `len` is the number of rows.

    `table["name"]` is a column. Those named in `times` are int64 milliseconds UTC, -1 where there
    is none; pandas, polars and Parquet get them as datetimes in UTC.

    Raises:
        ArgumentError: columns differ in length.
    """

    __slots__ = ("_columns", "times", "title")

    def __init__(
        self, columns: Mapping[str, npt.ArrayLike], *, times: tuple[str, ...] = (), title: str = ""
    ) -> None:
        self._columns = {name: np.asarray(values) for name, values in columns.items()}
        lengths = {name: len(column) for name, column in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise ArgumentError(f"columns differ in length: {lengths}")
        for column in self._columns.values():
            column.flags.writeable = False
        self.times = times
        self.title = title

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self._columns)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame (a copy). Needs pandas."""
        import pandas as pd

        frame = pd.DataFrame({name: column.copy() for name, column in self._columns.items()})
        for name in self.times:
            instants = frame[name].where(frame[name] >= 0)
            frame[name] = pd.to_datetime(instants, unit="ms", utc=True)
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Return a polars frame (a copy). Needs polars."""
        import polars as pl

        frame = pl.DataFrame({name: column.copy() for name, column in self._columns.items()})
        return frame.with_columns(
            pl.when(pl.col(name) >= 0).then(pl.col(name)).cast(pl.Datetime("ms", "UTC"))
            for name in self.times
        )

    def to_parquet(self, path: str | Path) -> Path:
        """Write the columns as a Parquet file, and return its path.

        Raises:
            OSError: the file can't be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = {}
        for name, column in self._columns.items():
            if name in self.times:
                arrays[name] = pa.array(column, mask=column < 0).cast(pa.timestamp("ms", tz="UTC"))
            else:
                arrays[name] = pa.array(column)
        pq.write_table(pa.table(arrays), path)
        return Path(path)

    def __repr__(self) -> str:
        return f"<{self.title or 'Table'}: {len(self):,} rows of {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        """Show the first and last rows in a notebook."""
        n = len(self)
        whole = n <= 2 * _SHOWN + 1
        shown = range(n) if whole else [*range(_SHOWN), -1, *range(n - _SHOWN, n)]
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        rows = ("".join(f"<td>{self._cell(name, i)}</td>" for name in self.columns) for i in shown)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        caption = escape(f"{self.title}, {n:,} rows" if self.title else f"{n:,} rows")
        return (
            f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )

    def _cell(self, name: str, row: int) -> str:
        if row < 0:
            return "&hellip;"
        value = self._columns[name][row]
        if name in self.times:
            return iso(int(value)) if value >= 0 else ""
        if isinstance(value, np.floating):
            return f"{value:,.6g}" if np.isfinite(value) else ""
        return escape(str(value))


class Tabular(msgspec.Struct, frozen=True):
    """A result that is, or holds, a table."""

    def table(self) -> Table:
        """Return the rows of the result as columns."""
        raise NotImplementedError

    def to_pandas(self) -> pd.DataFrame:
        """Return `table` as a pandas frame. Needs pandas."""
        return self.table().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Return `table` as a polars frame. Needs polars."""
        return self.table().to_polars()

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def table_of(
    rows: Sequence[msgspec.Struct | None],
    kind: type[msgspec.Struct],
    title: str = "",
    *,
    without: Collection[str] = (),
) -> Table:
    """Return records of one type as columns.

    Records within them are laid out flat, under their own fields' names, or, where two would have
    one name, `record_field`; a text in the place of a record is a record without values. Fields
    that are no number, text or truth value are left out. Where there is no value stands NaN, -1 (of
    whole numbers and instants) or an empty text. Fields `without` are left out.
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    times: list[str] = []
    for path, types in _fields(kind):
        if path[0] in without:
            continue
        name = "_".join(path) if path[-1] in columns else path[-1]
        column = _column([_get(row, path) for row in rows], types)
        if column is not None:
            columns[name] = column
            if path[-1] in _INSTANTS or path[-1].endswith(("_at", "_timestamp")):
                times.append(name)
    return Table(columns, times=tuple(times), title=title)


def _fields(
    kind: type[msgspec.Struct], before: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], set[type]]]:
    """Yield the path of each field, and the kinds of value that it may have."""
    for field in msgspec.structs.fields(kind):
        types = [kind for kind in _kinds(field.type) if kind is not type(None)]
        path = (*before, field.name)
        records = [kind for kind in types if issubclass(kind, msgspec.Struct)]
        if len(records) == 1 and set(types) <= {*records, str}:
            yield from _fields(records[0], path)
        else:
            yield path, set(types)


def _kinds(annotation: Any) -> Iterable[type]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin is Literal:
        yield from map(type, get_args(annotation))
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield origin or (annotation if isinstance(annotation, type) else object)


def _get(row: object, path: tuple[str, ...]) -> object:
    for name in path:
        row = getattr(row, name) if isinstance(row, msgspec.Struct) else None
    return row


def _column(values: list[Any], kinds: set[type]) -> npt.NDArray[Any] | None:
    if kinds == {bool}:
        return np.array([bool(value) for value in values], dtype=np.bool_)
    if kinds == {int}:
        return np.array([-1 if value is None else value for value in values], dtype=np.int64)
    if kinds <= {int, float}:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if kinds == {str}:
        return np.array(["" if value is None else value for value in values], dtype=object)
    return None

"""How trades were meant to end: sides, levels, lifetimes, as columns."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.signal import Levels

#: The levels of a trade: take profits, stop losses, entries.
Ladder = tuple[Levels, Levels, Levels]
NO_LADDER: Final[Ladder] = ((), (), ())
#: The columns of numbers.
NUMBERS: Final = ("target", "stop", "minutes", "trailing", "activation", "breakeven")
_NAN: Final = np.array([np.nan], dtype="<f4").tobytes()


class Brackets(msgspec.Struct, frozen=True):
    """How each of N trades was meant to end, as bytes (little-endian).

    `sides` are int8, +1 long and -1 short. `numbers` are columns of float32 by name, of one value
    where that holds for all: the distances of target and stop in percent of the entry, the lifetime
    in minutes, the trailing stop, where it begins, and breakeven in percent; what is missing, or
    NaN, is not used. `which` is int32, the number of each one's levels among `ladders`; empty where
    there are none.
    """

    sides: bytes = b""
    numbers: dict[str, bytes] = {}
    which: bytes = b""
    ladders: tuple[Ladder, ...] = (NO_LADDER,)

    def __repr__(self) -> str:
        return f"<brackets of {len(self.sides)} trades>"

    @classmethod
    def of(
        cls,
        side: npt.ArrayLike,
        numbers: dict[str, Floats],
        ladders: npt.NDArray[np.object_] | None = None,
    ) -> Brackets:
        """Return brackets from columns of shape (N,); those that are missing are not used."""
        sides = np.asarray(side, dtype=np.int8).tobytes()
        known = {name: _packed(numbers[name]) for name in NUMBERS if name in numbers}
        columns: dict[str, bytes] = {name: column for name, column in known.items() if column}
        if ladders is None or not any(any(ladder) for ladder in ladders):
            return cls(sides, columns)
        places: dict[Any, int] = {NO_LADDER: 0}
        which = [places.setdefault(ladder, len(places)) for ladder in ladders]
        return cls(sides, columns, np.array(which, dtype="<i4").tobytes(), tuple(places))

    @property
    def count(self) -> int:
        """The number of trades."""
        return len(self.sides)

    @property
    def side(self) -> npt.NDArray[np.int8]:
        """+1 for long and -1 for short, shape (N,)."""
        return np.frombuffer(self.sides, dtype=np.int8)

    def column(self, name: str) -> Floats:
        """Return a column of `numbers`, float64 of shape (N,)."""
        values = np.frombuffer(self.numbers.get(name, _NAN), dtype="<f4").astype(np.float64)
        return np.broadcast_to(values, self.count)

    @property
    def ladder(self) -> Ints:
        """The number of each one's levels in `ladders`, shape (N,)."""
        if not self.which:
            return np.zeros(self.count, dtype=np.int64)
        return np.frombuffer(self.which, dtype="<i4").astype(np.int64)

    def at(self, rows: npt.NDArray[Any]) -> Brackets:
        """Return those of some trades, by a mask or their places."""
        numbers = {name: self.column(name)[rows] for name in self.numbers}
        ladders = np.empty(len(self.ladders), dtype=object)
        ladders[:] = self.ladders
        return Brackets.of(self.side[rows], numbers, ladders[self.ladder[rows]])


def joined_brackets(parts: list[Brackets]) -> Brackets:
    """Return one of several, one after another; there is at least one."""
    if len(parts) == 1:
        return parts[0]
    names = {name for part in parts for name in part.numbers}
    numbers = {name: np.concatenate([part.column(name) for part in parts]) for name in names}
    ladders: list[Ladder] = [p.ladders[i] for p in parts for i in p.ladder.tolist()]
    levels = np.empty(len(ladders), dtype=object)
    levels[:] = ladders
    return Brackets.of(np.concatenate([part.side for part in parts]), numbers, levels)


def _packed(values: Floats) -> bytes:
    """Return a column, of one value where all are the same; empty where none is used."""
    column = values.astype("<f4")
    used = ~np.isnan(column)
    if not used.any():
        return b""
    if (column == column[0]).all():
        return column[:1].tobytes()
    column[~used] = np.nan  # of one kind, so that equal trades have equal bytes
    return column.tobytes()

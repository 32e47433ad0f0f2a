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
#: The columns of floats, in order.
_FLOATS: Final = ("target", "stop", "minutes", "trailing", "activation", "breakeven")


class Brackets(msgspec.Struct, frozen=True):
    """How each of N trades was meant to end, as bytes (little-endian, exact).

    `sides` are int8, +1 long and -1 short. `numbers` are float64 of shape (6, N): the distances of
    target and stop in percent of the entry, the lifetime in minutes, the trailing stop, where it
    begins, and breakeven in percent; NaN: not used. `which` is int32, the number of each one's
    levels among `ladders`; empty where there are none.
    """

    sides: bytes = b""
    numbers: bytes = b""
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
        sides = np.asarray(side, dtype=np.int8)
        none = np.full(len(sides), np.nan)
        rows = np.array([numbers.get(name, none) for name in _FLOATS], dtype="<f8")
        rows[np.isnan(rows)] = np.nan  # of one kind, so that equal trades have equal bytes
        if ladders is None or not any(any(ladder) for ladder in ladders):
            return cls(sides.tobytes(), rows.tobytes())
        known: dict[Any, int] = {NO_LADDER: 0}
        which = [known.setdefault(ladder, len(known)) for ladder in ladders]
        return cls(
            sides.tobytes(), rows.tobytes(), np.array(which, dtype="<i4").tobytes(), tuple(known)
        )

    @property
    def count(self) -> int:
        """The number of trades."""
        return len(self.sides)

    @property
    def side(self) -> npt.NDArray[np.int8]:
        """+1 for long and -1 for short, shape (N,)."""
        return np.frombuffer(self.sides, dtype=np.int8)

    @property
    def columns(self) -> dict[str, Floats]:
        """The columns of `numbers` by name, shape (N,)."""
        rows = np.frombuffer(self.numbers, dtype="<f8").reshape(len(_FLOATS), self.count)
        return dict(zip(_FLOATS, rows, strict=True))

    @property
    def ladder(self) -> Ints:
        """The number of each one's levels in `ladders`, shape (N,)."""
        if not self.which:
            return np.zeros(self.count, dtype=np.int64)
        return np.frombuffer(self.which, dtype="<i4").astype(np.int64)

    def at(self, rows: npt.NDArray[Any]) -> Brackets:
        """Return those of some trades, by a mask or their places."""
        numbers = {name: column[rows] for name, column in self.columns.items()}
        ladders = np.empty(len(self.ladders), dtype=object)
        ladders[:] = self.ladders
        return Brackets.of(self.side[rows], numbers, ladders[self.ladder[rows]])


def joined_brackets(parts: list[Brackets]) -> Brackets:
    """Return one of several, one after another; there is at least one."""
    if len(parts) == 1:
        return parts[0]
    columns = [part.columns for part in parts]
    numbers = {name: np.concatenate([column[name] for column in columns]) for name in _FLOATS}
    ladders: list[Ladder] = [p.ladders[i] for p in parts for i in p.ladder.tolist()]
    levels = np.empty(len(ladders), dtype=object)
    levels[:] = ladders
    return Brackets.of(np.concatenate([part.side for part in parts]), numbers, levels)

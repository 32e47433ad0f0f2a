"""One market series on a whole grid: gaps filled and counted, windows are slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Candles, Columns, Floats, Ints
from backtest_kit._values.errors import GapError
from backtest_kit._values.time import iso

Mask = npt.NDArray[np.bool_]
#: Says in which candles from an open time (ms) on the market was closed, given the missing ones.
Closed = Callable[[int, Mask], Mask]


class Gap(msgspec.Struct, frozen=True, order=True):
    """Missing candles: open time of the first in milliseconds, and how many."""

    start: int
    count: int


class Segment:
    """Contiguous candles of one (exchange, symbol, interval); never changed once made.

    Covers open times `first` to `stop` (excluded), milliseconds. `begins`: the data are known to
    begin at `first`. `asked`: candles were asked for up to here, so where `stop` is less, the
    data ended there. `filled` marks the candles that are missing, `closed` those in whose time the
    market was closed (`None`: it never is).
    """

    __slots__ = (
        "_average",
        "_gaps",
        "_next_open",
        "_rests",
        "asked",
        "begins",
        "closed",
        "columns",
        "filled",
        "first",
        "first_index",
        "rows",
        "step",
        "stop",
    )

    def __init__(
        self,
        columns: Columns,
        filled: Mask,
        step: int,
        first: int,
        *,
        begins: bool,
        asked: int,
        closed: Mask | None = None,
    ) -> None:
        for column in (*columns, filled, *(() if closed is None else (closed,))):
            column.flags.writeable = False
        self.columns = columns
        self.filled = filled
        self.closed = closed
        self.step = step
        self.first = first
        self.first_index = first // step
        self.rows = len(filled)
        self.stop = first + self.rows * step
        self.begins = begins
        self.asked = asked
        self._average: tuple[int, Floats] | None = None
        self._gaps: list[tuple[int, int]] | None = None
        self._next_open: Ints | None = None
        self._rests: list[tuple[int, int]] | None = None

    def asked_again(self) -> Segment:
        """Return the same candles, with what lies behind them not yet asked for."""
        return Segment(
            self.columns,
            self.filled,
            self.step,
            self.first,
            begins=self.begins,
            asked=self.stop,
            closed=self.closed,
        )

    def average(self, count: int) -> Floats:
        """Return the average price at the close of each candle; see `average_prices`."""
        if self._average is None or self._average[0] != count:
            _, _, high, low, close, volume = self.columns
            self._average = (count, average_prices(high, low, close, volume, count))
        return self._average[1]

    @property
    def next_open(self) -> Ints | None:
        """For each candle, the first from it on that is not closed, `rows` where there is none."""
        if self.closed is not None and self._next_open is None:
            place = np.where(self.closed, self.rows, np.arange(self.rows))
            self._next_open = np.minimum.accumulate(place[::-1])[::-1]
            self._next_open.flags.writeable = False
        return self._next_open

    def gaps(self, since: int, until: int) -> list[Gap]:
        """Return the runs of filled candles with open times in [since, until), oldest first.

        Those in closed times are not among them.
        """
        if self._gaps is None:
            missing = self.filled if self.closed is None else self.filled & ~self.closed
            self._gaps = runs(missing)
        return self._cut(self._gaps, since, until)

    def rests(self, since: int, until: int) -> list[Gap]:
        """Return the runs of candles that were filled in closed times, as `gaps`."""
        if self.closed is None:
            return []
        if self._rests is None:
            self._rests = runs(self.filled & self.closed)
        return self._cut(self._rests, since, until)

    def _cut(self, runs: list[tuple[int, int]], since: int, until: int) -> list[Gap]:
        begin = max(0, (since - self.first) // self.step)
        end = max(begin, min(self.rows, -((self.first - until) // self.step)))
        cut = ((max(a, begin), min(b, end)) for a, b in runs)
        return [Gap(self.first + a * self.step, b - a) for a, b in cut if a < b]


def runs(mask: Mask) -> list[tuple[int, int]]:
    """Return where each run of true values begins and ends (excluded)."""
    marks = np.flatnonzero(np.diff(mask, prepend=False, append=False)).tolist()
    return [*zip(marks[::2], marks[1::2], strict=True)]


def average_prices(high: Floats, low: Floats, close: Floats, volume: Floats, count: int) -> Floats:
    """Return the volume-weighted typical price `(h+l+c)/3` of each `count` candles, shape (n,).

    Element i is that of candles i-count+1 to i, summed oldest to newest (so that one window and a
    year of them agree to the last bit); NaN for the first `count - 1`. Where the volumes sum to 0
    it is the mean of the closes.
    """
    n = len(close)
    average = np.full(n, np.nan)
    if n < count:
        return average
    weighted = (high + low + close) / 3.0 * volume
    last = n - count + 1
    price, weight = np.zeros(last), np.zeros(last)
    for k in range(count):
        price += weighted[k : k + last]
        weight += volume[k : k + last]
    quiet = np.flatnonzero(weight == 0)
    weight[quiet] = 1.0
    np.divide(price, weight, out=average[count - 1 :])
    if len(quiet):
        closes = np.zeros(len(quiet))
        for k in range(count):
            closes += close[quiet + k]
        average[quiet + count - 1] = closes / count
    return average


def fill(
    pages: Sequence[Candles],
    step: int,
    *,
    before: Candles | None,
    policy: str,
    name: str,
    closed: Closed | None = None,
) -> tuple[Columns, Mask] | None:
    """Join pages of candles on a whole grid; `None` where there are none.

    The grid begins at the first candle, or right after `before` (the last candle known to come
    earlier), and ends with the last. A missing candle is flat at the previous close, volume 0.

    Raises:
        GapError: a candle is missing, not in a closed time, and `policy` is "raise".
    """
    parts = [page.columns() for page in pages if len(page)]
    if not parts:
        return None
    t = np.concatenate([part[0] for part in parts])
    first = int(t[0]) if before is None else int(before.timestamp[-1]) + step
    n = (int(t[-1]) - first) // step + 1
    if n == len(t):
        columns = tuple(np.concatenate([part[i] for part in parts]) for i in range(6))
        return columns, np.zeros(n, dtype=np.bool_)  # type: ignore[return-value]
    place = (t - first) // step
    filled = np.ones(n, dtype=np.bool_)
    filled[place] = False
    if policy == "raise":
        missing = filled if closed is None else filled & ~closed(first, filled)
        if missing.any():
            raise GapError(
                f"{name}: the candle of {iso(first + int(missing.argmax()) * step)} is missing "
                f"({int(missing.sum())} missing in all up to {iso(int(t[-1]))}); "
                'set gap_policy="fill" to go on with flat candles'
            )
    real = np.concatenate([part[4] for part in parts])
    last = np.zeros(n, dtype=np.int64)
    last[place] = np.arange(1, len(t) + 1)
    head = np.nan if before is None else float(before.close[-1])
    previous = np.concatenate(([head], real))[np.maximum.accumulate(last)]
    out: list[Floats] = []
    for i in range(1, 5):
        column = previous.copy()
        column[place] = np.concatenate([part[i] for part in parts])
        out.append(column)
    volume = np.zeros(n)
    volume[place] = np.concatenate([part[5] for part in parts])
    grid = np.arange(first, first + n * step, step, dtype=np.int64)
    return (grid, out[0], out[1], out[2], out[3], volume), filled

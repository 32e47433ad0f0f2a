"""One market series on a whole grid: gaps filled and counted, windows are slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._values.candle_rules import SUSPICIOUS_FACTOR, far_off
from backtest_kit._values.candles import Candles, Columns, Floats, Ints, concatenate
from backtest_kit._values.errors import GapError
from backtest_kit._values.time import iso

Mask = npt.NDArray[np.bool_]
#: How many candles before one tell if it is suspicious: two closes, and those of the one before it,
#: whose prices a missing candle repeats.
CONTEXT: Final = 3
_NONE: Final = Candles([], [], [], [], [], [])
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
    market was closed (`None`: it never is). `context`: the newest candles before `first` that are
    not missing, up to `CONTEXT`, where they are known.
    """

    __slots__ = (
        "_average",
        "_gaps",
        "_next_open",
        "_rests",
        "_suspicious",
        "asked",
        "begins",
        "closed",
        "columns",
        "context",
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
        context: Candles = _NONE,
    ) -> None:
        for column in (*columns, filled, *(() if closed is None else (closed,))):
            column.flags.writeable = False
        self.columns = columns
        self.filled = filled
        self.closed = closed
        self.context = context
        self.step = step
        self.first = first
        self.first_index = first // step
        self.rows = len(filled)
        self.stop = first + self.rows * step
        self.begins = begins
        self.asked = asked
        self._average: tuple[int, bool, Floats] | None = None
        self._gaps: list[tuple[int, int]] | None = None
        self._next_open: tuple[bool, Ints | None] | None = None
        self._rests: list[tuple[int, int]] | None = None
        self._suspicious: tuple[Mask | None, float] | None = None

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
            context=self.context,
        )

    def newest(self, before: int, count: int = CONTEXT) -> Candles:
        """Return the last `count` candles before row `before` that are not missing, or fewer."""
        begin = before
        rows: Ints = np.empty(0, dtype=np.int64)
        while begin > 0 and len(rows) < count:
            begin = max(0, begin - max(64, before - begin))
            rows = np.flatnonzero(~self.filled[begin:before])[-count:] + begin
        own = (column[rows] for column in self.columns)
        more = self.context.columns()
        return Candles(*(np.concatenate((a, b))[-count:] for a, b in zip(more, own, strict=True)))

    @property
    def suspicious(self) -> Mask | None:
        """Which candles have a price far off the closes before; `None`: none has.

        See `far_off`. Each is told by what came before it alone. One that is missing after such a
        candle repeats its close, and is suspicious too.
        """
        return self._found_suspicious()[0]

    def _found_suspicious(self) -> tuple[Mask | None, float]:
        """Return the mask, and the last close before the segment that is not suspicious."""
        if self._suspicious is None:
            self._suspicious = self._look_for_suspicious()
        return self._suspicious

    def _look_for_suspicious(self) -> tuple[Mask | None, float]:
        _, _, high, low, close, _ = self.columns
        known = len(self.context)
        sound = float(close[0])
        with np.errstate(over="ignore"):
            lowest, highest = float(low.min()), float(high.max())
            if known:
                lowest = min(lowest, float(self.context.low.min()))
                highest = max(highest, float(self.context.high.max()))
            if highest < lowest * SUSPICIOUS_FACTOR:
                return None, sound
            real = np.flatnonzero(~self.filled)
            _, _, high, low, close, _ = concatenate(
                [self.context, Candles(*(column[real] for column in self.columns))]
            ).columns()
            found = far_off(high, low, close, SUSPICIOUS_FACTOR)
        usual = np.flatnonzero(~found[:known])
        if len(usual):
            sound = float(self.context.close[usual[-1]])
        mask = np.zeros(self.rows, dtype=np.bool_)
        mask[real] = found[known:]
        last = np.maximum.accumulate(np.where(self.filled, -1, np.arange(self.rows)))
        begins_so = bool(known) and bool(found[known - 1])
        mask = np.where(last < 0, begins_so, mask[last])
        mask.flags.writeable = False
        return (mask if mask.any() else None), sound

    def average(self, count: int, *, hold: bool) -> Floats:
        """Return the average price at the close of each candle; see `average_prices`.

        `hold`: suspicious candles have no part in it, as if nothing had been traded in them.
        """
        if self._average is None or self._average[:2] != (count, hold):
            _, _, high, low, close, volume = self.columns
            mask, sound = self._found_suspicious() if hold else (None, 0.0)
            if mask is not None:
                last = np.maximum.accumulate(np.where(mask, -1, np.arange(self.rows)))
                usual = np.where(last < 0, sound, close[last])
                high, low, close = (np.where(mask, usual, of) for of in (high, low, close))
                volume = np.where(mask, 0.0, volume)
            self._average = (count, hold, average_prices(high, low, close, volume, count))
        return self._average[2]

    def next_open(self, *, hold: bool) -> Ints | None:
        """For each candle, the first from it on at which something can happen; `rows`: at none.

        Nothing can in closed times, nor, with `hold`, at a suspicious candle. `None`: at each.
        """
        if self._next_open is None or self._next_open[0] != hold:
            shut = self.closed
            mask = self.suspicious if hold else None
            if mask is not None:
                shut = mask if shut is None else shut | mask
            found = None
            if shut is not None:
                place = np.where(shut, self.rows, np.arange(self.rows))
                found = np.minimum.accumulate(place[::-1])[::-1]
                found.flags.writeable = False
            self._next_open = (hold, found)
        return self._next_open[1]

    def suspects(self, since: int, until: int) -> list[int]:
        """Return the open times (ms) in [since, until) of what is suspicious and not missing."""
        mask = self.suspicious
        if mask is None:
            return []
        begin, end = self._rows_of(since, until)
        rows = np.flatnonzero(mask[begin:end] & ~self.filled[begin:end]) + begin
        return (self.first + rows * self.step).tolist()

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

    def _rows_of(self, since: int, until: int) -> tuple[int, int]:
        begin = max(0, (since - self.first) // self.step)
        return begin, max(begin, min(self.rows, -((self.first - until) // self.step)))

    def _cut(self, runs: list[tuple[int, int]], since: int, until: int) -> list[Gap]:
        begin, end = self._rows_of(since, until)
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

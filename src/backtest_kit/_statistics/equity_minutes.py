"""What the equity of an account comes to over minutes, a stretch of them at a time.

A year of minutes does not fit into a processor's cache, a stretch does. Figures that add up rows do
so by stretches, so that they are the same wherever the stretches come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np

from backtest_kit._rules.account import HAIR
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.equity_curve import EquityCurve

#: Rows of a stretch.
ROWS: Final = 65_536
_NO_ROWS: Final[Ints] = np.empty(0, dtype=np.int64)


class Stretch(NamedTuple):
    """Some rows of an equity curve; the columns are as there."""

    timestamp: Ints
    equity: Floats
    held: Floats


class Fall(msgspec.Struct, frozen=True, kw_only=True):
    """The greatest drawdown: a fraction and an amount, and when (ms; `None`: not yet again)."""

    depth: float
    amount: float
    peak_at: int
    trough_at: int
    recovered_at: int | None = None


class OverMinutes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a curve came to: of equity the last value, the least and the mean, and more.

    `longest_fall` is the longest time (ms) from a peak until it was reached again, or to the end.
    `mean_leverage` and `peak_leverage` are of the value held over equity, where there is any
    (`None`: nowhere); `exposure` is the share of time with anything held (`None`: no time has
    passed). `picked` is the equity at the rows that were asked for.
    """

    last_at: int
    final: float
    least: float
    mean: float
    fall: Fall | None
    longest_fall: int
    mean_leverage: float | None
    peak_leverage: float | None
    exposure: float | None
    picked: Floats


def stretches_of(curve: EquityCurve) -> Iterator[Stretch]:
    """Yield a curve in stretches."""
    for begin in range(0, len(curve), ROWS):
        rows = slice(begin, begin + ROWS)
        yield Stretch(curve.timestamp[rows], curve.equity[rows], curve.held[rows])


def over_minutes(
    stretches: Iterable[Stretch], balance: float, rows: Ints = _NO_ROWS
) -> OverMinutes:
    """Return what a curve came to that began with `balance`; it has a row.

    `rows` (ascending) are those whose equity is picked.
    """
    falls, leverages, times = _Falls(balance), _Leverages(HAIR * balance), _Times()
    picked, least, total, count = [], np.inf, 0.0, 0
    equity = np.empty(0)
    for part in stretches:
        timestamp, equity, held = part
        wanted = rows[np.searchsorted(rows, count) : np.searchsorted(rows, count + len(equity))]
        picked.append(equity[wanted - count])
        least, total = min(least, float(equity.min())), total + float(equity.sum())
        falls.add(part)
        leverages.add(equity, held)
        times.add(timestamp, held)
        count += len(equity)
    mean, peak = leverages.outcome
    return OverMinutes(
        last_at=times.last,
        final=float(equity[-1]),
        least=least,
        mean=total / count,
        fall=falls.fall,
        longest_fall=falls.longest_until(times.last),
        mean_leverage=mean,
        peak_leverage=peak,
        exposure=times.exposure,
        picked=np.concatenate(picked),
    )


class _Falls:
    """The greatest drawdown and the longest (Magdon-Ismail and Atiya, 2004).

    The first peak is `balance`, at the first instant. Where the equity stays at its peak, the fall
    begins at its end.
    """

    def __init__(self, balance: float) -> None:
        self.fall: Fall | None = None
        self._top = balance
        #: The last row that was at its peak, and when.
        self._row, self._at = -1, -1
        self._rows = 0
        self._longest = 0
        #: Of the greatest fall: the row of its trough, and the peak that has to be reached again.
        self._trough, self._missed = -1, 0.0

    def add(self, part: Stretch) -> None:
        """Take the next rows."""
        timestamp, equity, _ = part
        if self._at < 0:
            self._at = int(timestamp[0])
        least, most = float(equity.min()), float(equity.max())
        peaks: Floats | None = None
        at_peak = _NO_ROWS
        if most >= self._top:
            peaks = np.maximum.accumulate(equity)
            np.maximum(peaks, self._top, out=peaks)
            at_peak = np.flatnonzero(equity == peaks)
        top = max(self._top, most)
        # no row is further below a higher peak
        if least < 0 or 1.0 - least / top > self._depth:
            self._find(part, np.full(len(equity), top) if peaks is None else peaks, at_peak)
        self._recover(part, most)
        if len(at_peak):
            rows = np.concatenate(([self._row], at_peak + self._rows))
            times = np.concatenate(([self._at], timestamp[at_peak]))
            back = np.diff(times)[np.diff(rows) > 1]
            self._longest = max(self._longest, int(back.max(initial=0)))
            self._row, self._at = int(rows[-1]), int(times[-1])
        self._top = top
        self._rows += len(equity)

    @property
    def _depth(self) -> float:
        return 0.0 if self.fall is None else self.fall.depth

    def _find(self, part: Stretch, peaks: Floats, at_peak: Ints) -> None:
        """Look for a greater fall."""
        timestamp, equity, _ = part
        depth = equity / peaks
        np.subtract(1.0, depth, out=depth)
        i = int(depth.argmax())
        if not depth[i] > self._depth:
            return
        before = int(np.searchsorted(at_peak, i)) - 1
        self._missed, self._trough = float(peaks[i]), self._rows + i
        self.fall = Fall(
            depth=float(depth[i]),
            amount=float(peaks[i] - equity[i]),
            peak_at=int(timestamp[at_peak[before]]) if before >= 0 else self._at,
            trough_at=int(timestamp[i]),
        )

    def _recover(self, part: Stretch, most: float) -> None:
        """Look for where the peak before the greatest fall is reached again."""
        known = self.fall
        if known is None or known.recovered_at is not None or most < self._missed:
            return
        begin = max(self._trough - self._rows, 0)
        back = np.flatnonzero(part.equity[begin:] >= self._missed)
        if len(back):
            when = int(part.timestamp[begin + int(back[0])])
            self.fall = msgspec.structs.replace(known, recovered_at=when)

    def longest_until(self, end: int) -> int:
        """Return the longest fall in ms; one that lasts goes on to the end."""
        return max(self._longest, end - self._at) if self._row < self._rows - 1 else self._longest


class _Leverages:
    """The value held over equity, where there is more of it than `least`."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._total, self._count, self._peak = 0.0, 0, 0.0

    def add(self, equity: Floats, held: Floats) -> None:
        """Take the next rows."""
        if float(equity.min()) <= self._least:
            solvent = equity > self._least
            equity, held = equity[solvent], held[solvent]
        if len(equity):
            ratio = held / equity
            self._total += float(ratio.sum())
            self._count += len(ratio)
            self._peak = max(self._peak, float(ratio.max()))

    @property
    def outcome(self) -> tuple[float | None, float | None]:
        """Mean and peak."""
        return (self._total / self._count, self._peak) if self._count else (None, None)


class _Times:
    """How long anything was held."""

    def __init__(self) -> None:
        self.last = 0
        self._first: int | None = None
        self._held = 0
        self._holds = False

    def add(self, timestamp: Ints, held: Floats) -> None:
        """Take the next rows."""
        begin, end = int(timestamp[0]), int(timestamp[-1])
        if self._first is None:
            self._first = begin
        elif self._holds:
            self._held += begin - self.last
        holds = held > 0
        turns = np.flatnonzero(holds[1:] != holds[:-1]) + 1
        edges = [*timestamp[turns].tolist(), end]
        if holds[0]:
            edges.insert(0, begin)
        # from the first row that holds to the first that does not, and so on
        times = edges[: len(edges) // 2 * 2]
        self._held += sum(times[1::2]) - sum(times[::2])
        self._holds, self.last = bool(holds[-1]), end

    @property
    def exposure(self) -> float | None:
        """The share of time with anything held."""
        whole = self.last - (self._first or 0)
        return self._held / whole if self._first is not None and whole else None

"""Where the stops of positions stood, computed again for a picture: no run keeps each move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from backtest_kit._rules.bars import Bars
from backtest_kit._rules.fast_forward import compared
from backtest_kit._rules.managed import Holding, open_managed, step_managed
from backtest_kit._values.candles import Ints
from backtest_kit._values.config import Config
from backtest_kit._values.results import TickClosed

#: Steps that are asked for one page; the stops of later trades are not drawn.
MOST_STEPS: Final = 150_000


class StopPath(NamedTuple):
    """Where the stop of a trade stood: from each instant (ms) on at a price, up to the close."""

    trade: int
    x: list[int]
    y: list[float]

    @property
    def steps(self) -> tuple[list[int], list[float]]:
        """The corners of the path."""
        x = [at for at in self.x for _ in range(2)][1:]
        y = [price for price in self.y for _ in range(2)][:-1]
        return x, y


def stop_paths(signals: Sequence[TickClosed], bars: Bars, config: Config) -> list[StopPath]:
    """Return the paths of the stops that could move, as far as the steps suffice.

    A trade on which somebody acted has none, where its fills say so: its signal does not.
    """
    found, left = [], MOST_STEPS
    for i, tick in enumerate(signals):
        row = tick.signal
        if row.trailing_stop is None and row.breakeven_percent is None:
            continue
        at = _asked(tick, bars, config)
        left -= len(at)
        if left < 0:
            break
        path = _path(i, tick, at, bars, config)
        if path is not None:
            found.append(path)
    return found


def _path(i: int, tick: TickClosed, at: Ints, bars: Bars, config: Config) -> StopPath | None:
    """Return the path of one stop; `None` where it had none, or the legs differ."""
    row = tick.signal
    assert row.pending_at is not None
    holding, close = open_managed(row, bars.bar(row.pending_at), config)
    x, y = [row.pending_at], [holding.stop]
    for place in at.tolist():
        if close is not None:
            return None
        holding, close = step_managed(holding, bars.bar(bars.first + place * bars.step), config)
        if holding.stop != y[-1]:
            x.append(bars.first + place * bars.step)
            y.append(holding.stop)
    if close is not None or not _agrees(holding, tick):
        return None
    moved = [(when, price) for when, price in zip(x, y, strict=True) if np.isfinite(price)]
    if not moved:
        return None
    ends = (tick.close_timestamp, moved[-1][1])
    return StopPath(i, *(list(column) for column in zip(*moved, ends, strict=True)))


def _asked(tick: TickClosed, bars: Bars, config: Config) -> Ints:
    """Return the rows before the close at which the stop may move, or something was filled.

    The best price begins anew with each entry, and only a new best moves the stop.
    """
    row = tick.signal
    assert row.pending_at is not None
    low, high = compared(bars, config)
    ends = bars.row(tick.close_timestamp)
    fills = [(bars.row(leg.timestamp), leg.kind) for leg in tick.legs[1:]]
    begin = bars.row(row.pending_at) + 1
    entered = (place for place, kind in fills if kind == "entry" and begin <= place < ends)
    starts = [begin, *(place + 1 for place in entered), ends]
    best = high if row.side > 0 else -low
    parts = [np.array([place for place, _ in fills if begin <= place < ends], dtype=np.int64)]
    for first, last in pairwise(starts):
        highest = np.maximum.accumulate(best[first:last])
        parts.append(first + np.flatnonzero(np.diff(highest, prepend=-np.inf) > 0))
    asked = np.unique(np.concatenate(parts))
    if bars.next_open is not None:
        asked = asked[bars.next_open[asked] == asked]
    return asked


def _agrees(holding: Holding, tick: TickClosed) -> bool:
    """Say whether a position has had the fills that its trade had before the step of its close."""
    before = [leg for leg in tick.legs if leg.timestamp < tick.close_timestamp]
    legs = [leg for leg in holding.legs if leg.timestamp < tick.close_timestamp]
    return [(leg.timestamp, leg.price) for leg in before] == [
        (leg.timestamp, leg.price) for leg in legs
    ]

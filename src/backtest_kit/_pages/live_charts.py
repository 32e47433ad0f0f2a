"""Charts of live runs: when each of them held something, and what came of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest_kit._pages.charts import curve_chart
from backtest_kit._pages.colors import role
from backtest_kit._pages.price_chart import plain_figure
from backtest_kit._reports.live import LiveData
from backtest_kit._values.candles import Floats, Ints

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class

_Bar = tuple[int, int, int]


def timeline_chart(runs: Sequence[LiveData], span: tuple[int, int], height: int) -> Figure:
    """Return a lane for each run, numbered from 1 at the top, with its positions as bars."""
    from bokeh.models import FixedTicker, Range1d

    margin = max((span[1] - span[0]) // 50, 1)
    plot = plain_figure(
        height,
        x_range=Range1d(start=span[0], end=span[1] + margin),
        y_range=Range1d(start=len(runs) + 0.5, end=0.5),
        y_axis_location="right",
        tools="xpan,xwheel_zoom",
        active_drag="xpan",
    )
    plot.yaxis.ticker = FixedTicker(ticks=[*range(1, len(runs) + 1)])
    plot.ygrid.grid_line_color = None
    won, lost, held, waited = _bars(runs)
    _lane_bars(plot, waited, 0.12, fill_alpha=0, line_dash="dashed", **role(line_color="muted"))
    _lane_bars(plot, won, 0.3, fill_alpha=0.8, **role(fill_color="up", line_color="up"))
    hatched = role(fill_color="down", line_color="down", hatch_color="page")
    hatch = {"hatch_pattern": "right_diagonal_line", "hatch_scale": 6, "hatch_alpha": 0.6}
    _lane_bars(plot, lost, 0.3, fill_alpha=0.8, **hatch, **hatched)
    _lane_bars(plot, held, 0.3, fill_alpha=0.8, **role(fill_color="accent", line_color="accent"))
    return plot


def total_chart(span: tuple[int, int], closed_at: Ints, profits: Floats) -> Figure:
    """Return the sum of profits of all runs, percent, over time."""
    return curve_chart(span, closed_at, profits, None, None)


def _bars(runs: Sequence[LiveData]) -> tuple[list[_Bar], ...]:
    """Return (from, to, lane) of positions won, lost and held, and of waiting signals."""
    won: list[_Bar] = []
    lost: list[_Bar] = []
    held: list[_Bar] = []
    waited: list[_Bar] = []
    for lane, run in enumerate(runs, 1):
        for tick in run.signals:
            row, end = tick.signal, tick.close_timestamp
            begin = row.pending_at or row.scheduled_at
            (lost if tick.pnl.pnl_percentage < 0 else won).append((begin, end, lane))
            if begin != row.scheduled_at:
                waited.append((row.scheduled_at, begin, lane))
        waited += [(t.signal.scheduled_at, t.close_timestamp, lane) for t in run.cancelled]
        if (now := run.signal) is not None:
            begin = now.pending_at or now.scheduled_at
            (waited if now.pending_at is None else held).append((begin, run.until, lane))
    return won, lost, held, waited


def _lane_bars(plot: Figure, bars: list[_Bar], half: float, **look: Any) -> None:
    columns = np.array(bars, dtype=np.float64).reshape(-1, 3)
    begin, end, lane = columns.T
    plot.quad(left=begin, right=end, bottom=lane + half, top=lane - half, **look)

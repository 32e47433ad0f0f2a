"""Charts of a run's outcome: the curve of its profit, its drawdown, how profits are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtest_kit._pages.colors import LIGHT, role
from backtest_kit._pages.price_chart import dress, plain_figure
from backtest_kit._values.candles import Candles, Floats, Ints

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class

_MOST_BINS: Final = 40
_HELD_POINTS: Final = 1000


def curve_chart(
    span: tuple[int, int],
    closed_at: Ints,
    profits: Floats,
    held: tuple[Floats, Floats] | None,
    prices: Figure | None,
) -> Figure:
    """Return the sum of profits in percent over time, `held` (buying and holding) beside it.

    A frame on it shows and moves what is seen of the chart `prices`.
    """
    from bokeh.models import NumeralTickFormatter, Range1d, RangeTool

    plot = plain_figure(
        170,
        x_range=Range1d(start=span[0], end=span[1]),
        y_axis_location="right",
        name="curve",
        tools="",
    )
    if held is not None:
        plot.line(held[0], held[1], line_dash="dashed", line_width=1.2, **role(line_color="muted"))
    x, y = _steps(span, closed_at, np.cumsum(profits))
    plot.step(x, y, mode="after", line_width=2, **role(line_color="accent"))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]0")
    if prices is not None:
        tool = RangeTool(x_range=prices.x_range, start_gesture="pan")
        tool.overlay.fill_color, tool.overlay.fill_alpha = LIGHT["accent"], 0.12
        tool.overlay.line_color, tool.overlay.line_dash = LIGHT["accent"], "solid"
        tool.overlay.tags = ["fill_color=accent", "line_color=accent"]
        plot.add_tools(tool)
    return plot


def drawdown_chart(span: tuple[int, int], closed_at: Ints, profits: Floats) -> Figure:
    """Return how far the compounded equity is below its peak, percent, over time."""
    from bokeh.models import BasicTicker, NumeralTickFormatter, Range1d

    plot = plain_figure(
        110, x_range=Range1d(start=span[0], end=span[1]), y_axis_location="right", name="drawdown"
    )
    x, y = _steps(span, closed_at, drawdowns(profits))
    plot.varea_step(
        x=x,
        y1=np.zeros(len(y)),
        y2=y,
        step_mode="after",
        fill_alpha=0.35,
        **role(fill_color="down"),
    )
    plot.step(x, y, mode="after", **role(line_color="down"))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]0")
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=3)
    return plot


def held_curve(candles: Candles) -> tuple[Floats, Floats]:
    """Return what one purchase at the first open would have made, percent, at some closes."""
    rows = np.unique(np.linspace(0, len(candles) - 1, _HELD_POINTS).astype(np.int64))
    value = (candles.close[rows] / candles.open[0] - 1) * 100
    return candles.timestamp[rows].astype(np.float64), value


def drawdowns(profits: Floats) -> Floats:
    """Return how far the compounded equity is below its peak after each trade, percent, 0 or less.

    The peak is at least the equity before the first trade.
    """
    equity = np.cumprod(1 + profits / 100)
    peak = np.maximum(np.maximum.accumulate(equity), 1) if len(equity) else equity
    return (equity / peak - 1) * 100


def histogram_chart(profits: Floats) -> Figure:
    """Return how many trades had which profit, percent; losses hatched. There is a trade."""
    from bokeh.models import DataRange1d
    from bokeh.plotting import figure

    edges = np.histogram_bin_edges(profits, bins="auto")
    if len(edges) - 1 > _MOST_BINS:
        edges = np.linspace(edges[0], edges[-1], _MOST_BINS + 1)
    width = edges[1] - edges[0]
    first = np.floor(edges[0] / width)  # an edge at 0: no bar holds both wins and losses
    edges = (first + np.arange(int(np.ceil(edges[-1] / width) - first) + 1)) * width
    counts, edges = np.histogram(profits, edges)
    plot = figure(
        height=240,
        sizing_mode="stretch_width",
        y_range=DataRange1d(start=0),
        tools="",
        toolbar_location=None,
    )
    dress(plot)
    plot.min_border_right = 12
    plot.xgrid.grid_line_color = None
    plot.xaxis.axis_label, plot.yaxis.axis_label = "profit, %", "trades"
    for losses, color in ((True, "down"), (False, "up")):
        rows = edges[1:] <= 0 if losses else edges[1:] > 0
        hatch: dict[str, Any] = {"hatch_pattern": "right_diagonal_line"} if losses else {}
        plot.quad(
            left=edges[:-1][rows],
            right=edges[1:][rows],
            bottom=np.zeros(int(rows.sum())),
            top=counts[rows],
            fill_alpha=0.75,
            hatch_alpha=0.6,
            hatch_scale=6,
            **hatch,
            **role(fill_color=color, line_color="page", hatch_color="page"),
        )
    return plot


def line_chart(
    x: list[float], y: list[float], labels: tuple[str, str], marked: float | None
) -> Figure:
    """Return a line with its points and a line at 0; a dotted one stands at `marked`."""
    from bokeh.models import Range1d, Span
    from bokeh.plotting import figure

    low, high = min(0.0, *y), max(0.0, *y)  # so that a small change does not look like a large one
    margin = (high - low) * 0.06 or 1.0
    plot = figure(
        height=240,
        sizing_mode="stretch_width",
        y_range=Range1d(start=low - margin, end=high + margin),
        tools="",
        toolbar_location=None,
    )
    dress(plot)
    plot.min_border_right = 12
    plot.xaxis.axis_label, plot.yaxis.axis_label = labels
    plot.add_layout(Span(location=0, dimension="width", **role(line_color="muted")))
    if marked is not None:
        mark = Span(location=marked, dimension="height", line_dash="dotted", line_width=2)
        mark.update(**role(line_color="warn"))
        plot.add_layout(mark)
    plot.line(x, y, line_width=2, **role(line_color="accent"))
    plot.scatter(x, y, size=7, **role(fill_color="accent", line_color="page"))
    return plot


def _steps(span: tuple[int, int], at: Ints, values: Floats) -> tuple[Floats, Floats]:
    """Return a curve that begins at 0 and goes on to the end of the span."""
    last = values[-1:] if len(values) else np.zeros(1)
    end = max(span[1], int(at[-1])) if len(at) else span[1]
    return (
        np.concatenate(([span[0]], at, [end])).astype(np.float64),
        np.concatenate(([0.0], values, last)),
    )

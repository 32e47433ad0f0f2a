"""Charts of an account: its equity beside buying and holding, and its drawdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest_kit._pages.colors import role
from backtest_kit._pages.page import require_bokeh
from backtest_kit._pages.price_chart import plain_figure
from backtest_kit._reports.portfolio_data import PortfolioData
from backtest_kit._statistics.equity_drawdown import drawdowns
from backtest_kit._values.candles import Ints
from backtest_kit._values.equity_curve import thin

if TYPE_CHECKING:
    from bokeh.models import Column, Range1d
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class


def portfolio_figure(data: PortfolioData) -> Column:
    """Return a Bokeh column: equity beside buying and holding, and below it the drawdown.

    Names are not in it: Bokeh reads formulas into text.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    from bokeh.layouts import column
    from bokeh.models import Range1d

    rows = thin(data.curve.equity)
    shown = Range1d(start=data.since, end=max(data.until, data.since + 1))
    charts = [equity_chart(data, rows, shown), drawdown_chart(data, rows, shown)]
    return column(*charts, sizing_mode="stretch_width")


def equity_chart(data: PortfolioData, rows: Ints, shown: Range1d) -> Figure:
    """Return the equity over time, and dashed what buying and holding would have come to."""
    from bokeh.models import NumeralTickFormatter, Span

    plot = plain_figure(
        300,
        x_range=shown,
        y_axis_location="right",
        name="equity",
        tools="xpan,xwheel_zoom",
        active_drag="xpan",
    )
    at = data.curve.timestamp[rows].astype(np.float64)
    begin = Span(location=data.statistics.balance, dimension="width", line_dash="dotted")
    begin.update(**role(line_color="muted"))
    plot.add_layout(begin)
    plot.line(at, data.benchmark[rows], line_dash="dashed", **role(line_color="muted"))
    plot.line(at, data.curve.equity[rows], line_width=2, **role(line_color="accent"))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]00")
    return plot


def drawdown_chart(data: PortfolioData, rows: Ints, shown: Range1d) -> Figure:
    """Return how far the equity is below its highest so far, in percent, over time."""
    from bokeh.models import BasicTicker, NumeralTickFormatter

    plot = plain_figure(
        130,
        x_range=shown,
        y_axis_location="right",
        name="drawdown",
        tools="xpan,xwheel_zoom",
        active_drag="xpan",
    )
    at = data.curve.timestamp[rows].astype(np.float64)
    below = drawdowns(data.curve.equity, data.statistics.balance)[rows] * 100
    plot.varea(at, np.zeros(len(rows)), below, fill_alpha=0.35, **role(fill_color="down"))
    plot.line(at, below, **role(line_color="down"))
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]0")
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=3)
    return plot

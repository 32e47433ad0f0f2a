"""The chart of prices with trades on it, and below it the curve that also chooses what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from backtest_kit._pages.colors import LIGHT, role

if TYPE_CHECKING:
    from bokeh.models import Plot
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class

CANDLES: Final = ("x", "open", "high", "low", "close")
ZONES: Final = ("left", "right", "bottom", "top")
#: The shape of each way a trade ends, and what a legend says of it.
EXITS: Final = {
    "take_profit": ("circle", "up", "take-profit"),
    "stop_loss": ("x", "down", "stop-loss"),
    "time_expired": ("square", "warn", "time expired"),
    "end_of_data": ("diamond", "muted", "end of data"),
    "trailing_stop": ("star", "warn", "trailing stop"),
    "breakeven": ("hex", "warn", "breakeven"),
    "closed": ("diamond", "warn", "closed by a row"),
}


def price_chart(left: int, right: int, *, height: int = 440) -> Figure:
    """Return candles and trades from `left` to `right` (ms), without data in their sources.

    The sources are found by their names: `candles_up`, `candles_down`, `profit_zones`,
    `loss_zones`, `paths`, `long_entries`, `short_entries`, `exits_<reason>`, `chosen`.
    """
    from bokeh.models import CrosshairTool, NumeralTickFormatter, Range1d, Span

    plot = plain_figure(
        height,
        x_range=Range1d(start=left, end=right, name="shown"),
        y_range=Range1d(start=0, end=1, name="prices"),
        y_axis_location="right",
        tools="xpan,xwheel_zoom",
        active_drag="xpan",
        active_scroll="xwheel_zoom",
        name="price",
    )
    for name, color in (("profit_zones", "up"), ("loss_zones", "down")):
        _quads(plot, name, color, 0.16)
    for side, color, alpha in (("up", "up", 0.25), ("down", "down", 1.0)):
        source = source_of(f"candles_{side}", CANDLES)
        plot.segment("x", "high", "x", "low", source=source, **role(line_color=color))
        body = plot.vbar(
            "x",
            1,
            "open",
            "close",
            source=source,
            fill_alpha=alpha,
            **role(fill_color=color, line_color=color),
        )
        body.glyph.name = f"body_{side}"
    _quads(plot, "chosen", "accent", 0, line="accent")
    paths = source_of("paths", ("x0", "y0", "x1", "y1"))
    plot.segment(
        "x0", "y0", "x1", "y1", source=paths, line_dash="dashed", **role(line_color="text")
    )
    for name, marker in (("long_entries", "triangle"), ("short_entries", "inverted_triangle")):
        _markers(plot, name, marker, "accent")
    for reason, (marker, color, _) in EXITS.items():
        _markers(plot, f"exits_{reason}", marker, color)
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[00000000]")
    span = Span(dimension="height", line_dash="dotted", **role(line_color="muted"))
    plot.add_tools(CrosshairTool(overlay=span))
    return plot


def plain_figure(height: int, **options: Any) -> Figure:
    """Return a figure over time in the look of the pages: few lines, no tools beside it."""
    from bokeh.plotting import figure

    options = {"x_axis_type": "datetime", "tools": "", "toolbar_location": None, **options}
    plot = figure(height=height, sizing_mode="stretch_width", **options)
    dress(plot)
    return plot


def dress(plot: Plot) -> None:
    """Give a plot the look of the pages in light colours; the page's script does it in dark ones.

    Text that comes from the user never gets here: Bokeh would read formulas into it.
    """
    plot.background_fill_color = plot.border_fill_color = None
    plot.outline_line_color = None
    plot.min_border_left, plot.min_border_right = 8, 56
    for axis in plot.axis:
        axis.axis_line_color = axis.major_tick_line_color = LIGHT["line"]
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = LIGHT["muted"]
        axis.major_label_text_font = axis.axis_label_text_font = "system-ui, sans-serif"
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        axis.axis_label_text_font_style = "normal"
    for grid in plot.grid:
        grid.grid_line_color = LIGHT["line"]
        grid.grid_line_alpha = 0.6


def _quads(plot: Figure, name: str, color: str, alpha: float, line: str | None = None) -> None:
    colors = role(fill_color=color, line_color=line or color)
    width = 2 if line else 0
    plot.quad(*ZONES, source=source_of(name, ZONES), fill_alpha=alpha, line_width=width, **colors)


def _markers(plot: Figure, name: str, marker: str, color: str) -> None:
    source = source_of(name, ("x", "y"))
    colors = role(fill_color=color, line_color="page" if marker != "x" else color)
    width = 3 if marker == "x" else 1
    plot.scatter("x", "y", source=source, marker=marker, size=11, line_width=width, **colors)


def source_of(name: str, columns: tuple[str, ...]) -> Any:
    """Return an empty source with a name, by which the page's script finds it."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({column: [] for column in columns}, name=name)

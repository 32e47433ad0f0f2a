"""Charts of a walk: the curves of all strategies, the windows of a walk-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest_kit._pages.colors import role
from backtest_kit._pages.price_chart import dress, plain_figure, source_of
from backtest_kit._statistics.walk_forward import WalkForward

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class


def curves_chart(span: tuple[int, int], reach: tuple[float, float]) -> Figure:
    """Return a chart whose sources `others` (xs, ys), `best` and `chosen` (x, y) are empty.

    Its curves are within `span` (ms) and `reach` (percent).
    """
    from bokeh.models import NumeralTickFormatter, Range1d

    margin = (reach[1] - reach[0]) * 0.05 or 1.0
    plot = plain_figure(
        360,
        x_range=Range1d(start=span[0], end=span[1]),
        y_range=Range1d(start=reach[0] - margin, end=reach[1] + margin),
        y_axis_location="right",
    )
    others = source_of("others", ("xs", "ys"))
    plot.multi_line("xs", "ys", source=others, line_alpha=0.35, **role(line_color="muted"))
    best, chosen = (source_of(name, ("x", "y")) for name in ("best", "chosen"))
    plot.line("x", "y", source=best, line_width=3, **role(line_color="accent"))
    plot.line(
        "x", "y", source=chosen, line_width=2.5, line_dash="dashed", **role(line_color="warn")
    )
    plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]0")
    return plot


def windows_chart(data: WalkForward) -> Figure:
    """Return the metric of each window, in sample and out of sample, joined by a line."""
    from bokeh.models import Span
    from bokeh.plotting import figure

    plot = figure(height=240, sizing_mode="stretch_width", tools="", toolbar_location=None)
    dress(plot)
    plot.xaxis.axis_label, plot.yaxis.axis_label = "window", data.metric
    plot.add_layout(Span(location=0, dimension="width", **role(line_color="muted")))
    windows = [*enumerate(data.windows, 1)]
    both = [(i, w.in_sample, w.out_of_sample) for i, w in windows]
    joined = [(i, a, b) for i, a, b in both if a is not None and b is not None]
    x = [i for i, _, _ in joined]
    plot.segment(
        x, [a for _, a, _ in joined], x, [b for _, _, b in joined], **role(line_color="muted")
    )
    inside = [(i, w.in_sample) for i, w in windows if w.in_sample is not None]
    outside = [(i, w.out_of_sample) for i, w in windows if w.out_of_sample is not None]
    plot.scatter(
        [i for i, _ in inside],
        [value for _, value in inside],
        size=10,
        line_width=2,
        **role(fill_color="page", line_color="muted"),
    )
    plot.scatter(
        [i for i, _ in outside],
        [value for _, value in outside],
        size=10,
        marker="square",
        **role(fill_color="accent", line_color="page"),
    )
    return plot

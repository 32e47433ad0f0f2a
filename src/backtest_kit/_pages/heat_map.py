"""A grid of two parameters as a table that is also a heat map, and the neighbours of the best."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from backtest_kit._pages.page import table
from backtest_kit._reports.table import number
from backtest_kit._statistics.plateau import GridPoint, Plateau, steps_of

#: More columns than this have no room for figures; the title of a cell still says them.
_MOST_FIGURES: Final = 16


def heat_map(points: Sequence[GridPoint], metric: str) -> str:
    """Return the metric over two parameters: those with most values, the others as in the best.

    The best strategy is the first of `points`, and outlined.
    """
    steps = {name: values for name, values in steps_of(points).items() if len(values) > 1}
    if not steps:
        return ""
    across, *more = sorted(steps, key=lambda name: -len(steps[name]))[:2]
    down = more[0] if more else None
    best = points[0].parameters
    fixed = {name: value for name, value in best.items() if name not in (across, down)}
    shown = {
        (point.parameters.get(down) if down else None, point.parameters[across]): point
        for point in points
        if all(point.parameters[name] == value for name, value in fixed.items())
    }
    largest = max((abs(p.metric_value) for p in shown.values() if p.metric_value), default=1.0)
    heads = "".join(f'<th scope="col">{escape(str(value))}</th>' for value in steps[across])
    corner = f"{down} \\ {across}" if down else across
    lines = []
    for value in steps[down] if down else [None]:
        cells = "".join(
            _cell(shown.get((value, column)), points[0], largest, len(steps[across]))
            for column in steps[across]
        )
        name = "" if value is None else escape(str(value))
        lines.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    rest = "".join(f", {escape(name)}={escape(str(value))}" for name, value in fixed.items())
    held = f" Held as in the best: {rest[2:]}." if rest else ""
    return (
        f'<p class="remark">{escape(metric)} by {escape(across)} (columns)'
        + (f" and {escape(down)} (rows)" if down else "")
        + f"; the best is outlined.{held}</p>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Heat map of parameters">'
        f'<table class="months grid"><thead><tr><th scope="col">{escape(corner)}</th>{heads}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def neighbours_table(found: Plateau | None, metric: str) -> str:
    """Return what is left of the metric one step beside the best."""
    if found is None:
        return ""
    rows = [
        (
            n.parameter,
            f"{n.value} \u2192 {n.moved}",
            number(n.metric_value, 3),
            "n/a" if n.share is None else f"{n.share:.0%}",
        )
        for n in found.neighbours
    ]
    sentence = ""
    if found.least_share is not None and found.mean_share is not None:
        sentence = (
            f"<p>One step away from the best, {found.mean_share:.0%} of its {escape(metric)} are "
            f"left on average, and {found.least_share:.0%} at worst.</p>"
        )
    columns = ("Parameter", "One step", metric, "Left of the best")
    rest = table(columns, rows, right=(2, 3))
    return f'<h3>One step away</h3>{sentence}<div class="scroll">{rest}</div>'


def _cell(point: GridPoint | None, best: GridPoint, largest: float, columns: int) -> str:
    if point is None or point.metric_value is None:
        return '<td class="none" title="no figure">\u00b7</td>'
    value = point.metric_value
    tone = "down" if value < 0 else "up"
    text = number(value, 2) if columns <= _MOST_FIGURES else ""
    mark = ' aria-current="true"' if point is best else ""
    title = escape(f"{point.strategy_name}: {number(value, 3)}")
    share = f"--share:{abs(value) / largest:.3f}"
    return f'<td class="{tone}" style="{share}" title="{title}"{mark}>{text}</td>'

"""What a backtest shows of itself in a notebook: key figures, its curve, and the statistics."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

import numpy as np

from backtest_kit._values.candles import Floats, Ints

_WIDTH, _HEIGHT = 720, 150
#: Points of a curve: more can't be told apart.
_POINTS: Final = 600
_BLOCKS: Final = "▁▂▃▄▅▆▇█"


def figures_html(entries: Iterable[tuple[str, str]]) -> str:
    """Return (name, value) pairs in one row, values in large type."""
    cells = "".join(
        f'<div><div style="font-size:1.4em">{escape(value)}</div>'
        f'<div style="opacity:.7">{escape(name)}</div></div>'
        for name, value in entries
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:.6em 2em;margin:.5em 0">{cells}</div>'


def curve_svg(at: Ints, values: Floats, label: str) -> str:
    """Return a curve of steps as inline SVG, in the colour of the text; a line lies at the first.

    `at` are times in order, of the same length as `values`, at least one.
    """
    rows = np.unique(np.linspace(0, len(at) - 1, _POINTS).astype(np.int64))
    low, high = float(values.min()), float(values.max())
    reach = (high - low) or 1.0
    x = (at[rows] - at[0]) / max(int(at[-1] - at[0]), 1) * _WIDTH
    y = (high - values[rows]) / reach * _HEIGHT
    zero = (high - float(values[0])) / reach * _HEIGHT
    path = f"M{x[0]:.1f} {y[0]:.1f}" + "".join(
        f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:].tolist(), y[1:].tolist(), strict=True)
    )
    return (
        f'<svg viewBox="0 -4 {_WIDTH} {_HEIGHT + 8}" role="img" aria-label="{escape(label)}" '
        f'style="width:100%;max-width:{_WIDTH}px;height:auto">'
        f'<path d="M0 {zero:.1f}H{_WIDTH}" stroke="currentColor" stroke-opacity=".35" '
        'stroke-dasharray="4" fill="none"/>'
        f'<path d="{path}" stroke="currentColor" stroke-width="1.5" fill="none"/></svg>'
    )


def sparkline(at: Ints, values: Floats, width: int = 60) -> str:
    """Return a curve over time as one line of block characters; "" without values."""
    if not len(values):
        return ""
    when = np.linspace(at[0], at[-1], width)
    shown = values[np.searchsorted(at, when, side="right") - 1]
    low, reach = float(shown.min()), float(np.ptp(shown))
    if not reach:
        return _BLOCKS[0] * width
    levels = ((shown - low) / reach * (len(_BLOCKS) - 1)).round().astype(np.int64)
    return "".join(_BLOCKS[level] for level in levels.tolist())

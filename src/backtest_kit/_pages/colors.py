"""The colours of pages and figures, light and dark; scripts and styles know them by their names."""

from __future__ import annotations

from typing import Any, Final

#: Text on its background has a contrast of 4.5 or more in both.
LIGHT: Final = {
    "page": "#ffffff",
    "surface": "#f5f7f9",
    "text": "#1a2027",
    "muted": "#55616d",
    "line": "#d8dee5",
    "accent": "#1f56c2",
    "up": "#0b7f6b",
    "down": "#c22f45",
    "warn": "#8a5300",
    "band": "#e3ebf9",
}
DARK: Final = {
    "page": "#11161b",
    "surface": "#192027",
    "text": "#e6eaee",
    "muted": "#9ba7b3",
    "line": "#2d3742",
    "accent": "#82aaff",
    "up": "#3cc7aa",
    "down": "#ff7d89",
    "warn": "#e8b755",
    "band": "#22324d",
}


def variables(colors: dict[str, str]) -> str:
    """Return colours as CSS custom properties."""
    return "".join(f"--{name}:{value};" for name, value in colors.items())


def role(**roles: str) -> dict[str, Any]:
    """Return the properties of a glyph whose colours follow the theme: `fill_color="up"`.

    The tags tell the page's script which property takes which colour.
    """
    colors = {name: LIGHT[value] for name, value in roles.items()}
    return {**colors, "tags": [f"{name}={value}" for name, value in roles.items()]}

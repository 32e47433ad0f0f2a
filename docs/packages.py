"""Draw docs/packages.svg from the imports: `python docs/packages.py` (needs the lint group).

A box for each package, in the layers that pyproject.toml states for import-linter; an arrow for
each import between two of them that is not implied by others.
"""

import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "packages.svg"
BOX, GAP, ROW, MARGIN = (120, 34), 30, 74, 20
#: Columns in which no arrow crosses a box; the rows are the layers.
COLUMNS = {
    "cli": 2.5,
    "testing": 0,
    "_one_call": 1.5,
    "data": 3,
    "_walker": 2,
    "_backtest": 2,
    "_live": 3,
    "_pages": 2,
    "_reports": 2,
    "_engine": 1,
    "_data": 2.6,
    "_state": 0.5,
    "_statistics": 3.5,
    "_arrays": 1.85,
    "_rules": 2.45,
    "exchanges": 0,
    "_catalog": 0.5,
    "_values": 2,
}


def layers() -> list[list[str]]:
    """Return the packages of each layer, highest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in config["contracts"] if c["type"] == "layers")
    return [
        [name.strip() for name in part.replace(":", "|").split("|")] for part in contract["layers"]
    ]


def imports() -> list[tuple[str, str]]:
    """Return which package imports which, without what others imply."""
    graph = grimp.build_graph("backtest_kit")
    found: dict[str, set[str]] = {}
    for importer in graph.modules:
        own = importer.split(".")[1:2]
        for imported in graph.find_modules_directly_imported_by(importer):
            other = imported.split(".")[1:2]
            if own and other and own != other:
                found.setdefault(own[0], set()).add(other[0])

    def reaches(start: str, end: str, without: str | None) -> bool:
        return any(
            step == end or reaches(step, end, None)
            for step in found.get(start, ())
            if step != without
        )

    return sorted(
        (own, other)
        for own, others in found.items()
        for other in others
        if not reaches(own, other, without=other)
    )


def svg() -> str:
    """Return the picture."""
    rows = layers()
    place = {}
    width = (max(COLUMNS.values()) + 1) * (BOX[0] + GAP) - GAP + 2 * MARGIN
    for y, row in enumerate(rows):
        for name in row:
            place[name] = (MARGIN + COLUMNS[name] * (BOX[0] + GAP), MARGIN + y * ROW)
    height = MARGIN * 2 + (len(rows) - 1) * ROW + BOX[1]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="sans-serif" font-size="14" role="img" '
        'aria-label="The packages and their imports, which point downwards">'
    )
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#667"/></marker></defs>'
    )
    parts = [head, arrow, f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>']
    for own, other in imports():
        if own in place and other in place:
            (x, y), (u, v) = place[own], place[other]
            parts.append(
                f'<path d="M{x + BOX[0] / 2:g} {y + BOX[1]:g} C {x + BOX[0] / 2:g} {y + ROW:g} '
                f'{u + BOX[0] / 2:g} {v - ROW + BOX[1]:g} {u + BOX[0] / 2:g} {v:g}" fill="none" '
                'stroke="#99a" marker-end="url(#a)"/>'
            )
    for name, (x, y) in sorted(place.items()):
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef2fb" '
            f'stroke="#456"/><text x="{x + BOX[0] / 2:g}" y="{y + 22:g}" text-anchor="middle" '
            f'fill="#123">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg())

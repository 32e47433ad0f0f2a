"""One HTML file: scripts and styles inside it, user text escaped, and no way to the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec

from backtest_kit._pages.colors import DARK, LIGHT, variables
from backtest_kit._values.errors import BacktestKitError

MISSING: Final = "HTML reports need Bokeh: pip install 'backtest-kit[report]'"
#: Rows of a table that are not folded.
_ROWS: Final = 50
#: The place of a long table, which `tables.js` fills.
TABLE: Final = (
    '<div class="listing"><div class="scroll long"><table><thead><tr></tr></thead><tbody></tbody>'
    '</table></div><div class="pages"><button type="button" class="earlier">Earlier rows</button>'
    '<button type="button" class="later">Later rows</button><span class="status" role="status">'
    "</span></div></div>"
)
#: What ends a script element, or begins a comment in it, and two line ends of JavaScript.
_UNSAFE: Final = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def require_bokeh() -> None:
    """Raise unless Bokeh is there.

    Raises:
        BacktestKitError: it is missing; the message says how to get it.
    """
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise BacktestKitError(MISSING) from error


def html_page(
    title: str, body: str, *, data: Mapping[str, Any], charts: Mapping[str, Any], script: str
) -> str:
    """Return a page; `body` is HTML, `title` is text.

    `data` is what the page's script (the name of a file in `assets`) reads, `charts` are Bokeh
    models that are drawn into the elements of those ids.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    require_bokeh()
    scripts = [_bokeh(), _asset("charts.js"), _asset("tables.js"), _asset(script)]
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )
    theme = (
        f":root{{{variables(LIGHT)}color-scheme:light}}"
        f"@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{{variables(DARK)}"
        f"color-scheme:dark}}}}:root[data-theme=dark]{{{variables(DARK)}color-scheme:dark}}"
    )
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>{theme}{_asset('styles.css')}</style></head>",
        f"<body>{body}",
        _json_element("data", data),
        _json_element("charts", {name: _json_item(model) for name, model in charts.items()}),
        *(f"<script>{text}</script>" for text in scripts),
        "</body></html>",
    ]
    return "\n".join(head) + "\n"


def write_page(text: str, path: str | Path) -> Path:
    """Write a page, and return its path; folders that are not there are made.

    Raises:
        OSError: it can't be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    return target


def json_text(value: Any) -> str:
    """Return JSON that can stand inside of a script element; NaN is null."""
    text = msgspec.json.encode(value).decode()
    for character, safe in _UNSAFE.items():
        text = text.replace(character, safe)
    return text


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()
) -> str:
    """Return an HTML table of texts; the columns of the indices `right` are aligned right."""
    numbers = set(right)
    heads = "".join(
        f'<th scope="col"{_number_class(i, numbers)}>{escape(name)}</th>'
        for i, name in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_number_class(i, numbers)}>{escape(cell)}</td>" for i, cell in enumerate(r))
        + "</tr>"
        for r in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def folded(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()
) -> str:
    """Return a table of the first 50 rows, with the others in a part that can be opened."""
    numbers = [*right]
    first = f'<div class="scroll">{table(columns, rows[:_ROWS], right=numbers)}</div>'
    if len(rows) <= _ROWS:
        return first
    rest = f'<div class="scroll">{table(columns, rows[_ROWS:], right=numbers)}</div>'
    return f"{first}<details><summary>{len(rows) - _ROWS:,} more</summary>{rest}</details>"


def markdown(text: str) -> str:
    """Return lists and emphasis of Markdown as HTML; everything else in it is plain text.

    Links and pictures stay text: a page fetches nothing, and user text can't point anywhere.
    """
    from markdown_it import MarkdownIt

    return str(MarkdownIt("zero").enable(["list", "emphasis", "escape"]).render(text))


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Return figures in large type: (name, value, what it means); tone by the value's sign."""
    return '<dl class="tiles">' + "".join(map(_tile, entries)) + "</dl>"


def section(title: str, content: str, ident: str) -> str:
    """Return a section with its heading; `content` is HTML."""
    return (
        f'<section id="{ident}" aria-labelledby="{ident}-title">'
        f'<h2 id="{ident}-title">{escape(title)}</h2>{content}</section>'
    )


def chart(ident: str, label: str, height: int) -> str:
    """Return the place of a chart; `label` says in words what it shows."""
    return (
        f'<div class="chart" id="{ident}" role="img" aria-label="{escape(label)}" '
        f'style="min-height:{height}px"></div>'
    )


def header(kind: str, title: str, facts: Iterable[str]) -> str:
    """Return the top of a page, with the switch between light and dark."""
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        '<a class="skip" href="#main">Skip to the content</a><header><div>'
        f'<p class="kind">{escape(kind)}</p><h1>{escape(title)}</h1>'
        f'<ul class="facts">{items}</ul></div>'
        '<button type="button" id="theme" aria-pressed="false">Dark</button></header>'
    )


def _tile(entry: tuple[str, str, str]) -> str:
    name, value, meaning = entry
    tone = " bad" if value.startswith("-") else ""
    return (
        f'<div><dt>{escape(name)}</dt><dd><span class="value{tone}">{escape(value)}</span>'
        f'<span class="meaning">{escape(meaning)}</span></dd></div>'
    )


def _number_class(index: int, right: set[int]) -> str:
    return ' class="number"' if index in right else ""


def _json_element(ident: str, value: Any) -> str:
    return f'<script type="application/json" id="{ident}">{json_text(value)}</script>'


def _json_item(model: Any) -> Any:
    from bokeh.core.serialization import Buffer
    from bokeh.embed import json_item

    def plain(value: Any) -> Any:
        return value.to_base64() if isinstance(value, Buffer) else value

    return msgspec.json.decode(msgspec.json.encode(json_item(model), enc_hook=plain))


@cache
def _asset(name: str) -> str:
    return files("backtest_kit._pages").joinpath("assets", name).read_text("utf-8")


@cache
def _bokeh() -> str:
    return files("bokeh").joinpath("server/static/js/bokeh.min.js").read_text("utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

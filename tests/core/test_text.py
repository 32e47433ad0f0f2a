"""Text of others is shown and has no effect: on a terminal, in Markdown, in every report."""

import io
import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.markdown import Markdown
from rich.table import Table

from backtest_kit._reports.table import markdown_table
from backtest_kit._values.text import for_markdown, for_terminal
from backtest_kit.cli.terminal import Console

NASTY = [
    *(
        "\x1b[2J",
        "\x1b]8;;http://x\x07",
        "\x9b31m",
        "\x00",
        "\r",
        "\x7f",
        "\u202e",
        "\u2066",
        "\u200f",
    ),
    *("\u2028", "\ud800", "\ufeff", "\U000e0041", "[a](javascript:x)", "[a]: javascript:x", "[a]"),
    *("![a](data:x)", "<javascript:x>", "<b>", "<!--", "]", "(", "[", "\\", "\\]", "|", "`", "*"),
    *("[/]", "[red]", "[link=javascript:x]y[/link]", ":smile:", "\n", "\t", " ", "# ", "a"),
]
texts = st.one_of(
    st.text(), st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=3))).map("".join)
)
#: As HTML of a page would be made of it, without the library's own check of links.
parser = MarkdownIt("commonmark").enable("table")
parser.validateLink = lambda url: True


def unseen(text, kept):
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return [c for c in text if unicodedata.category(c) in kinds and c not in kept]


def tokens(text):
    return [part for token in parser.parse(text) for part in [token, *(token.children or ())]]


@given(texts)
def test_a_terminal_shows_what_it_would_have_obeyed(text):
    shown = for_terminal(text)
    assert not unseen(shown, "\n\t\u200c\u200d")
    shown.encode()
    assert for_terminal(shown) == shown
    if not unseen(text, "\n\t"):
        assert shown == text


@given(texts)
def test_markdown_shows_text_and_makes_nothing_of_it(text):
    shown = for_markdown(text)
    assert not unseen(shown, "\u200c\u200d")
    shown.encode()
    for where in (f"- Exchange {shown}: x", f"- {shown}", f"# Backtest of {shown} on {shown}"):
        kinds = {token.type for token in tokens(where)}
        assert not kinds & {"link_open", "image", "html_inline", "html_block"}
        assert not parser_references(where)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_a_table_has_the_rows_and_cells_it_was_given(rows):
    found = tokens(markdown_table(("Name", "Note"), rows))
    kinds = [token.type for token in found]
    assert not {*kinds} & {"link_open", "image", "html_inline", "html_block"}
    assert (kinds.count("tr_open"), kinds.count("td_open")) == (len(rows) + 1, 2 * len(rows))


def parser_references(text):
    environment = {}
    parser.parse(text, environment)
    return environment.get("references")


@given(texts)
def test_a_console_writes_no_effects_of_what_it_is_given(text):
    """Colours are its own: what is left without them has no control but line breaks."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, color_system="truecolor")
    table = Table("name", title=text, caption=text)
    table.add_row(text)
    console.print(text, table, Markdown(f"[x]({text}) {text}"))
    written = out.getvalue()
    written.encode()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written)
    assert not unseen(plain, "\n\u200c\u200d")

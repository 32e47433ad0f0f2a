"""Text that others wrote (names, notes, messages), made fit for where it is put out."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

#: Categories of characters that are not seen but do something: controls, overrides of direction and
#: other formats, halves of surrogate pairs (which can't be encoded), separators of lines.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Formats that scripts and emoji are written with: zero width joiner and non-joiner.
_NEEDED: Final = frozenset("\u200c\u200d")
#: What would make a tag, a link, or the definition of one out of a line of Markdown.
_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])")
_LINK: Final = re.compile(r"\](?=[(\[:])")


def for_terminal(text: str) -> str:
    """Return text without effects on a terminal: what is not seen is written out, by its code.

    Line breaks and tabs are kept.
    """
    return text if text.isascii() and text.isprintable() else _written_out(text, "\n\t")


def for_markdown(text: str) -> str:
    """Return text as one line of Markdown that shows it: no tag, no link, nothing unseen."""
    line = " ".join(text.split())
    line = line if line.isascii() and line.isprintable() else _written_out(line, "")
    return _LINK.sub(r"\\]", _TAG.sub(r"\\<", line.replace("\\", "\\\\")))


def _written_out(text: str, kept: str) -> str:
    return "".join(
        character
        if unicodedata.category(character) not in _UNSEEN
        or character in kept
        or character in _NEEDED
        else _code(ord(character))
        for character in text
    )


def _code(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"

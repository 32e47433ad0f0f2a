"""What a Markdown text shows, as a real parser sees it."""

from markdown_it import MarkdownIt


def tables(text):
    """Return the tables of a text: lists of rows of cells."""
    found, row = [], None
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            row = []
            found[-1].append(row)
        elif token.type == "inline" and row is not None and token.level > 2:
            row.append(token.content)
    return found

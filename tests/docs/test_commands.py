"""Commands that pages name: each is resolved with click, and none is run."""

import re
import shlex
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

from backtest_kit import cli

ROOT = Path(__file__).parents[2]
GROUP = cli.cli
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "src").rglob("*.md.template")),
]
NAME = "backtest-kit"


def lines(text):
    """Yield (line, whether it stands in a block) of shell blocks and of code within sentences."""
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.info.split()[:1] in (["sh"], ["bash"], ["console"]):
            for line in token.content.replace("\\\n", " ").splitlines():
                yield line, True
        elif token.type == "inline":
            for child in token.children:
                if child.type == "code_inline":
                    yield child.content, False


def commands(line):
    """Yield the arguments of each `backtest-kit` of a line of shell."""
    line = re.sub(r"\$\$?\(?\w+\)?", "X", line)  # a variable stands for some word
    parts = re.split(r"\s*(?:&&|\|\||[|;])\s*", line.strip())
    for part in parts:
        if part.split()[:1] == [NAME]:
            yield shlex.split(part, comments=True)[1:]


def resolve(words, *, in_full):
    """Parse a command's words as click does; raises UsageError where it would refuse them.

    Paths need not exist, and placeholders in capitals (FILE, PYTHON) are taken for any value.
    """
    command, context = GROUP, click.Context(GROUP, info_name=NAME)
    while True:
        given, rest, _ = command.make_parser(context).parse_args([*words])
        for parameter in command.params:
            value = given.get(parameter.name)
            if value is None or value == () or str(value).startswith("Sentinel"):
                needed = parameter.required and not isinstance(command, click.Group)
                if needed and in_full and "--help" not in words:
                    raise click.MissingParameter(ctx=context, param=parameter)
            elif isinstance(parameter.type, (click.Choice, click.IntRange)):
                for one in value if isinstance(value, (list, tuple)) else [value]:
                    if not str(one).isupper():
                        parameter.type.convert(one, parameter, context)
        if not isinstance(command, click.Group) or not rest:
            return command
        name, command, words = command.resolve_command(context, rest)
        context = click.Context(command, info_name=name, parent=context)


def wrong(text):
    """Return what click says of each command of a page that it would refuse."""
    found = []
    for line, in_block in lines(text):
        for words in commands(line):
            try:
                resolve(words, in_full=in_block)
            except click.UsageError as error:
                found.append(f"{line.strip()}: {error.format_message()}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_commands_and_options_that_there_are(page):
    assert wrong(page.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("backtest-kit bactest a.py --symbol X", "No such command"),
        ("backtest-kit backtest a.py --symbol X --speed max", "No such option"),
        ("backtest-kit backtest a.py \\\n    --data x.csv", "Missing"),
        ("cd x && backtest-kit walk a.py --symbol X --workers none", "not a valid integer"),
        ("backtest-kit backtest a.py --symbol X --interval 7m", "is not one of"),
        ("backtest-kit runs compare last", None),
    ],
)
def test_a_wrong_command_is_found(line, said):
    found = wrong(f"```sh\n{line}\n```\n")
    assert len(found) == (said is not None)
    assert all(said in text for text in found)


def test_most_pages_name_commands():
    named = [line for page in PAGES for line, _ in lines(page.read_text("utf-8"))]
    assert sum(1 for line in named for _ in commands(line)) > 60

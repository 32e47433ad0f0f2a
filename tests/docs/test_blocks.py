"""The Python blocks of README and docs run as they stand, each page as one program.

Figures that a page gets from its blocks are those that it states.
"""

import ast
import asyncio
import inspect
import re
import shutil
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import backtest_kit as bk
import command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Stands on a line above a block that is deliberately a fragment, or must not be run.
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n?")
EXTRAS = {"optuna", "pandas", "polars", "ccxt", "distributed", "talib"}


pytestmark = pytest.mark.slow


def blocks(text):
    """Yield (line of its first statement, code) of each Python block that is to be run."""
    tokens = MarkdownIt().parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "fence" and token.info.split()[:1] in (["python"], ["py"]):
            fragment = before and before.type == "html_block" and NOT_RUN.fullmatch(before.content)
            if not fragment:
                yield token.map[0] + 1, token.content


def run(text, name):
    """Run the blocks of a page one after another, and return their namespace.

    `await` works at its top.
    """
    namespace = {"__name__": "__main__"}
    for line, code in blocks(text):
        shifted = "\n" * line + code  # a traceback then names the line of the page
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(shifted, name, "exec", flags=flags, dont_inherit=True)
        outcome = eval(compiled, namespace)
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)
    return namespace


def percent(value):
    return f"{value:.2f} %"


def total(result):
    return percent(result.statistics.total_pnl)


def of_tutorial(page):
    before, free, after, changes = (page[n] for n in ("before", "free", "after", "changes"))
    was, is_now, costless = before.statistics, after.statistics, free.statistics
    return [
        f"{was.total_signals} trades, of which {was.win_rate:.1f} % win, make {total(before)}",
        f"It prints {costless.total_pnl:.2f}:",
        f"the costs took {costless.total_pnl - was.total_pnl:.1f} %",
        f"{is_now.total_signals} trades make {total(after)}",
        f"(it had lost {percent(-changes.went)})",
        f"make {percent(-changes.changed)} less",
    ]


def of_triggers(page):
    wick = page["pessimistic"]
    rate = f"{wick.statistics.win_rate:.1f} %"
    return [f"| wick | {wick.statistics.total_signals} | {rate} | {total(wick)} |"]


def of_costs(page):
    before, after = total(page["before"]), total(page["after"])
    return [f"{before} before, {after} after: {page['per_trade']:.1f} % a trade"]


def of_luck(page):
    best = page["ranking"].ranking[0].statistics
    return [page["ranking"].verdict.sentence, f"{percent(best.total_pnl)} before costs"]


def of_walk(page):
    return [page["ranking"].verdict.sentence]


def of_migration(page):
    closed = page["trades"][page["trades"]["close_reason"] != "end_of_data"]
    return [f"| {len(closed)} | {len(closed)} |", percent(closed["pnl_percentage"].sum())]


#: What pages say in their text, computed anew from what their blocks leave behind.
FIGURES = {
    "tutorial/first-backtest.md": of_tutorial,
    "tutorial/walk-and-replay.md": of_walk,
    "explanation/triggers.md": of_triggers,
    "explanation/costs.md": of_costs,
    "explanation/luck.md": of_luck,
    "migration/backtesting-py.md": of_migration,
    "migration/vectorbt.md": of_migration,
}


def needs(code):
    """Return the libraries that a page imports, or has the package import."""
    drawn = ["bokeh"] if re.search(r"\.(plot|report)\(", code) else []
    named = re.findall(r"^\s*(?:import|from) (\w+)|\.to_(pandas|polars)\(", code, re.MULTILINE)
    return sorted(EXTRAS & {one or other for one, other in named}) + drawn


def with_blocks():
    for page in PAGES:
        code = "\n".join(code for _, code in blocks(page.read_text("utf-8")))
        if code:
            yield pytest.param(page, needs(code), id=str(page.relative_to(ROOT)))


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The project that `backtest-kit init` makes, and files under the names that pages use."""
    folder = tmp_path_factory.mktemp("pages") / "my_project"
    assert command.run_here("init", folder, cwd=folder.parent).returncode == 0
    market = bk.exchanges.SyntheticExchange(seed=7)
    for name in ("BTCUSDT", "ETHUSDT"):
        candles = bk.read_candles(
            market, symbol=name, interval="1m", start="2023-01-01", end="2023-01-05"
        )
        table = bk.Table(dict(zip(bk.Candle.__struct_fields__, candles.columns(), strict=True)))
        table.to_parquet(folder / "data" / f"{name}.parquet")
    shutil.copy(folder / "data" / "BTCUSDT.parquet", folder / "BTCUSDT-1m-2023.parquet")
    return folder


@pytest.mark.parametrize(("page", "needed"), [*with_blocks()])
def test_blocks_run(page, needed, project, tmp_path, monkeypatch):
    """In a folder that `init` has made, with some days of a random market."""
    for extra in needed:
        pytest.importorskip(extra)
    folder = shutil.copytree(project, tmp_path / project.name)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    text = page.read_text("utf-8")
    try:
        namespace = run(text, str(page))
    finally:
        sys.modules.pop("strategy", None)  # the project's, which another page has a copy of
    figures = FIGURES.get(page.relative_to(ROOT).as_posix().removeprefix("docs/"))
    words = " ".join(text.replace("\n>", "\n").split())
    assert [f for f in (figures(namespace) if figures else ()) if f not in words] == []


PAGE = """
```python
async def three():
    return 3
```
Text, and a shell block, which is nobody's business here:
```sh
exit 1
```
1. In a list:
   ```py
   assert await three() == 3
   ```
<!-- not run: places an order -->
```python
raise SystemExit
```
"""


def test_blocks_share_a_namespace_and_fragments_are_left_out():
    assert [line for line, _ in blocks(PAGE)] == [2, 11]
    run(PAGE, "page.md")


@pytest.mark.parametrize("marker", ["", "<!-- not run: -->", "<!-- a comment -->"])
def test_a_failing_block_names_its_line_and_only_a_reason_excuses_it(marker):
    page = f"# Title\n\n{marker}\n```python\nok = 1\nok / 0\n```\n"
    with pytest.raises(ZeroDivisionError) as caught:
        run(page, "page.md")
    last = caught.traceback[-1]
    assert (str(last.path).endswith("page.md"), last.lineno + 1) == (True, 6)

"""The public surface: names, layers, import time's causes, examples, docs in step with the code."""

import ast
import importlib.metadata
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
import typing
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

import backtest_kit as bk
import command
from backtest_kit import testing
from backtest_kit._values import errors
from backtest_kit._values.config import Config
from command import PATIENCE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "backtest_kit"


#: Public modules that `bk` has.
MODULES = ("data", "exchanges")


def test_all_is_sorted_and_complete():
    names = [name for name in vars(bk) if not name.startswith("_")]
    public = {n for n in names if not isinstance(getattr(bk, n), type(sys)) or n in MODULES}
    assert set(bk.__all__) == public
    assert bk.__all__ == sorted(bk.__all__)


def test_the_names_of_exchanges_and_testing():
    """Which are public too: taking one away is a change that users notice."""
    assert bk.data.__all__ == [
        "Download",
        "Problem",
        "Progress",
        "SeriesDownload",
        "SeriesSummary",
        "describe",
        "download",
        "update",
    ]
    assert bk.exchanges.__all__ == [
        "CachedExchange",
        "CatalogExchange",
        "CcxtExchange",
        "CsvExchange",
        "FrameExchange",
        "ParquetExchange",
        "SyntheticExchange",
    ]
    assert testing.__all__ == [
        "ADAPTER_CHECKS",
        "EXCHANGE_CHECKS",
        "HOSTILE_KEYS",
        "FaultyExchange",
        "LeapingEventLoop",
        "MemoryAdapter",
        "SimulatedTime",
        "check_adapter",
        "check_exchange",
        "moment",
    ]
    for module in (bk.data, bk.exchanges, testing):
        assert all(hasattr(module, name) for name in module.__all__)


def test_the_version_is_that_of_the_package():
    assert bk.__version__ == importlib.metadata.version("backtest-kit")
    with pytest.raises(AttributeError, match="has no attribute 'version'"):
        bk.version  # noqa: B018


def test_a_traceback_names_what_users_import():
    public = [getattr(bk, name) for name in bk.__all__]
    named = [v for v in public if inspect.isfunction(v) or inspect.isclass(v)]
    plain = [v for v in named if inspect.isclass(v) and not isinstance(v, msgspec.StructMeta)]
    assert len(plain) > 30
    assert {value.__module__ for value in plain} == {"backtest_kit"}
    for value in named:
        assert pickle.loads(pickle.dumps(value)) is value
    assert repr(pickle.loads(pickle.dumps(bk.FetchError("gone")))) == "FetchError('gone')"
    done = subprocess.run(
        [sys.executable, "-c", "import backtest_kit as bk; raise bk.FetchError('gone')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "backtest_kit.FetchError: gone"


def test_what_structs_refer_to_is_found():
    """As msgspec looks it up when it encodes or decodes: in the module that a struct names."""
    structs = [v for v in vars(bk).values() if isinstance(v, msgspec.StructMeta)]
    assert len(structs) > 20
    for struct in structs:
        assert typing.get_type_hints(struct, include_extras=True).keys() >= {
            *struct.__struct_fields__
        }


def test_a_wrong_value_is_an_error_of_ours():
    """`ValueError` alone is for what a library of ours raises inside, and catches itself."""
    inside = {"documents.py"}
    bare = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") == "ValueError"
        and path.name not in inside
    ]
    assert not bare
    for call in (
        lambda: bk.Candles([0], [1], [1], [1], [1], [1])[::2],
        lambda: bk.Candles([0, 60_000], *[[1, 1]] * 5).resample("7m"),
        lambda: bk.trailing_mean([1.0], 0),
        lambda: bk.VirtualClock(datetime(2024, 1, 1), datetime(2024, 1, 2)),
    ):
        with pytest.raises(bk.ArgumentError) as caught:
            call()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, bk.BacktestKitError)


def tree_of_errors(text):
    """Return name and base of each error of a tree that is drawn with two spaces a level."""
    above, found = [], {}
    for indent, name in re.findall(r"^( *)(\w+Error)\b", text, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        found[name] = above[-2] if len(above) > 1 else "Exception"
    return found


def test_the_trees_of_errors_are_the_classes():
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.BacktestKitError)
    ]
    bases = {value.__name__: value.__base__.__name__ for value in classes}
    drawn = inspect.cleandoc(errors.__doc__).partition("::\n\n")[2]
    assert tree_of_errors(re.sub("^    ", "", drawn, flags=re.MULTILINE)) == bases
    page = (ROOT / "docs" / "reference.md").read_text()
    assert tree_of_errors(page.split("## Errors")[1].split("```")[1]) == bases
    assert bases.keys() == {name for name in bk.__all__ if name.endswith("Error")}


def test_the_core_does_no_io():
    paths = [*(PACKAGE / "_rules").glob("*.py"), *(PACKAGE / "_statistics").glob("*.py")]
    assert len(paths) > 15
    for path in paths:
        text = path.read_text()
        for word in ("async ", "await ", "open(", "_values.clock", "contextvars", "logging"):
            assert word not in text, f"{path} has {word}"


def test_heavy_libraries_are_imported_only_when_used():
    code = (
        "import sys, backtest_kit; "
        "heavy = {'pyarrow', 'pandas', 'polars', 'ccxt', 'rich', 'click', 'numba', 'bokeh', "
        "'backtest_kit._pages.page'}; "
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_module_is_long():
    paths = [*PACKAGE.rglob("*.py")]
    assert len(paths) > 100
    paths.remove(PACKAGE / "__init__.py")  # a list of names
    for path in paths:
        assert len(path.read_text().splitlines()) <= 400, path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_every_example_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "# " in done.stdout


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name in Config.__struct_fields__:
        assert f"| `{name}` | `{getattr(Config(), name)!r}` |" in text, name


def missing(names, module, pages):
    """Return names that no page has as code: `name`, `name(...)`, `@bk.name` or module.name."""
    return [
        name for name in names if not re.search(rf"(`@?|\b{module}\.){re.escape(name)}\b", pages)
    ]


def test_every_public_name_is_documented():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    once = "_once"  # is documented for all of them in one sentence
    names = [name.removesuffix(once) for name in bk.__all__ if not name.endswith("Error")]
    assert missing(names, "bk", pages) == []  # the errors are in the tree
    assert f"`{once}`" in pages
    assert missing(bk.exchanges.__all__, "exchanges", pages) == []
    assert missing(bk.data.__all__, "data", pages) == []
    assert missing(testing.__all__, "testing", pages) == []
    assert missing(["Backtes", "andle", "risk"], "bk", pages) == ["Backtes", "andle", "risk"]


def test_the_reference_renders_every_public_name():
    """Names that are there but don't exist fail in `mkdocs build --strict`."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    rendered = re.findall(r"^::: backtest_kit\.([\w.]+)$", pages, re.MULTILINE)
    public = [
        *(name for name in bk.__all__ if name not in MODULES),
        *(f"data.{name}" for name in bk.data.__all__),
        *(f"exchanges.{name}" for name in bk.exchanges.__all__),
        *(f"testing.{name}" for name in testing.__all__),
    ]
    assert sorted(name for name in rendered if not name.startswith("_")) == sorted(public)


def test_readme_code_runs(tmp_path):
    """In the project that the commands before it make."""
    pytest.importorskip("bokeh", reason="needs the extra report")
    text = (ROOT / "README.md").read_text()
    blocks = [b.split("```")[0] for b in text.split("```python\n")[1:]]
    assert blocks
    assert command.run("init", "my_project", cwd=tmp_path).returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path / "my_project",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_packages_shows_the_imports():
    pytest.importorskip("grimp", reason="needs the lint group")
    spec = importlib.util.spec_from_file_location("packages", ROOT / "docs" / "packages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PICTURE.read_text() == module.svg(), "run: python docs/packages.py"

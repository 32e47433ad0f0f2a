"""The public surface: names, layers, import time's causes, examples, docs in step with the code."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit._values.config import Config

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "backtest_kit"


def test_all_is_sorted_and_complete():
    names = [name for name in vars(bk) if not name.startswith("_")]
    public = {n for n in names if not isinstance(getattr(bk, n), type(sys)) or n == "exchanges"}
    assert set(bk.__all__) == public
    assert bk.__all__ == sorted(bk.__all__)


def test_the_core_does_no_io():
    for path in (*(PACKAGE / "_rules").glob("*.py"), *(PACKAGE / "_statistics").glob("*.py")):
        text = path.read_text()
        for word in ("async ", "await ", "open(", "_values.clock", "contextvars", "logging"):
            assert word not in text, f"{path} has {word}"


def test_heavy_libraries_are_imported_only_when_used():
    code = (
        "import sys, backtest_kit; "
        "heavy = {'pyarrow', 'pandas', 'polars', 'ccxt', 'rich', 'click', 'numba'}; "
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_module_is_long():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_every_example_runs(path, tmp_path):
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "# " in done.stdout


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name in Config.__struct_fields__:
        assert f"| `{name}` | `{getattr(Config(), name)!r}` |" in text, name


def test_every_public_name_is_documented():
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for name in bk.__all__:
        assert name.removesuffix("_once") in pages, name


def test_readme_code_runs(tmp_path):
    text = (ROOT / "README.md").read_text()
    blocks = [b.split("```")[0] for b in text.split("```python\n")[1:]]
    assert blocks
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_packages_shows_the_imports():
    pytest.importorskip("grimp", reason="needs the lint group")
    spec = importlib.util.spec_from_file_location("packages", ROOT / "docs" / "packages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PICTURE.read_text() == module.svg(), "run: python docs/packages.py"

"""`backtest-kit init`: what it makes runs, is tidy, and passes its own tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import one_line, run, run_here

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init")
    made = run_here("init", "My Project", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "next: cd" in made.stdout
    return folder / "My Project"


def call(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_own_tests_pass(project):
    assert "3 passed" in call("pytest", "-q", "-p", "no:cacheprovider", cwd=project)


def test_it_is_tidy(project):
    pytest.importorskip("ruff", reason="needs the lint group")
    call("ruff", "check", ".", cwd=project)
    call("ruff", "format", "--check", ".", cwd=project)


def test_its_commands_work(project):
    """Those of its Makefile, word for word."""
    text = (project / "Makefile").read_text()
    lines = [line.strip() for line in text.splitlines() if line.startswith("\tbacktest-kit backt")]
    (line,) = (line.replace("$(DATA)", "data/$(SYMBOL).parquet") for line in lines)
    words = line.replace("$(SYMBOL)", "RANDOM").split()[1:]
    done = run(*words, cwd=project, PYTHONPATH=str(SOURCE))
    assert done.returncode == 0, done.stderr
    assert "Win rate" in done.stdout
    if shutil.which("make"):
        shown = subprocess.run(
            ["make", "--no-print-directory", "-n", "backtest"],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},  # of `make test`
        )
        assert shown.stdout.split()[1:] == words


def test_its_notebook_runs(project):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")
    notebook = nbformat.read(project / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(project)}}
    ).execute()
    shown = [
        output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert len(shown) == 4
    assert all("text/html" in data for data in shown)


def test_nothing_is_overwritten(project):
    one_line(run_here("init", project, cwd=project), "exists and is not empty")

"""The command line as a process of its own, and in this process where only its answer matters."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import backtest_kit as bk
from backtest_kit.cli import main

#: How long (s) a test waits for what is sure to come: it ends one that hangs, on a machine however
#: busy. Nothing may depend on how long something takes.
PATIENCE = 500
#: Pages take longer than most commands; tests of them ask for them.
NO_PAGES = {"BACKTEST_KIT_HTML": "0"}
COMMAND = [sys.executable, "-m", "backtest_kit"]


def run(*arguments, cwd, **environment):
    """Run a command in a process."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | NO_PAGES | environment,
        check=False,
    )


def run_here(*arguments, cwd, **environment):
    """Run a command as `run` does, but in this process, which takes no time to start.

    It is `main` that runs, not the group of click: `main` is what turns errors into lines and exit
    codes.
    """
    words = [*map(str, arguments)]
    streams = [
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)
    ]
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, NO_PAGES | environment),
        mock.patch.object(sys, "argv", ["backtest-kit", *words]),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.object(sys, "dont_write_bytecode", True),  # a file may change within a second
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        bk.Engine(),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    for word in words:
        if word.endswith(".py"):
            sys.modules.pop(Path(word).stem, None)
    shown, told = (stream.buffer.getvalue().decode() for stream in streams)
    return subprocess.CompletedProcess(words, code, shown, told)


def kept(place, name="report.md"):
    """Return the paths of a file in the folders of the runs that were kept, oldest first."""
    return sorted((place / "dump" / "runs").glob(f"*/{name}"))


def without_folders(text):
    """Return what a command printed without the folders' names, which hold the time."""
    return re.sub(r"dump/runs/[^/\s]+", "dump/runs/_", text)


def one_line(result, *words, code=2):
    """Assert that a command refused with one line that holds these words."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    for word in words:
        assert word in line

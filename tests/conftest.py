"""Shared by all tests: a fresh engine each, Hypothesis profiles, the real candles."""

import asyncio
import logging
import os
import shutil
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import engine as search_for_examples

import backtest_kit as bk
from effort import DEEP, EXAMPLES, PROFILE

# A write to a real disk is waited for, by thousands of steps; that it survives is not seen here.
_MEMORY = Path("/dev/shm")
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))
# Without it each of the processes that tests start would compile the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
for _name, _number in EXAMPLES.items():
    settings.register_profile(
        _name, deadline=None, max_examples=_number, suppress_health_check=_CALM
    )
settings.load_profile(PROFILE)
if DEEP:  # fifty times as many examples
    os.environ.setdefault("PYTEST_TIMEOUT", "3600")
elif hasattr(search_for_examples, "MAX_SHRINKING_SECONDS"):
    # five minutes for each example that fails would double what the suite takes
    search_for_examples.MAX_SHRINKING_SECONDS = 30


@pytest.fixture(autouse=True)
def engine():
    with bk.Engine() as fresh:
        fresh.set_config(get_candles_retry_delay_ms=0)
        yield fresh


#: Folders whose tests may not block the event loop: in a backtest or a walk nothing waits for it.
TRAPPED = {"live", "persistence"}
#: What may block there: the end of a file's name, its functions, and why.
MAY_BLOCK = [
    # a library that is imported when it is used first
    ("<frozen importlib._bootstrap>", {"_find_and_load"}),
    # files of recorded candles are read where they are asked for: nothing in such a run is late
    ("backtest_kit/exchanges/_recorded.py", {"series", "get_candles"}),
    # the user's line at which an error arose: its file is read once
    ("backtest_kit/_values/places.py", {"_place"}),
    # a callback of a test, which looks at what is on the disk
    ("tests/persistence/test_state.py", {"on_write"}),
]


@pytest.fixture(autouse=True)
def blocking_calls(request):
    """Raise where this package calls something that blocks a running event loop."""
    if request.path.parent.name not in TRAPPED:
        yield
        return
    with blockbuster_ctx("backtest_kit") as trap:
        for function in trap.functions.values():
            for file, names in MAY_BLOCK:
                function.can_block_in(file, names)
        yield


@pytest.fixture
def asyncio_debug(monkeypatch):
    """Make event loops check from which thread they are called, and note where tasks came from.

    It makes days of simulated time six times as long: for tests of a few steps.
    """
    begin = asyncio.BaseEventLoop.__init__

    def begin_in_debug_mode(loop):
        begin(loop)
        loop.set_debug(True)

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", begin_in_debug_mode)
    # how long a step takes is no matter here
    monkeypatch.setattr(logging.getLogger("asyncio"), "level", logging.ERROR)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real candles, which is not part of the project."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BACKTEST_KIT_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real candles in {folder}; set BACKTEST_KIT_DATA to a folder of them")
    return folder


def pytest_terminal_summary(terminalreporter):
    """Print what tests have measured, also those that ran in other processes."""
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(value)

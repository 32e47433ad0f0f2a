"""Shared by all tests: a fresh engine each, Hypothesis profiles, the real candles."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import backtest_kit as bk

_CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("ci", deadline=None, max_examples=60, suppress_health_check=_CALM)
settings.register_profile("deep", deadline=None, max_examples=2000, suppress_health_check=_CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def engine():
    with bk.Engine() as fresh:
        fresh.set_config(get_candles_retry_delay_ms=0)
        yield fresh


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

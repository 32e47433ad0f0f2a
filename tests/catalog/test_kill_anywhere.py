"""A download that is killed at any moment leaves a whole catalog, and the next one goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_anywhere.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_a_hundred_moments(record_property):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "100"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 100 <= found["calls"]
    assert len(found["began"]) >= 3  # months there when it was killed
    record_property(
        "measured",
        f"download killed at 100 of {found['calls']} calls that touch the catalog: whole at each, "
        "and the same bytes afterwards",
    )

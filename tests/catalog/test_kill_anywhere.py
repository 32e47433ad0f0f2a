"""A download that is killed at any moment leaves a whole catalog, and the next one goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effort import DEEP

PROGRAM = Path(__file__).with_name("kill_anywhere.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment(record_property):
    moments = 100 if DEEP else 24
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(moments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == moments
    assert found["calls"] >= 100
    assert len(found["began"]) >= 3  # months there when it was killed
    record_property(
        "measured",
        f"download killed at {moments} of {found['calls']} calls that touch the catalog: whole at "
        "each, and the same bytes afterwards",
    )

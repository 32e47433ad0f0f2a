"""A live run that is killed at any call which touches its state loses and doubles nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_anywhere.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_kill_anywhere(seed, record_property):
    """At every ninth call, or at every fifth where CI runs it."""
    every = 5 if os.environ.get("CI") else 9
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(seed), str(every)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["points"] >= result["calls"] // every > 60
    assert result["kills"] >= result["points"]
    assert {"opened", "scheduled", "closed", "cancelled"} <= {*result["kinds"]}
    record_property(
        "measured",
        f"kill anywhere, seed {seed}: {result['points']} points of {result['calls']} calls tried "
        f"and survived ({result['kills']} kills), 0 of {result['transitions']} transitions lost, "
        f"0 doubled, {result['told_again']} told again with the same id",
    )

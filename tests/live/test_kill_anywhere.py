"""A live run that is killed at any call which touches its state loses and doubles nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("kill_anywhere.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "every"), [(3, 5), (4, 7), (5, 7)])
def test_kill_anywhere(seed, every, record_property):
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

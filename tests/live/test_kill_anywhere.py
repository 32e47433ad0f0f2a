"""A live run that is killed at any call which touches its state loses and doubles nothing."""

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
@pytest.mark.parametrize("how", [(3,), (4,), (5, "paper")])
def test_kill_anywhere(how, record_property):
    """At every 29th call, from another one on with each seed; at every third where it is deep."""
    seed, *more = how
    result = kill(PROGRAM, seed, 3 if DEEP else 29, record_property, *more)
    assert {"opened", "scheduled", "closed", "cancelled"} <= {*result["kinds"]}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_kill_anywhere_with_managed_positions_and_commands(record_property):
    """At every 197th of more calls; in the deep profile at every eleventh."""
    result = kill(PROGRAM, 5, 11 if DEEP else 197, record_property, "managed", "paper")
    assert {"opened", "added", "partial", "moved", "closed"} <= {*result["kinds"]}
    assert result["commands"] == ["done", "refused"]


def kill(program, seed, every, record_property, *how):
    """Run a program that kills at every n-th call; return what it says."""
    done = subprocess.run(
        [sys.executable, str(program), str(seed), str(every), *how],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["points"] >= result["calls"] // every > 15
    assert result["kills"] >= result["points"]
    record_property(
        "measured",
        f"{program.stem}, {' '.join((f'seed {seed}', *how))}: {result['points']} points of "
        f"{result['calls']} calls tried and survived ({result['kills']} kills), "
        f"0 of {result['transitions']} transitions lost, "
        f"0 doubled, {result['told_again']} told again with the same id",
    )
    return result

"""Days of live runs with something wrong every few minutes: nothing grows, nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("soak.py")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="measures memory as POSIX does")
@pytest.mark.timeout(900)
def test_a_soak(record_property):
    """`SOAK_DAYS` days (`make soak`: seven), else one, of fewer symbols."""
    days = int(os.environ.get("SOAK_DAYS") or 1)
    symbols = 20 if days > 1 else 12
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(days), str(symbols), "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["unaccounted"] == [], "a minute was neither stepped nor counted as missed"
    assert found["doubled"] == 0
    assert found["late_trades"] == 0
    assert found["trades"] > 100 * days
    assert found["faults"] > 100 * days
    assert 0 < found["missed"] < found["minutes"] * found["symbols"] / 2
    memory, files = found["memory_mb"], found["open_files"]
    assert len(files) >= days - 1, "measured once a day, but for one that ends in a restart"
    assert files == files[:1] * len(files)
    # all trades are kept, for the report
    assert memory[-1] - memory[0] < 3 + 0.004 * found["trades"], memory
    record_property(
        "measured",
        f"soak: {days} days, {found['symbols']} symbols, {found['faults']} faults, "
        f"{found['restarts']} restarts, {found['missed']} minutes missed and counted, "
        f"{found['trades']} trades, memory {memory} MB, open files {files}",
    )

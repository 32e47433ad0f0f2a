"""A full disk, a read-only folder, somebody else's folder: said before trading, or at the write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backtest_kit._live.stored import stored_runs
from backtest_kit._state.files import FileAdapter
from command import PATIENCE

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX users and limits")
PROGRAM = """
import asyncio, concurrent.futures.thread, json, os, resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START, market, script

folder, full = sys.argv[2], "full" in sys.argv
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
answer, told, asked, errors = script(3, 0.1), [], [], []

def limit(size):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def get_signal(symbol, when):
    at = round(when.timestamp() * 1000)
    asked.append(at)
    if full and len(asked) == 20:
        limit(0)
    if full and len(asked) == 40:
        limit(resource.RLIM_INFINITY)
    return answer(at, bk.average_price(symbol))

if "nobody" in sys.argv:
    os.setgid(65534)
    os.setuid(65534)
bk.set_config(state_dir=folder)
bk.add_exchange(bk.exchanges.FrameExchange(market(3, 700, gaps=False)))
names = ("on_open", "on_schedule", "on_cancel", "on_close")
bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal,
                callbacks=dict.fromkeys(names, lambda tick: told.append(tick.transition_id)))
bk.listen_error(lambda event: errors.append([event.where, str(event.error)]))
clock = bk.VirtualClock(to_datetime(START + 20 * MINUTE), to_datetime(START + 300 * MINUTE))
failure = None

async def main():
    async for _ in bk.Live.run("X", strategy_name="s", exchange_name="frame", clock=clock):
        pass

try:
    asyncio.run(main())
except bk.BacktestKitError as error:
    failure = [type(error).__name__, str(error)]
limit(resource.RLIM_INFINITY)
print(json.dumps({"told": told, "asked": asked, "errors": errors, "failure": failure}))
"""


def process(folder, *more):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parents[1]), str(folder), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@posix
def test_a_disk_that_is_full_for_a_while(tmp_path):
    """What could not be stored was not told; when there is room again, the run goes on."""
    found = process(tmp_path / "state", "full")
    texts = [text for where, text in found["errors"] if where == "state"]
    assert texts
    assert all("File too large" in text and str(tmp_path) in text for text in texts)
    assert found["failure"] is None
    (run,) = stored_runs(FileAdapter(tmp_path / "state"))
    assert [entry.id for entry in run.transitions if entry.tick] == found["told"]
    assert len(set(found["told"])) == len(found["told"]) > 5
    assert len(set(found["asked"])) > 100
    assert not [*(tmp_path / "state").rglob("*.tmp")]


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "state").write_text("mine")
    found = process(tmp_path / "state")
    refused(found, tmp_path, "File exists")
    assert (tmp_path / "state").read_text() == "mine"


@posix
@pytest.mark.parametrize("what", ["the folder", "a document"])
def test_a_folder_of_another_user(what, tmp_path):
    """With the rights of somebody else: refused before the strategy is asked."""
    state = tmp_path / "state"
    first = process(state)
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    if what == "the folder":
        changed, mode = state, 0o500
    else:
        changed, mode = next((state / "run").glob("*.json")), 0o000
    changed.chmod(mode)
    root = os.geteuid() == 0
    if root:  # whom no mode keeps out: become another user
        for path in (*tmp_path.parents, tmp_path):
            if not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o005)
        for path in (state, *state.rglob("*")):
            if path != changed:
                path.chmod(0o777 if path.is_dir() else 0o666)
        changed.chmod(0o555 if what == "the folder" else 0o000)
    found = process(state, *(["nobody"] if root else []))
    refused(found, state, "Permission denied")
    changed.chmod(0o755)
    for path, content in before.items():
        assert path.read_bytes() == content
    assert first["told"]


def refused(found, place, why):
    kind, text = found["failure"]
    assert kind == "StateError"
    assert str(place) in text
    assert why in text
    assert not found["asked"]
    assert not found["told"]

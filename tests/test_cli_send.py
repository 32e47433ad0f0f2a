"""`backtest-kit send`: to a run of another process, over files and SQLite."""

import json
import os
import signal
import subprocess
import sys

import pytest

from command import NO_PAGES, PATIENCE, one_line, run_here

#: A run over made-up candles, with a step each half second.
RUN = """
import asyncio
import sys
import backtest_kit as bk

place, = sys.argv[1:]
bk.set_config(exit_trigger="wick", avg_price_candles_count=1)
bk.use_persist_adapter(bk.SqliteAdapter(place) if place.endswith(".db") else bk.FileAdapter(place))
bk.add_exchange(bk.exchanges.SyntheticExchange(seed=7))


@bk.strategy("mine", interval="1m")
def get_signal(symbol, when):
    print("asked", flush=True)
    return {
        "position": "long",
        "price_take_profit": None,
        "price_stop_loss": bk.average_price(symbol) * 0.81,
        "minute_estimated_time": 1440,
    }


async def main():
    clock = bk.VirtualClock(bk_date(2), bk_date(20), speed=120.0)
    names = {"strategy_name": "mine", "exchange_name": "synthetic"}
    async for tick in bk.Live.run("X", **names, clock=clock):
        print(tick.action, flush=True)


def bk_date(day):
    from datetime import UTC, datetime

    return datetime(2024, 1, day, tzinfo=UTC)


asyncio.run(main())
"""


@pytest.fixture(params=["state", "state.db"])
def place(request, tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    return tmp_path / request.param


def start(place):
    process = subprocess.Popen(
        [sys.executable, "run.py", str(place)],
        cwd=place.parent,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | NO_PAGES,
    )
    while (line := process.stdout.readline()) not in ("opened\n", ""):
        pass
    assert line, "it has ended"
    return process


def send(place, *words):
    where = ("--state", place, "--symbol", "X", "--strategy", "mine")
    return run_here("send", *words, *where, cwd=place.parent)


def test_commands_to_another_process(place):
    process = start(place)
    try:
        moved = send(place, "move-stop", "--price", "0.5", "--json")
        event = json.loads(moved.stdout)
        assert (moved.returncode, event["outcome"]) == (1, "refused")
        assert "may only become tighter" in event["reason"]
        halved = send(place, "close", "--share", "50", "--note", "half", "--id", "once")
        assert (halved.returncode, halved.stdout) == (0, "command close (once) done\n")
        again = send(place, "close", "--share", "50", "--id", "once")
        assert again.stdout == halved.stdout, "it was not done a second time"
        shown = run_here("state", "--state", place, "--symbol", "X", cwd=place.parent).stdout
        assert "now: 50 % of what was entered" in shown
        assert "command close (once) done" in shown
        paused = send(place, "pause", "--no-wait")
        assert paused.stdout.startswith("sent: pause (")
        assert send(place, "close").returncode == 0
        assert "idle, paused" in run_here("state", "--state", place, cwd=place.parent).stdout
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        one_line(send(place, "resume"), "does not run", "runs no more", "--when-running", code=1)
        kept = send(place, "resume", "--when-running")
        assert kept.returncode == 0
        assert "the command is kept until it runs" in kept.stderr
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
    process = start(place)  # it opens again, since somebody has sent a resume
    process.kill()
    process.wait(PATIENCE)
    process.stdout.close()


def test_what_can_not_be_sent_is_one_line(tmp_path):
    (tmp_path / "state").mkdir()
    names = ("--symbol", "X", "--strategy", "mine")
    one_line(run_here("send", "close", *names, cwd=tmp_path), "no such live run", "give exchange")
    names += ("--exchange", "synthetic")
    one_line(run_here("send", "close", *names, cwd=tmp_path), "it has never run", code=1)
    one_line(run_here("send", "move-stop", *names, cwd=tmp_path), "price")
    one_line(run_here("send", "close", "--price", "1", *names, cwd=tmp_path), "close has no price")
    one_line(run_here("send", "open", "--signal", "{", *names, cwd=tmp_path), "--signal")
    one_line(run_here("send", "open", "--signal", "@gone", *names, cwd=tmp_path), "gone")
    one_line(run_here("send", "stop", *names, cwd=tmp_path), "stop")
    assert not [*(tmp_path / "state").glob("command/*")]


def test_a_signal_is_read_from_a_file(tmp_path):
    (tmp_path / "state").mkdir()
    signal_file = tmp_path / "signal.json"
    proposal = {"position": "long", "price_take_profit": 110.0, "price_stop_loss": None}
    signal_file.write_text(json.dumps(proposal | {"minute_estimated_time": None}))
    names = ("--symbol", "X", "--strategy", "mine", "--exchange", "e", "--when-running")
    sent = run_here("send", "open", "--signal", "@signal.json", *names, "--json", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    command = json.loads(sent.stdout)
    assert command["order"]["signal"]["price_take_profit"] == 110.0
    assert [*(tmp_path / "state" / "command").glob("*.json")]

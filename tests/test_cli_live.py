"""`live`, `state` and `report live` as a person uses them: real processes, real signals."""

import importlib.util
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from command import COMMAND, PATIENCE, one_line, run, run_here
from markets import market

pytestmark = pytest.mark.slow
posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX terminal or signals")
STRATEGY = """
import backtest_kit as bk

bk.set_config(fill_price="average")  # the market of the tests leaps

@bk.strategy("often", interval="5m")
def often(symbol, when):
    price = bk.average_price(symbol)
    return bk.Signal(position="long", price_take_profit=price * 1.02,
                     price_stop_loss=price * 0.98, minute_estimated_time=45)
"""
MINUTELY = STRATEGY.replace('"5m"', '"1m"')  # asked at the first step by the wall clock
SYNTHETIC = MINUTELY + "bk.add_exchange(bk.exchanges.SyntheticExchange())\n"


@pytest.fixture
def place(tmp_path):
    """A folder with a strategy and recorded candles."""
    (tmp_path / "s.py").write_text(STRATEGY)
    (tmp_path / "now.py").write_text(SYNTHETIC)
    rows = market(5, 1500, gaps=False)
    (tmp_path / "x.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    return tmp_path


@pytest.fixture
def start(place):
    """Start a command; what still runs at the end of the test is killed."""
    processes = []

    def begin(*arguments):
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
        process.stderr.close()


def replay(*more):
    return ("live", "s.py", "--symbol", "X", "--replay", "x.csv", *more)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_replay_has_the_trades_of_a_backtest_and_begins_anew_when_it_was_done(place):
    done = run(*replay("--speed", "max", "--json"), cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "backtest-kit: the replay has ended\n"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["transition_id"] for line in lines}) == len(lines)
    live = [line for line in lines if line["action"] == "closed"]
    done = run("backtest", "s.py", "--symbol", "X", "--data", "x.csv", "--json", cwd=place)
    (backtest,) = json.loads(done.stdout)
    trades = [t for t in backtest["signals"] if t["close_reason"] != "end_of_data"]
    assert len(trades) > 10
    for mine, theirs in zip(live, trades, strict=True):
        assert mine["pnl"] == theirs["pnl"]
        assert mine["close_timestamp"] == theirs["close_timestamp"]

    again = run(*replay("--speed", "max"), cwd=place)
    assert again.returncode == 0, again.stderr
    shown = [line for line in again.stdout.splitlines() if not line.startswith("report: ")]
    assert len(shown) == len(lines)
    assert " X often opened long at " in shown[0]
    assert (place / "dump" / "live" / "X-often-data.md").read_text().startswith("# Live run of")


def test_a_replay_that_is_killed_goes_on_where_it_was(place, start):
    whole = run(*replay("--speed", "max", "--json", "--state", "whole"), cwd=place)
    process = start(*replay("--speed", "60000x"))
    for _ in range(6):
        process.stdout.readline()
    process.kill()
    process.wait(PATIENCE)
    told = run_here("state", "--state", "state/replay", "--json", cwd=place)
    (run_,) = json.loads(told.stdout)
    assert run_["state"]["signal"] or run_["transitions"]
    rest = run(*replay("--speed", "max"), cwd=place)
    assert "often on X goes on from 2024-01-01T" in rest.stderr
    report = run_here("report", "live", "--state", "state/replay", "--json", cwd=place)
    (data,) = json.loads(report.stdout)
    closed = [json.loads(line) for line in whole.stdout.splitlines()]
    closed = [line["pnl"] for line in closed if line["action"] == "closed"]
    assert [trade["pnl"] for trade in data["signals"]] == closed
    assert data["steps"] is None


def test_a_replay_of_another_range_does_not_mix_with_one_that_was_stopped(place):
    run(*replay("--speed", "max", "--to", "2024-01-01T05:00"), cwd=place)
    done = run(*replay("--speed", "max", "--from", "2024-01-01T10:00"), cwd=place)
    one_line(done, "stands at 2024-01-01T05:00Z", "delete the folder")


def waiting_for(stream, text, seconds=PATIENCE):
    shown, deadline = "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        line = stream.readline()
        shown += line
        if text in line:
            return shown
        if not line:
            break
    raise AssertionError(f"{text!r} was never shown: {shown}")


@posix
def test_now_the_first_signal_winds_down_and_the_second_stops_at_once(place, start):
    """By the wall clock, over a market that is computed: opens at its first step."""
    arguments = ("live", "now.py", "--symbol", "X", "--paper")
    process = start(*arguments)
    waiting_for(process.stdout, "opened long")
    second = run(*arguments, cwd=place)
    one_line(second, "is in use by process", str(process.pid), "stop that one first", code=1)
    seen = run("state", "--state", "state/paper", cwd=place)
    assert f"in use by process {process.pid}" in seen.stdout
    assert "active, long at" in seen.stdout
    assert "there is more in state/paper" in run_here("state", cwd=place).stdout
    process.send_signal(signal.SIGINT)
    waiting_for(process.stderr, "waiting for often X to close; once more stops at once")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped at once; the state is safe, 1 signal will be followed" in errors
    assert "Traceback" not in errors
    assert "no process runs on it" in run_here("state", "--state", "state/paper", cwd=place).stdout

    other = start("live", "now.py", "--symbol", "X", "--symbol", "Y", "--paper")
    shown = waiting_for(other.stdout, "opened long")
    assert " Y often opened" in shown
    assert " X often opened" not in shown, "the position of X lives on"
    other.send_signal(signal.SIGTERM)
    errors = waiting_for(other.stderr, "stopping")
    assert "often X" in errors
    assert "often Y" in errors
    other.send_signal(signal.SIGINT)
    assert other.wait(PATIENCE) == 128 + signal.SIGINT


@posix
def test_a_run_that_fails_is_named_while_the_others_go_on(place, start):
    (place / "two.py").write_text(
        MINUTELY
        + """
market = bk.exchanges.SyntheticExchange()

async def get_candles(symbol, interval, since, limit):
    if symbol == "BAD":
        raise bk.ExchangeRefusedError("own has no symbol BAD")
    return await market.get_candles(symbol, interval, since, limit)

bk.add_exchange(exchange_name="own", get_candles=get_candles)
"""
    )
    process = start("live", "two.py", "--symbol", "BAD", "--symbol", "GOOD", "--paper")
    waiting_for(process.stderr, "often BAD does not run: own has no symbol BAD")
    waiting_for(process.stdout, "GOOD often opened")
    process.send_signal(signal.SIGINT)
    waiting_for(process.stderr, "waiting for often GOOD to close")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert "no symbol BAD" not in errors, "it was said"


@posix
def test_one_signal_is_enough_where_nothing_is_open(place, start):
    (place / "idle.py").write_text(
        SYNTHETIC + '@bk.strategy("idle", interval="1m")\ndef idle(symbol, when): ...\n'
    )
    process = start("live", "idle.py", "--strategy", "idle", "--symbol", "X", "--json")
    deadline = time.monotonic() + PATIENCE
    while not [*place.glob("state/run/*.json")] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "stopping: nothing is open" in errors
    assert errors.endswith("backtest-kit: stopped: nothing is open\n")
    assert output == ""


@posix
def test_what_a_terminal_shows(place):
    """A table that is drawn anew, and Ctrl-C by way of the terminal."""
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 130, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *replay("--speed", "300x")],
        cwd=place,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        env=os.environ | {"TERM": "xterm", "COLUMNS": "130", "LINES": "40"},
    )
    os.close(slave)
    shown, deadline, pressed = "", time.monotonic() + PATIENCE, 0
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.2)
        if ready:
            try:
                shown += os.read(master, 65536).decode(errors="replace")
            except OSError:
                break
        if not pressed and "TP " in shown and "active" in shown:
            os.write(master, b"\x03")
            pressed = 1
        if pressed == 1 and "stopping: waiting for often X to close" in shown:
            os.write(master, b"\x03")
            pressed = 2
    if process.poll() is None:
        process.kill()
    assert process.wait(PATIENCE) == 130, shown[-3000:]
    os.close(master)
    for text in ("Symbol", "Distance %", "1 active", "opened", "\x1b[", "stopped at once"):
        assert text in shown
    assert "Traceback" not in shown


def test_looking_changes_nothing_even_where_something_is_damaged(place):
    run(*replay("--speed", "max", "--to", "2024-01-01T05:00"), cwd=place)
    folder = place / "state" / "replay"
    seen = run_here("state", "--state", folder, "--symbol", "X", cwd=place)
    assert seen.returncode == 0, seen.stderr
    assert "active, long at" in seen.stdout
    assert "take-profit" in seen.stdout
    assert "X often closed long at" in seen.stdout
    path = next((folder / "run").glob("*.json"))
    path.write_bytes(path.read_bytes()[:-20])
    before = files(folder)
    for arguments in (("state",), ("state", "--json"), ("report", "live")):
        done = run_here(*arguments, "--state", folder, cwd=place)
        assert done.returncode == 1, arguments
        assert "can't be read" in done.stderr
        assert str(path) in done.stderr
    assert files(folder) == before
    assert run(*replay("--speed", "max"), cwd=place).returncode == 1


def test_a_pipe_that_nobody_reads_does_not_stop_the_runs(place, start):
    process = start(*replay("--speed", "max"))
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(30) == 0
    assert "the output is closed; the runs go on without it" in errors
    page = ("--html", "pages/live.html") if importlib.util.find_spec("bokeh") else ()
    report = run_here("report", "live", "--state", "state/replay", *page, cwd=place)
    if page:
        assert "<h1>often on X</h1>" in (place / page[1]).read_text()
    assert "## Trades" in report.stdout
    assert report.stdout.startswith("# Live run of often on X")


def test_an_exchange_that_ccxt_does_not_know(place):
    pytest.importorskip("ccxt")
    mistake = run("live", "s.py", "--symbol", "X", "--exchange", "binanse", cwd=place)
    one_line(mistake, "did you mean 'binance'")


def test_mistakes_are_one_clear_line(place):
    def here(*arguments):
        return run_here(*arguments, cwd=place)

    def live(*more):
        return here("live", "s.py", "--symbol", "X", *more)

    one_line(here("live", "s.py"), "--symbol")
    one_line(live(), "which candles?", "--replay FILE")
    process = run("live", "s.py", "--symbol", "X", cwd=place)
    one_line(process, "which candles?", "--replay FILE")
    one_line(live("--from", "2024-01-01", "--exchange", "binance"), "are for --replay")
    one_line(live("--replay", "none.csv"), "--replay none.csv does not exist")
    one_line(live("--replay", "x.csv", "--speed", "fast"), "--speed 'fast'", "1000x, or max")
    one_line(live("--replay", "x.csv", "--speed", "-1"), "--speed '-1'")
    one_line(live("--replay", "x.csv", "--from", "2024-02-01"), "is before")
    one_line(live("--replay", "x.csv", "--strategy", "t"), "unknown strategy 't'")
    one_line(live("--replay", "x.csv", "--set", "step_delay_ms=x"), "step_delay_ms")
    one_line(here("state", "--state", "none"), "there is no state folder none")
    one_line(here("report", "live", "--state", "none"), "there is no state folder none")
    one_line(here("report", "x.csv", "--symbol", "X"), "are for: report live")
    (place / "state").write_text("mine")
    one_line(live("--replay", "x.csv"), "state/replay", code=1)


CHATTY = (
    SYNTHETIC
    + """
@bk.strategy("chatty", interval="1m")
def chatty(symbol, when):
    print("thinking " * 20_000, flush=True)
"""
)


@posix
@pytest.mark.parametrize("stuck", ["output", "both"])
def test_behind_a_pipe_that_nobody_reads_a_signal_ends_the_command(place, stuck):
    """The strategy fills the pipe itself, as one that prints does: it goes on, and can be ended."""
    (place / "chatty.py").write_text(CHATTY)
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [
            *COMMAND,
            *["live", "chatty.py", "--strategy", "chatty", "--symbol", "X", "--paper", "--json"],
        ],
        cwd=place,
        stdout=writer,
        stderr=writer if stuck == "both" else subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        deadline = time.monotonic() + 40
        while not [*place.glob("state/paper/heartbeat/*.json")]:  # a step is done
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(20)
        os.close(reader)


@posix
def test_health_is_served_and_systemd_is_told(place, start, monkeypatch):
    pytest.importorskip("prometheus_client")
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(place / "notify"))
    told.settimeout(30)
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "500000")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start("live", "now.py", "--symbol", "X", "--paper", "--health", f"127.0.0.1:{port}")
    waiting_for(process.stdout, "opened long")
    heard = {told.recv(100).decode() for _ in range(3)}
    assert {"READY=1", "WATCHDOG=1"} <= heard

    def look(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    code, text = look("/healthz")
    assert code == 200
    (run_,) = json.loads(text)["runs"]
    assert (run_["symbol"], run_["status"], run_["late"]) == ("X", "active", False)
    code, text = look("/metrics")
    assert code == 200
    labels = '{exchange="synthetic",strategy="often",symbol="X"}'
    assert f"backtest_kit_step_age_seconds{labels}" in text
    assert re.search(rf"backtest_kit_steps_total{re.escape(labels)} [1-9]", text)
    assert "backtest_kit_healthy 1.0" in text
    assert look("/")[0] == 404
    process.send_signal(signal.SIGTERM)
    while told.recv(100) != b"STOPPING=1":
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    told.close()
    taken = run("live", "now.py", "--symbol", "X", "--health", "nowhere", cwd=place)
    one_line(taken, "--health 'nowhere' must be HOST:PORT")

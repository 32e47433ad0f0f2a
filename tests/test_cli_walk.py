"""`walk` as a person uses it: processes, a terminal, Ctrl-C."""

import json
import os
import select
import signal
import struct
import subprocess
import time

import pytest

from command import COMMAND, PATIENCE, kept, run, run_here
from markets import market

pytestmark = pytest.mark.slow
posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX terminal or signals")
STRATEGIES = """
import time
import backtest_kit as bk

PERCENT = 1.5
bk.set_config(fill_price="average")  # the market of the tests leaps

def bracket(minutes):
    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        return bk.Signal(position="long", price_take_profit=price * (1 + PERCENT / 100),
                         price_stop_loss=price * (1 - PERCENT / 100),
                         minute_estimated_time=minutes)
    return get_signal

for minutes in (5, 20, 60):
    bk.add_strategy(strategy_name=f"hold {minutes}", interval="5m", get_signal=bracket(minutes))

@bk.strategy("broken", interval="5m")
def broken(symbol, when):
    raise ValueError("not today")
"""
SLOW = """
@bk.strategy("slow", interval="1m")
def slow(symbol, when):
    time.sleep(0.01)
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "many.py").write_text(STRATEGIES)
    rows = market(5, 3000, gaps=False)
    (tmp_path / "x.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    return tmp_path


def walk(*arguments, cwd):
    return run_here("walk", *arguments, cwd=cwd)


def test_workers_change_nothing_that_is_reported(place):
    arguments = ("many.py", "--symbol", "X", "--data", "x.csv", "--metric", "avg_pnl")
    alone = run("walk", *arguments, "--json", cwd=place)
    assert alone.returncode == 0, alone.stderr
    report = kept(place)[-1].read_text()
    parallel = run("walk", *arguments, "--json", "--workers", "2", "--store", "other", cwd=place)
    assert parallel.returncode == 0, parallel.stderr
    assert parallel.stdout == alone.stdout
    assert kept(place)[-1].read_text() == report
    data = json.loads(alone.stdout)
    assert [row["rank"] for row in data["ranking"]] == [1, 2, 3, None]
    assert "ValueError: not today" in data["ranking"][3]["error"]
    assert data["verdict"]["sentence"] in report
    shown = run_here("report", "last", cwd=place)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == report
    assert alone.stderr.count("walker of broken") == 1


@posix
def test_a_terminal_shows_a_bar_and_ctrl_c_keeps_what_is_finished(place):
    import fcntl
    import pty
    import termios

    (place / "many.py").write_text(STRATEGIES + SLOW)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 130, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "walk", "many.py", "--symbol", "X", "--data", "x.csv"],
        cwd=place,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "130", "LINES": "40"},
    )
    os.close(slave)
    shown, deadline, pressed = "", time.monotonic() + PATIENCE, False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.2)
        if ready:
            try:
                shown += os.read(master, 65536).decode(errors="replace")
            except OSError:
                break
        if not pressed and "4/5" in shown:
            process.send_signal(signal.SIGINT)
            pressed = True
    if process.poll() is None:
        process.kill()
    assert process.wait(PATIENCE) == 130, shown[-2000:]
    os.close(master)
    assert "━" in shown
    assert "interrupted; 4 of 5 strategies are in the report" in shown
    assert "Traceback" not in shown
    report = kept(place)[-1].read_text()
    assert "The walk did not reach its end" in report


def test_a_walker_of_the_file_says_what_is_compared(place):
    text = STRATEGIES + (
        'bk.add_exchange(bk.exchanges.CsvExchange("x.csv", exchange_name="file"))\n'
        "from datetime import datetime, UTC\n"
        'bk.add_frame(frame_name="day", interval="1m",'
        " start_date=datetime(2024, 1, 1, 2, tzinfo=UTC),"
        " end_date=datetime(2024, 1, 2, tzinfo=UTC))\n"
        'bk.add_walker(walker_name="two", exchange_name="file", frame_name="day",'
        ' strategies=["hold 5", "hold 60"], metric="win_rate")\n'
    )
    (place / "many.py").write_text(text)
    done = walk("many.py", "--symbol", "X", "--symbol", "Y", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no bar in a pipe"
    assert "win_rate" in done.stdout
    assert "hold 20" not in done.stdout
    assert "## By symbol" in kept(place)[-1].read_text()
    refused = walk("many.py", "--symbol", "X", "--metric", "avg_pnl", cwd=place)
    assert refused.returncode == 2
    assert "walker 'two' says what to compare over what" in refused.stderr
    for more in (("--benchmark", "hold"), ("--fresh",), ("--embargo", "1d")):
        refused = run_here("walk", "many.py", "--symbol", "X", *more, cwd=place)
        assert refused.returncode == 2
        assert "walker 'two' says what to compare over what" in refused.stderr


def test_mistakes_are_one_clear_line(place):
    def mistake(*more, run=run_here):
        done = walk("many.py", "--symbol", "X", *more, cwd=place)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.strip().splitlines()
        return line

    assert "which candles?" in mistake(run=run)
    assert "which candles?" in mistake()
    assert "unknown strategy 'z'" in mistake("--data", "x.csv", "--strategy", "z")
    assert "unknown walker 'w'" in mistake("--data", "x.csv", "--walker", "w")
    assert "'profit' is not one of" in mistake("--data", "x.csv", "--metric", "profit")
    assert "--workers" in mistake("--data", "x.csv", "--workers", "0")
    assert "both --train and --test" in mistake("--data", "x.csv", "--train", "1d")
    windows = ("--data", "x.csv", "--test", "5h", "--train")
    for lone in (("--embargo", "1d"), ("--fresh",), ("--min-metric", "1"), ("--test-groups", "2")):
        assert f"{lone[0]}: only with --train and --test" in mistake("--data", "x.csv", *lone)
    assert "'flat' is not one of" in mistake("--data", "x.csv", "--benchmark", "flat")
    assert "'5x' is no length of time" in mistake(*windows, "5x")
    assert "not one window of 9 days" in mistake(*windows, "9d")
    assert "purge=" in mistake(*windows, "9h", "--purge", "1h")
    assert "combinatorial= takes no train=" in mistake(*windows, "9h", "--groups", "3")
    assert "must leave at least one group" in mistake("--data", "x.csv", "--groups", "2")
    (place / "many.py").write_text(
        "import threading\nimport backtest_kit as bk\nlock = threading.Lock()\n"
        '@bk.strategy("locked", interval="5m")\ndef locked(symbol, when):\n    lock.acquire()\n'
    )
    done = run("walk", "many.py", "--symbol", "X", "--data", "x.csv", "--workers", "2", cwd=place)
    assert done.returncode == 2
    warning, line = done.stderr.strip().splitlines()
    assert "strategy 'locked' is not kept, and runs each time" in warning
    assert "strategy 'locked' can't be sent to a worker" in line


def test_windows_are_in_the_report(place):
    more = ("--train", "10h", "--test", "5h", "--embargo", "30m", "--anchored")
    more = (*more, "--min-metric=-100")  # traded, although they lose
    done = walk("many.py", "--symbol", "X", "--data", "x.csv", *more, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "Out of sample, all test windows together, sharpe_ratio: " in done.stdout
    assert "Mean of the windows, sharpe_ratio: " in done.stdout
    windows = done.stdout.split("\nWalk-forward ")[1]
    assert windows.count("2024-01-0") > 8, "a row for each window"
    assert "windows chose" in kept(place)[-1].read_text()


def test_groups_that_are_tested_are_in_the_report_and_the_data(place):
    more = ("--groups", "4", "--test-groups", "2", "--purge", "30m", "--embargo", "30m", "--fresh")
    given = ("many.py", "--symbol", "X", "--data", "x.csv", *more)
    done = walk(*given, "--min-metric", "-5", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "4 groups, 6 splits, 3 paths." in done.stdout
    assert "With each window run for itself, from clean state: " in done.stdout
    assert "benchmark: buy and hold" in done.stdout
    assert "benchmark: random entries, median" in done.stdout
    assert "## Cross-validation" in kept(place)[-1].read_text()
    data = json.loads(walk(*given, "--json", cwd=place).stdout)
    assert len(data["cross_validation"]["paths"]) == 3
    assert len(data["cross_validation"]["fresh"]["paths"]) == 3
    assert [row["kind"] for row in data["benchmarks"]] == ["hold", "random"]


def test_strategies_that_all_fail_are_a_report_and_exit_code_1(place):
    done = walk("many.py", "--symbol", "X", "--data", "x.csv", "--strategy", "broken", cwd=place)
    assert done.returncode == 1
    assert "The strategy failed: " in done.stdout
    assert "too few trades" not in done.stdout.lower()
    assert "failed" in done.stdout

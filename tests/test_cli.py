"""The command line as a person uses it: a real process, a real terminal, a real Ctrl-C."""

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from command import COMMAND, PATIENCE, kept, one_line, run, run_here, without_folders

posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX terminal or signals")
EXAMPLE = Path(__file__).parents[1] / "examples" / "first_backtest.py"


def test_demo_prints_trades_and_statistics_and_writes_a_report(tmp_path):
    result = run("demo", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for text in (
        "Trades",
        "Sharpe ratio",
        "take_profit",
        "report: dump/runs/",
        "Compounded",
        "Buy and hold",
    ):
        assert text in result.stdout
    assert result.stderr == "", "no progress bar in a pipe"
    report = kept(tmp_path)[0].read_text()
    assert "# Backtest of crossover on BTCUSDT" in report
    again = run("demo", cwd=tmp_path)
    assert without_folders(again.stdout) == without_folders(result.stdout), (
        "the demo is deterministic"
    )


def test_json_is_for_machines_and_report_reads_it(tmp_path):
    result = run("backtest", EXAMPLE, "--symbol", "A", "--symbol", "B", "--json", cwd=tmp_path)
    runs = json.loads(result.stdout)
    assert [r["symbol"] for r in runs] == ["A", "B"]
    assert runs[0]["statistics"]["total_signals"] == len(runs[0]["signals"]) > 10
    (folder,) = (tmp_path / "dump" / "runs").glob("*_A_*")
    shown = run_here("report", folder / "data.json", cwd=tmp_path)
    assert shown.stdout == (folder / "report.md").read_text()


def test_several_symbols_and_waiting_signals_bring_reports_of_their_own(tmp_path):
    example = EXAMPLE.with_name("scheduled_entries.py")
    result = run(
        "backtest", example, "--symbol", "A", "--symbol", "B", "--output", "out", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    folders = [*(tmp_path / "out" / "runs").iterdir()]
    assert len(folders) == 2
    for folder in folders:
        symbol = folder.name.split("_")[2]
        assert "# Heat of dip" in (folder / "heat.md").read_text()
        schedule = (folder / "schedule.md").read_text()
        assert f"# Scheduled signals of dip on {symbol}\n" in schedule
        assert f"report: out/runs/{folder.name}/heat.md" in result.stdout


def test_data_check_and_import(tmp_path):
    rows = [f"{1704067200000 + i * 60000},100,101,99,100,1" for i in range(50) if i not in (7, 8)]
    write(tmp_path / "a.csv", "\n".join(rows))
    shown = run("data", "check", "a.csv", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for text in (
        "48",
        "2024-01-01T00:00Z to 2024-01-01T00:49Z",
        "1, 2 candles missing",
        "all kept",
    ):
        assert text in shown.stdout
    found = json.loads(run_here("data", "check", "a.csv", "--json", cwd=tmp_path).stdout)
    assert (found["rows"], found["missing"]) == (48, 2)
    done = run_here("data", "import", "a.csv", "a.parquet", cwd=tmp_path)
    assert done.stdout == "48 candles written to a.parquet\n"
    one_line(run_here("data", "import", "a.csv", "a.parquet", cwd=tmp_path), "use --force", code=1)
    one_line(run_here("data", "import", "a.csv", "b.txt", cwd=tmp_path), "must end in .parquet")
    write(tmp_path / "a.csv", "\n".join([*rows[:9], rows[3], *rows[9:]]))
    bad = run_here("data", "check", "a.csv", cwd=tmp_path)
    assert bad.returncode == 1
    assert "candle 9" in bad.stdout
    one_line(run_here("data", "import", "a.csv", "c.parquet", cwd=tmp_path), "candle 9", code=1)
    assert not (tmp_path / "c.parquet").exists()


def write(path, text):
    path.write_text(text)
    return path


@posix
def test_a_closed_output_is_no_mistake(tmp_path):
    strategy = """
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange())
@bk.strategy("s", interval="1m")
def s(symbol, when): ...
"""
    write(tmp_path / "s.py", strategy)
    frame = ("--symbol", "X", "--from", "2024-01-01", "--to", "2024-01-02", "--no-html")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "backtest", "s.py", *frame],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [*(tmp_path / "dump" / "runs").glob("*/report.md")]


def test_mistakes_are_one_clear_line(tmp_path):
    def here(*arguments):
        return run_here(*arguments, cwd=tmp_path)

    def strategy(text):
        return write(tmp_path / "s.py", text)

    head = 'import backtest_kit as bk\n@bk.strategy("s", interval="1m")\ndef s(symbol, when): ...\n'
    exchange = "bk.add_exchange(bk.exchanges.SyntheticExchange())\n"
    go = ("backtest", tmp_path / "s.py", "--symbol", "X")

    def backtest(text, *more):
        strategy(text)
        return here(*go, *more)

    one_line(here("backtest", "none.py", "--symbol", "X"), "none.py is not a file")
    one_line(here("backtest", "none.py"), "--symbol")
    one_line(run("bactest", cwd=tmp_path), "No such command 'bactest'")  # as in a process
    one_line(here("bactest"), "No such command 'bactest'")
    one_line(backtest("def broken(:\n"), "s.py:1", "invalid syntax")
    one_line(backtest("x = 1\n\nx.y\n"), "s.py:3", "AttributeError")
    one_line(backtest("x = 1\n"), "registers no strategy", "@backtest_kit.strategy")
    one_line(backtest(head), "which candles?", "--data FILE")
    one_line(backtest(head + exchange), "--from and --to")
    one_line(backtest(head, "--data", "nothing.csv"), "--data nothing.csv does not exist")
    one_line(backtest(head + exchange, "--from", "soon", "--to", "2024-01-02"), "'soon' is no ISO")
    one_line(backtest(head + exchange, "--from", "2024-01-03", "--to", "2024-01-02"), "is before")
    one_line(
        backtest(head + exchange, "--strategy", "t", "--from", "2024-01-01", "--to", "2024-01-02"),
        "unknown strategy 't'",
        "there are: s",
    )
    one_line(backtest(head + exchange, "--set", "percent_fee=much"), "percent_fee='much'")
    one_line(backtest(head + exchange, "--set", "fee=1"), "unknown setting 'fee'")
    one_line(backtest(head + exchange, "--frame", "f"), "unknown frame 'f'")
    one_line(
        run("backtest", EXAMPLE, "--symbol", "X", cwd=tmp_path, CC_PERCENT_FEE="x"),
        "CC_PERCENT_FEE",
    )
    one_line(here("data", "check", "none.parquet"), "is not a file", code=1)
    write(tmp_path / "bad.parquet", "hello")
    one_line(here("data", "check", "bad.parquet"), "can't be read as Parquet", code=1)
    write(tmp_path / "bad.csv", "a,b,c\n1,2,3\n")
    one_line(here("data", "check", "bad.csv"), "3 columns; expected 6", code=1)
    empty = write(tmp_path / "r.json", "{}")
    one_line(here("report", empty), "is not the JSON file of a backtest")


def test_a_strategy_that_raises_in_the_middle_still_ends_with_a_report(tmp_path):
    path = write(
        tmp_path / "s.py",
        """
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange())

@bk.strategy("s", interval="1h")
def s(symbol, when):
    if when.hour == 3:
        raise RuntimeError("in the middle")
""",
    )
    result = run(
        "backtest",
        path,
        "--symbol",
        "X",
        "--from",
        "2024-01-01",
        "--to",
        "2024-01-02",
        cwd=tmp_path,
    )
    assert result.returncode == 0
    assert "1 errors, the first: RuntimeError: in the middle" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("backtest",),
        ("check",),
        ("data", "check"),
        ("data", "download"),
        ("data", "export"),
        ("data", "import"),
        ("data", "list"),
        ("data", "update"),
        ("demo",),
        ("live",),
        ("report",),
        ("state",),
        ("walk",),
    ],
)
def test_every_help_shows_an_example(arguments, tmp_path):
    result = run_here(*arguments, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert f"backtest-kit {' '.join(arguments)}".strip() in result.stdout
    assert "\\b" not in result.stdout


ARRAYS = """
import numpy as np
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange())

def honest(candles):
    fast, slow = bk.trailing_mean(candles.close, 5), bk.trailing_mean(candles.close, 30)
    return bk.Signals.bracket(np.where(fast > slow, 1, 0), 1.0, 0.8, 60)

def peeks(candles):
    later = np.concatenate((candles.close[1:], [np.nan]))
    return bk.Signals.bracket(np.where(later > candles.close * 1.0005, 1, 0), 1.0, 0.8, 60)

bk.add_strategy(strategy_name="honest", interval="5m", get_signals=honest, warmup=40)
bk.add_strategy(strategy_name="peeks", interval="5m", get_signals=peeks, warmup=40)
"""


def test_check_names_a_look_into_the_future_and_how_much_is_remembered(tmp_path):
    (tmp_path / "arrays.py").write_text(ARRAYS)
    span = ("--symbol", "X", "--from", "2024-01-01", "--to", "2024-01-03")
    both = run("check", "arrays.py", *span, cwd=tmp_path)
    assert both.returncode == 1
    assert both.stderr == ""
    text = " ".join(both.stdout.split())
    assert "no row depends on later candles" in text
    assert "strategy 'peeks' looks into the future: at row" in text
    assert "576 rows from 2024-01-01T00:00Z to 2024-01-02T23:55Z" in text
    honest = run_here("check", "arrays.py", *span, "--strategy", "honest", "--json", cwd=tmp_path)
    assert honest.returncode == 0
    (found,) = json.loads(honest.stdout)
    assert (found["rows"], found["peeking"]) == (576, None)
    rows = {one["length"]: one["rows"] for one in found["memory"]}
    assert rows.pop(20) == found["signals"] > 100  # 30 candles are needed
    assert rows == {40: 0, 80: 0, 160: 0}
    (tmp_path / "plain.py").write_text(SLOW)
    one_line(run_here("check", "plain.py", *span, cwd=tmp_path), "registers no array strategy")
    early = run_here("check", "arrays.py", "--symbol", "X", "--from", "1970-01-01", cwd=tmp_path)
    one_line(early, "--to")


SLOW = """
import time
import backtest_kit as bk
bk.add_exchange(bk.exchanges.SyntheticExchange())

@bk.strategy("slow", interval="1m")
def slow(symbol, when):
    time.sleep(0.0005)
    p = bk.average_price(symbol)
    if when.minute == 0:
        return bk.Signal(position="long", price_take_profit=p * 1.02, price_stop_loss=p * 0.98,
                         minute_estimated_time=5)
"""


@posix
def test_a_progress_bar_on_a_terminal_and_ctrl_c_keeps_what_was_found(tmp_path):
    import pty

    path = write(tmp_path / "slow.py", SLOW)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [
            *COMMAND,
            "backtest",
            path,
            "--symbol",
            "BTCUSDT",
            "--from",
            "2024-01-01",
            "--to",
            "2025-01-01",
        ],
        cwd=tmp_path,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(slave)
    shown, deadline, interrupted = "", time.monotonic() + PATIENCE, False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.2)
        if ready:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data.decode(errors="replace")
        if not interrupted and "slow BTCUSDT" in shown and "1%" in shown:
            process.send_signal(signal.SIGINT)
            interrupted = True
    assert process.wait(PATIENCE) == 130
    os.close(master)
    assert "━" in shown
    assert "interrupted; the report holds what was found so far" in shown
    assert "Traceback" not in shown
    report = kept(tmp_path)[0].read_text()
    assert "The run did not reach its end" in report
    assert "## Trades" in report


def test_a_page_is_named_at_the_end(tmp_path):
    pytest.importorskip("bokeh", reason="needs the extra report")
    shown = run_here("demo", cwd=tmp_path, BACKTEST_KIT_HTML="1").stdout
    (page,) = kept(tmp_path, "report.html")
    assert shown.splitlines()[-1] == f"page: {page.relative_to(tmp_path)}"
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text
    plain = run_here("demo", "--no-html", cwd=tmp_path).stdout
    assert without_folders(plain) in without_folders(shown)

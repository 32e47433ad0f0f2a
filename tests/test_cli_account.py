"""`--balance` of `backtest-kit backtest` and `walk`: the strategies of a file and an account."""

import json

import pytest

from backtest_kit.cli.exit_codes import INTERRUPTED
from command import one_line, run, run_here

STRATEGY = """
from datetime import UTC, datetime
import numpy as np
import backtest_kit as bk

bk.add_exchange(bk.exchanges.SyntheticExchange(seed=3))
bk.add_frame(
    frame_name="days", interval="1m",
    start_date=datetime(2024, 1, 2, tzinfo=UTC), end_date=datetime(2024, 1, 4, tzinfo=UTC),
)
bk.add_sizing(sizing_name="tenth", method="equity-percentage", equity_percentage=10.0)


def every(minutes):
    def get_signals(candles):
        place = candles.timestamp // 60_000
        return bk.Signals.bracket((place % minutes == 0).astype(np.int8), 0.8, 0.6, 60)
    return get_signals


for minutes in (97, 53):
    bk.add_strategy(
        strategy_name=f"s{minutes}", interval="1m", get_signals=every(minutes), warmup=1
    )
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(STRATEGY)
    return path


def test_one_account_for_all_in_the_order_of_the_file_and_the_options(file, tmp_path):
    symbols = ("--symbol", "B", "--symbol", "A")
    done = run_here("backtest", file, *symbols, "--balance", "10000", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    names = [(run["strategy_name"], run["symbol"]) for run in account["runs"]]
    assert names == [("s97", "B"), ("s97", "A"), ("s53", "B"), ("s53", "A")]
    assert account["statistics"]["balance"] == 10_000
    first = account["trades"][0]["money"]
    assert first["cost"] == pytest.approx(10_000 / 4 / 1.001, rel=1e-6)
    sized = run_here(
        *("backtest", file, *symbols, "--balance", "10000", "--sizing", "tenth"),
        *("--leverage", "3", "--json"),
        cwd=tmp_path,
    )
    account = json.loads(sized.stdout)
    assert account["account"]["leverage"] == 3
    assert account["trades"][0]["money"]["cost"] == pytest.approx(1_000, rel=1e-9)


def test_it_ends_with_what_the_account_came_to_and_is_kept(file, tmp_path):
    for balance in ("500", "900"):
        done = run_here(
            "backtest", file, "--symbol", "A", "--balance", balance, "--no-html", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        for text in ("Final equity", f"from {balance}.00", "Max drawdown", "account: dump/runs/"):
            assert text in done.stdout
    listed = json.loads(run_here("runs", "--json", cwd=tmp_path).stdout)
    newest, *_ = accounts = [run for run in listed if run["kind"] == "portfolio"]
    assert listed[0] == newest  # behind its runs
    assert len(accounts) == 2
    folder = tmp_path / newest["folder"]
    names = {path.name for path in folder.iterdir()}
    assert {"report.md", "data.json", "settings.json", "strategy.py", "trades.parquet"} <= names
    account = json.loads((folder / "data.json").read_text())
    assert newest["trades"] == len(account["trades"])
    assert newest["total_pnl"] == account["statistics"]["growth_percent"]
    shown = run_here("report", "last", cwd=tmp_path)
    assert shown.stdout == (folder / "report.md").read_text()
    assert json.loads(run_here("report", "last", "--json", cwd=tmp_path).stdout) == account
    assert "account: s97+s53" in run_here("runs", cwd=tmp_path).stdout
    beside = run_here("runs", "compare", "previous", "last", "--account", cwd=tmp_path).stdout
    (line,) = (row for row in beside.splitlines() if "final_equity" in row)
    grown = 1 + newest["total_pnl"] / 100
    assert f"{900 * grown:.4f}" in line.replace(",", "")
    assert f"{500 * grown:.4f}" in line.replace(",", "")
    assert "| balance | 500 | 900 |" in beside


def test_what_an_interrupted_account_came_to_is_shown(file, tmp_path):
    """As after Ctrl-C: the task is cancelled while candles are asked for."""
    interrupted = """
import os, signal
from backtest_kit.exchanges import SyntheticExchange
plain, sent = SyntheticExchange.get_candles, []


async def get_candles(self, symbol, interval, since, limit):
    if since > 1_704_240_000_000 and not sent:  # 2024-01-03, behind some trades
        sent.append(since)
        os.kill(os.getpid(), signal.SIGINT)
    return await plain(self, symbol, interval, since, limit)


SyntheticExchange.get_candles = get_candles
"""
    file.write_text(interrupted + STRATEGY)
    done = run(
        *("backtest", file, "--symbol", "A", "--symbol", "B", "--balance", "500", "--no-html"),
        *("--set", "candles_per_chunk=1000"),
        cwd=tmp_path,
    )
    assert done.returncode == INTERRUPTED, done.stderr
    assert "Final equity" in done.stdout
    (newest, *_) = json.loads(run_here("runs", "--json", cwd=tmp_path).stdout)
    assert (newest["kind"], newest["complete"]) == ("portfolio", False)
    account = json.loads((tmp_path / newest["folder"] / "data.json").read_text())
    assert account["trades"]
    last = account["curve"]["timestamp"][-1]
    assert max(tick["close_timestamp"] for tick in account["trades"]) <= last < 1_704_326_400_000


def test_a_walk_lets_each_strategy_play_with_the_balance(file, tmp_path):
    money = ("--balance", "10000", "--sizing", "tenth", "--leverage", "3")
    walked = run_here(
        *("walk", file, "--symbol", "B", "--symbol", "A", *money, "--metric", "account_growth"),
        "--json",
        cwd=tmp_path,
    )
    assert walked.returncode == 0, walked.stderr
    data = json.loads(walked.stdout)
    assert (data["account"]["balance"], data["account"]["leverage"]) == (10_000, 3)
    for row in data["ranking"]:
        played = run_here(
            *("backtest", file, "--symbol", "B", "--symbol", "A", *money),
            *("--strategy", row["strategy_name"], "--json"),
            cwd=tmp_path,
        )
        assert row["account"] == json.loads(played.stdout)["statistics"]
        assert row["metric_value"] == row["account"]["growth_percent"]
    shown = run_here("walk", file, "--symbol", "A", *money, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "Final equity" in shown.stdout
    assert "Each strategy begins with 10,000.00 USDT, leverage 3." in shown.stdout
    again = run_here("walk", file, "--symbol", "A", *money, cwd=tmp_path)
    assert "2 of 2 strategies were known" in again.stderr
    richer = run_here("walk", file, "--symbol", "A", "--balance", "9", cwd=tmp_path)
    assert "known" not in richer.stderr


@pytest.mark.parametrize("command", ["backtest", "walk"])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--leverage", "2"), "--currency, --leverage and --sizing are for an account"),
        (("--currency", "EUR"), "--currency, --leverage and --sizing are for an account"),
        (("--sizing", "tenth"), "--currency, --leverage and --sizing are for an account"),
        (("--balance", "0"), "balance=0.0 must be a number above 0"),
        (("--balance", "nan"), "balance=nan must be a number above 0"),
        (("--balance=-5",), "balance=-5.0 must be a number above 0 (--balance)"),
        (("--balance", "5", "--leverage", "0.5"), "leverage=0.5 must be a number, 1 (none) or"),
        (("--balance", "5", "--leverage", "200"), "--leverage 200 must be below 200: the collate"),
        (("--balance", "5", "--sizing", "half"), "unknown sizing 'half'"),
    ],
)
def test_mistakes_are_one_clear_line(file, tmp_path, command, options, text):
    done = run_here(command, file, "--symbol", "A", *options, cwd=tmp_path)
    one_line(done, text)


def test_a_metric_of_an_account_takes_one(file, tmp_path):
    walk = ("walk", file, "--symbol", "A")
    done = run_here(*walk, "--metric", "account_calmar", cwd=tmp_path)
    one_line(done, "--metric account_calmar is of an account; give --balance, such as")
    windows = ("--metric", "account_calmar", "--balance", "5", "--train", "1d", "--test", "1d")
    one_line(run_here(*walk, *windows, cwd=tmp_path), "windows are compared by the trades within")
    with file.open("a") as out:
        out.write(
            "bk.add_walker(walker_name='w', exchange_name='synthetic', frame_name='days',"
            " strategies=['s97'])"
        )
    done = run_here(*walk, "--balance", "5", cwd=tmp_path)
    one_line(done, "walker 'w' says what to compare over what: leave out", "--balance")

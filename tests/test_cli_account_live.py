"""`backtest-kit live --balance` and `account`: an account of live runs as a person uses it."""

import json

import pytest

from command import one_line, run_here
from markets import MINUTE, START, market

STRATEGY = """
import numpy as np
import backtest_kit as bk

bk.set_config(fill_price="average")
bk.add_sizing(sizing_name="third", method="equity-percentage", equity_percentage=33.0)


def every(minutes):
    def get_signals(candles):
        place = candles.timestamp // 60_000
        return bk.Signals.bracket((place % minutes == 0).astype(np.int8), 0.8, 0.6, 20)
    return get_signals


for minutes in (13, 29):
    bk.add_strategy(
        strategy_name=f"s{minutes}", interval="1m", get_signals=every(minutes), warmup=1
    )
"""
MONEY = ("--balance", "10000", "--sizing", "third", "--leverage", "2")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "s.py").write_text(STRATEGY)
    (tmp_path / "d").mkdir()
    for i, symbol in enumerate(("A", "B")):
        rows = market(5 + i, 400, gaps=False)
        text = "\n".join(",".join(map(str, row)) for row in rows)
        (tmp_path / "d" / f"{symbol}.csv").write_text(text)
    return tmp_path


def replay(place, *more):
    symbols = ("--symbol", "B", "--symbol", "A")
    files = ("--replay", "d", "--speed", "max")
    return run_here("live", "s.py", *symbols, *files, *more, cwd=place)


def account(place, *arguments):
    return run_here("account", *arguments, "--state", "state/replay", cwd=place)


def test_a_replay_with_money_is_the_backtest_and_can_be_looked_at_and_added_to(place):
    until = ("--to", "2024-01-01T06:00")
    done = replay(place, *MONEY, *until)
    assert done.returncode == 0, done.stderr
    assert "Final equity" in done.stdout
    (report,) = (place / "dump" / "portfolio").glob("*.md")
    text = report.read_text()
    assert "- Runs: s13 on B, s13 on A, s29 on B, s29 on A" in text
    assert "Exchange data, live:" in text

    (found,) = json.loads(account(place, "--json").stdout)
    assert found["name"] == "account"
    symbols = ("--symbol", "B", "--symbol", "A", "--data", "d")
    lone = run_here("backtest", "s.py", *symbols, *MONEY, *until, "--json", cwd=place)
    trades = json.loads(lone.stdout)["trades"]
    end = START + 360 * MINUTE
    closed = [trade for trade in trades if trade["close_timestamp"] < end]
    profit = sum(trade["money"]["profit"] for trade in closed)
    assert len(closed) > 30
    assert sum(part["profit"] for part in found["runs"]) == pytest.approx(profit, abs=1e-6)

    assert account(place, "account", "--add", "500", "--note", "saved").returncode == 0
    (richer,) = json.loads(account(place, "--json").stdout)
    assert richer["balance_now"] == pytest.approx(found["balance_now"] + 500)
    shown = account(place, "account").stdout
    assert "+500.00, saved" in shown
    assert "began with 10,000.00" in shown


def test_what_can_not_be_done_with_an_account_is_one_line(place):
    assert replay(place, *MONEY, "--to", "2024-01-01T00:10").returncode == 0
    for *arguments, words in (
        ("--add", "5", "--add needs the name of an account"),
        ("account", "--add", "0", "0.0 must be an amount"),
        ("account", "--add", "nan", "nan must be an amount"),
        ("account", "--add", "-1e9", "can't be taken out"),
        ("nobody", "--add", "1", "no account 'nobody' of live runs is stored (there are: account)"),
        ("nobody", "there is no account 'nobody'"),
    ):
        one_line(account(place, *arguments), words)
    (found,) = json.loads(account(place, "--json").stdout)
    assert found["changes"] == []


@pytest.mark.parametrize("balance", ["0", "-1", "nan"])
def test_a_balance_that_is_none_is_one_line(place, balance):
    one_line(replay(place, "--balance", balance), "balance=")


def test_an_account_goes_on_with_the_values_it_began_with(place):
    """A replay that was stopped on the way goes on; with another balance it is refused."""
    assert replay(place, *MONEY, "--to", "2024-01-01T02:00").returncode == 0
    other = replay(place, "--balance", "500", "--leverage", "2", "--to", "2024-01-01T03:00")
    assert other.returncode == 1
    assert "account 'account' was begun with balance=10000.0, and not 500.0" in other.stderr
    again = replay(place, *MONEY, "--to", "2024-01-01T03:00")
    assert again.returncode == 0, again.stderr

"""`--balance` of `backtest-kit backtest` and `walk`: the strategies of a file and an account."""

import json

import pytest

from command import one_line, run_here

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


def test_it_ends_with_what_the_account_came_to_and_a_report(file, tmp_path):
    done = run_here("backtest", file, "--symbol", "A", "--balance", "500", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("Final equity", "from 500.00", "Max drawdown", "account: dump/portfolio/"):
        assert text in done.stdout
    (report,) = (tmp_path / "dump" / "portfolio").iterdir()
    assert "500" in report.read_text()


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
        (("--leverage", "2"), "--sizing and --leverage are for an account; give --balance"),
        (("--sizing", "tenth"), "--sizing and --leverage are for an account; give --balance"),
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

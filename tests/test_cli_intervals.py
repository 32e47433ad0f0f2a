"""Daily and hourly files from the command line, in process."""

import json
import sys
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from backtest_kit.cli import main
from command import kept

STRATEGY = """
import backtest_kit as bk

@bk.strategy("swing", interval="{interval}")
def swing(symbol, when):
    price = bk.average_price(symbol)
    rising = bk.candles(symbol, "{interval}", 2).close
    if rising[1] <= rising[0]:
        return None
    return bk.Signal(
        position="long",
        price_take_profit=price * 1.02,
        price_stop_loss=price * 0.98,
        minute_estimated_time=3000,
    )

bk.set_config(max_signal_lifetime_minutes=0)
"""


def candles(path, times):
    """Write a random walk as Yahoo does for days, else as an archive does."""
    random = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, len(times))))
    rows = ["Date,Open,High,Low,Close,Adj Close,Volume"]
    before = 100.0
    for when, price in zip(times, close.round(2), strict=True):
        high, low = max(before, price) + 0.5, min(before, price) - 0.5
        rows.append(f"{when},{before},{high},{low},{price},{price / 2},1000")
        before = price
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def days(tmp_path, monkeypatch):
    """A folder with a strategy and a hundred trading days of New York."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swing.py").write_text(STRATEGY.format(interval="1d"))
    every = (date(2024, 1, 2) + timedelta(days=i) for i in range(140))
    holidays = {date(2024, 1, 15), date(2024, 2, 19), date(2024, 3, 29)}
    candles(tmp_path / "SPY.csv", [d for d in every if d.weekday() < 5 and d not in holidays])
    return tmp_path


@pytest.fixture
def invoke(monkeypatch, capsys):
    """What a command line gives: standard output, or the error text where `code` is not 0."""

    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["backtest-kit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        assert (ended.value.code or 0) == code, error
        assert "Traceback" not in error
        return error if code else out

    return call


def test_a_file_of_days_is_run_by_the_day(days, invoke):
    output = invoke(
        *("backtest", "swing.py", "--symbol", "SPY", "--data", "SPY.csv", "--interval", "1d"),
        *("--calendar", "XNYS", "--json"),
    )
    (run,) = json.loads(output)
    assert run["base_interval"] == "1d"
    assert run["exit_trigger"] == "wick"
    assert run["gaps_filled"] == 0
    assert run["closed_candles"] == 43  # 20 weekends and 3 holidays
    assert run["complete"]
    assert run["error_count"] == 0
    assert run["warming"] == 1  # the second candle is not there at the first step
    assert len(run["signals"]) > 10
    for signal in run["signals"]:
        opened = datetime.fromtimestamp(signal["signal"]["pending_at"] / 1000, UTC)
        # at the close of a trading day, which is the midnight after it
        assert (opened - timedelta(days=1)).weekday() < 5
    report = kept(days)[-1].read_text()
    assert "Base interval: 1d" in report
    assert "Market closed: SPY 1d, 43 candles" in report


def test_a_finer_frame_steps_by_the_base(days, invoke):
    names = ("backtest", "swing.py", "--symbol", "SPY", "--data", "SPY.csv", "--json")
    by_day, by_default = (
        json.loads(invoke(*names, *more))[0] for more in (("--interval", "1d"), ())
    )
    assert by_day["signals"] == by_default["signals"]
    assert by_day["gaps_filled"] == 43
    assert by_day["closed_candles"] == 0


def test_a_replay_and_a_walk_step_by_the_day(days, invoke):
    where = ("--symbol", "SPY", "--calendar", "XNYS", "--json")
    plain = invoke("backtest", "swing.py", *where, "--data", "SPY.csv")
    replay = invoke("live", "swing.py", *where, "--replay", "SPY.csv", "--speed", "max")
    closes = [
        (line["close_timestamp"], line["pnl"]["pnl_percentage"])
        for line in map(json.loads, replay.splitlines())
        if line["action"] == "closed"
    ]
    found = [
        (s["close_timestamp"], s["pnl"]["pnl_percentage"])
        for s in json.loads(plain)[0]["signals"]
        if s["close_reason"] != "end_of_data"
    ]
    assert closes == found
    walk = json.loads(invoke("walk", "swing.py", *where, "--data", "SPY.csv"))
    assert walk["ranking"][0]["statistics"]["total_signals"] >= len(found)
    assert walk["base_interval"] == "1d"
    report = kept(days)[-1]
    assert "- Base interval: 1d\n" in report.read_text()
    again = invoke("live", "swing.py", *where, "--replay", "SPY.csv", "--speed", "max")
    assert again == replay, "one that has come to its end begins anew"


def test_a_file_of_hours(tmp_path, monkeypatch, invoke):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swing.py").write_text(STRATEGY.format(interval="4h"))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    candles(tmp_path / "X.csv", [(start + timedelta(hours=i)).isoformat() for i in range(500)])
    names = ("backtest", "swing.py", "--symbol", "X", "--data", "X.csv", "--json")
    (run,) = json.loads(invoke(*names))
    assert (run["base_interval"], run["gaps_filled"]) == ("1h", 0)
    assert {s["signal"]["scheduled_at"] % 14_400_000 for s in run["signals"]} == {0}
    assert run["total_frames"] == 500
    (by_two,) = json.loads(invoke(*names, "--set", "base_interval=2h"))
    assert by_two["base_interval"] == "2h"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--set", "base_interval=1h"), "base_interval='1h': exchange 'data' has no such candles"),
        (("--set", "base_interval=1w"), "base_interval"),
        (("--calendar", "XNIS"), "calendar 'XNIS' is neither"),
        (("--interval", "3d", "--set", "base_interval=3d"), "base interval is 3d"),
    ],
)
def test_mistakes_are_told_in_one_line(days, invoke, more, text):
    names = ("backtest", "swing.py", "--symbol", "SPY", "--data", "SPY.csv")
    told = invoke(*names, *more, code=2)
    assert text in told
    assert len(told.strip().splitlines()) == 1


def test_a_calendar_needs_a_file(days, invoke):
    told = invoke("backtest", "swing.py", "--symbol", "A", "--calendar", "XNYS", code=2)
    assert "--calendar is for --data FILE" in told

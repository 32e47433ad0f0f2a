"""`backtest-kit live --balance` and `account`: an account of live runs as a person uses it."""

import asyncio
import json
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from backtest_kit.cli.live_session import Job, _Session
from backtest_kit.testing import MemoryAdapter
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


def test_where_replays_are_kept_apart_is_said_of_a_state_without_accounts(place):
    assert replay(place, *MONEY, "--to", "2024-01-01T00:10").returncode == 0
    there = Path("state", "replay")
    one_line(
        run_here("account", cwd=place),
        f"no account of live runs in state; there is more in {there} (--state)",
    )


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


def test_reports_of_runs_are_there_before_candles_are_fetched_for_the_account(place, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("backtest_kit.cli.live_session.account_data", interrupted)
    done = replay(place, *MONEY, "--to", "2024-01-01T01:00")
    assert done.returncode == 130
    assert done.stdout.count("report: ") == len([*(place / "dump" / "live").glob("*.md")]) == 4
    assert "fetching candles for the report of the account" in done.stderr


def test_an_account_of_a_replay_began_when_the_replay_does(place):
    assert replay(place, *MONEY, "--to", "2024-01-01T00:10").returncode == 0
    (found,) = json.loads(account(place, "--json").stdout)
    assert START <= found["since"] < START + 10 * MINUTE


def test_a_replay_that_begins_anew_begins_its_account_anew(place):
    found = []
    for _ in range(2):
        done = replay(place, *MONEY, "--to", "2024-01-01T01:00")
        assert done.returncode == 0, done.stderr
        found += json.loads(account(place, "--json").stdout)
    assert found[0] == found[1]
    assert found[0]["problems"] == []
    assert sum(run["trades"] for run in found[0]["runs"]) > 5


def test_the_table_shows_what_the_account_has_at_the_end(place):
    rows = market(5, 400, gaps=False)
    with bk.Engine() as engine:
        bk.use_persist_adapter(MemoryAdapter())
        bk.add_exchange(bk.exchanges.FrameExchange(rows))
        bk.add_account(account_name="main", currency="USDT", balance=1000.0)

        @bk.strategy("s", interval="1m")
        def get_signal(symbol, when):
            return bk.Signal(
                position="long",
                price_take_profit=bk.average_price(symbol) * 1.05,
                price_stop_loss=bk.average_price(symbol) * 0.95,
                minute_estimated_time=7,
            )

        clock = bk.VirtualClock(to_datetime(START + 50 * MINUTE), to_datetime(START + 90 * MINUTE))
        jobs = [Job("X", "s", clock, "main")]
        session = _Session(engine, engine.exchanges.get("frame"), jobs, place, as_json=False)
        assert asyncio.run(session.run()) == 0
        final = session.account.statistics.final_equity
        assert final != 1000
        assert session._table.account == f"{final:,.2f} USDT"


def test_one_account_that_is_damaged_hides_no_other(place):
    folder = place / "state" / "replay"
    for name in ("good", "bad"):
        with bk.Engine():
            bk.use_persist_adapter(bk.FileAdapter(folder))
            bk.add_exchange(bk.exchanges.FrameExchange(market(5, 100, gaps=False)))
            bk.add_account(account_name=name, currency="USDT", balance=1000.0)
            bk.add_strategy(strategy_name=name, interval="1m", get_signal=lambda symbol, when: None)
            clock = bk.VirtualClock(*(to_datetime(START + i * MINUTE) for i in (50, 53)))
            names = {"strategy_name": name, "exchange_name": "frame", "account_name": name}

            async def play(names=names, clock=clock):
                await bk.Live.background("X", **names, clock=clock)

            asyncio.run(play())
    (path,) = (folder / "account").glob("bad-*.json")
    whole = path.read_bytes()
    for broken in (whole[:-5], b"nonsense\n" + whole):
        path.write_bytes(broken)
        found = account(place, "--json")
        assert found.returncode == 1
        assert [each["name"] for each in json.loads(found.stdout)] == ["good"]
        assert "bad" in found.stderr
        assert account(place, "good").returncode == 0
    path.write_bytes(whole)
    (run,) = (folder / "run").glob("*bad*.json")
    run.unlink()
    found = account(place)
    assert found.returncode == 1
    assert "account bad: " in found.stderr
    assert "backtest-kit account bad --accept" in found.stderr
    assert account(place, "bad", "--accept").returncode == 0
    assert account(place).returncode == 0
    one_line(account(place, "--accept"), "--accept needs the name of an account")

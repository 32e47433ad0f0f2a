"""What earlier releases wrote is read: a folder for each release that `write.py` was run by."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

import backtest_kit as bk
from golden import write

HERE = Path(__file__).parent
VERSIONS = sorted(path.parent.name for path in HERE.glob("*/expected.json"))
#: Those that have more than live state: its documents changed within a release.
WHOLE = [version for version in VERSIONS if (HERE / version / "walks.db").exists()]
OTHER = """
import backtest_kit as bk

@bk.strategy("never tried before", interval="1h")
def get_signal(symbol, when): ...
"""
MINUTE = 60_000


@pytest.fixture(params=VERSIONS)
def golden(request, tmp_path):
    """A copy of what a release wrote."""
    shutil.copytree(HERE / request.param, tmp_path / request.param)
    return tmp_path / request.param


@pytest.fixture
def expected(golden):
    return read(golden / "expected.json")


def read(path):
    return json.loads(path.read_text())


def assert_holds(recorded, found, place="$"):
    """Assert that all that was recorded is still found; a later release may say more."""
    if isinstance(recorded, dict):
        assert isinstance(found, dict), place
        for name, value in recorded.items():
            assert name in found, f"{place}.{name}"
            assert_holds(value, found[name], f"{place}.{name}")
    elif isinstance(recorded, list):
        assert len(recorded) == len(found), place
        for i, (one, other) in enumerate(zip(recorded, found, strict=True)):
            assert_holds(one, other, f"{place}[{i}]")
    else:
        assert type(recorded) is type(found), place
        assert recorded == found, place


def touched(golden, row, since):
    """Return when, after `since` (ms), the candles first reach a level of an open position."""
    long = row["position"] == "long"
    for line in (golden / "candles.csv").read_text().splitlines():
        time, _, high, low, *_ = map(float, line.split(","))
        goal, stop = row["price_take_profit"], row["price_stop_loss"]
        best, worst = (high >= goal, low <= stop) if long else (low <= goal, high >= stop)
        closed_at = int(time) + MINUTE
        if closed_at > since and (best or worst):
            return closed_at, "stop_loss" if worst else "take_profit", stop if worst else goal
    raise AssertionError("no level is reached")


def test_the_first_release_is_among_them():
    assert "0.1.0" in VERSIONS


@pytest.mark.parametrize("name", ["live", "outbox", "live.db", "managed", "paper"])
def test_live_runs_go_on_where_they_were(golden, expected, name):
    """Restarted twice: what lives is unchanged at first, and ends as the release that wrote it."""
    if name in ("managed", "paper") and name not in expected["follow"]:
        return  # written before there were managed positions in live runs, or accounts
    adapter, runs = write.stores(golden)[name]
    account = write.account_of(name)
    found = write.follow(adapter, golden / "candles.csv", runs, expected["settings"], account)
    assert_holds(expected["follow"][name], json.loads(json.dumps(found)))


@pytest.mark.parametrize("name", ["live LONG", "live SHORT", "live.db LONG", "outbox LONG"])
def test_an_open_position_closes_where_the_candles_first_reach_a_level(golden, expected, name):
    """Not as another run did: worked out from the candles alone."""
    store, symbol = name.split()
    adapter, _ = write.stores(golden)[store]
    row = expected["follow"][store]["soon"][symbol]
    when, reason, level = touched(golden, row, write.ms(write.STOPPED))
    candles = golden / "candles.csv"
    told, _ = write.live(adapter, candles, [("planned", symbol)], write.END, expected["settings"])
    closed = write.transitions(told, symbol)[-1]
    assert_holds(row, closed["signal"])
    assert (closed["close_timestamp"], closed["close_reason"]) == (when, reason)
    assert closed["pnl"]["price_close"] == level


def test_what_may_not_have_been_told_is_told_again(golden, expected):
    """The process ended between the state and the journal: the same ids, and then the journal."""
    adapter, runs = write.stores(golden)["outbox"]
    ids = expected["outbox"]
    for until, again in ((write.STOPPED, ids), (write.STOPPED + 1, [])):
        (run,) = write.command("state", "--state", golden / "outbox", cwd=golden)
        assert [entry["id"] for entry in run["transitions"]] == ids
        assert [entry["id"] for entry in run["state"]["outbox"]] == again
        told, _ = write.live(adapter, golden / "candles.csv", runs, until, expected["settings"])
        opened = [tick["transition_id"] for tick in write.transitions(told, "LONG")]
        assert opened + [event.transition_id for event in told.milestones] == again
        assert told.errors == []


def test_the_command_line_shows_what_is_stored(golden, expected):
    place = ("--state", golden / "live")
    shown = write.command("state", *place, "--strategy", "planned", cwd=golden)
    assert_holds(read(golden / "state.json"), shown)
    living = {run["key"]["symbol"]: run["state"]["signal"] for run in shown}
    followed = {s: r for s, r in expected["follow"]["live"]["soon"].items() if s != "P"}
    assert living.keys() == followed.keys()
    assert_holds(followed, living)
    (recorded,) = read(golden / "report.json")
    del recorded["statistics"]  # worked out anew, perhaps by other formulas
    (shown,) = write.command("report", "live", *place, "--symbol", "DONE", cwd=golden)
    assert_holds(recorded, shown)
    end = expected["follow"]["live"]["end"]["DONE"]
    assert [t["pnl"] for t in shown["signals"]] == [t["pnl"] for t in end["closed"]]


@pytest.mark.parametrize("golden", WHOLE, indirect=True)
def test_results_are_read_from_json(golden, expected):
    stored = read(golden / "ticks.json")
    assert [*stored] == [*expected["ticks"]]
    for name, text in stored.items():
        tick = bk.tick_from_json(text)
        assert type(tick) is getattr(bk, name)
        assert_holds(expected["ticks"][name], msgspec.to_builtins(tick))
        assert bk.tick_from_json(tick.to_json()) == tick


@pytest.mark.parametrize("golden", WHOLE, indirect=True)
def test_reports_are_read_from_their_files(golden, expected):
    """All figures as they were, since nothing of a written report is worked out anew."""
    backtest = write.command("report", golden / "backtest.json", cwd=golden)
    assert_holds(read(golden / "backtest.json"), backtest)
    assert write.trades(backtest) == expected["backtest"]
    walked = write.command("report", golden / "walk.json", cwd=golden)
    assert_holds(read(golden / "walk.json"), walked)
    assert write.ranking(walked) == expected["walk"]["ranking"]


@pytest.mark.slow
@pytest.mark.parametrize("golden", WHOLE, indirect=True)
def test_a_walk_store_counts_and_keeps_what_was_tried(golden, expected):
    """Other code has other fingerprints: its trials may run again, but those stored stay."""
    recorded = expected["walk"]
    assert write.walk_rows(golden) == {name: recorded[name] for name in ("fingerprints", "ledger")}
    (golden / "other.py").write_text(OTHER)
    data = ("--symbol", "X", "--data", golden / "candles.csv", "--store", golden)
    found = write.command("walk", golden / "other.py", *data, cwd=golden)
    assert found["trials"] == recorded["trials"] + 1
    found = write.command("walk", HERE / "strategies.py", *data, cwd=golden)
    assert [row["error"] for row in found["ranking"]] == [None] * recorded["trials"]
    assert found["trials"] > recorded["trials"]
    left = write.walk_rows(golden)
    assert {*recorded["fingerprints"]} < {*left["fingerprints"]}
    assert {*map(tuple, recorded["ledger"])} < {*map(tuple, left["ledger"])}

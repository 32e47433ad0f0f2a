"""Walks that go on: what is known is not run again, and nothing else is taken for it."""

import asyncio
import json
import logging
import math
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit._walker.data_identity import data_identity, share
from backtest_kit._walker.store import TrialKey, WalkStore
from backtest_kit._walker.trial import TrialSetup
from command import NO_PAGES
from effort import examples
from markets import START, market

HOUR = INTERVALS["1h"]
BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(hours=1)


def bracket(minutes, percent=1.0, asked=None):
    def get_signal(symbol, when):
        if asked is not None:
            asked.append(minutes)
        price = bk.average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=price * (1 + percent / 100),
            price_stop_loss=price * (1 - percent / 100),
            minute_estimated_time=minutes,
        )

    return get_signal


def walk(
    store,
    minutes=(5, 20, 60),
    *,
    rows=None,
    exchange=None,
    symbols="X",
    hours=20,
    asked=(),
    risk=None,
    percent=1.0,
    config=None,
    interval="5m",
    stop_in=None,
    stop_before=None,
):
    """Be a process that walks; return what it found, and how many strategies it ran."""
    ran = []
    with bk.Engine():
        bk.set_config(**(config or {}))
        bk.add_exchange(exchange or bk.exchanges.FrameExchange(rows or market(5, 3000)))
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=BEGIN,
            end_date=BEGIN + timedelta(hours=hours),
        )

        def opened(tick):
            ran.append(tick.signal.strategy_name)
            if tick.signal.strategy_name == stop_in:
                bk.Walker.stop(symbols, walker_name="w")

        def started(name, symbol):
            if name == stop_before:
                bk.Walker.stop(symbols, walker_name="w")

        bk.add_risk(risk_name="r", validations=[risk or (lambda check: None)])
        for each in minutes:
            bk.add_strategy(
                strategy_name=f"hold {each}",
                interval=interval,
                get_signal=bracket(each, percent),
                risk_name="r",
                callbacks={"on_open": opened},
            )
        bk.add_walker(
            walker_name="w",
            exchange_name=bk.list_exchanges()[0].exchange_name,
            frame_name="f",
            strategies=[f"hold {each}" for each in minutes],
            callbacks={"on_strategy_start": started},
        )
        bk.Walker.run_sync(symbols, walker_name="w", store=store)
        return bk.Walker.get_data(symbols, walker_name="w"), len(set(ran))


def test_what_is_known_is_not_run_again_and_says_the_same(tmp_path, caplog):
    first, ran = walk(tmp_path)
    assert ran == 3
    caplog.set_level(logging.INFO, "backtest_kit")
    again, ran = walk(tmp_path)
    assert ran == 0
    assert msgspec.json.encode(again) == msgspec.json.encode(first)
    assert "3 of 3 strategies are known" in caplog.text
    plain, ran = walk(None)
    assert msgspec.json.encode(plain) == msgspec.json.encode(first)
    more, ran = walk(tmp_path, (5, 20, 90))
    assert ran == 1
    assert [row.strategy_name for row in more.ranking if row.rank] != []


def test_what_else_was_tried_counts_by_its_trades(tmp_path):
    """Near-copies of what was tried before make a walk hardly any worse; other candles nothing."""
    alone, _ = walk(tmp_path, (5, 20))
    assert (alone.test.known_trials, alone.test.unknown_trials) == (2, 0)
    after, _ = walk(tmp_path, (21, 6))
    assert (after.test.known_trials, after.test.unknown_trials) == (4, 0)
    assert after.test.effective_trials < 4
    plain, _ = walk(None, (21, 6))
    assert after.ranking[0].adjusted_p_value >= plain.ranking[0].adjusted_p_value
    other, _ = walk(tmp_path, (21, 6), rows=market(6, 3000))
    assert (other.test.known_trials, other.test.unknown_trials) == (2, 0)
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file, file:
        file.execute("DELETE FROM trials")
    unknown, _ = walk(tmp_path, (21, 6))
    assert (unknown.test.known_trials, unknown.test.unknown_trials) == (2, 2)
    assert "of 2 of which only the number is known" in unknown.verdict.sentence


def test_what_a_walk_did_not_get_to_counts_as_what_it_is(tmp_path):
    """A trial that was broken off counts once or not at all, stored ones by their trades."""
    cut, _ = walk(tmp_path, (5, 20, 6), stop_in="hold 6")
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file:
        stored = file.execute("SELECT count(*) FROM trials").fetchone()[0]
    assert (cut.strategies_tested, cut.trials) == (2, stored)
    assert (cut.test.known_trials, cut.test.unknown_trials) == (stored, 0)
    walk(tmp_path, (5, 20, 6))
    again, ran = walk(tmp_path, (5, 20, 6), stop_before="hold 20")
    assert (ran, again.strategies_tested, again.trials) == (0, 1, 3)
    assert (again.test.known_trials, again.test.unknown_trials) == (3, 0)
    assert "only the number is known" not in again.verdict.sentence


CHANGED = {
    "candles": {"rows": market(6, 3000)},
    "frame": {"hours": 21},
    "symbols": {"symbols": ["X", "Y"]},
    "code of a risk profile": {"risk": lambda check: None if check.price > 0 else "no"},
    "parameters": {"percent": 1.5},
    "settings": {"config": {"percent_fee": 0.2}},
    "interval": {"interval": "15m"},
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_of_anything_is_run_again(what, tmp_path):
    walk(tmp_path)
    _, ran = walk(tmp_path, **CHANGED[what])
    assert ran == 3
    _, ran = walk(tmp_path, **CHANGED[what])
    assert ran == 0


def test_a_release_of_the_library_is_run_again(tmp_path, monkeypatch):
    walk(tmp_path)
    monkeypatch.setattr("backtest_kit._walker.trial_keys.library_fingerprint", lambda: "another")
    assert walk(tmp_path)[1] == 3


def custom(rows):
    """A function over candles."""

    def get_candles(symbol, interval, since, limit):
        step = {"1m": 60_000, "5m": 300_000}[interval]
        assert interval == "1m"
        return [row for row in rows if since <= row[0] < since + limit * step]

    return get_candles


class Own:
    """An exchange of one's own; it may tell what its candles are."""

    exchange_name = "own"

    def __init__(self, rows):
        self.rows = rows
        self.get_candles = custom(rows)


class Telling(Own):
    def __init__(self, rows):
        super().__init__(rows)
        self._ask = self.get_candles
        del self.get_candles

    def get_candles(self, symbol, interval, since, limit):
        return self._ask(symbol, interval, since, limit)

    def content_digest(self):
        return str(hash(tuple(map(tuple, self.rows))))


class Doubling(bk.exchanges.SyntheticExchange):
    """A ready-made exchange that is changed."""

    factor = 1.0

    async def get_candles(self, symbol, interval, since, limit):
        found = await super().get_candles(symbol, interval, since, limit)
        columns = [column * self.factor for column in found.columns()[1:]]
        return bk.Candles(found.timestamp, *columns)


class Tripling(Doubling):
    factor = 3.0


def test_an_exchange_that_can_not_tell_its_candles_is_never_trusted(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "backtest_kit")
    rows = market(5, 3000, gaps=False)
    for _ in range(2):
        assert walk(tmp_path, exchange=Own(rows))[1] == 3
    assert "exchange 'own': it can't tell whether its candles are the same" in caplog.text
    assert walk(tmp_path, exchange=Telling(rows))[1] == 3
    assert walk(tmp_path, exchange=Telling(rows))[1] == 0
    late = [tuple(row) for row in rows]
    late[0] = (*late[0][:5], late[0][5] + 1)  # before the frame begins, which a strategy may see
    assert walk(tmp_path, exchange=Telling(late))[1] == 3


def test_an_exchange_that_is_changed_in_a_class_of_ones_own_is_another(tmp_path):
    assert walk(tmp_path, exchange=Doubling(seed=1))[1] == 3
    assert walk(tmp_path, exchange=Doubling(seed=1))[1] == 0
    assert walk(tmp_path, exchange=Tripling(seed=1))[1] == 3
    assert walk(tmp_path, exchange=Doubling(seed=2))[1] == 3


def test_files_are_compared_by_content(tmp_path):
    def write(rows, name):
        path = tmp_path / name
        path.write_text("\n".join(",".join(map(str, row)) for row in rows))
        return bk.exchanges.CsvExchange(path, exchange_name="csv")

    rows = [tuple(row) for row in market(5, 3000, gaps=False)]
    assert walk(tmp_path, exchange=write(rows, "x.csv"))[1] == 3
    before = (tmp_path / "x.csv").stat()
    assert walk(tmp_path, exchange=write(rows, "x.csv"))[1] == 0
    rows[500] = (*rows[500][:4], rows[500][1], rows[500][5])
    exchange = write(rows, "x.csv")
    os.utime(tmp_path / "x.csv", (before.st_atime, before.st_mtime))
    assert walk(tmp_path, exchange=exchange)[1] == 3


def test_every_trial_on_these_candles_counts(tmp_path):
    assert walk(tmp_path, (5, 20))[0].trials == 2
    assert walk(tmp_path, (20, 60))[0].trials == 3
    assert walk(tmp_path, (20, 60))[0].trials == 3
    assert walk(tmp_path, (20,), percent=2.0)[0].trials == 4
    # another time that overlaps is the same market; other candles are not
    assert walk(tmp_path, (20,), hours=10)[0].trials == 4
    assert walk(tmp_path, (20, 7), rows=market(6, 3000))[0].trials == 2
    # one name for the symbol or another: it is the candles that count
    assert walk(tmp_path, (20, 8), symbols="Y")[0].trials == 5
    assert walk(tmp_path, (20,), symbols=["X", "Y"])[0].trials == 5
    assert walk(None, (5,))[0].trials == 1


def test_candles_are_known_by_content_in_whichever_file(tmp_path):
    rows = [tuple(row) for row in market(5, 3000, gaps=False)]

    def trials(minutes, name, candles, exchange_name="csv"):
        path = tmp_path / name
        path.write_text("\n".join(",".join(map(str, row)) for row in candles))
        exchange = bk.exchanges.CsvExchange(path, exchange_name=exchange_name)
        return walk(tmp_path / "store", (minutes,), exchange=exchange, symbols=path.stem)[0].trials

    assert trials(5, "x.csv", rows) == 1
    assert trials(6, "renamed.csv", rows) == 2
    assert trials(7, "x.csv", rows, exchange_name="another") == 3
    assert trials(8, "x.csv", rows[:2000]) == 4, "candles that were appended don't change the rest"
    five = [
        (
            *part[0][:2],
            max(row[2] for row in part),
            min(row[3] for row in part),
            part[-1][4],
            sum(row[5] for row in part),
        )
        for part in (rows[i : i + 5] for i in range(0, 3000, 5))
    ]
    assert trials(10, "five.csv", five) == 5, "the same market in longer candles"
    scaled = [(row[0], *(price * 2 for price in row[1:5]), row[5]) for row in rows]
    assert trials(9, "x.csv", scaled) == 1, "other prices under the old name"
    one = [*rows]
    one[500] = (*one[500][:2], one[500][2] * 1.001, *one[500][3:])
    assert trials(11, "x.csv", one) == 6, "all hours but that of a revised candle are the same"


def test_trials_of_an_earlier_release_count_by_symbol_and_time(tmp_path):
    """It did not note the candles; and it can still use the file."""
    walk(tmp_path, (5, 20))
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file, file:
        file.execute("DROP TABLE tried")
        file.execute("DROP TABLE data")
    assert walk(tmp_path, (7,))[0].trials == 3
    assert walk(tmp_path, (7,), symbols="Y")[0].trials == 1, "of Y nothing was noted by name"
    assert walk(tmp_path, (7,), rows=market(6, 3000))[0].trials == 3, "X, whatever its candles"
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file, file:
        old = "INSERT INTO ledger VALUES (?, 'X', ?, ?)"
        file.execute(old, ("noted by an earlier release", START, START + 10**9))
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
    assert walk(tmp_path, (7,))[0].trials == 4


@given(
    cuts=st.lists(st.integers(0, 47), min_size=2, max_size=2, unique=True).map(sorted),
    others=st.lists(st.integers(0, 47), min_size=2, max_size=2, unique=True).map(sorted),
)
@examples(8)
def test_two_ranges_of_a_market_share_hours_exactly_where_they_overlap(cuts, others):
    markets = {seed: market(seed, 48 * 60, gaps=False) for seed in (5, 6)}

    def identity(begin, end, seed=5):
        with bk.Engine() as engine:
            bk.add_exchange(bk.exchanges.FrameExchange(markets[seed]))
            bk.add_frame(
                frame_name="f",
                interval="1m",
                start_date=to_datetime(START + begin * HOUR),
                end_date=to_datetime(START + end * HOUR),
            )
            exchange, frame = engine.exchanges.list()[0], engine.frames.get("f")
            return asyncio.run(data_identity(TrialSetup(engine, ("X",), exchange, frame)))

    first, second = identity(*cuts), identity(*others)
    days = sum(cuts[0] <= day and day + 24 <= cuts[1] for day in (0, 24))
    assert len(first) // 8 == cuts[1] - cuts[0] + days
    overlap = max(cuts[0], others[0]) < min(cuts[1], others[1])
    assert share(first, second) == share(second, first) == overlap
    assert not share(first, identity(*others, seed=6))


def test_failures_are_not_kept(tmp_path):
    def fails(symbol, when):
        raise RuntimeError("no idea")

    for _ in range(2):
        with bk.Engine():
            errors = []
            bk.listen_error(errors.append)
            bk.add_exchange(bk.exchanges.FrameExchange(market(5, 3000)))
            bk.add_frame(
                frame_name="f", interval="1m", start_date=BEGIN, end_date=BEGIN + timedelta(hours=1)
            )
            bk.add_strategy(strategy_name="s", interval="5m", get_signal=fails)
            bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=["s"])
            (contract,) = bk.Walker.run_sync("X", walker_name="w", store=tmp_path)
            assert "no idea" in contract.error
            assert any(event.where == "walker" for event in errors)


def test_what_has_no_fingerprint_is_run_each_time_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "backtest_kit")
    with (tmp_path / "log").open("w") as file:

        def talks(check):
            file.write(".")

        assert walk(tmp_path, risk=talks)[1] == 3
        assert walk(tmp_path, risk=talks)[1] == 3
        assert walk(tmp_path, (5, 20))[0].trials == 2
        assert walk(tmp_path, risk=talks)[0].trials == 5, "three that are not kept, beside two"
    assert "'hold 5' is not kept, and runs each time" in caplog.text


def test_a_trial_that_can_not_be_read_is_run_again(tmp_path):
    first, _ = walk(tmp_path)
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file, file:
        file.execute("UPDATE trials SET trial = ?", (b"?",))
    again, ran = walk(tmp_path)
    assert ran == 3
    assert again == first


FIGURES = """
    win_rate avg_pnl total_pnl std_dev sharpe_ratio annualized_sharpe_ratio certainty_ratio
    expected_yearly_returns sortino_ratio calmar_ratio max_drawdown_percent
    max_drawdown_duration_minutes profit_factor expectancy recovery_factor avg_duration_minutes
    exposure_percent
"""


def test_a_store_as_the_first_version_wrote_it_is_read(tmp_path):
    """The tables and the fields of a trial, stated a second time."""
    counts = dict.fromkeys(["total_signals", "win_count", "max_win_streak", "max_loss_streak"], 2)
    figures = counts | dict.fromkeys(FIGURES.split(), 0.5)
    figures["loss_count"], figures["calmar_ratio"] = 0, None
    since = ("compounded_pnl", "sharpe_ratio_yearly", "total_pnl_by_cost")
    later = figures | dict.fromkeys(since)
    trial = {
        "strategy_name": "s",
        "symbols": ["X", "Y"],
        "since": 1_000,
        "until": 9_000,
        "statistics": figures,
        "by_symbol": [figures, figures],
        "trades": {
            "profits": struct.pack("<2d", 0.1, -2.5),
            "opened": struct.pack("<2q", 1_000, 2_000),
            "closed": struct.pack("<2q", 3_000, 4_000),
            "symbols": struct.pack("<2q", 1, 0),
        },
        "calls": 7,
        "error_count": 1,
        "first_error": "ValueError: no",
        "gaps_filled": 3,
        "ambiguous_closes": 1,
        "end_of_data_closes": 1,
        "complete": True,
        "error": None,
    }
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file, file:
        file.executescript(
            "CREATE TABLE trials (fingerprint TEXT PRIMARY KEY, trial BLOB NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE ledger (variant TEXT, symbol TEXT, since INTEGER, until INTEGER,"
            " PRIMARY KEY (variant, symbol, since, until)) WITHOUT ROWID;"
            "PRAGMA user_version = 1;"
        )
        file.execute("INSERT INTO trials VALUES ('f', ?)", (msgspec.msgpack.encode(trial),))
        file.execute("INSERT INTO ledger VALUES ('v', 'X', 1000, 9000)")
    store, key = WalkStore(tmp_path), TrialKey("f", "v", ("X", "Y"), 1_000, 9_000)
    result = store.find([key])["f"]
    assert result.trades.r.tolist() == [0.1, -2.5]
    assert result.trades.opened_at.tolist() == [1_000, 2_000]
    assert result.trades.closed_at.tolist() == [3_000, 4_000]
    assert result.trades.symbol.tolist() == [1, 0]
    no_brackets = {"sides": b"", "numbers": {}, "which": b"", "ladders": [[[], [], []]]}
    trial |= {"warming": 0, "window_runs": [], "statistics": later, "by_symbol": [later, later]}
    trial |= {"interval": 0, "trades": trial["trades"] | {"stops": b"", "worst": b""}}
    trial |= {"brackets": no_brackets, "account": None, "changed": []}
    assert json.loads(msgspec.json.encode(result)) == json.loads(msgspec.json.encode(trial))
    assert store.variants_tried(["X"], 9_000, 10_000) == 1
    assert store.variants_tried(["X"], 9_001, 10_000) == 0
    store.put(key, result)
    with closing(sqlite3.connect(tmp_path / "walks.db")) as file, file:
        ((written,),) = file.execute("SELECT trial FROM trials").fetchall()
    assert msgspec.msgpack.decode(written) == trial, "an earlier release can read it, too"


def test_a_store_that_can_not_be_used_is_one_clear_error(tmp_path):
    (tmp_path / "walks.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(bk.StateError, match=r"walks\.db can't be used"):
        walk(tmp_path)
    with pytest.raises(bk.StateError, match="can't be used"):
        walk(tmp_path / "walks.db")
    with closing(sqlite3.connect(tmp_path / "new.db")) as file, file:
        file.execute("PRAGMA user_version = 9")
    (tmp_path / "new.db").rename(tmp_path / "walks.db")
    with pytest.raises(bk.StateError, match="newer release"):
        walk(tmp_path)


STRATEGIES = """
import backtest_kit as bk

def hold(minutes, percent):
    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        return bk.Signal(position="long", price_take_profit=price * (1 + percent / 100),
                         price_stop_loss=price * (1 - percent / 100),
                         minute_estimated_time=minutes)
    return {"interval": "3m", "get_signal": get_signal}

bk.grid(hold, minutes=[2, 3, 5, 8, 13], percent=[1, 2])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX process groups")
@pytest.mark.parametrize(("workers", "most"), [(None, 3), (2, 2)])
def test_killed_at_any_moment_and_started_again_it_reports_the_same(tmp_path, workers, most):
    (tmp_path / "many.py").write_text(STRATEGIES)
    rows = market(5, 6_000, gaps=False)
    (tmp_path / "x.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    command = [sys.executable, "-m", "backtest_kit", "walk", "many.py", "--symbol", "X"]
    command += ["--data", "x.csv", "--json"] + (["--workers", str(workers)] if workers else [])

    def start(store):
        return subprocess.Popen(
            [*command, "--store", store],
            cwd=tmp_path,
            env=os.environ | NO_PAGES,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finished():
        if not (tmp_path / "kept" / "walks.db").exists():
            return 0
        with closing(sqlite3.connect(tmp_path / "kept" / "walks.db")) as file, file:
            return (
                file.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
                and (file.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
            )

    unbroken, told = start("unbroken").communicate()
    assert json.loads(unbroken)["strategies_tested"] == 10, told.decode()
    rng, kills, seen = random.Random(7), 0, set()
    while True:
        process = start("kept")
        # the first at any moment, also of the start; the others once there is something to keep
        deadline = time.monotonic() + rng.uniform(0.2, 2.0) if kills == 0 else math.inf
        wanted = finished() + rng.choice([1, 1, 2])
        while process.poll() is None and time.monotonic() < deadline and finished() < wanted:
            time.sleep(rng.uniform(0.001, 0.02))
        if kills < most and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            seen.add(finished())
            continue
        out, told = process.communicate()
        break
    assert out == unbroken, told.decode()
    print(f"walk: {kills} kills, after {sorted(seen)} of 10 strategies")
    assert kills >= most - 1
    assert b"were known from" in told


def test_what_strategies_read_beside_is_named_once_where_results_are_kept(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setenv("LEVEL", "1.0")

    def reads(check):
        return None if check.price > float(os.environ["LEVEL"]) else "too low"

    caplog.set_level(logging.WARNING, "backtest_kit")
    data, ran = walk(tmp_path, risk=reads)
    assert ran == 3
    (read,) = data.unseen
    assert read.startswith("environment variable 'LEVEL' in ")
    told = [r.getMessage() for r in caplog.records if "LEVEL" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("stored results don't show whether what strategies read has changed")
    monkeypatch.setenv("LEVEL", "9e9")
    assert walk(tmp_path, risk=reads)[1] == 0, "which is why it is named"
    assert walk(None, risk=reads)[0].unseen == (), "nothing is kept, and all is run again"

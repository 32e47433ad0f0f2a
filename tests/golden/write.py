"""Write what every later release must still read: `python tests/golden/write.py FOLDER`.

FOLDER is `tests/golden/` and the version that writes it. It is written once, by the release itself,
and never again: a folder that exists is refused. Only public names and the command line are used.
"""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

import backtest_kit as bk

HERE = Path(__file__).parent
START = datetime(2024, 1, 1, tzinfo=UTC)
#: Minutes after `START`: the first step, the one at which the runs are stopped, the end.
FIRST, STOPPED, END = 10, 300, 450
GAP = 200
#: What the runs depend on, so that other defaults of a later release change nothing here.
SETTINGS = {
    "exit_trigger": "wick",
    "ambiguous_candle": "stop_loss_first",
    "avg_price_candles_count": 5,
    "schedule_await_minutes": 80,
    "max_signal_lifetime_minutes": 1440,
    "max_stop_loss_distance_percent": 0.0,
    "gap_policy": "raise",
    "percent_fee": 0.1,
    "percent_slippage": 0.1,
}
#: By symbol, and the minute at which it is proposed: position, entry, take-profit, stop-loss,
#: lifetime in minutes, note. From `STOPPED` on nothing is proposed.
PLAN = {
    "LONG": {245: ("long", None, 120.0, 90.0, 1440, "past its first milestone")},
    "SHORT": {290: ("short", None, 90.0, 122.0, 1440, "stopped out")},
    "ACTIVATES": {299: ("short", 118.0, 110.0, 126.0, 1440, "")},
    "EXPIRES": {298: ("long", 95.0, 120.0, 85.0, 1440, "")},
    "DONE": {
        20: ("long", None, 107.0, 101.0, 1440, "take-profit"),
        60: ("short", None, 100.0, 114.0, 1440, "stop-loss"),
        90: ("long", None, 140.0, 100.0, 5, "time"),
        100: ("short", 121.0, 105.0, 140.0, 10, "activated"),
        125: ("short", None, 95.0, 140.0, 65, "milestone"),
        195: ("long", 100.0, 120.0, 95.0, 60, "the market opens beyond its stop"),
        203: ("long", 90.0, 120.0, 85.0, 60, "never reached"),
        286: ("short", 110.5, 100.0, 120.0, 60, "refuse"),
    },
}
#: Of the store `managed`, which releases with version 3 of the documents have; and how each
#: position is managed. `PAUSED` is paused before its first step, `CLOSES` is sent a close after the
#: last.
MANAGED = {
    "TRAILS": {250: ("long", None, None, 95.0, 1440, "", {"trailing_stop": (2.0, 1.0)})},
    "LADDER": {
        245: (
            *("long", None, 123.0, 95.0, 1440, ""),
            {"take_profits": ((5.0, 25.0), (12.0, 25.0)), "breakeven_percent": 8.0},
        )
    },
    "ADDS": {270: ("short", None, 104.0, 125.0, 1440, "", {"entries": ((3.0, 1.0), (13.0, 2.0))})},
    "PAUSED": {20: ("long", None, 120.0, 90.0, 1440, "")},
    "CLOSES": {280: ("long", None, 123.0, 95.0, 1440, "")},
}
#: So many transitions that they fill a page of the journal and begin another.
PAGES = dict.fromkeys(range(FIRST, 268, 2), ("long", None, 140.0, 95.0, 1, ""))


def ms(minute):
    return round((START + timedelta(minutes=minute)).timestamp() * 1000)


def market():
    """Rows of candles: up from 100 to 124 in two hours and down in two more, with one gap."""
    rows, close = [], 100.0
    for i in range(END + 10):
        wave = 120 - abs((i + 1) % 240 - 120)
        opened, close = close, round(100 + wave / 5 + (i * 7919 % 13 - 6) / 40, 2)
        if i == GAP:
            opened = 90.0
        high, low = max(opened, close) + 0.11, min(opened, close) - 0.13
        rows.append((ms(i), opened, round(high, 2), round(low, 2), close, 10 + i % 7))
    return rows


def planned(plan):
    """Return a `get_signal` of a plan by minute and symbol."""

    def get_signal(symbol, when):
        minute = round((when - START).total_seconds() / 60)
        of_symbol = plan.get(symbol, {})
        if minute not in of_symbol:
            return None
        position, entry, goal, stop, minutes, note, *more = of_symbol[minute]
        how = dict(*more)
        if "trailing_stop" in how:
            how["trailing_stop"] = bk.TrailingStop(*how["trailing_stop"])
        return bk.Signal(
            **how,
            position=position,
            price_open=entry,
            price_take_profit=goal,
            price_stop_loss=stop,
            minute_estimated_time=minutes,
            note=note,
        )

    return get_signal


class Told:
    """What live runs have told: results, milestones, errors, the positions that risk checks saw."""

    def __init__(self):
        self.ticks, self.milestones, self.errors, self.seen = [], [], [], {}

    def check(self, check):
        """Note who is open where a waiting signal is to be filled; refuse what asks for it."""
        if check.signal.pending_at is None:
            return None
        self.seen[check.signal.id] = sorted(
            [p.symbol, p.position, p.price_open, p.opened_at] for p in check.active_positions
        )
        return "it asked for it" if check.signal.note == "refuse" else None


def live(adapter, candles, runs, until, settings, plan=None, *, account=None):
    """Run (strategy, symbol) pairs from where they stand to a minute; return what they did.

    `account`: the name of the account that they share, which releases with version 4 have.

    Without a plan the strategies propose nothing: only what was stored is followed. Returns a
    `Told`, and the data of each run by symbol.
    """
    told = Told()
    with bk.Engine() as engine:
        engine.set_config(**settings)
        bk.use_persist_adapter(adapter)
        bk.add_exchange(bk.exchanges.CsvExchange(candles))
        bk.add_risk(risk_name="census", validations=[told.check])
        for name in {name for name, _ in runs}:
            bk.add_strategy(
                strategy_name=name,
                interval="1m",
                get_signal=planned(plan or {}),
                risk_name="census",
            )
        bk.listen_signal_live(told.ticks.append)
        bk.listen_partial_profit(told.milestones.append)
        bk.listen_partial_loss(told.milestones.append)
        bk.listen_error(told.errors.append)
        more = {}
        if account is not None:
            bk.add_account(account_name=account, currency="USDT", balance=1000.0, leverage=2.0)
            more = {"account_name": account}
        clock = bk.VirtualClock(START + timedelta(minutes=FIRST), START + timedelta(minutes=until))

        async def main():
            names = {"exchange_name": "csv", "clock": clock} | more
            await asyncio.gather(
                *(bk.Live.background(s, strategy_name=name, **names) for name, s in runs)
            )

        asyncio.run(main())
        data = {symbol: bk.Live.get_data(symbol, strategy_name=name) for name, symbol in runs}
    return told, data


def outcome(tick):
    """Return what must stay true of a transition, whatever it says of the market of its minute."""
    row = tick.signal
    found = {
        "action": tick.action,
        "transition_id": tick.transition_id,
        "timestamp": tick.timestamp,
        "signal": msgspec.to_builtins(row),
    }
    if tick.action == "closed":
        found |= {
            "close_reason": tick.close_reason,
            "close_timestamp": tick.close_timestamp,
            "pnl": msgspec.to_builtins(tick.pnl),
        }
        if tick.signal.is_managed:
            found["legs"] = msgspec.to_builtins(tick.legs)
        if tick.money is not None:
            found["money"] = msgspec.to_builtins(tick.money)
    if tick.action == "cancelled":
        found |= {"reason": tick.reason, "close_timestamp": tick.close_timestamp}
    if tick.action in ("partial", "added", "moved"):
        names = ("price", "share", "size", "effective_entry", "what", "before", "after", "reason")
        found |= {name: getattr(tick, name) for name in names if hasattr(tick, name)}
    return found


def transitions(told, symbol):
    """Return the outcomes of a symbol, in order."""
    kinds = ("scheduled", "opened", "partial", "added", "moved", "closed", "cancelled")
    return [outcome(t) for t in told.ticks if t.symbol == symbol and t.action in kinds]


def facts(data):
    """Return what a run's data say that later figures must not change; of many trades, the ends."""
    closed = data.signals
    shown = closed if len(closed) < 10 else (closed[0], closed[-1])
    return {
        "since": data.since,
        "missed": data.missed,
        "milestones": data.milestones,
        "signal": msgspec.to_builtins(data.signal),
        "trades": len(closed),
        "pnl": sum(tick.pnl.pnl_percentage for tick in closed),
        "closed": [outcome(tick) for tick in shown],
        "cancelled": [outcome(tick) for tick in data.cancelled],
    }


def follow(adapter, candles, runs, settings, account=None):
    """Restart stored runs for one minute, then again to the end; nothing new is proposed."""
    begun, soon = live(adapter, candles, runs, STOPPED + 1, settings, account=account)
    told, end = live(adapter, candles, runs, END, settings, account=account)
    assert not begun.errors + told.errors, begun.errors + told.errors
    return {
        "soon": {symbol: msgspec.to_builtins(data.signal) for symbol, data in soon.items()},
        "told": {symbol: transitions(told, symbol) for _, symbol in runs},
        "milestones": sorted(event.transition_id for event in told.milestones),
        "seen": told.seen,
        "end": {symbol: facts(data) for symbol, data in end.items()},
    }


class NoJournal(bk.FileAdapter):
    """Files of a process that never comes as far as the journal, and so can't empty its outbox."""

    def write(self, kind, key, document):
        """Store what is no page of the journal."""
        if kind == "journal":
            raise OSError("killed")
        super().write(kind, key, document)


def command(*arguments, cwd):
    """Return what `backtest-kit` prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "backtest_kit", *map(str, arguments), "--json"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trades(backtest):
    """Return the trades of a backtest as JSON, in short."""
    names = ("close_reason", "close_timestamp", "pnl")
    return [[t["signal"]["id"], *(t[name] for name in names)] for t in backtest["signals"]]


def ranking(walked):
    """Return the ranking of a walk as JSON, in short."""
    return [[row["strategy_name"], row["metric_value"]] for row in walked["ranking"]]


def walk_rows(store):
    """Return the fingerprints and the ledger of a walk store, read past the library."""
    with closing(sqlite3.connect(store / "walks.db")) as file:
        fingerprints = file.execute("SELECT fingerprint FROM trials ORDER BY 1").fetchall()
        ledger = file.execute("SELECT * FROM ledger ORDER BY 1, 2, 3, 4").fetchall()
    return {"fingerprints": [f for (f,) in fingerprints], "ledger": [list(row) for row in ledger]}


def stores(folder):
    """Return the stored live runs in a folder: by name the adapter, and the runs in it."""
    every = [("planned", symbol) for symbol in PLAN]
    return {
        "live": (bk.FileAdapter(folder / "live"), [*every, ("p", "P")]),
        "outbox": (bk.FileAdapter(folder / "outbox"), [("planned", "LONG")]),
        "live.db": (
            bk.SqliteAdapter(folder / "live.db"),
            [("planned", symbol) for symbol in ("LONG", "ACTIVATES", "DONE")],
        ),
        "managed": (
            bk.FileAdapter(folder / "managed"),
            [("planned", symbol) for symbol in MANAGED],
        ),
        "paper": (
            bk.FileAdapter(folder / "paper"),
            [("planned", symbol) for symbol in ("TRAILS", "LADDER", "ADDS", "LONG", "SHORT")],
        ),
    }


def account_of(name):
    """Return the account of the runs of a store."""
    return "main" if name == "paper" else None


def send(adapter, symbol, action):
    """Send a command to a run of the store `managed`, which does not run."""
    names = {"strategy_name": "planned", "exchange_name": "csv", "command_id": f"to {symbol}"}
    with bk.Engine():
        bk.use_persist_adapter(adapter)
        asyncio.run(bk.Live.send(symbol, **names, action=action, when_running=True))


def write_json(path, content):
    """Write an object or a list as JSON, each of its entries on a line."""
    if isinstance(content, dict):
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        begin, end = "{}"
    else:
        lines = [json.dumps(value) for value in content]
        begin, end = "[]"
    path.write_text("\n".join((begin, ",\n".join(lines), end, "")))


def write(folder):
    """Write all of it."""
    candles = folder / "candles.csv"
    candles.write_text("".join(",".join(map(str, row)) + "\n" for row in market()))
    expected = {"settings": SETTINGS, "follow": {}}

    for name, (adapter, runs) in stores(folder).items():
        plan = PLAN | {"P": PAGES} | MANAGED
        if name == "managed":
            send(adapter, "PAUSED", "pause")
        place = NoJournal(folder / "outbox") if name == "outbox" else adapter
        told, _ = live(place, candles, runs, STOPPED, SETTINGS, plan, account=account_of(name))
        assert all("killed" in str(event.error) for event in told.errors), told.errors
        if name == "outbox":
            ids = [each["transition_id"] for each in transitions(told, "LONG")]
            expected["outbox"] = ids + [event.transition_id for event in told.milestones]
        if name == "managed":
            send(adapter, "CLOSES", "close")
        if name == "live":
            first = {type(t).__name__: t for t in reversed(told.ticks) if t.symbol == "DONE"}
    for left in (*folder.glob("*/lock*"), *folder.glob("*.lock*")):
        left.unlink()
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        for name, (adapter, runs) in stores(Path(copy)).items():
            expected["follow"][name] = follow(adapter, candles, runs, SETTINGS, account_of(name))

    ticks = {name: first[name] for name in sorted(first)}
    write_json(folder / "ticks.json", {name: tick.to_json() for name, tick in ticks.items()})
    expected["ticks"] = {name: msgspec.to_builtins(tick) for name, tick in ticks.items()}

    with tempfile.TemporaryDirectory() as dump:

        def run(*arguments):
            return command(*arguments, cwd=dump)

        strategies, data = HERE / "strategies.py", ("--symbol", "X", "--data", candles)
        part = ("--strategy", "bracket 1", "--from", "2024-01-01T02:00", "--to", "2024-01-01T03:00")
        (backtest,) = run("backtest", strategies, *data, *part)
        write_json(folder / "backtest.json", backtest)
        expected["backtest"] = trades(backtest)
        walked = run("walk", strategies, *data, "--store", folder, "--metric", "avg_pnl")
        write_json(folder / "walk.json", walked)
        expected["walk"] = {
            "trials": walked["trials"],
            "ranking": ranking(walked),
            **walk_rows(folder),
        }
        place = ("--state", folder / "live")
        write_json(folder / "state.json", run("state", *place, "--strategy", "planned"))
        write_json(folder / "report.json", run("report", "live", *place, "--symbol", "DONE"))
    write_json(folder / "expected.json", expected)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True)  # never twice
    write(target.absolute())

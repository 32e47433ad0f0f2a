"""Kill a live run at every system call that touches its state, restart it, compare.

Run as a program of its own (it forks, and must have no threads):
    python tests/live/kill_anywhere.py SEED EVERY [managed] [paper]
Each process plays the same recorded market with two symbols that share a risk profile, state in
files. With `managed` the signals have managed positions, the strategy decides while it holds, and
somebody sends commands. With `paper` they share an account in place of the profile. What the run
that was killed leaves in its journal, and what its listeners were told, must be what a run that was
never killed leaves. Prints one line of JSON.
"""

import asyncio
import functools
import json
import logging
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec

import backtest_kit as bk
from backtest_kit._live.orders import Orders
from backtest_kit._live.steps import Steps
from backtest_kit._values.time import to_datetime
from doom import process
from markets import MINUTE, START, deciding, managed, market, script
from positions import as_answer, as_mapping, seen_of

MINUTES = 60
SYMBOLS = ("BTC/USDT:USDT", "../x")
MANAGED, PAPER = "managed" in sys.argv, "paper" in sys.argv
#: What of a run's document must be as if nobody had killed anything.
KEPT = (
    *("signal", "at", "asked_at", "fired", "position", "managed_at", "paused", "done"),
    *("sequence",),
)


def play(seed, folder, doom):
    """Be one process: go on from the state in `folder` to the end of the market."""
    told = os.open(folder / "told", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    say = doom.real["write"]

    def tell(event):
        doom.step()
        say(told, json.dumps([event.transition_id, content(event)]).encode() + b"\n")
        doom.step()

    scripts = {symbol: script(seed + i, 0.5) for i, symbol in enumerate(SYMBOLS)}

    def get_signal(symbol, when):
        doom.step()
        return as_mapping(scripts[symbol](int(when.timestamp() * 1000), bk.average_price(symbol)))

    def manage(position, when):
        doom.step()
        t = int(when.timestamp() * 1000)
        return as_answer(deciding(seed, 0.3)(t, seen_of(position)))

    def at_most_one(check):
        return "taken" if check.active_count and not PAPER else None

    doom.arm()
    bk.set_config(
        state_dir=str(folder / "state"),
        schedule_await_minutes=5,
        require_stop_loss=not MANAGED,
        min_take_profit_distance_percent=0,
        min_stop_loss_distance_percent=0,
    )
    bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in market(seed, MINUTES + 30)]))
    bk.add_risk(risk_name="one", validations=[at_most_one])
    bk.add_account(account_name="main", currency="USDT", balance=1000.0, leverage=3.0)
    transitions = ("on_open", "on_schedule", "on_cancel", "on_close")
    more = {}
    if MANAGED:
        transitions += ("on_partial", "on_add", "on_move", "on_command")
        scripts = {symbol: managed(answer, seed) for symbol, answer in scripts.items()}
        more = {"manage": manage, "manage_interval": "3m"}
        send_before_steps(seed, doom)
    bk.add_strategy(
        strategy_name="s" * 300,
        interval="3m",
        get_signal=get_signal,
        risk_name="one",
        **more,
        callbacks=dict.fromkeys((*transitions, "on_partial_profit", "on_partial_loss"), tell),
    )
    start = START + 5 * MINUTE
    clock = bk.VirtualClock(to_datetime(start), to_datetime(start + MINUTES * MINUTE))

    async def one(symbol):
        names = {"strategy_name": "s" * 300, "exchange_name": "frame"}
        account = "main" if PAPER else None
        async for _ in bk.Live.run(symbol, **names, account_name=account, clock=clock):
            doom.step()

    async def both():
        await asyncio.gather(*(one(symbol) for symbol in SYMBOLS))

    asyncio.run(both())


def orders(seed, symbol, when):
    """What somebody sends before a step: seldom something, and sometimes several things."""
    choose = random.Random(f"{seed} {symbol} {when}")
    price = 100 * choose.uniform(0.97, 1.03)
    signal = script(seed, 1.0)(when, 100.0)
    every = (
        {"action": "close", "share": choose.choice([30, 100]), "note": "by hand"},
        {"action": "close"},
        {"action": "cancel"},
        {"action": "move-stop", "price": price},
        {"action": "move-target", "price": price},
        {"action": "add", "size": 0.5},
        {"action": "open", "signal": signal},
        {"action": "pause"},
        {"action": "resume"},
        {"action": "resume"},
    )
    return [choose.choice(every) for _ in range(choose.choice([0, 0, 1, 1, 2]))]


def send_before_steps(seed, doom):
    """Send the commands of each step just before it; once more where it is done again.

    A restart goes back to the last step that changed anything, as no real clock does: what was sent
    later waits for its step.
    """
    step, waiting, now = Steps.step, Orders.waiting, {}

    async def sent_by_now(self):
        found = await waiting(self)
        if self._run.symbol not in now:  # looking for what an earlier process left
            return found
        return [each for each in found if int(each.id.split()[0]) <= now[self._run.symbol]]

    async def step_with_commands(self, bar, **how):
        now[self._run.symbol] = bar.when
        for i, order in enumerate(orders(seed, self._run.symbol, bar.when)):
            doom.step()
            name = f"{bar.when} {i}"
            names = {"strategy_name": "s" * 300, "exchange_name": "frame", "command_id": name}
            await bk.Live.send(self._run.symbol, **names, **order)
        await step(self, bar, **how)

    Steps.step, Orders.waiting = step_with_commands, sent_by_now


def content(event):
    if isinstance(event, bk.PartialEvent):
        return [event.timestamp, event.level, event.revenue_percent]
    if isinstance(event, bk.CommandEvent):
        return msgspec.to_builtins(event)
    return json.loads(event.to_json())


def part(state):
    """What a run has done to its account; how often that was written is no matter."""
    counts = dict.fromkeys(("booked", "left", "revision"))
    return state["account"] and {**state["account"], **counts}


def outcome(folder):
    """Return the journal by id, and what was told, in order."""
    journal, living = {}, {}
    for path in sorted((folder / "state" / "journal").glob("*.json")):
        page = json.loads(path.read_bytes().partition(b"\n")[2])
        for entry in page["data"]["transitions"]:
            assert entry["id"] not in journal, "entered twice"
            journal[entry["id"]] = entry
    for path in (folder / "state" / "run").glob("*.json"):
        state = json.loads(path.read_bytes().partition(b"\n")[2])["data"]
        assert not state["outbox"]
        living[state["symbol"]] = {k: state[k] for k in KEPT} | {"account": part(state)}
        assert state["session"] is None
    left = [*(folder / "state" / "command").glob("*.json")]
    assert not left, "commands that were done are still there"
    told = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    left = [p.name for p in (folder / "state").rglob("*") if "corrupt" in p.name]
    assert not left, left
    return journal, living, told


def main(seed, every):
    logging.getLogger("backtest_kit").setLevel(logging.CRITICAL)
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base) as scratch:
        calm = Path(scratch) / "calm"
        calm.mkdir()
        market(seed, MINUTES + 30)
        going = functools.partial(play, seed)
        _, calls = process(going, calm, 0)
        wanted, living, told = outcome(calm)
        assert len({entry[0] for entry in told}) == len(told) > 0
        kinds = {name.rpartition(":")[2].split()[0] for name in wanted if ":command:" not in name}
        outcomes = {e["command"]["outcome"] for e in wanted.values() if e.get("command")}
        tried = survived = retold = 0
        choose = random.Random(seed)
        for point in range(1 + choose.randrange(every), calls + 1, every):
            folder = Path(scratch) / str(point)
            folder.mkdir()
            next_point = point
            while process(going, folder, next_point)[0]:
                tried += 1
                # now and then a second and third kill, soon after the restart
                next_point = choose.choice([0, 0, 0, choose.randrange(1, 60)])
            journal, now, repeated = outcome(folder)
            lost, doubled = wanted.keys() - journal.keys(), journal.keys() - wanted.keys()
            assert (lost, doubled) == (set(), set()), (seed, point)
            assert (journal, now) == (wanted, living), (seed, point)
            first = {}
            for name, text in repeated:
                assert first.setdefault(name, text) == text, (seed, point, name)
            assert first == dict(told), (seed, point, "told")
            retold += len(repeated) - len(first)
            survived += 1
            shutil.rmtree(folder)
    print(
        json.dumps(
            {
                "seed": seed,
                "calls": calls,
                "transitions": len(wanted),
                "kinds": sorted(kinds),
                "commands": sorted(outcomes),
                "points": survived,
                "kills": tried,
                "told_again": retold,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

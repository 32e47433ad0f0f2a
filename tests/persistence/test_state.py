"""What a live run finds when it starts again: damage, other versions, hostile names."""

import asyncio
import contextlib
import itertools
import json
import time
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit._live.stored import stored_runs
from backtest_kit._state import documents
from backtest_kit._state.documents import RunKey
from backtest_kit._state.envelope import VERSION
from backtest_kit._state.files import FileAdapter
from backtest_kit._state.owner import StateOwner
from backtest_kit._state.sqlite import SqliteAdapter
from backtest_kit._values.clock import Clock
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import HOSTILE_KEYS
from markets import MINUTE, START, market, script

BEGIN = START + 20 * MINUTE
ROWS = market(3, 700, gaps=False)
END = START + 600 * MINUTE


class Outcome:
    def __init__(self):
        self.told, self.errors, self.asked, self.failures = [], [], [], {}

    def ids(self):
        return [tick.transition_id for tick in self.told]


def play(adapter, until, *, since=BEGIN, symbols=("X",), names=("s",), on_write=None, **strategy):
    """Be one process from `since` (or where the state says) to `until`."""
    outcome = Outcome()
    answer = script(3, 0.1)

    def get_signal(symbol, when):
        at = round(when.timestamp() * 1000)
        outcome.asked.append((symbol, at))
        return answer(at, bk.average_price(symbol))

    callbacks = {} if on_write is None else {"on_write": on_write}
    callbacks |= dict.fromkeys(
        ("on_open", "on_schedule", "on_cancel", "on_close"), outcome.told.append
    )
    with bk.Engine():
        bk.use_persist_adapter(adapter)
        bk.add_exchange(bk.exchanges.FrameExchange(ROWS))
        for name in names:
            options = {"get_signal": get_signal} | strategy
            bk.add_strategy(strategy_name=name, interval="1m", callbacks=callbacks, **options)
        bk.listen_error(outcome.errors.append)
        clock = bk.VirtualClock(to_datetime(since), to_datetime(until))

        async def one(symbol, name):
            task = bk.Live.background(
                symbol, strategy_name=name, exchange_name="frame", clock=clock
            )
            try:
                await task
            except bk.BacktestKitError as error:
                outcome.failures[symbol, name] = error

        async def main():
            await asyncio.gather(*(one(symbol, name) for symbol in symbols for name in names))

        asyncio.run(main())
    return outcome


def middle(told):
    """An instant at which a position is open: just after a fill that lives for a while."""
    for first, second in itertools.pairwise(told):
        if first.action == "opened" and second.timestamp - first.timestamp > 5 * MINUTE:
            return first.timestamp + 2 * MINUTE
    raise AssertionError("no position lives for five minutes in this market")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What a run that nothing happens to tells; it is only read."""
    return play(FileAdapter(tmp_path_factory.mktemp("calm")), END)


@pytest.fixture
def broken_off(tmp_path, calm):
    """A state with an open position, and where it stands."""
    at = middle(calm.told)
    adapter = FileAdapter(tmp_path / "state")
    play(adapter, at)
    (run,) = stored_runs(adapter)
    assert run.state.signal.pending_at is not None
    return adapter, at


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "another's": lambda content: content.replace(b'"key":"', b'"key":"y', 1),
    "no JSON": lambda content: content[:-1],
    "a field of another type": lambda content: content.replace(
        b'"sequence":', b'"sequence":"x","was":'
    ),
    "garbage": lambda content: bytes(range(256)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_run_document_is_kept_and_never_read_as_no_position(kind, broken_off, calm):
    adapter, at = broken_off
    path = next((adapter.folder / "run").glob("*.json"))
    good = path.read_bytes()
    bad = DAMAGE[kind](good)
    path.write_bytes(bad)

    for _ in range(2):  # refused until somebody has seen to it
        found = play(adapter, END, symbols=("X", "Y"))
        error = found.failures.pop(("X", "s"))
        assert isinstance(error, bk.CorruptStateError)
        assert not found.failures, "another symbol is not concerned"
        assert {symbol for symbol, _ in found.asked} <= {"Y"}
        (kept,) = (adapter.folder / "run_corrupt").glob("*.json")
        assert str(kept) in str(error)
        _, _, document = kept.read_bytes().partition(b"\n")
        assert document in (bad, bad.partition(b"\n")[2])
        assert not path.exists()

    kept.unlink()
    path.write_bytes(good)
    assert calm.ids() == found_before(calm, at) + play(adapter, END).ids()


class SlowToGiveBack(FileAdapter):
    """Takes its time to give the folder back, as a busy machine may."""

    def release(self):
        time.sleep(0.3)
        super().release()


def test_a_run_that_enters_while_the_last_one_leaves_waits_its_turn(broken_off):
    adapter, _ = broken_off
    path = next((adapter.folder / "run").glob("*.json"))
    path.write_bytes(path.read_bytes()[:-1])
    found = play(SlowToGiveBack(adapter.folder), END, symbols=("X", "Y", "Z"))
    assert [type(error) for error in found.failures.values()] == [bk.CorruptStateError]
    assert {symbol for symbol, _ in found.asked} == {"Y", "Z"}


def found_before(calm, at):
    return [tick.transition_id for tick in calm.told if tick.timestamp <= at]


def test_without_the_damaged_document_the_run_begins_anew(broken_off):
    adapter, at = broken_off
    path = next((adapter.folder / "run").glob("*.json"))
    path.write_bytes(b"?")
    assert play(adapter, END).failures
    next((adapter.folder / "run_corrupt").glob("*.json")).unlink()
    found = play(adapter, at + 30 * MINUTE, since=at)
    assert not found.failures
    assert found.asked[0] == ("X", at), "with nothing open, the strategy is asked at once"


def test_a_damaged_page_of_the_journal_is_set_aside_and_the_run_goes_on(broken_off, calm):
    adapter, at = broken_off
    page = next((adapter.folder / "journal").glob("*.json"))
    page.write_bytes(b"half a")
    found = play(adapter, END)
    assert found.ids() == calm.ids()[len(found_before(calm, at)) :]
    (event,) = [event for event in found.errors if event.where == "journal"]
    (kept,) = (adapter.folder / "journal_corrupt").glob("*.json")
    assert str(kept) in str(event.error)
    (run,) = stored_runs(adapter)
    assert [entry.id for entry in run.transitions if entry.tick] == found.ids()


def test_a_state_of_a_newer_release_is_refused_and_left_alone(broken_off):
    adapter, _ = broken_off
    path = next((adapter.folder / "run").glob("*.json"))
    changed = path.read_bytes().replace(b'"version":%d' % VERSION, b'"version":9')
    path.write_bytes(changed.replace(b'"digest":"', b'"digest":"of another kind '))
    before = path.read_bytes()
    found = play(adapter, END)
    assert "newer release (version 9" in str(found.failures["X", "s"])
    assert path.read_bytes() == before
    assert not found.asked


def test_a_state_of_an_older_release_is_read(broken_off, calm, monkeypatch):
    """As if a field had been renamed since."""
    adapter, at = broken_off
    path = next((adapter.folder / "run").glob("*.json"))
    header, document = path.read_bytes().split(b"\n", 1)
    old = {"version": 1, "data": json.loads(document)["data"]}
    old["data"]["proposal"] = old["data"].pop("signal")
    path.write_bytes(header + b"\n" + json.dumps(old).encode())

    def upgrade(data):
        data["signal"] = data.pop("proposal")
        return data

    later = {("run", version): lambda data: data for version in range(2, VERSION)}
    monkeypatch.setattr(documents, "UPGRADES", {("run", 1): upgrade} | later)
    assert found_before(calm, at) + play(adapter, END).ids() == calm.ids()
    assert json.loads(path.read_bytes().split(b"\n", 1)[1])["version"] == VERSION


def test_sqlite_keeps_what_files_keep(tmp_path, calm):
    told = []
    for i, until in enumerate([START + 90 * MINUTE, middle(calm.told), START + 400 * MINUTE, END]):
        told += play(SqliteAdapter(tmp_path / "state.db"), until).ids()
        assert i == 0 or told
    assert told == calm.ids()


@pytest.mark.slow
@pytest.mark.parametrize("columns", [(HOSTILE_KEYS, ("s",)), (("X",), HOSTILE_KEYS)])
def test_hostile_names_stay_in_the_folder_and_apart(columns, tmp_path):
    symbols, names = columns
    end = START + 300 * MINUTE
    calm = play(FileAdapter(tmp_path / "calm"), end)
    folder = tmp_path / "deep" / "state"
    first = play(FileAdapter(folder), middle(calm.told), symbols=symbols, names=names)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)}
    assert outside == {tmp_path / "deep"} | {
        path for path in tmp_path.rglob("*") if path.is_relative_to(tmp_path / "calm")
    }
    runs = stored_runs(FileAdapter(folder))
    assert {run.key for run in runs} == {RunKey("frame", n, s) for s in symbols for n in names}
    second = play(FileAdapter(folder), end, symbols=symbols, names=names)
    assert not first.failures
    assert not second.failures
    assert not [e for e in second.errors if not isinstance(e.error, bk.SignalError)]
    ids = first.ids() + second.ids()
    assert len(set(ids)) == len(ids) == len(calm.ids()) * len(HOSTILE_KEYS)


def test_a_run_that_is_not_here_holds_its_slot_until_its_lifetime_is_over(tmp_path):
    def one_at_most(check):
        if check.active_count >= 1:
            raise ValueError("one at most")

    def forever(symbol, when):
        return {
            "position": "long",
            "price_take_profit": 1e6,
            "price_stop_loss": bk.average_price(symbol) * 0.85,
            "minute_estimated_time": 60,
        }

    def process(symbol, since, until):
        rejected = []
        with bk.Engine():
            bk.use_persist_adapter(FileAdapter(tmp_path))
            bk.add_exchange(bk.exchanges.FrameExchange(flat))
            bk.add_risk(
                risk_name="one",
                validations=[one_at_most],
                callbacks={"on_rejected": rejected.append},
            )
            bk.add_strategy(strategy_name="s", interval="1m", get_signal=forever, risk_name="one")

            async def main():
                clock = bk.VirtualClock(to_datetime(since), to_datetime(until))
                run = bk.Live.run(symbol, strategy_name="s", exchange_name="frame", clock=clock)
                return [tick async for tick in run]

            return asyncio.run(main()), rejected

    flat = [(START + i * MINUTE, 100.0, 100.1, 99.9, 100.0, 1.0) for i in range(300)]
    opened, _ = process("A", BEGIN, BEGIN + 10 * MINUTE)
    assert [tick.action for tick in opened] == ["opened"]
    later, rejected = process("B", BEGIN + 11 * MINUTE, BEGIN + 100 * MINUTE)
    assert later[0].timestamp == BEGIN + 60 * MINUTE
    assert [event.timestamp for event in rejected] == [BEGIN + i * MINUTE for i in range(11, 60)]


def test_one_run_is_not_started_twice():
    async def main():
        first = bk.Live.background("X", strategy_name="s", exchange_name="frame", clock=clock)
        await asyncio.sleep(0)
        second = bk.Live.background("X", strategy_name="s", exchange_name="frame", clock=clock)
        with pytest.raises(bk.StateError, match="already runs live in this process"):
            await second
        await first

    clock = bk.VirtualClock(to_datetime(BEGIN), to_datetime(END))
    bk.use_persist_adapter(bk.testing.MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(ROWS))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    asyncio.run(main())


def test_on_write_is_told_of_what_is_already_on_the_disk(tmp_path, calm):
    adapter = FileAdapter(tmp_path / "written")
    seen = []

    def on_write(state):
        (run,) = stored_runs(FileAdapter(tmp_path / "written"))
        seen.append(run.state == state)

    assert play(adapter, END, on_write=on_write).ids() == calm.ids()
    assert len(seen) >= 2 * len([t for t in calm.told if t.action == "opened"])
    assert all(seen)


def test_leaving_the_loop_keeps_the_state_and_frees_it(tmp_path, calm):
    """`break` is no crash: the next start needs no cleaning up, and repeats nothing but this."""

    async def first():
        run = bk.Live.run("X", strategy_name="s", exchange_name="frame", clock=clock)
        async with contextlib.aclosing(run):
            return await anext(run)

    adapter = FileAdapter(tmp_path / "left")
    clock = bk.VirtualClock(to_datetime(BEGIN), to_datetime(END))
    answer = script(3, 0.1)
    with bk.Engine():
        bk.use_persist_adapter(adapter)
        bk.add_exchange(bk.exchanges.FrameExchange(ROWS))
        bk.add_strategy(
            strategy_name="s",
            interval="1m",
            get_signal=lambda symbol, when: answer(
                round(when.timestamp() * 1000), bk.average_price(symbol)
            ),
        )
        tick = asyncio.run(first())
    assert adapter.owner() is None
    later = play(adapter, END).ids()
    assert calm.ids()[-len(later) :] == later
    assert tick.transition_id in calm.ids()
    assert len(later) >= len(calm.ids()) - calm.ids().index(tick.transition_id) - 1


async def test_a_run_that_was_refused_for_damage_is_refused_again_while_others_run(tmp_path):
    """Its document has been moved aside by then; that must not mean that nothing is open."""
    owner = StateOwner(lambda: FileAdapter(tmp_path), lambda where, error: None, Clock)
    other, damaged = RunKey("e", "s", "X"), RunKey("e", "s", "Y")
    await owner.enter(other, lambda: None)
    path = FileAdapter(tmp_path).where("run", str(damaged))
    (tmp_path / "run").mkdir()
    Path(path).write_bytes(b"?")
    for _ in range(2):
        with pytest.raises(bk.CorruptStateError, match="whether a position is open is not known"):
            await owner.enter(damaged, lambda: None)
    await owner.leave(other)

"""Flipped bits, cuts, insertions, swaps and older copies of what is stored are all noticed."""

import asyncio
import json
import random
import shutil

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._rules.account import Rules, Terms
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.managed import Opening, open_managed, step_managed
from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.accounts import AccountDocument, BalanceChange
from backtest_kit._state.cursors import Cursor, cursor_key
from backtest_kit._state.documents import (
    Heartbeat,
    LiveState,
    Page,
    RunKey,
    Session,
    decode,
    encode,
    nothing_stored,
    transition,
)
from backtest_kit._state.envelope import DamagedError, seal
from backtest_kit._state.lock import Owner
from backtest_kit._state.owner import StateOwner
from backtest_kit._state.positions import restored, stored_position
from backtest_kit._values.clock import Clock
from backtest_kit._values.signal import SignalRow
from effort import examples
from markets import MINUTE, START

KEYS = [RunKey("venue", "s:1", symbol) for symbol in ("BTC/USDT:USDT", "Y")]


def row(key, *, filled=True):
    return SignalRow(
        id="é",
        symbol=key.symbol,
        strategy_name=key.strategy_name,
        exchange_name=key.exchange_name,
        position="long",
        price_open=100.0,
        price_take_profit=110.5,
        price_stop_loss=90.0,
        minute_estimated_time=60,
        scheduled_at=START,
        pending_at=START if filled else None,
        trailing_stop=bk.TrailingStop(2.0),
        take_profits=((1.0, 25.0), (2.0, 25.0)),
    )


def held(key):
    """What the row holds after a minute: a part is closed, and the stop has moved."""
    candles = [np.array(column) for column in ([100, 101.5], [100, 101.5], [100, 100.5])]
    high, low = np.array([100.0, 101.6]), np.array([100.0, 100.5])
    bars, config = Bars(START, *candles, high, low), bk.Config(exit_trigger="wick")
    paid = Opening(2.0, 500.0, Terms(2.0, 0.005, 0.001, 0.001), Rules(step=25.0, scale=100.0))
    opened = open_managed(row(key), bars.bar(START), config, paid).holding
    return step_managed(opened, bars.bar(START + MINUTE), config).holding


def opened(key):
    return bk.TickOpened(
        symbol=key.symbol,
        strategy_name=key.strategy_name,
        exchange_name=key.exchange_name,
        timestamp=START,
        current_price=100.0,
        signal=row(key),
    )


def answer(key):
    return bk.CommandEvent(
        symbol=key.symbol,
        strategy_name=key.strategy_name,
        exchange_name=key.exchange_name,
        timestamp=START,
        command="one",
        what="pause",
        outcome="done",
    )


def part():
    """What the run of the position has done to its account."""
    money = bk.Money(
        quantity=2.0,
        cost=200.2,
        first_cost=200.2,
        fees=0.3,
        slippage=0.2,
        profit=0.5,
        profit_percent=0.25,
        equity_before=1000.0,
    )
    return AccountPart(
        name="main",
        order=0,
        profit=-3.5,
        fees=1.25,
        trades=2,
        money=money,
        mark=101.25,
        booked=5,
        left=997.0,
        taken_at=START,
        taken=1000.0,
        refusals={"cash": 1},
        skips={},
        reductions=1,
        not_charged=0.0,
        revision=3,
    )


def account():
    """What that account began with."""
    return AccountDocument(
        name="main",
        exchange_name="venue",
        currency="USDT",
        balance=1000.0,
        leverage=2.0,
        maintenance_percent=0.5,
        since=START,
        changes=(BalanceChange(START, -10.0, "rent"),),
        closes={"2024-01-01": 990.5},
        places={str(KEYS[0]): 0},
        revision=3,
    )


def documents(key):
    """Every kind of document, of a run that holds a position: by kind and key, with its type."""
    entry = transition(opened(key), 0)
    state = bk.LiveState(
        **{name: getattr(nothing_stored(key), name) for name in ("exchange_name", "symbol")},
        strategy_name=key.strategy_name,
        risk_names=("r",),
        began_at=START,
        at=START,
        asked_at=START,
        price=100.0,
        signal=row(key),
        position=stored_position(held(key)),
        account=part(),
        fired=0,
        followed=None,
        managed_at=START,
        paused=True,
        done=(answer(key),),
        session=Session(Owner(1, "host", START, "backtest-kit live"), START, 60_000, False),
        sequence=1,
        missed=2,
        percent_fee=0.1,
        percent_slippage=0.1,
        outbox=(entry,),
        own={"seen": [1, 2]},
        own_sequence=0,
        told=1,
        heard=0,
        revision=7,
    )
    beats = Heartbeat({str(key): START}, {str(key): START}, {str(key): 7}, {})
    return {
        ("run", str(key)): state,
        ("journal", f"{key}/000000"): Page((entry,), 7),
        ("heartbeat", "all"): beats,
        ("cursor", cursor_key("telegram", key)): Cursor(1),
        ("account", "main"): account(),
    }


STORED = {name: encode(*name, document) for name, document in documents(KEYS[0]).items()}
TYPES = {"run": LiveState, "journal": Page, "heartbeat": Heartbeat, "cursor": Cursor}
TYPES |= {"account": AccountDocument}


def noticed(name, content):
    """Decode what may be damaged; say whether that was noticed."""
    try:
        decode(*name, content, TYPES[name[0]])
    except (DamagedError, bk.StateError):
        return True
    return False


@pytest.mark.parametrize("name", STORED, ids=lambda name: name[0])
def test_every_flipped_bit_is_noticed(name, record_property):
    content = STORED[name]
    assert not noticed(name, content)
    missed = []
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        if not noticed(name, bytes(flipped)):
            missed.append(bit)
    assert missed == []
    record_property("measured", f"{8 * len(content)} flips of a {name[0]} document, 0 unnoticed")


@examples(300)
@given(
    name=st.sampled_from([*STORED]),
    begin=st.integers(0, 2000),
    length=st.integers(0, 2000),
    new=st.binary(max_size=20) | st.sampled_from([*STORED.values()]),
)
def test_whatever_is_cut_out_or_put_in_is_noticed(name, begin, length, new):
    content = STORED[name]
    changed = content[:begin] + new + content[begin + length :]
    assert noticed(name, changed) is (changed != content)


def test_a_position_comes_back_as_it_was():
    before = held(KEYS[0])
    assert len(before.times) == 2
    assert before.moves == 2
    name = ("run", str(KEYS[0]))
    found = decode(*name, STORED[name], LiveState)
    assert repr(restored(found.position, found.signal)) == repr(before)  # a NaN equals itself


CHANGES = {
    "a number is missing": lambda numbers, fills: numbers.pop("best"),
    "one too many": lambda numbers, fills: numbers.update(more=1.0),
    "not finite": lambda numbers, fills: numbers.update(best=None),
    "no stop, though the row has one": lambda numbers, fills: numbers.update(stop=None),
    "another side": lambda numbers, fills: numbers.update(side=-1.0),
    "another trailing stop": lambda numbers, fills: numbers.update(trailing=3.0),
    "more is held than was bought": lambda numbers, fills: numbers.update(held=1.0),
    "more cost": lambda numbers, fills: numbers.update(cost=1.5),
    "nothing is held": lambda numbers, fills: numbers.update(held=0.0),
    "half a level": lambda numbers, fills: numbers.update(next_profit=0.5),
    "more levels than there are": lambda numbers, fills: numbers.update(next_profit=3.0),
    "an unknown reason": lambda numbers, fills: numbers.update(kind=9.0),
    "fewer moves than none": lambda numbers, fills: numbers.update(moves=-1.0),
    "the stop beyond the target": lambda numbers, fills: numbers.update(stop=111.0),
    "a fill is missing": lambda numbers, fills: fills.pop(),
    "a fill at another time": lambda numbers, fills: fills[0].update(timestamp=START + 1),
    "a fill before the one before": lambda numbers, fills: fills[1].update(timestamp=START - 1),
    "a fill of another size": lambda numbers, fills: fills[1].update(quantity=-0.26),
    "a fill at another price": lambda numbers, fills: fills[1].update(price=102.0),
    "another first price": lambda numbers, fills: fills[0].update(price=99.0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_position_that_does_not_fit_its_signal_is_noticed(what):
    """By what it says: whoever sealed it anew has made a good digest."""
    name = ("run", str(KEYS[0]))
    state = documents(KEYS[0])[name]
    data = json.loads(msgspec.json.encode(state))
    CHANGES[what](data["position"]["numbers"], data["position"]["fills"])
    assert noticed(name, seal(*name, json.dumps(data).encode()))
    assert not noticed(name, seal(*name, msgspec.json.encode(state)))


@pytest.mark.parametrize("what", ["waits", "is gone"])
def test_a_position_without_its_signal_is_noticed(what):
    name = ("run", str(KEYS[0]))
    state = documents(KEYS[0])[name]
    signal = row(KEYS[0], filled=False) if what == "waits" else None
    assert noticed(name, encode(*name, msgspec.structs.replace(state, signal=signal)))
    assert noticed(name, encode(*name, msgspec.structs.replace(state, position=None)))


def test_documents_that_changed_places_are_noticed():
    other = {name: encode(*name, document) for name, document in documents(KEYS[1]).items()}
    for name in [*STORED]:
        for place, content in (*other.items(), *STORED.items()):
            assert noticed(name, content) is (place != name)


def test_names_within_a_document_of_release_0_1_0_are_compared_with_its_key():
    """It has no digest; its names and its form are all there is."""
    state = documents(KEYS[0])["run", str(KEYS[0])]
    plain = encode("run", str(KEYS[0]), state)
    data = plain[plain.index(b'"data":') :].replace(b',"revision":7', b"")
    content = b'{"version":1,' + data
    assert decode("run", str(KEYS[0]), content, LiveState).signal == state.signal
    for before, after in (
        (b'"symbol":"BTC', b'"symbol":"BTD'),
        (b'"pending_at"', b'"qending_at"'),
        (b'"signal":{', b'"sigmal":{'),
        (b'"fired":0,', b""),
        (b'"at":', b'"more":1,"at":'),
        (b'"sequence":1,', b'"sequence":1000000000000,'),
        (b'"version":1,', b'"version":1,"key":"x",'),
    ):
        changed = content.replace(before, after, 1)
        assert changed != content
        assert noticed(("run", str(KEYS[0])), changed), before
    assert noticed(("run", str(KEYS[1])), content)


MAKERS = {
    "files": lambda folder: bk.FileAdapter(folder / "state"),
    "sqlite": lambda folder: bk.SqliteAdapter(folder / "state" / "state.db"),
}


def enter(adapter, key):
    """Start and leave a run; return where it stands (`None` if refused), and what was reported."""
    reported = []

    async def main():
        owner = StateOwner(lambda: adapter, lambda where, error: reported.append(error), Clock)
        try:
            state = await owner.enter(key, lambda: None)
        except bk.StateError as error:
            reported.append(error)
            return None
        await owner.leave(key)
        return state

    return asyncio.run(main()), reported


def fill(adapter, keys=KEYS[:1]):
    adapter.acquire()
    beats = Heartbeat({}, {}, {}, {})
    for key in keys:
        for name, document in documents(key).items():
            adapter.write(*name, encode(*name, document))
        beats.revision[str(key)] = 7
    adapter.write("heartbeat", "all", encode("heartbeat", "all", beats))
    adapter.release()


@pytest.mark.parametrize("kind", MAKERS)
def test_no_flipped_bit_on_the_disk_makes_a_position_vanish(kind, tmp_path, record_property):
    """Through the adapter and the owner of the state, over bits of the files themselves."""
    fill(MAKERS[kind](tmp_path))
    whole = tmp_path / "whole"
    (tmp_path / "state").rename(whole)
    choose = random.Random(kind)
    files = [path for path in whole.rglob("*") if path.is_file() and "lock" not in path.name]
    held, found = documents(KEYS[0])["run", str(KEYS[0])], {"as it was": 0, "refused": 0}
    for _ in range(70):
        shutil.copytree(whole, tmp_path / "state")
        path = choose.choice(files)
        # a database is mostly empty: what is in it shall be met
        bits = [8 * i + b for i, byte in enumerate(path.read_bytes()) if byte for b in range(8)]
        bit = choose.choice(bits)
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (tmp_path / "state" / path.relative_to(whole)).write_bytes(content)
        state, reported = enter(MAKERS[kind](tmp_path), KEYS[0])
        assert state == held if state is not None else reported, (path, bit)
        found["refused" if state is None else "as it was"] += 1
        shutil.rmtree(tmp_path / "state")
    assert all(found.values())
    record_property("measured", f"{kind}: 70 flips on the disk: {found}")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("what", ["gone", "older", "another's", "swapped"])
def test_what_is_not_the_newest_document_is_refused_until_somebody_saw_to_it(kind, what, tmp_path):
    make = MAKERS[kind]
    fill(make(tmp_path), KEYS)
    adapter, name = make(tmp_path), ("run", str(KEYS[0]))
    whole, other = adapter.read(*name), adapter.read("run", str(KEYS[1]))
    if what == "gone":
        adapter.delete(*name)
    elif what == "older":
        older = nothing_stored(KEYS[0])
        adapter.write(*name, encode(*name, older))
    else:
        adapter.write(*name, other)
        if what == "swapped":
            adapter.write("run", str(KEYS[1]), whole)
    adapter.release()
    for _ in range(2):
        state, reported = enter(make(tmp_path), KEYS[0])
        assert state is None
        assert isinstance(reported[-1], bk.CorruptStateError)
        assert "whether a position is open is not known" in str(reported[-1])
    state, _ = enter(make(tmp_path), KEYS[1])
    assert (state is None) is (what == "swapped"), "the other run is not concerned"

    adapter = make(tmp_path)
    adapter.write(*name, whole)
    adapter.release()
    state, _ = enter(make(tmp_path), KEYS[0])
    assert state.signal == row(KEYS[0])


def test_a_run_whose_document_lies_under_another_key_does_not_begin_anew(tmp_path):
    """As a flipped bit in the key of a database's row leaves it: nothing is under its own."""
    adapter = bk.SqliteAdapter(tmp_path / "state.db")
    key = str(KEYS[0])
    adapter.write("run", key[:-1] + "U", encode("run", key, documents(KEYS[0])["run", key]))
    adapter.release()
    for _ in range(2):
        state, reported = enter(bk.SqliteAdapter(tmp_path / "state.db"), KEYS[0])
        assert state is None
        assert reported


def test_an_older_page_of_the_journal_is_reported(tmp_path):
    adapter = bk.FileAdapter(tmp_path)
    fill(adapter)
    key = KEYS[0]
    state = documents(key)["run", str(key)]
    adapter.write("journal", f"{key}/000000", encode("journal", f"{key}/000000", Page((), 3)))
    fields = {name: getattr(state, name) for name in state.__struct_fields__} | {"outbox": ()}
    adapter.write("run", str(key), encode("run", str(key), bk.LiveState(**fields)))
    reported = []

    async def main():
        owner = StateOwner(lambda: adapter, lambda where, error: reported.append(error), Clock)
        await owner.journal.history(await owner.enter(key, lambda: None))
        await owner.leave(key)

    asyncio.run(main())
    (error,) = reported
    assert "transitions 0 of s:1 on BTC/USDT:USDT (venue) are not in the journal" in str(error)

"""Named listeners: at least once, in order, nothing lost, whatever happens in between."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit.testing import MemoryAdapter
from effort import examples
from live.world import BRACKET, T0, Stage, clock, flat, running
from markets import MINUTE


class Killed(BaseException):
    """The process is gone: nothing after this point happens."""


class Mortal(MemoryAdapter):
    """Dies at its n-th write, before or after it takes effect."""

    def __init__(self, documents, lives):
        super().__init__(documents)
        self.lives = lives

    def breathe(self):
        self.lives -= 1
        if self.lives < 0:
            raise Killed

    async def write(self, kind, key, document):
        self.breathe()
        await super().write(kind, key, document)
        self.breathe()


NAMES = {"strategy_name": "s", "exchange_name": "frame"}


def process(documents, lives, told, symbols=("X", "Y"), until=200, **options):
    """Go on from the state that is there; say whether it came to the end."""
    adapter = Mortal(documents, lives)

    async def listener(event):
        told.append((event.symbol, event.transition_id))
        adapter.breathe()
        await asyncio.sleep(0)
        adapter.breathe()

    with bk.Engine():
        bk.use_persist_adapter(adapter)
        bk.add_exchange(bk.exchanges.FrameExchange(flat(400)))
        bk.add_strategy(
            strategy_name="s",
            interval="5m",
            get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 7},
        )
        bk.listen_transitions(listener, name="telegram", **options)

        async def one(symbol):
            async for _ in bk.Live.run(symbol, **NAMES, clock=clock(50, until)):
                pass

        async def main():
            await asyncio.gather(*(one(symbol) for symbol in symbols))

        try:
            asyncio.run(main())
        except Killed:
            return False
    return True


def firsts(told, symbol):
    """What was told of a symbol, without repeats."""
    return [*dict.fromkeys(name for which, name in told if which == symbol)]


@pytest.fixture(scope="module")
def calm():
    told = []
    assert process({}, 10**9, told)
    assert len(set(told)) == len(told) > 30
    return told


@examples(20)
@given(st.lists(st.integers(0, 150), min_size=1, max_size=8))
def test_killed_anywhere_each_transition_is_heard_in_order(calm, deaths):
    documents, told = {}, []
    for lives in [*deaths, 10**9]:
        if process(documents, lives, told):
            break
    for symbol in ("X", "Y"):
        assert firsts(told, symbol) == firsts(calm, symbol)
    # told again are only those whose cursor had not been written when the process died
    assert len(told) - len(set(told)) <= 2 * len(deaths)


def test_a_new_name_begins_with_what_comes_next_or_with_the_oldest():
    documents, first, later, whole, again = {}, [], [], [], []
    assert process(documents, 10**9, first, until=100)
    with_names = dict(documents)
    assert process(with_names, 10**9, again, until=150)
    assert not set(again) & set(first)

    def second(told, name, **options):
        copy = {key: value for key, value in documents.items() if key[0] != "cursor"}
        assert process(copy, 10**9, told, until=150, **options)

    second(later, "other")
    second(whole, "other", from_start=True)
    assert set(later) == set(again)
    assert set(whole) == {*first, *again}
    assert firsts(whole, "X") == firsts(first, "X") + firsts(again, "X")


def test_what_came_while_it_was_away_is_told_when_it_comes_back():
    documents, first, again = {}, [], []
    process(documents, 10**9, first, until=80)
    with bk.Engine():
        bk.use_persist_adapter(MemoryAdapter(documents))
        bk.add_exchange(bk.exchanges.FrameExchange(flat(400)))
        bk.add_strategy(
            strategy_name="s",
            interval="5m",
            get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 7},
        )

        async def without():
            async for _ in bk.Live.run("X", **NAMES, clock=clock(50, 150)):
                pass

        asyncio.run(without())
    process(documents, 10**9, again, symbols=("X",), until=200)
    whole = []
    process({}, 10**9, whole, symbols=("X",), until=200)
    assert firsts(first, "X") + firsts(again, "X") == firsts(whole, "X")


def test_a_damaged_cursor_tells_all_of_it_again_and_says_so():
    documents, first, again = {}, [], []
    process(documents, 10**9, first, symbols=("X",), until=100)
    (key,) = (key for key in documents if key[0] == "cursor")
    documents[key] = b"?"
    process(documents, 10**9, again, symbols=("X",), until=100)
    assert [*dict.fromkeys(again)] == first


def test_a_hanging_one_is_told_the_rest_after_a_restart_and_no_run_waits():
    stage = Stage(
        flat(), answer=lambda at, price: BRACKET | {"minute_estimated_time": 2}, interval="5m"
    )
    heard = []

    async def hang(event):
        heard.append(event.transition_id)
        await asyncio.Event().wait()

    async def hear(event):
        heard.append(event.transition_id)

    async def session(function, until):
        unsubscribe = bk.listen_transitions(function, name="telegram")
        task = stage.task()
        async with running(task):
            await stage.world.until(until)
            data = bk.Live.get_data("X", strategy_name="s")
        unsubscribe()
        return data

    async def main():
        first = await session(hang, T0 + 60 * MINUTE + 30_000)
        return first, await session(hear, T0 + 62 * MINUTE + 30_000)

    first, second = stage.world.run(main())
    assert first.missed == second.missed == 0
    told = [*dict.fromkeys(tick.transition_id for tick in stage.transitions())]
    assert len(told) > 20
    assert heard[0] == heard[1], "its call had not returned"
    assert heard[1:] == told


def test_names_are_one_each():
    bk.listen_transitions(print, name="a")
    with pytest.raises(bk.RegistrationError, match="'a' is there already"):
        bk.listen_transitions(print, name="a")
    with pytest.raises(bk.RegistrationError, match="non-empty"):
        bk.listen_transitions(print, name="")
    with pytest.raises(TypeError, match="must be a function"):
        bk.listen_transitions(3, name="b")


def test_a_run_that_begins_anew_is_told_from_there_also_after_a_crash():
    """Its state was deleted and the cursor was not: it is beyond the run's end."""
    documents = {}
    assert process(documents, 10**9, [], symbols=("X",))
    cursors = {key: value for key, value in documents.items() if key[0] == "cursor"}
    calm = []
    assert process(dict(cursors), 10**9, calm, symbols=("X",), until=150)
    assert calm
    for lives in range(3, 40, 3):
        left, told = dict(cursors), []
        assert not process(left, lives, told, symbols=("X",), until=150)
        assert process(left, 10**9, told, symbols=("X",), until=150)
        assert firsts(told, "X") == firsts(calm, "X")

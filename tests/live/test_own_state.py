"""A strategy's own state is part of the step: it survives a kill with everything else."""

import asyncio
import json
import os
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit._state.documents import LiveState, decode, encode
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from effort import DEEP
from live.test_kill_anywhere import kill
from markets import MINUTE, START, market

PROGRAM = Path(__file__).with_name("kill_own_state.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize(("seed", "every"), [(3, 5), (6, 7)] if DEEP else [(3, 41), (6, 43)])
def test_a_run_killed_anywhere_has_the_state_of_one_never_killed(seed, every, record_property):
    result = kill(PROGRAM, seed, every, record_property)
    assert {"opened", "closed"} <= {*result["kinds"]}


class Counting:
    """Counts its calls, and trades on every fourth."""

    def __init__(self):
        self.calls = 0
        self.closed = 0

    def get_signal(self, symbol, when):
        price = bk.average_price(symbol)
        self.calls += 1
        if self.calls % 4:
            return None
        return bk.Signal(
            position="long",
            price_take_profit=price * 1.01,
            price_stop_loss=price * 0.99,
            minute_estimated_time=2,
        )

    def on_close(self, tick):
        self.closed += 1

    def save(self):
        return {"calls": self.calls, "closed": self.closed}

    def load(self, value):
        self.calls, self.closed = value["calls"], value["closed"]


class Faulty(MemoryAdapter):
    """Fails to write some of the documents of runs."""

    def __init__(self, documents, failing):
        super().__init__(documents)
        self.writes, self.failing = 0, failing

    async def write(self, kind, key, document):
        if kind == "run":
            self.writes += 1
            if self.writes in self.failing:
                raise OSError("no space")
        await super().write(kind, key, document)


def live(documents, make=Counting, until=60, failing=()):
    """Run on to a minute; return trades, the state that is stored, and errors."""
    errors, found = [], []
    with bk.Engine():
        bk.set_config(fill_price="average")  # distances are measured from it
        bk.use_persist_adapter(Faulty(documents, failing))
        bk.listen_error(lambda event: errors.append(event.where))
        bk.add_exchange(bk.exchanges.FrameExchange(market(2, 120, gaps=False)))
        bk.add_strategy(strategy_name="s", interval="1m", make=make)
        clock = bk.VirtualClock(
            to_datetime(START + 20 * MINUTE), to_datetime(START + (20 + until) * MINUTE)
        )

        async def run():
            names = {"strategy_name": "s", "exchange_name": "frame", "clock": clock}
            found.extend([(t.action, t.timestamp) async for t in bk.Live.run("X", **names)])

        asyncio.run(run())
    (stored,) = ((*name, text) for name, text in documents.items() if name[0] == "run")
    return found, decode(*stored, LiveState), errors


def test_a_restart_goes_on_from_the_state_that_was_saved():
    whole, state, _ = live({})
    assert state.own["calls"] > 10 < len(whole)
    assert state.own["closed"] == sum(action == "closed" for action, _ in whole)
    documents = {}
    parts = [*live(documents, until=25)[0], *live(documents, until=60)[0]]
    assert parts == whole
    (name,) = (name for name in documents if name[0] == "run")
    assert decode(*name, documents[name], LiveState).own == state.own


@pytest.mark.parametrize("failing", [{3}, {5, 6}, {8, 9, 10}])
def test_a_step_that_can_not_be_written_leaves_no_trace_in_the_strategy(failing):
    _, state, errors = live({}, failing=failing)
    assert errors.count("state") >= 1
    calls = state.own["calls"]

    class Told(Counting):
        """Knows how often it was asked in steps that were written."""

        def __init__(self):
            super().__init__()
            self.asked = 0

        def get_signal(self, symbol, when):
            self.asked += 1
            return super().get_signal(symbol, when)

    made = []
    live({}, failing=failing, make=lambda: made.append(Told()) or made[-1])
    assert made[0].calls == calls < made[0].asked


class Unsaved(Counting):
    def save(self):
        return {1, 2, object()}


class Unloaded(Counting):
    def load(self, value):
        raise KeyError("level")


def test_what_can_not_be_saved_is_an_error_of_the_step_and_no_end():
    found, state, errors = live({}, make=Unsaved)
    assert found == live({})[0]
    assert state.own is None
    assert {*errors} == {"save"}


def test_a_run_whose_state_can_not_be_loaded_does_not_begin_without_it():
    documents = {}
    live(documents, until=25)
    before = dict(documents)
    with pytest.raises(bk.StateError, match="'s' can't load its own state: KeyError"):
        live(documents, make=Unloaded)
    assert documents == before


def test_a_state_written_before_there_were_own_states_is_read():
    documents = {}
    live(documents, until=25, make=lambda: Counting().get_signal)
    (key,) = (key for key in documents if key[0] == "run")
    for name, document in documents.items():
        data = json.loads(document)["data"]
        del data["revision"]
        if name == key:
            assert data.pop("own") is None
            del data["own_sequence"]
        documents[name] = json.dumps({"version": 1, "data": data}).encode()
    _, state, errors = live(documents)
    assert not errors
    assert state.own["calls"] > 5
    assert decode(*key, encode(*key, state), LiveState) == state

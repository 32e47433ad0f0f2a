"""Strategies of a walk that share state: figures that depend on the order are no figures."""

import functools
import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest

import backtest_kit as bk
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.time import to_datetime
from backtest_kit._walker.pool_runner import PoolRunner
from backtest_kit._walker.shared_state import began_with_others
from backtest_kit._walker.trial import TrialSetup
from markets import START, market

HELD = "import backtest_kit as bk\nCALLS = 0\nSEEN = []\nTEXTS = {'calls': 0}\n"
#: A strategy that goes on for as long as a count is low, and what counts.
SOURCE = """
import functools
import backtest_kit as bk
import own_held
from own_held import TEXTS

CALLS = 0

class Fitted:
    calls = 0

@functools.cache
def remembered(x):
    return x + 1

def counts_a_global():
    global CALLS
    CALLS += 1
    return CALLS

def counts_in_another_module():
    own_held.CALLS += 1
    return own_held.CALLS

def reads_a_global():
    return CALLS

def appends_to_a_list_of_another_module():
    own_held.SEEN.append(1)
    return len(own_held.SEEN)

def counts_in_an_imported_dict():
    TEXTS["calls"] += 1
    return TEXTS["calls"]

def counts_in_a_class():
    Fitted.calls += 1
    return Fitted.calls

def counts_in_a_default(known=[]):
    known.append(1)
    return len(known)

def only_remembers():
    return remembered(3)

def strategy(count, percent):
    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        if count() > 12:
            return None
        return bk.Signal(
            position="long",
            price_take_profit=price * (1 + percent / 100),
            price_stop_loss=price * (1 - percent / 100),
            minute_estimated_time=20,
        )
    return get_signal

def own_count():
    calls = 0
    def count():
        nonlocal calls
        calls += 1
        return calls
    return count
"""
CHANGED = {
    "counts_a_global": "global 'CALLS'",
    "counts_in_another_module": "global 'own_held.CALLS'",
    "appends_to_a_list_of_another_module": "global 'own_held.SEEN'",
    "counts_in_an_imported_dict": "global 'TEXTS'",
    "counts_in_a_class": "class variable 'Fitted.calls'",
    "counts_in_a_default": "default of 'known'",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's module, as a new process would have it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_shared.py").write_text(SOURCE)
    (tmp_path / "own_held.py").write_text(HELD)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield importlib.import_module("own_shared")
    for name in ("own_shared", "own_held"):
        sys.modules.pop(name, None)


def walk(strategies, executor=None):
    """Return the row of each strategy of a walk."""
    return {row.strategy_name: row for row in ranked(strategies, executor).ranking}


def ranked(strategies, executor=None):
    with bk.Engine():
        bk.set_config(fill_price="average")
        bk.add_exchange(bk.exchanges.FrameExchange(market(3, 600, gaps=False)))
        begin = to_datetime(START) + timedelta(minutes=30)
        bk.add_frame(
            frame_name="f", interval="1m", start_date=begin, end_date=begin + timedelta(hours=8)
        )
        for name, how in strategies.items():
            how = {"get_signal": how} if callable(how) else how
            bk.add_strategy(strategy_name=name, interval="5m", **how)
        bk.add_walker(
            walker_name="w", exchange_name="frame", frame_name="f", strategies=[*strategies]
        )
        bk.Walker.run_sync("X", walker_name="w", executor=executor)
        return bk.Walker.get_data("X", walker_name="w")


@pytest.mark.parametrize("name", CHANGED)
def test_a_strategy_that_changes_what_a_module_holds_fails_with_its_name(own, name):
    make = functools.partial(own.strategy, getattr(own, name))
    rows = walk({"a": make(1.0), "b": make(1.5)})
    assert (
        f"strategy 'a' changed what other strategies see: {CHANGED[name]}; figures would depend "
        "on the order of the trials. Give each run its own with make="
    ) in rows["a"].error
    assert f"had changed: {CHANGED[name]} (by 'a')" in rows["b"].error
    assert rows["a"].statistics is None is rows["b"].statistics


def sharing(own):
    """Strategies that share in several ways, and some that share nothing."""
    levels, given, lonely = [], [], [own.own_count() for _ in "ab"]

    def closes_over(percent):
        return own.strategy(lambda: levels.append(1) or len(levels), percent)

    def was_given(held, percent):
        return own.strategy(lambda: held.append(1) or len(held), percent)

    return {
        "reads early": own.strategy(own.reads_a_global, 1.0),
        "alone 1": own.strategy(lonely[0], 1.0),
        "counts 1": own.strategy(own.counts_a_global, 1.0),
        "counts 2": own.strategy(own.counts_a_global, 1.5),
        "reads late": own.strategy(own.reads_a_global, 2.0),
        "made": {"make": lambda: own.strategy(own.reads_a_global, 2.5)},
        "closes 1": closes_over(1.0),
        "closes 2": closes_over(1.5),
        "given 1": was_given(given, 1.0),
        "given 2": was_given(given, 1.5),
        "class": own.strategy(own.counts_in_a_class, 1.0),
        "alone 2": own.strategy(lonely[1], 1.5),
    }


def told(data):
    return {row.strategy_name: (row.error or "")[:400] for row in data.ranking}


def check_sharing(data):
    rows = told(data)
    fine = {name for name, error in rows.items() if not error}
    assert fine == {"reads early", "alone 1", "alone 2", "closes 1", "given 1"}
    assert "changed what other strategies see: global 'CALLS'" in rows["counts 1"]
    assert "had changed: global 'CALLS' (by 'counts 1')" in rows["counts 2"]
    for name in ("reads late", "made"):
        assert "had changed: global 'CALLS' (by 'counts 2')" in rows[name]
    assert "had changed: closure variable 'levels' (by 'closes 1')" in rows["closes 2"]
    assert "had changed: closure variable 'held' (by 'given 1')" in rows["given 2"]
    assert "other strategies see: class variable 'Fitted.calls'" in rows["class"]


def test_workers_find_the_same_errors_and_the_same_figures(own):
    there = ranked(sharing(own), "processes")
    check_sharing(there)
    assert there == ranked(sharing(own))


@pytest.mark.slow
def test_dask_finds_the_same(own):
    distributed = pytest.importorskip("distributed", reason="needs the extra dask")
    with distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        check_sharing(ranked(sharing(own), client.get_executor()))


async def test_what_a_later_trial_left_in_a_worker_is_no_fault_of_an_earlier_one(monkeypatch):
    """Workers may run trials in another order than theirs."""
    engine = bk.Engine()
    setup = TrialSetup(engine, ("X",), None, None)
    schema = bk.StrategySchema(strategy_name="s", interval="1m", get_signal=lambda s, w: None)
    given = [
        began_with_others("s", [("global 'X'", "later")]),
        TrialResult(strategy_name="s", symbols=("X",)),
    ]
    for executor, wanted in (("processes", given[1]), (ThreadPoolExecutor(1), None)):
        runner = PoolRunner(setup, [], executor)
        batch = SimpleNamespace(strategies=[b""], parts=10)
        runner._trials.append((batch, 0, schema))

        async def result_of(index):
            raise given[0]

        async def isolated(*arguments):
            return given[1]

        monkeypatch.setattr(runner, "_result_of", result_of)
        monkeypatch.setattr(runner, "_run_isolated", isolated)
        if wanted is not None:
            assert await runner.run(0) is wanted
            continue
        with pytest.raises(bk.StrategyFailedError, match=r"'X' \(by 'later'\)"):
            await runner.run(0)


def test_strategies_that_were_given_the_same_list_are_told_of_each_other(own):
    levels = [1] * 30

    def strategy(percent):
        return own.strategy(lambda: levels.pop(), percent)

    rows = walk({"a": strategy(1.0), "b": strategy(1.5)})
    assert rows["a"].error is None, "nobody had changed it before"
    assert "closure variable 'levels' (by 'a')" in rows["b"].error


@pytest.mark.parametrize("kind", ["closure", "make", "cache"])
def test_what_is_of_a_strategy_alone_is_no_error_and_the_order_does_not_matter(own, kind):
    def strategies():
        if kind == "make":
            made = [lambda p=p: own.strategy(own.own_count(), p) for p in (1.0, 1.5)]
            return {name: {"make": make} for name, make in zip("ab", made, strict=True)}
        counts = [own.only_remembers if kind == "cache" else own.own_count() for _ in "ab"]
        each = zip("ab", counts, (1.0, 1.5), strict=True)
        return {name: own.strategy(count, percent) for name, count, percent in each}

    first = walk(strategies())
    second = walk(dict(reversed(strategies().items())))
    for name in "ab":
        assert first[name].error is None
        assert first[name].statistics == second[name].statistics
        assert first[name].statistics.total_signals > 5

"""Walks over array strategies: some are begun ahead, in threads, and nobody can tell."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

pytest.importorskip("numba", reason="the kernel needs Numba: pip install 'backtest-kit[numba]'")

import backtest_kit as bk
from backtest_kit import _ahead
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=90)
WARMUP = 30


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(_ahead.os, "cpu_count", lambda: 2)
    bk.add_exchange(bk.exchanges.FrameExchange(market(1, 1500)))
    bk.add_frame(
        frame_name="f", interval="1m", start_date=BEGIN, end_date=BEGIN + timedelta(minutes=1200)
    )


def of_mean(count, seen=lambda count: None):
    """A strategy that calls `seen` where it gets a whole array."""

    def get_signals(candles):
        if len(candles) > 3 * WARMUP:
            seen(count)
        mean = bk.trailing_mean(candles.close, count)
        side = np.where(candles.close > mean, 1, np.where(candles.close < mean, -1, 0))
        return bk.Signals.bracket(side, 1.0, 0.8, 30)

    return {"get_signals": get_signals, "warmup": WARMUP, "interval": "1m"}


def add(**strategies):
    for name, fields in strategies.items():
        bk.add_strategy(strategy_name=name, **fields)
    names = [s.strategy_name for s in bk.list_strategies()]
    bk.add_walker(walker_name="w", exchange_name="frame", frame_name="f", strategies=names)


def test_two_cores_work_on_two_strategies_at_once():
    both = threading.Barrier(2)
    add(a=of_mean(5, lambda count: both.wait(20)), b=of_mean(9, lambda count: both.wait(20)))
    contracts = bk.Walker.run_sync("X", walker_name="w")
    assert [c.error for c in contracts] == [None, None]
    assert contracts[0].statistics.total_signals > 10


def test_no_more_are_begun_than_there_are_cores():
    begun = []
    add(**{f"s{i}": of_mean(i, begun.append) for i in range(2, 9)})

    async def walk():
        contracts = bk.Walker.run("X", walker_name="w")
        return [(contract.strategy_name, len(begun)) async for contract in contracts]

    told = asyncio.run(walk())
    assert [name for name, _ in told] == [f"s{i}" for i in range(2, 9)]
    assert all(count <= i + 2 for i, (_, count) in enumerate(told))


def test_the_figures_are_those_of_a_walk_that_somebody_listens_to():
    add(**{f"s{i}": of_mean(i) for i in range(2, 8)})
    ahead = bk.Walker.run_sync(("X", "Y"), walker_name="w")
    heard = []
    bk.listen_signal(heard.append)
    assert bk.Walker.run_sync(("X", "Y"), walker_name="w") == ahead
    assert heard


def test_others_wait_for_their_turn_and_errors_come_at_theirs():
    order = []

    def plain(symbol, when):
        order.append("plain")

    def bad(candles):
        return bk.Signals.bracket(np.where(np.roll(candles.close, -1) > candles.close, 1, 0))

    add(
        a=of_mean(5, lambda count: order.append("a")),
        plain={"get_signal": plain, "interval": "1m"},
        b=of_mean(5, lambda count: order.append("b")),
        bad={"get_signals": bad, "interval": "1m", "warmup": WARMUP},
        c=of_mean(7, lambda count: order.append("c")),
    )
    contracts = bk.Walker.run_sync("X", walker_name="w")
    assert order[0] == "a"
    assert order.index("plain") > order.index("a")
    assert order.index("b") >= 1
    errors = {c.strategy_name: c.error for c in contracts}
    assert errors.pop("bad").startswith("PeekingError")
    assert set(errors.values()) == {None}
    assert [c.strategy_name for c in contracts] == ["a", "plain", "b", "bad", "c"]


def test_a_walk_that_is_left_early_leaves_nothing_behind():
    add(**{f"s{i}": of_mean(i) for i in range(2, 9)})

    async def walk():
        contracts = bk.Walker.run("X", walker_name="w")
        first = await anext(contracts)
        await contracts.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return first.strategy_name, others

    assert asyncio.run(walk()) == ("s2", set())

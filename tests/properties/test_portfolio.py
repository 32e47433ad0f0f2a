"""Portfolios on one account: the engine against the reference, and what must not matter."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolios
import reference_portfolio
from backtest_kit._arrays import simulation
from backtest_kit._values.config import Config
from backtest_kit._values.time import INTERVALS
from markets import MINUTE, START
from portfolios import SYMBOLS, busy, manage_of, played, worlds


def expected(world):
    names = [(name, symbol) for name, symbols in world.runs.items() for symbol in symbols]
    config = {name: getattr(Config(), name) for name in Config.__struct_fields__} | world.config
    end = START + world.minutes * 3 // 4 * MINUTE
    schema = world.account | {"sizings": world.sizings}
    return reference_portfolio.portfolio(
        {symbol: portfolios.rows_of(world, symbol) for symbol in SYMBOLS},
        {name: portfolios.script_of(world, *name) for name in names},
        names,
        (START, end, MINUTE, INTERVALS[world.interval]),
        schema,
        config,
        world.rules,
        {
            name: (manage_of(world, *name), INTERVALS[world.manages[name[0]]["interval"]])
            for name in names
            if world.manages[name[0]] is not None
        },
    )


def fills_of(session):
    fills = session.account.fills.columns()
    return [
        (int(t), tuple(session.names[run]), int(side), float(quantity))
        for t, run, side, quantity in zip(
            fills.timestamp, fills.run, fills.side, fills.quantity, strict=True
        )
    ]


def close_to(found, wanted):
    """Hold that numbers agree, and that the rest is the same."""
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        same = pytest.approx(x, rel=1e-9, abs=1e-9) if isinstance(x, float) else x
        assert found[name] == same, name


@given(st.one_of(busy, worlds), st.booleans())
def test_a_portfolio_equals_the_reference(world, listens):
    session, told, events, shown, wrong = played(world, listens=listens)
    runs, account, _ = expected(world)
    found, wanted = fills_of(session), [fill[:4] for fill in account.fills]
    assert [fill[:3] for fill in found] == [fill[:3] for fill in wanted]
    assert [fill[3] for fill in found] == pytest.approx([fill[3] for fill in wanted], rel=1e-9)
    balance = world.account["balance"]
    assert session.account.books.balance == pytest.approx(float(account.B), abs=1e-9 * balance)
    refused = [(e.timestamp, (e.strategy_name, e.symbol), e.reason) for e in events]
    assert sorted(refused) == sorted([*account.refused, *account.skipped])
    assert [x[:2] for x in shown] == [x[:2] for x in account.shown]
    for x, y in zip(shown, account.shown, strict=True):
        close_to(x[2], y[2])
    assert [x[:2] for x in wrong] == account.wrong
    for run in runs:
        mine = [t for t in told if (t.strategy_name, t.symbol) == run.name]
        closed = [
            (t.close_timestamp, t.close_reason, t.pnl.pnl_percentage)
            for t in mine
            if t.action == "closed"
        ]
        facts = [fact for fact in run.out if fact[0] == "closed"]
        assert [x[:2] for x in closed] == [(f[1], f[2]) for f in facts]
        assert [x[2] for x in closed] == pytest.approx([f[4] for f in facts], rel=1e-9, abs=1e-9)
        parts = [(t.timestamp, t.price, t.reason) for t in mine if t.action == "partial"]
        facts = [f for f in run.out if f[0] == "part"]
        assert [(x[0], x[2]) for x in parts] == [(f[1], f[4]) for f in facts]
        assert [x[1] for x in parts] == pytest.approx([f[2] for f in facts], rel=1e-9)
        added = [(t.timestamp, t.price, t.reason) for t in mine if t.action == "added"]
        facts = [f for f in run.out if f[0] == "added"]
        assert [(x[0], x[2]) for x in added] == [(f[1], f[5]) for f in facts]
        cancelled = [(t.close_timestamp, t.reason) for t in mine if t.action == "cancelled"]
        assert cancelled == [f[1:3] for f in run.out if f[0] == "cancelled"]


@given(worlds, st.integers(0, 1000), st.sampled_from([1000, 131_072]), st.booleans())
def test_the_order_of_computation_does_not_matter(world, seed, chunk, listens):
    rng = np.random.default_rng(seed)

    async def slow(name, symbol):
        for _ in range(int(rng.integers(0, 4))):
            await asyncio.sleep(0)

    plain, *told = played(world)
    other, *heard = played(world, slow=slow, chunk=chunk, listens=listens)
    assert plain.trades == other.trades
    for name in (one := plain.account.fills.columns()).__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(other.account.fills.columns(), name))
    assert told == heard


ARRAY_RUNS = st.sampled_from([{"s": ["A"]}, {"s": ["B"], "r": ["A"]}, {"r": ["C"], "s": ["C"]}])


@given(worlds, ARRAY_RUNS, st.booleans(), st.sampled_from([1000, 131_072]), st.integers(100, 1500))
def test_trades_found_over_arrays_are_paid_as_in_steps(world, runs, compiled, chunk, minutes):
    if compiled:
        pytest.importorskip("numba", reason="the kernel needs Numba")
        simulation.compile_kernel()
    account = world.account | ({"leverage": 1.0} if world.seed % 4 else {})
    world = world._replace(runs=runs, minutes=minutes, account=account)
    fast, *_ = played(world, arrays=True, chunk=chunk)
    slow, *_ = played(world, arrays=True, listens=True)
    assert fast.trades == slow.trades
    for name in (one := fast.account.fills.columns()).__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(slow.account.fills.columns(), name))
    for name in ("refusals", "skips", "reductions", "taken", "profits"):
        assert getattr(fast.account, name) == getattr(slow.account, name)
    records = [[driver.run.record for driver in session.drivers] for session in (fast, slow)]
    for quick, stepped in zip(*records, strict=True):
        assert quick.closed == stepped.closed
        assert quick.waited == stepped.waited
        assert quick.partials == stepped.partials
        assert (quick.calls, quick.frames) == (stepped.calls, stepped.frames)
        assert quick.error_count == stepped.error_count

"""Portfolios on one account: the engine against the reference, and what must not matter."""

import asyncio
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolios
import reference_portfolio
from accounts import Reference
from backtest_kit._arrays import simulation
from backtest_kit._values.config import Config
from backtest_kit._values.time import INTERVALS
from effort import examples
from markets import MINUTE, START
from portfolios import SYMBOLS, busy, manage_of, played, worlds
from reference import fill_gaps


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


@examples(30)
@given(st.one_of(busy, worlds), st.booleans())
def test_a_portfolio_equals_the_reference(world, listens):
    session, told, events, shown, wrong = played(world, listens=listens)
    runs, account, _ = expected(world)
    found, wanted = fills_of(session), [fill[:4] for fill in account.fills]
    assert [fill[:3] for fill in found] == [fill[:3] for fill in wanted]
    # what is left of the cash may buy next to nothing: 1e-9 of the balance is allowed to it
    small = {"rel": 1e-9, "abs": 1e-9 * world.account["balance"] / 1000}
    assert [fill[3] for fill in found] == pytest.approx([fill[3] for fill in wanted], **small)
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


@examples(30)
@given(
    worlds,
    ARRAY_RUNS,
    st.sampled_from(["sr", "sr", "s"]),
    st.booleans(),
    st.sampled_from([1000, 131_072]),
    st.integers(100, 600),
    st.booleans(),
)
def test_trades_found_over_arrays_are_paid_as_in_steps(
    world, runs, arrays, compiled, chunk, minutes, nights
):
    """Of all runs, or of some beside one that is asked step by step."""
    if compiled:
        pytest.importorskip("numba", reason="the kernel needs Numba")
        simulation.compile_kernel()
    account = world.account | ({"leverage": 1.0} if world.seed % 4 else {})
    world = world._replace(runs=runs, minutes=minutes, account=account)
    if world.seed % 5:  # few are invalid, which arrays leave to the steps
        no_limits = {name: 0.0 for name in world.config if "distance" in name}
        world = world._replace(config=world.config | no_limits | {"require_stop_loss": False})
    fast, *_ = played(world, arrays=arrays, chunk=chunk, nights=nights)
    slow, *_ = played(world, arrays=arrays, listens=True, nights=nights)
    assert fast.trades == slow.trades
    for name in (one := fast.account.fills.columns()).__struct_fields__:
        assert np.array_equal(getattr(one, name), getattr(slow.account.fills.columns(), name))
    for name in ("tally", "taken", "profits"):
        assert getattr(fast.account, name) == getattr(slow.account, name)
    records = [[driver.run.record for driver in session.drivers] for session in (fast, slow)]
    for quick, stepped in zip(*records, strict=True):
        assert quick.closed == stepped.closed
        assert quick.waited == stepped.waited
        assert quick.partials == stepped.partials
        assert (quick.calls, quick.frames) == (stepped.calls, stepped.frames)
        assert quick.error_count == stepped.error_count


#: These play each world twice, and no rule hangs on them alone.
few = examples(12)


def calm(world, **account):
    """The same world with small trades, which no account refuses, and nothing to round to."""
    terms = {"leverage": 1.0, "maintenance_percent": 0.0, "default_percent": 0.5}
    return world._replace(
        account=world.account | terms | account,
        config=world.config | {"require_stop_loss": True},
        sizings={"s": None, "r": None},
        manages={"s": None, "r": None},
        rules={symbol: {} for symbol in SYMBOLS},
    )


def plain_sizes(answer):
    def more(t, price):
        proposal = answer(t, price)
        return proposal and {k: v for k, v in proposal.items() if k not in ("cost", "quantity")}

    return more


def laid(world, alone):
    """The exact books after all trades of lone runs, event by event in the order of the account."""
    events, first = [], {}
    for order, (run, ticks) in enumerate(alone.items()):
        for tick in ticks:
            legs, signal = tick.legs, tick.signal
            for when, fills in itertools.groupby(legs, lambda leg: leg.timestamp):
                fills = [*fills]
                place = 1 if any(leg.kind == "exit" for leg in fills) else 3
                if when == signal.pending_at:
                    place = 5 if when == signal.scheduled_at else 4
                events.append((when, place, order, run, signal.side, fills, legs[-1]))
    config, account = world.config, world.account
    costs = config["percent_fee"], config["percent_slippage"]
    books = Reference(account["balance"], account["leverage"], 0, *costs)
    closes = {
        symbol: {row[0] + MINUTE: row[4] for row in fill_gaps(portfolios.rows_of(world, symbol))}
        for symbol in SYMBOLS
    }
    taken, equity = None, None
    for when, place, _, run, side, fills, last in sorted(events, key=lambda event: event[:3]):
        if place >= 3 and taken != when:
            taken = when
            equity = books.equity({name: closes[name[1]][when] for name in books.open})
        for leg in fills:
            if leg.kind == "exit":
                books.close(run, first[run] * leg.quantity, leg.price, everything=leg is last)
                continue
            if run not in books.open:
                cost = float(equity) * account["default_percent"] / 100
                first[run] = cost / float(books.slip(leg.price, side > 0))
            books.enter(run, side, first[run] * leg.quantity, leg.price)
    assert not books.open
    return books


@few
@given(worlds)
def test_an_account_that_refuses_nothing_changes_no_percent(world):
    alone = {}
    with pytest.MonkeyPatch.context() as patch:
        sized = portfolios.script_of
        patch.setattr(portfolios, "script_of", lambda *names: plain_sizes(sized(*names)))
        session, *_ = played(calm(world), alone=alone)
    account = session.account
    assert not account.tally.refusals
    assert not account.tally.skips
    for name, results in alone.items():
        mine = [t for t in session.trades if (t.strategy_name, t.symbol) == name]
        assert [(t.close_timestamp, t.close_reason, t.pnl) for t in mine] == [
            (t.close_timestamp, t.close_reason, t.pnl) for t in results
        ]
        assert [t.legs for t in mine] == [t.legs for t in results]
    books = laid(calm(world), alone)
    assert account.books.balance == pytest.approx(float(books.B), abs=1e-9 * books.balance)
    # an identity: what each has made is its percent of what it has cost
    for tick in session.trades:
        assert not tick.money.liquidated
        made = tick.pnl.pnl_percentage / 100 * tick.money.cost
        assert tick.money.profit == pytest.approx(made, abs=1e-9 * tick.money.cost)
    profit = sum(tick.money.profit for tick in session.trades)
    assert account.books.balance - account.schema.balance == pytest.approx(profit, abs=1e-6)


@few
@given(worlds)
def test_twice_the_balance_makes_twice_the_money(world):
    world = calm(world, leverage=world.account["leverage"], maintenance_percent=0.5)
    twice = world._replace(account=world.account | {"balance": 2 * world.account["balance"]})
    (one, *_), (two, *_) = played(world), played(twice)
    fills, doubled = one.account.fills.columns(), two.account.fills.columns()
    assert np.array_equal(fills.timestamp, doubled.timestamp)
    for name in ("quantity", "basis", "balance", "fee", "value"):
        assert np.allclose(2 * getattr(fills, name), getattr(doubled, name), rtol=1e-9)
    assert one.account.tally.refusals == two.account.tally.refusals
    assert one.account.tally.skips == two.account.tally.skips


@few
@given(worlds, st.randoms(use_true_random=False))
def test_without_want_of_cash_the_order_of_names_does_not_matter(world, random):
    names = [(name, symbol) for name, symbols in world.runs.items() for symbol in symbols]
    runs = {name: random.sample(symbols, len(symbols)) for name, symbols in world.runs.items()}
    runs = dict(random.sample([*runs.items()], len(runs)))
    with pytest.MonkeyPatch.context() as patch:
        sized = portfolios.script_of
        patch.setattr(portfolios, "script_of", lambda *names: plain_sizes(sized(*names)))
        (one, *_), (other, *_) = played(calm(world)), played(calm(world)._replace(runs=runs))
    for name in names:
        trades = [
            [t for t in session.trades if (t.strategy_name, t.symbol) == name]
            for session in (one, other)
        ]
        for mine, theirs in zip(*trades, strict=True):
            assert mine.pnl == theirs.pnl
            assert mine.money.cost == pytest.approx(theirs.money.cost, rel=1e-9)
            assert mine.money.profit == pytest.approx(theirs.money.profit, rel=1e-6, abs=1e-9)

"""The books of an account, against exact fractions, and what holds whatever happens."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from accounts import Reference, steps_in
from backtest_kit._rules.account import (
    Books,
    Terms,
    liquidation_price,
    most_payable,
    needed,
    rounded_down,
)
from backtest_kit._rules.profit import profit
from backtest_kit._rules.sizing import (
    Entry,
    Wanted,
    default_cost,
    fit,
    rules_of,
)
from backtest_kit._values.account import Market

prices = st.floats(0.5, 200)
percents = st.sampled_from([0.0, 0.05, 0.1, 1.0])
leverages = st.sampled_from([1.0, 1.5, 3.0, 10.0])
sides = st.sampled_from([1.0, -1.0])
STEPS = [None, 1e-8, 0.001, 0.01, 0.25, 0.5, 1.0, 3.0, 10.0]


@st.composite
def accounts(draw):
    leverage = draw(leverages)
    maintenance = draw(st.sampled_from([0.0, 0.5, 4.0]))
    fee, slippage = draw(percents), draw(percents)
    terms = Terms(leverage, maintenance / 100, fee / 100, slippage / 100)
    return (
        Books(10_000.0, leverage),
        Reference(10_000, leverage, maintenance, fee, slippage),
        terms,
    )


events = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["enter", "enter", "part", "close"]),
        st.floats(0.01, 0.99),
        prices,
        sides,
    ),
    max_size=30,
)


@given(accounts(), events)
def test_books_are_those_of_exact_fractions(account, script):
    books, exact, terms = account
    marks, done = {0: 1.0, 1: 1.0, 2: 1.0}, []
    realised = fees = 0.0
    for run, what, part, price, side in script:
        marks[run] = price
        held = books.held.get(run)
        if what == "enter":
            side = side if held is None else held.side
            wanted = Wanted(cost=part * 5_000)
            at = price * (1 + side * terms.slippage)
            got = fit(wanted, at, books.balance, books.free, terms, rules_of(None), refuses=False)
            if not isinstance(got, Entry):
                assert got == "cash"
                continue
            cost = books.enter(run, side, got.quantity, price, terms)
            exact.enter(run, side, got.quantity, price)
            fees += terms.fee * cost
            assert cost == pytest.approx(got.cost, rel=1e-12)
            assert books.free >= -1e-9
        elif held is not None:
            everything = what == "close"
            quantity = held.quantity if everything else held.quantity * part
            left = books.leave(run, quantity, price, terms)
            trade = exact.close(run, quantity, price, everything=everything)
            realised += left.profit
            fees += left.fee
            assert left.balance == left.profit - left.fee
            assert left.profit - left.fee >= -left.basis / terms.leverage * (1 + 1e-12)
            if everything:
                assert run not in books.held
                done.append(trade)
        assert books.balance == pytest.approx(float(exact.B), abs=1e-5)
        assert books.free == pytest.approx(float(exact.free), abs=1e-5)
        assert books.equity(marks) == pytest.approx(float(exact.equity(marks)), abs=1e-5)
        assert books.balance == pytest.approx(10_000 + realised - fees, abs=1e-6)
        # isolated: no position takes another's collateral with it
        assert books.equity(marks) >= books.free - 1e-6
    for trade in done:
        # its collateral and its fees, whatever it has done in between
        assert trade.gross - trade.fees >= -trade.entered / exact.leverage - exact.f * trade.entered


@given(accounts(), sides, st.lists(st.tuples(prices, st.floats(0.1, 2)), min_size=1, max_size=4),
       st.lists(st.tuples(prices, st.floats(0.1, 0.9)), max_size=3), prices)  # fmt: skip
def test_profit_is_the_percent_of_the_cost(account, side, entries, parts, last):
    books, _, terms = account
    start = books.balance = 1e9
    cost = sum(books.enter(0, side, q, x, terms) for x, q in entries)
    sold = proceeds = 0.0
    done = []
    for x, share in parts:
        q = books.held[0].quantity * share
        done.append(books.leave(0, q, x, terms))
        sold, proceeds = sold + q, proceeds + q * x
    q = books.held[0].quantity
    done.append(books.leave(0, q, last, terms))
    assume(not any(exit_.liquidated for exit_ in done))
    sold, proceeds = sold + q, proceeds + q * last
    entered = sum(q for _, q in entries)
    paid = sum(q * x for x, q in entries) / entered
    position = "long" if side > 0 else "short"
    percent = profit(position, paid, proceeds / sold, terms.fee * 100, terms.slippage * 100)
    assert books.balance - start == pytest.approx(percent / 100 * cost, rel=1e-9, abs=1e-6)


@given(st.lists(st.tuples(prices, prices, sides), min_size=1, max_size=20), percents, percents)
def test_all_of_an_account_grows_by_the_product_of_the_percents(trades, fee, slippage):
    terms = Terms(1.0, 0.005, fee / 100, slippage / 100)
    books, grown = Books(1_000.0, 1.0), 1_000.0
    for entry, exit_, side in trades:
        percent = profit("long" if side > 0 else "short", entry, exit_, fee, slippage)
        assume(percent > -99)
        wanted = Wanted(cost=default_cost(books.balance, math.nan, 1, terms))
        at = entry * (1 + side * terms.slippage)
        got = fit(wanted, at, books.balance, books.free, terms, rules_of(None), refuses=True)
        assert isinstance(got, Entry)
        assert not got.reduced
        books.enter(0, side, got.quantity, entry, terms)
        done = books.leave(0, got.quantity, exit_, terms)
        assume(not done.liquidated)
        grown *= 1 + percent / 100 / (1 + fee / 100)
    assert books.balance == pytest.approx(grown, rel=1e-9)


@given(prices, st.sampled_from([1.5, 2.0, 5.0, 20.0]), st.sampled_from([0.0, 0.5, 2.0]), sides)
def test_at_the_liquidation_price_the_collateral_left_is_the_maintenance(entry, leverage, mm, side):
    level = liquidation_price(side, entry, leverage, mm / 100)
    left = entry / leverage + side * (level - entry)
    assert left == pytest.approx(mm / 100 * level, rel=1e-9, abs=1e-9)


def test_a_close_at_the_liquidation_price_loses_the_collateral_and_no_more():
    terms = Terms(10.0, 0.005, 0.001, 0.001)
    for price in (90.4, 50.0, 1.0):
        books = Books(1_000.0, 10.0)
        cost = books.enter(0, 1.0, 10.0, 100.0, terms)
        level = liquidation_price(1.0, cost / 10, 10.0, 0.005)
        assert level == pytest.approx(90.543, abs=1e-3)
        done = books.leave(0, 10.0, price, terms)
        assert done.liquidated
        assert books.balance == pytest.approx(1_000 - 0.001 * cost - cost / 10)
        assert done.not_charged == pytest.approx(
            max(0, cost + 0.001 * cost - 10 * price * 0.999 - cost / 10)
        )


def test_a_long_without_leverage_is_never_liquidated_and_a_short_is():
    assert liquidation_price(1.0, 100.0, 1.0, 0.005) == 0
    assert liquidation_price(-1.0, 100.0, 1.0, 0.005) == pytest.approx(199.005, abs=1e-3)


@given(st.floats(1e-9, 1e6), st.sampled_from(STEPS))
def test_quantities_are_rounded_down_in_decimals(quantity, step):
    rules = rules_of(Market(base="B", quote="Q", quantity_step=step))
    assert rounded_down(quantity, rules.step, rules.scale) == steps_in(quantity, step)


@given(st.integers(1, 10**7), st.sampled_from([s for s in STEPS if s]))
def test_whole_steps_stay_as_they_are(count, step):
    rules = rules_of(Market(base="B", quote="Q", quantity_step=step))
    for quantity in (count * step, math.nextafter(count * step, 0)):
        assert rounded_down(quantity, rules.step, rules.scale) == steps_in(count * step, step)


@given(st.floats(1, 1e5), st.floats(0.01, 1e6), prices, leverages, percents, st.booleans())
def test_what_is_short_is_reduced_to_what_can_be_paid_or_refused(
    free, cost, price, leverage, fee, refuses
):
    terms = Terms(leverage, 0.0, fee / 100, 0.0)
    got = fit(Wanted(cost=cost), price, free, free, terms, rules_of(None), refuses=refuses)
    if needed(cost, leverage, terms.fee) <= free:
        assert (got.cost, got.reduced) == (pytest.approx(cost), False)
    elif refuses:
        assert got == "cash" or needed(cost, leverage, terms.fee) == pytest.approx(free)
    else:
        assert got.cost == pytest.approx(most_payable(free, leverage, terms.fee))
        assert needed(got.cost, leverage, terms.fee) == pytest.approx(free)


@pytest.mark.parametrize(
    ("wanted", "market", "why"),
    [
        (Wanted(cost=math.nan), {}, "size"),
        (Wanted(cost=math.inf), {}, "size"),
        (Wanted(quantity=0.0), {}, "size"),
        (Wanted(quantity=-1.0), {}, "size"),
        (Wanted(quantity=0.9), {"quantity_step": 1.0}, "minimum"),
        (Wanted(quantity=0.9), {"min_quantity": 1.0}, "minimum"),
        (Wanted(quantity=0.9), {"min_notional": 10.0}, "minimum"),
        (Wanted(quantity=200.0), {"min_quantity": 150.0}, "cash"),
    ],
)
def test_why_an_entry_is_refused(wanted, market, why):
    rules = rules_of(bk.Market(base="B", quote="Q", **market))
    terms = Terms(1.0, 0.0, 0.0, 0.0)
    assert fit(wanted, 10.0, 1_000.0, 1_000.0, terms, rules, refuses=False) == why


def test_without_equity_nothing_is_entered():
    terms = Terms(1.0, 0.0, 0.0, 0.0)
    for equity in (0.0, -5.0):
        assert fit(Wanted(cost=1.0), 1.0, equity, equity, terms, rules_of(None), refuses=False) == (
            "cash"
        )


def test_the_example_of_the_docs_by_hand():
    terms = Terms(10.0, 0.005, 0.001, 0.001)
    for price, balance, spared in ((105.0, 1_045.948, 0.0), (80.0, 898.899, 102.701)):
        books = Books(1_000.0, 10.0)
        assert books.enter(0, 1.0, 10.0, 100.0, terms) == pytest.approx(1_001.0)
        assert (books.balance, books.free) == pytest.approx((998.999, 898.899))
        done = books.leave(0, 10.0, price, terms)
        assert (books.balance, done.not_charged) == pytest.approx((balance, spared))

"""The curve of an account from its fills, against books kept in a plain loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_curve import buy_and_hold, equity_curve, run_profits
from backtest_kit._statistics.equity_outcome import account_outcome
from backtest_kit._statistics.equity_trades import trade_sums
from backtest_kit._values.equity_curve import EquityCurve, Marks, thin
from effort import examples
from equity_world import DAY, MINUTE, START, World, fills_of

RUNS = [
    (("a", "X"),),
    (("a", "X"), ("b", "X"), ("a", "Y")),
    (("a", "X"), ("b", "Y"), ("c", "Z"), ("c", "X")),
]
worlds = st.builds(
    World,
    seed=st.integers(0, 2**32),
    minutes=st.integers(1, 150),
    step=st.sampled_from((1, 5)),
    start=st.integers(0, 2000).map(lambda m: START + m * MINUTE),
    leverage=st.sampled_from((1.0, 3.0, 25.0)),
    runs=st.sampled_from(RUNS),
    fee=st.sampled_from((0.0, 0.001)),
    activity=st.sampled_from((0.0, 0.05, 0.5)),
)
few = examples(40)


def outcome(world, **more):
    counts = AccountCounts()
    return account_outcome(
        world.runs,
        world.fills,
        world.marks,
        counts,
        **{"balance": world.balance, "leverage": world.leverage, **more},
    )


@few
@given(worlds)
def test_the_curve_is_that_of_a_plain_loop(world):
    curve = equity_curve(world.fills, world.symbols, world.marks, world.balance, world.leverage)
    near = {"rel": 0, "abs": 1e-9 * world.balance}
    assert curve.timestamp.tolist() == world.timestamp.tolist()
    assert curve.balance.tolist() == world.wallet
    assert curve.equity == pytest.approx(world.equity, **near)
    assert curve.held == pytest.approx(world.held, **near)
    assert ((curve.held > 0) == (np.array(world.held) > 0)).all()


@few
@given(worlds)
def test_money_is_conserved(world):
    """Equity is what was there, and what each run and side has made, realised and open."""
    fills, marks = world.fills, world.marks
    curve = equity_curve(fills, world.symbols, marks, world.balance, world.leverage)
    rows = np.arange(len(curve))
    made = run_profits(fills, world.symbols, marks, world.leverage, rows)
    loop = np.array(world.by_run).transpose(1, 2, 0)
    near = {"rel": 0, "abs": 1e-9 * world.balance}
    assert made == pytest.approx(loop, **near)
    assert curve.equity == pytest.approx(world.balance + made.sum(axis=(0, 1)), **near)
    paid = world.balance + fills.profit.sum() - fills.fee.sum()
    assert curve.balance[-1] == pytest.approx(paid, **near)
    collateral = np.zeros(len(curve))
    for run in range(len(world.runs)):
        own = fills.run == run
        at = np.searchsorted(fills.timestamp[own], curve.timestamp, side="right")
        collateral += np.concatenate(([0.0], np.cumsum(fills.basis[own])))[at] / world.leverage
    assert (curve.equity >= curve.balance - collateral - 1e-9 * world.balance).all()


@few
@given(worlds)
def test_the_parts_add_up_to_the_whole(world):
    found = outcome(world)
    s = found.statistics
    near = {"rel": 0, "abs": 1e-9 * world.balance}
    for kind in ("symbol", "strategy", "side"):
        own = [part for part in found.parts if part.kind == kind]
        assert sum(p.in_drawdown for p in own) == pytest.approx(-s.max_drawdown_amount, **near)
        assert sum(p.fees for p in own) == pytest.approx(s.fees, **near)
        assert sum(p.trades for p in own) == s.total_trades
        assert sum(p.profit for p in own) == pytest.approx(
            found.curve.balance[-1] - world.balance, **near
        )
    sides = [p for p in found.parts if p.kind == "side"]
    assert [p.name for p in sides] == ["long", "short"]
    assert [p.profit for p in sides] == pytest.approx(world.realised.sum(axis=0).tolist(), **near)
    assert found.profits == pytest.approx(world.realised.sum(axis=1).tolist(), **near)


@few
@given(worlds)
def test_trades_are_the_sums_of_their_fills(world):
    trades = trade_sums(world.fills)
    of_trade = {}
    for row in world.rows:
        of_trade.setdefault(row[2], []).append(row)
    assert len(trades) == len(of_trade)
    for i, rows in of_trade.items():
        entries = [row for row in rows if row[4] > 0]
        assert trades.run[i] == rows[0][1]
        assert trades.opened_at[i] == rows[0][0]
        whole = len(rows) > 1 and sum(row[4] for row in rows) == 0
        assert trades.closed_at[i] == (rows[-1][0] if whole else -1)
        assert trades.cost[i] == pytest.approx(sum(row[5] for row in entries))
        assert trades.quantity[i] == pytest.approx(sum(row[4] for row in entries))
        assert trades.slippage[i] == pytest.approx(sum(row[8] for row in rows))
        assert trades.profit[i] == pytest.approx(sum(row[6] for row in rows), abs=1e-6)
        assert trades.liquidated[i] == any(row[11] for row in rows)
        assert world.rows[trades.last[i]] == rows[-1]


def hedged(first, second):
    """Two runs on one symbol that hold a long and a short from minute 0, closed at minute 3."""
    rows = [
        (START, 0, 0, 1, 10.0, 1000.0, -1.0, 1.0, 0.0, 0.0, 1000.0, False),
        (START, 1, 1, -1, 4.0, 400.0, -0.4, 0.4, 0.0, 0.0, 400.0, False),
        (START + 3 * MINUTE, 0, 0, 1, -10.0, -1000.0, 99.0, 1.0, 0.0, 100.0, 1100.0, False),
        (START + 3 * MINUTE, 1, 1, -1, -4.0, -400.0, -40.4, 0.4, 0.0, -40.0, 440.0, False),
    ]
    marks = Marks(
        timestamp=START + np.arange(5, dtype=np.int64) * MINUTE,
        prices={"X": np.array([100.0, first, second, 110.0, 110.0])},
    )
    return fills_of(rows), marks


def test_by_hand():
    fills, marks = hedged(120.0, 90.0)
    curve = equity_curve(fills, ["X", "X"], marks, 10_000.0, 1.0)
    start = 10_000 - 1.4
    assert curve.balance.tolist() == [start, start, start, start + 58.6, start + 58.6]
    assert curve.equity.tolist() == pytest.approx(
        [start, start + 200 - 80, start - 100 + 40, start + 58.6, start + 58.6]
    )
    assert curve.held.tolist() == pytest.approx([1400, 1680, 1260, 0, 0])
    found = account_outcome(
        [("up", "X"), ("down", "X")], fills, marks, AccountCounts(), balance=10_000.0
    )
    s = found.statistics
    assert s.max_drawdown_amount == pytest.approx(180)
    assert (s.drawdown_peak_at, s.drawdown_trough_at) == (START + MINUTE, START + 2 * MINUTE)
    assert s.drawdown_recovered_at is None
    assert s.drawdown_duration_minutes == s.max_drawdown_duration_minutes == 3
    parts = {(p.kind, p.name): p for p in found.parts}
    assert parts["side", "long"].in_drawdown == pytest.approx(-300)
    assert parts["strategy", "down"].in_drawdown == pytest.approx(120)
    assert parts["symbol", "X"].profit == pytest.approx(57.2)
    assert s.exposure_percent == pytest.approx(75)
    assert s.peak_leverage == pytest.approx(1680 / (start + 120))


def test_no_position_is_marked_below_its_collateral():
    fills, marks = hedged(1.0, 1000.0)
    curve = equity_curve(fills, ["X", "X"], marks, 10_000.0, 4.0)
    start = 10_000 - 1.4
    assert curve.equity[1] == pytest.approx(start - 250 + 396)  # the long has lost 990 on paper
    assert curve.equity[2] == pytest.approx(start + 9000 - 100)


def test_a_fill_without_a_mark_is_an_error():
    fills, marks = hedged(120.0, 90.0)
    marks.prices["X"][0] = np.nan
    with pytest.raises(bk.ArgumentError, match="X has a fill at 2024-01-01T00:00Z, and no mark"):
        equity_curve(fills, ["X", "X"], marks, 10_000.0, 1.0)
    short = Marks(timestamp=marks.timestamp[:3], prices={"X": marks.prices["X"][:3]})
    with pytest.raises(bk.ArgumentError, match="2024-01-01T00:03Z lies after the last instant"):
        equity_curve(fills, ["X", "X"], short, 10_000.0, 1.0)


def test_buying_and_holding_waits_for_data():
    marks = Marks(
        timestamp=START + np.arange(4, dtype=np.int64) * DAY,
        prices={
            "X": np.array([10.0, 20.0, 20.0, 40.0]),
            "Y": np.array([np.nan, np.nan, 5.0, 10.0]),
            "Z": np.full(4, np.nan),
        },
    )
    worth = buy_and_hold(["X", "Y", "X", "Z"], marks)  # X once
    assert worth.tolist() == pytest.approx([1, 4 / 3, 4 / 3, (4 + 2 + 1) / 3])


def test_the_columns_are_read_only_and_compare():
    world = World(1, minutes=20)
    curve = outcome(world).curve
    with pytest.raises(ValueError, match="read-only"):
        curve.equity[0] = 1.0
    assert curve == EquityCurve(*curve.columns())
    assert curve != curve[:-1]
    assert len(curve[3:5]) == 2
    assert repr(curve) == "<EquityCurve: 21 from 2024-01-01T00:00Z to 2024-01-01T00:20Z>"
    assert repr(curve[:0]) == "<EquityCurve: none>"
    with pytest.raises(bk.ArgumentError, match="columns differ in length"):
        EquityCurve([1], [1.0], [1.0], [])


def test_to_pandas():
    pd = pytest.importorskip("pandas")
    curve = outcome(World(1, minutes=20)).curve
    frame = curve.to_pandas()
    assert [*frame.columns] == ["equity", "balance", "held"]
    assert frame.index[-1] == pd.Timestamp("2024-01-01T00:20Z")
    assert frame.equity.tolist() == curve.equity.tolist()


@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(2, 50))
def test_a_thinned_curve_keeps_its_extremes(seed, count, rows):
    values = np.random.default_rng(seed).normal(size=count)
    kept = thin(values, rows)
    assert len(kept) <= max(rows + 2, 4)
    assert (np.diff(kept) > 0).all()
    if count:
        assert {0, count - 1, int(values.argmin()), int(values.argmax())} <= {*kept.tolist()}

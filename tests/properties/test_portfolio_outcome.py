"""What comes out of portfolios that the engine has played."""

import numpy as np
import pytest
from hypothesis import given

import portfolios
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_outcome import account_outcome
from backtest_kit._values.equity_curve import Marks
from markets import MINUTE, START
from portfolios import played, worlds
from reference import fill_gaps


def marks_of(world, last):
    """Closes by the instant at which they were known, flat across gaps."""
    end = max(START + world.minutes * 3 // 4 * MINUTE, last)
    timestamp = np.arange(START, end + 1, MINUTE, dtype=np.int64)
    prices = {}
    for symbol in {symbol for symbols in world.runs.values() for symbol in symbols}:
        rows = np.array(fill_gaps(portfolios.rows_of(world, symbol)))
        place = np.searchsorted(rows[:, 0] + MINUTE, timestamp, side="right") - 1
        prices[symbol] = np.where(place < 0, np.nan, rows[place, 4])
    return Marks(timestamp=timestamp, prices=prices)


@given(worlds)
def test_the_curve_and_the_trades_are_those_of_the_books(world):
    session, *_ = played(world)
    account, fills = session.account, session.account.fills.columns()
    last = int(fills.timestamp[-1]) if len(fills) else 0
    found = account_outcome(
        session.names,
        fills,
        marks_of(world, last),
        AccountCounts(),
        balance=account.schema.balance,
        leverage=account.schema.leverage,
    )
    curve, trades = found.curve, found.trades
    near = {"rel": 1e-9, "abs": 1e-9 * account.schema.balance}
    assert curve.balance[-1] == account.books.balance
    assert curve.equity[-1] == pytest.approx(account.books.balance, **near)
    assert curve.held[-1] == 0  # to the last bit: exits take what entries brought
    closed = np.flatnonzero(trades.closed_at >= 0)
    assert len(closed) == len(trades) == len(session.trades) == found.statistics.total_trades
    closed = closed[np.argsort(trades.last[closed])]
    for i, tick in zip(closed.tolist(), session.trades, strict=True):
        money = tick.money
        assert session.names[trades.run[i]] == (tick.strategy_name, tick.symbol)
        assert trades.opened_at[i] == tick.signal.pending_at
        assert trades.closed_at[i] == tick.close_timestamp
        assert trades.liquidated[i] == money.liquidated
        for name in ("quantity", "cost", "fees", "slippage", "profit"):
            assert getattr(trades, name)[i] == pytest.approx(getattr(money, name), **near), name
        if trades.last[i] + 1 == len(fills) or (
            fills.timestamp[trades.last[i] + 1] > tick.close_timestamp
        ):
            row = np.searchsorted(curve.timestamp, tick.close_timestamp)
            assert money.equity_after == pytest.approx(curve.equity[row], **near)


@given(worlds)
def test_money_is_conserved_and_no_position_loses_more_than_it_binds(world):
    session, *_ = played(world)
    schema, curve = session.account.schema, session.data.curve
    fills = session.account.fills.columns()
    hair = 1e-9 * schema.balance
    wallet = np.cumsum([schema.balance, *(fills.profit - fills.fee)])
    free = wallet - np.cumsum([0.0, *fills.basis]) / schema.leverage
    entered = np.flatnonzero(fills.quantity > 0) + 1
    assert (free[entered] >= -hair).all()
    at = np.searchsorted(fills.timestamp, curve.timestamp, side="right")
    assert curve.balance == pytest.approx(wallet[at], rel=0, abs=hair)
    assert (curve.equity >= free[at] - hair).all()
    fee = world.config["percent_fee"] / 100
    for tick in session.trades:
        most = tick.money.cost * (1 / schema.leverage + fee)
        assert tick.money.profit >= -most - hair

"""Live on paper over recorded candles is the portfolio of a backtest, to the last bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effort import examples
from live.paper import paper
from portfolios import busy, end_of, played, worlds
from properties.test_live_equals_backtest import Mortal

few = examples(20)


def facts(ticks, end):
    """What was told before the end of the frame, where a backtest closes what is open."""
    return sorted(
        (
            tick.timestamp,
            tick.strategy_name,
            tick.symbol,
            tick.action,
            repr(getattr(tick, "money", None)),
            repr(getattr(tick, "pnl", None)),
            getattr(tick, "close_reason", getattr(tick, "reason", None)),
        )
        for tick in ticks
        if tick.timestamp < end
    )


def once_each(ticks):
    """What was told, each once; what is told again must say the same."""
    found = {}
    for tick in ticks:
        assert found.setdefault(tick.transition_id, tick) == tick
    return found.values()


@few
@given(st.one_of(busy, worlds))
def test_paper_is_the_backtest(world):
    end = end_of(world)
    live = paper(world)
    _, told, *_ = played(world)
    assert facts(live.told, end) == facts(told, end)


@few
@given(worlds)
def test_what_an_account_of_live_runs_has_come_to_is_that_of_the_portfolio(world):
    end = end_of(world)
    data, (session, *_) = paper(world, reports=True).data, played(world)
    assert data.names == session.data.names
    for name in ("equity", "balance", "held"):
        found, wanted = (
            getattr(curve, name)[curve.timestamp < end]
            for curve in (data.curve, session.data.curve)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-6)
    closed = [tick for tick in session.trades if tick.close_timestamp < end]
    assert [t.signal for t in data.trades if t.close_timestamp < end] == [t.signal for t in closed]


@few
@given(st.one_of(busy, worlds), st.lists(st.integers(0, 120), min_size=1, max_size=4))
def test_kills_at_any_write_change_no_money(world, deaths):
    end, documents, told = end_of(world), {}, []
    for lives in [*deaths, None]:
        live = paper(world, Mortal(documents, lives))
        told += live.told
        if live.balance is not None:
            break
    calm = paper(world)
    assert (live.balance, live.held, live.tally) == (calm.balance, calm.held, calm.tally)
    assert facts(once_each(told), end) == facts(calm.told, end)

"""What an equity curve comes to over minutes, however it is cut, against loops over its rows."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._rules.account import HAIR
from backtest_kit._statistics import equity_curve, equity_minutes
from backtest_kit._statistics.equity import AccountCounts
from backtest_kit._statistics.equity_drawdown import max_drawdown
from backtest_kit._statistics.equity_minutes import Stretch, over_minutes
from backtest_kit._statistics.equity_outcome import account_figures, played_account
from equity_world import MINUTE, START, World

#: Equity (at times lost), and what is held, at instants that lie apart at will.
curves = st.lists(
    st.tuples(st.integers(-1, 6), st.sampled_from((0, 0, 1, 5)), st.integers(1, 3)),
    min_size=1,
    max_size=40,
)
cuts = st.lists(st.integers(1, 39), max_size=6)


@given(curves, st.integers(1, 6).map(float), cuts)
def test_it_agrees_with_loops_wherever_it_is_cut(rows, balance, cuts):
    equity, held, steps = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    t = START + np.cumsum(steps).astype(np.int64) * MINUTE
    ends = [0, *sorted({cut for cut in cuts if cut < len(t)}), len(t)]
    parts = [Stretch(t[a:b], equity[a:b], held[a:b]) for a, b in itertools.pairwise(ends)]
    picked = np.arange(0, len(t), 3)
    found = over_minutes(parts, balance, picked)
    assert (found.last_at, found.final, found.least) == (t[-1], equity[-1], equity.min())
    assert found.mean == pytest.approx(equity.mean())
    assert found.picked.tolist() == equity[picked].tolist()
    fall = max_drawdown(equity, balance)  # which has a test of its own
    if fall is None:
        assert found.fall is None
    else:
        at = [int(t[max(row, 0)]) for row in (fall.peak, fall.trough)]
        back = None if fall.recovered is None else int(t[fall.recovered])
        assert (found.fall.depth, found.fall.amount) == (fall.depth, fall.amount)
        assert [found.fall.peak_at, found.fall.trough_at, found.fall.recovered_at] == [*at, back]
    assert found.longest_fall == longest(t, equity, balance)
    solvent = equity > HAIR * balance
    ratios = held[solvent] / equity[solvent]
    wanted = (ratios.mean(), ratios.max()) if len(ratios) else (None, None)
    assert (found.mean_leverage, found.peak_leverage) == pytest.approx(wanted)
    length = np.diff(t)
    if len(length):
        assert found.exposure == pytest.approx(length[held[:-1] > 0].sum() / length.sum())
    else:
        assert found.exposure is None


def longest(t, equity, balance):
    """The longest time from a peak until it was reached again, or to the end, in milliseconds."""
    peak, since, found, below = balance, int(t[0]), 0, False
    for when, value in zip(t.tolist(), equity.tolist(), strict=True):
        below = below or value < peak
        if value >= peak:
            found = max(found, when - since) if below else found
            peak, since, below = value, when, False
    return max(found, int(t[-1]) - since) if below else found


@pytest.mark.parametrize("length", [1, 7, 60, 100_000])
def test_a_curve_is_the_same_in_stretches_of_any_length(length, monkeypatch):
    world = World(7)
    given = (world.symbols, world.fills, world.marks)
    whole = played_account(*given, AccountCounts(), world.balance, world.leverage, 365)
    for module in (equity_minutes, equity_curve):
        monkeypatch.setattr(module, "ROWS", length)
    cut = played_account(*given, AccountCounts(), world.balance, world.leverage, 365)
    assert cut.curve == whole.curve
    figures = account_figures(*given, AccountCounts(), world.balance, world.leverage, 365)
    assert figures == cut.statistics
    for name in figures.__struct_fields__:
        one, other = getattr(figures, name), getattr(whole.statistics, name)
        same = one == other or math.isclose(one, other, rel_tol=1e-12)
        assert same, name

"""Random entries: as many, on the same sides, with the same brackets, in Python and compiled."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._arrays import draws as module
from backtest_kit._arrays.brackets import Brackets, joined_brackets
from backtest_kit._arrays.draws import draw_entries
from backtest_kit._arrays.job import SignalRows
from backtest_kit._arrays.signals import Signals
from backtest_kit._arrays.simulation import Simulation, compile_kernel
from backtest_kit._rules.bars import Bars
from backtest_kit._values.config import Config, resolved
from markets import MINUTE, START, market

LADDERS = [
    ((), (), ()),
    (((0.4, 50.0),), (), ()),
    (((0.3, 30.0), (0.6, 30.0)), ((0.2, 50.0),), ((0.25, 1.0),)),
]


def bars_of(seed, minutes=600, closed=False):
    """The bars of a random market, closed in the middle third of each 100 minutes or never."""
    rows = np.array(market(seed, minutes, gaps=False, quiet=False))
    _, opening, high, low, close, _ = rows.T
    average = close.copy()
    average[:4] = np.nan
    next_open = None
    if closed:
        place = np.arange(minutes)
        shut = (place % 100 >= 33) & (place % 100 < 66)
        following = np.where(shut, minutes, place)
        next_open = np.minimum.accumulate(following[::-1])[::-1]
    return Bars(START + MINUTE, average, close, opening, high, low, MINUTE, next_open)


@st.composite
def cases(draw):
    count = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    managed = draw(st.booleans())
    numbers = {
        "target": rng.choice([0.2, 1.0, np.nan], count),
        "stop": rng.choice([0.15, 0.5, np.nan], count),
        "minutes": rng.integers(1, 40, count).astype(float),
    }
    ladders = None
    if managed:
        numbers["target"][:] = np.nan
        numbers["stop"][:] = np.nan
        numbers["trailing"] = rng.choice([0.3, np.nan], count)
        numbers["activation"] = np.where(np.isnan(numbers["trailing"]), np.nan, 0.1)
        ladders = np.empty(count, dtype=object)
        ladders[:] = [LADDERS[i] for i in rng.integers(0, 3, count)]
    brackets = Brackets.of(rng.choice([-1, 1], count), numbers, ladders)
    held = rng.integers(1, 30, count) * float(MINUTE)
    config = Config(
        require_stop_loss=False,
        exit_trigger=draw(st.sampled_from(["wick", "vwap"])),
        ask_at=draw(st.sampled_from(["close", "elapsed"])),
        min_take_profit_distance_percent=0.0,
        min_stop_loss_distance_percent=0.0,
    )
    bars = bars_of(draw(st.integers(0, 1000)), closed=draw(st.booleans()))
    line = range(START + 20 * MINUTE, START + 500 * MINUTE, MINUTE * draw(st.sampled_from([1, 5])))
    return bars, line, resolved(config, "1m"), brackets, held


def alone(bars, config, brackets, i, at):
    """The profit and the close of one trade that the engine's simulation enters at `at`."""
    numbers = {name: brackets.column(name)[i] for name in ("target", "stop", "minutes")}
    levels = brackets.ladders[brackets.ladder[i]]
    how = dict(zip(("take_profits", "stop_losses", "entries"), levels, strict=True))
    if not np.isnan(trailing := brackets.column("trailing")[i]):
        how["trailing_stop"] = trailing
        how["trailing_activate_percent"] = brackets.column("activation")[i]
    signals = Signals.bracket(
        [brackets.side[i]], numbers["target"], numbers["stop"], numbers["minutes"], **how
    )
    rows = SignalRows(signals, at - MINUTE, "1m", range(at, bars.stop, MINUTE), config)
    simulation = Simulation()
    simulation.run(bars, rows)
    table = simulation.table()
    return float(table.pnl[0]), int(table.closed_at[0])


@given(cases(), st.integers(0, 10**6))
def test_each_trade_is_the_one_that_the_simulation_makes_of_its_entry(case, seed):
    bars, line, config, brackets, _ = case
    found = draw_entries(*case, 3, (seed,))
    assert found.r.shape == (3, brackets.count)
    first, last = line[0], line[-1]
    for d in range(3):
        for i in range(brackets.count):
            opened = int(found.opened_at[d, i])
            assert first <= opened <= last
            assert bars.trades_at(opened)
            r, closed = alone(bars, config, brackets, i, opened)
            assert (found.r[d, i], found.closed_at[d, i]) == (r, closed)


@given(cases(), st.integers(0, 10**6))
def test_python_and_the_kernel_draw_the_same(case, seed):
    pytest.importorskip("numba")
    compile_kernel()
    module.compile_draws(logging.getLogger("backtest_kit"))
    compiled = draw_entries(*case, 4, (seed,))
    module.draws_ready.clear()
    try:
        plain = draw_entries(*case, 4, (seed,))
    finally:
        module.draws_ready.set()
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(0, 10**6), st.integers(1, 40), st.booleans())
def test_entries_are_spread_over_all_of_the_frame_and_do_not_overlap(seed, count, closed):
    """Trades that last as long as they did fit in beside each other; one may go round the end."""
    bars = bars_of(1, closed=closed)
    line = range(START + 20 * MINUTE, START + 500 * MINUTE, MINUTE)
    config = resolved(Config(require_stop_loss=False), "1m")
    brackets = Brackets.of(np.ones(count), {"minutes": np.full(count, 3.0)})
    found = draw_entries(bars, line, config, brackets, np.full(count, 3.0 * MINUTE), 40, (seed,))
    lengths = found.closed_at - found.opened_at
    assert (lengths >= 3 * MINUTE).all()
    assert closed or (lengths == 3 * MINUTE).all()
    for opened, ended in zip(found.opened_at, found.closed_at, strict=True):
        order = np.argsort(opened)
        assert (opened[order][1:] >= ended[order][:-1]).all()


def test_every_part_of_the_frame_is_as_likely():
    bars = bars_of(2)
    line = range(START + 20 * MINUTE, START + 500 * MINUTE, MINUTE)
    config = resolved(Config(require_stop_loss=False), "1m")
    brackets = Brackets.of(np.ones(20), {"minutes": np.full(20, 5.0)})
    found = draw_entries(bars, line, config, brackets, np.full(20, 5.0 * MINUTE), 300, (7,))
    share, _ = np.histogram(found.opened_at, bins=np.linspace(line[0], line[-1] + MINUTE, 9))
    expected = found.opened_at.size / 8
    assert (np.abs(share - expected) < 4 * np.sqrt(expected)).all()


def test_what_can_be_entered_nowhere_has_no_profit():
    bars = bars_of(3, 100)
    config = resolved(Config(), "1m")
    held = np.ones(1) * MINUTE
    line = range(START + MINUTE, START + 3 * MINUTE, MINUTE)  # before there is an average price
    found = draw_entries(bars, line, config, Brackets.of([1], {"stop": np.ones(1)}), held, 2, (0,))
    assert np.isnan(found.r).all()
    line = range(START + 10 * MINUTE, START + 90 * MINUTE, MINUTE)
    unstopped = Brackets.of([1], {"minutes": np.full(1, 5.0)})  # and the settings want a stop
    found = draw_entries(bars, line, config, unstopped, held, 2, (0,))
    assert np.isnan(found.r).all()
    assert (found.opened_at == -1).all()


@given(cases())
def test_brackets_survive_being_cut_and_joined(case):
    brackets = case[3]
    places = np.arange(brackets.count)
    halves = [brackets.at(places % 2 == k) for k in (0, 1)]
    order = np.argsort(np.concatenate([places[places % 2 == k] for k in (0, 1)]))
    again = joined_brackets(halves).at(order)
    assert (again.side == brackets.side).all()
    for name in ("target", "stop", "minutes", "trailing", "activation", "breakeven"):
        np.testing.assert_array_equal(again.column(name), brackets.column(name))
    assert [again.ladders[i] for i in again.ladder] == [
        brackets.ladders[i] for i in brackets.ladder
    ]


def test_the_module_compiles_what_it_draws_with_once(caplog):
    pytest.importorskip("numba")
    compile_kernel()
    module.compile_draws(logging.getLogger("backtest_kit"))
    caplog.clear()
    module.compile_draws(logging.getLogger("backtest_kit"))
    assert not caplog.records

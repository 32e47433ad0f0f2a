"""Where a market is open, told by bars: against a look at each step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._data.series import Segment
from backtest_kit._rules.bars import Bars
from backtest_kit._values.time import INTERVALS
from markets import START

masks = st.lists(st.booleans(), min_size=1, max_size=60)
steps = st.sampled_from([INTERVALS["1m"], INTERVALS["1h"], INTERVALS["1d"]])


def bars_of(closed, step):
    flat = np.ones(len(closed))
    segment = Segment(
        (np.arange(len(closed)), flat, flat, flat, flat, flat),
        np.zeros(len(closed), dtype=np.bool_),
        step,
        START // step * step,
        begins=True,
        asked=0,
        closed=np.array(closed),
    )
    return Bars(
        segment.first + step, flat, flat, flat, flat, flat, step, segment.next_open(hold=True)
    )


@given(masks, steps)
def test_open_steps_are_found(closed, step):
    bars = bars_of(closed, step)
    every = range(bars.first, bars.stop, step)
    open_ = [t for t, shut in zip(every, closed, strict=True) if not shut]
    assert [t for t in every if bars.trades_at(t)] == open_
    assert bars.last == (open_[-1] if open_ else every[-1])
    for t in every:
        later = [x for x in open_ if x >= t]
        assert bars.opens(t) == (later[0] if later else bars.stop)
        assert [*bars.steps_after(t)] == [x for x in open_ if x > t]
        assert bars.open_steps(range(t, bars.stop, step)) == len(later)
    shut = "".join("x" if c else " " for c in closed).split()
    assert bars.longest_rest == max(map(len, shut), default=0) * step


@given(masks, steps, st.integers(1, 7), st.integers(0, 59))
def test_a_block_of_calls_ends_where_the_market_closes(closed, step, hop, begin):
    bars = bars_of(closed, step)
    since = bars.first + begin % len(closed) * step
    calls = range(since, bars.stop, hop * step)
    shut = [t for t in calls if not bars.trades_at(t)]
    assert bars.closes(since, bars.stop, hop * step) == (shut[0] if shut else bars.stop)


def test_a_market_that_never_closes():
    flat = np.ones(3)
    bars = Bars(START, flat, flat, flat, flat, flat)
    assert (bars.last, bars.last_row, bars.longest_rest) == (START + 120_000, 2, 0)
    assert bars.trades_at(START)
    assert bars.open_row(7) == 7
    assert bars.closes(START, bars.stop, 60_000) == bars.stop
    assert bars.open_steps(range(START, bars.stop, 60_000)) == 3

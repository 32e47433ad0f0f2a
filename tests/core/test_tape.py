"""Where a market is open, told by a tape: against a look at each step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._data.series import Segment
from backtest_kit._rules.tape import Tape
from backtest_kit._values.time import INTERVALS
from markets import START

masks = st.lists(st.booleans(), min_size=1, max_size=60)
steps = st.sampled_from([INTERVALS["1m"], INTERVALS["1h"], INTERVALS["1d"]])


def tape_of(closed, step):
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
    return Tape(segment.first + step, flat, flat, flat, flat, flat, step, segment.next_open)


@given(masks, steps)
def test_open_steps_are_found(closed, step):
    tape = tape_of(closed, step)
    every = range(tape.first, tape.stop, step)
    open_ = [t for t, shut in zip(every, closed, strict=True) if not shut]
    assert [t for t in every if tape.trades_at(t)] == open_
    assert tape.last == (open_[-1] if open_ else every[-1])
    for t in every:
        later = [x for x in open_ if x >= t]
        assert tape.opens(t) == (later[0] if later else tape.stop)
        assert [*tape.steps_after(t)] == [x for x in open_ if x > t]
        assert tape.open_steps(range(t, tape.stop, step)) == len(later)
    shut = "".join("x" if c else " " for c in closed).split()
    assert tape.longest_rest == max(map(len, shut), default=0) * step


@given(masks, steps, st.integers(1, 7), st.integers(0, 59))
def test_a_block_of_calls_ends_where_the_market_closes(closed, step, hop, begin):
    tape = tape_of(closed, step)
    since = tape.first + begin % len(closed) * step
    calls = range(since, tape.stop, hop * step)
    shut = [t for t in calls if not tape.trades_at(t)]
    assert tape.closes(since, tape.stop, hop * step) == (shut[0] if shut else tape.stop)


def test_a_market_that_never_closes():
    flat = np.ones(3)
    tape = Tape(START, flat, flat, flat, flat, flat)
    assert (tape.last, tape.last_row, tape.longest_rest) == (START + 120_000, 2, 0)
    assert tape.trades_at(START)
    assert tape.open_row(7) == 7
    assert tape.closes(START, tape.stop, 60_000) == tape.stop
    assert tape.open_steps(range(START, tape.stop, 60_000)) == 3

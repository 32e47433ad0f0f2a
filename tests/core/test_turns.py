"""Turns: who acts when, whichever run is slow, paused or cancelled."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._engine.turns import CLOSES, OPENS, Turns

#: What runs do, when, and for how many turns of the loop; each thing once.
plan = st.dictionaries(
    st.tuples(st.integers(1, 6), st.sampled_from([CLOSES, OPENS])), st.integers(0, 3), max_size=6
).map(lambda found: sorted((when, what, slow) for (when, what), slow in found.items()))
plans = st.lists(plan, min_size=2, max_size=4)
#: Which of the runs play scripts, from which of their deeds on.
scripts = st.dictionaries(st.integers(0, 3), st.integers(0, 6))


async def pause(turns_of_the_loop):
    for _ in range(turns_of_the_loop):
        await asyncio.sleep(0)


def play(plans, patience=None, cancelled=None, scripts=()):
    """Let runs act as planned, each after some turns of the loop; return who acted, in order."""
    acted, acting = [], []

    async def act(turn, when, what, slow):
        await pause(slow)
        await turn.wait(when, what, patience)
        assert not acting, "two act at once"
        acting.append(turn.order)
        try:
            await pause(slow)
            acted.append((when, what, turn.order))
        finally:
            acting.remove(turn.order)
        if slow:  # else the others wait until its next deed
            turn.pass_to(when, what + 1)

    async def script(turn, plan):
        for when, what, _ in plan:
            await turn.wait(when, what)
            assert not acting, "two act at once"
            acted.append((when, what, turn.order))

    async def one(turn, plan):
        own = dict(scripts).get(turn.order, len(plan))
        try:
            for deed in plan[:own]:
                await act(turn, *deed)
            await turn.play(script(turn, plan[own : own + 3]))
            for deed in plan[own + 3 :]:
                await act(turn, *deed)
        finally:
            turn.leave()

    async def main():
        turns = Turns()
        joined = [turns.join() for _ in plans]
        tasks = [
            asyncio.create_task(one(turn, plan)) for turn, plan in zip(joined, plans, strict=True)
        ]
        if cancelled is not None:
            await pause(cancelled)
            tasks[0].cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=cancelled is not None)

    asyncio.run(main())
    return acted


def expected(plans):
    return sorted((when, what, i) for i, plan in enumerate(plans) for when, what, _ in plan)


@given(plans, scripts)
def test_runs_act_alone_and_in_order(plans, scripts):
    assert play(plans, scripts=scripts) == expected(plans)


@given(plans)
def test_without_patience_they_still_act_alone(plans):
    assert sorted(play(plans, patience=0.0)) == expected(plans)


@given(plans, st.integers(1, 20), scripts)
def test_one_that_is_cancelled_holds_up_nobody(plans, when, scripts):
    acted = play(plans, cancelled=when, scripts=scripts)
    assert [act for act in acted if act[2]] == [act for act in expected(plans) if act[2]]


def test_one_that_is_paused_is_not_waited_for():
    async def main():
        turns = Turns()
        held, other = turns.join(), turns.join()
        held.pause()
        await other.wait(5, OPENS)
        other.pass_to(6, 0)
        held.resume()
        waits = asyncio.create_task(other.wait(6, OPENS))
        await pause(5)
        assert not waits.done()
        held.pass_to(7, 0)
        await waits

    asyncio.run(main())

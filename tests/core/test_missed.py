"""Which minutes are done and which are skipped when a live run is behind."""

from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._rules.missed import plan
from markets import MINUTE, START


def minute_by_minute(done, due, *, on_time, lives):
    """The same, asked of each minute by itself."""
    steps, skipped = [], []
    for when in range(done + MINUTE, due + 1, MINUTE):
        (steps if lives or (on_time and when == due) else skipped).append(when)
    return steps, skipped


@given(behind=st.integers(1, 200), on_time=st.booleans(), lives=st.booleans())
def test_the_plan_says_what_each_minute_by_itself_would_say(behind, on_time, lives):
    due = START + behind * MINUTE
    steps, skipped = plan(START, due, on_time=on_time, lives=lives)
    wanted = minute_by_minute(START, due, on_time=on_time, lives=lives)
    assert (list(steps), list(skipped)) == wanted


@given(
    behind=st.integers(1, 60),
    on_time=st.booleans(),
    closes_after=st.none() | st.integers(0, 70),
)
def test_carried_out_step_by_step_every_minute_is_done_or_skipped_once(
    behind, on_time, closes_after
):
    """As the driver does: plan, do the first step, which may close the signal, and plan again."""
    due = START + behind * MINUTE
    followed = behind if closes_after is None else min(closes_after, behind)
    done, finished, left_out = START, [], []
    while done < due:
        lives = closes_after is None or len(finished) < closes_after
        steps, skipped = plan(done, due, on_time=on_time, lives=lives)
        left_out += skipped
        finished += steps[:1]
        done = steps[0] if steps else skipped[-1]
    assert sorted(finished + left_out) == list(range(START + MINUTE, due + 1, MINUTE))
    asked = on_time and followed < behind
    assert len(finished) == followed + asked
    assert not asked or finished[-1] == due

"""Which steps a live run does, and which it leaves out, when it is behind the clock."""

from __future__ import annotations

from backtest_kit._values.time import MINUTE


def plan(
    done: int, due: int, step: int = MINUTE, *, on_time: bool, lives: bool
) -> tuple[range, range]:
    """Return the steps to do after `done` up to `due` (later), and those to skip before them.

    All in milliseconds, `step` apart. An open signal (`lives`) is followed through every step.
    Without one the past has no outcome, and the strategy is not asked about it: only the step
    `due` is done, and that only if it is `on_time`. Every step but that one is a missed step.
    """
    following = done + step
    if lives:
        first = following
    else:
        first = due if on_time else due + step
    return range(first, due + 1, step), range(following, first, step)

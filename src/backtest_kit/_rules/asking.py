"""When a strategy is asked.

`is_due` is the rule. Over a frame it holds at every so many steps (`stride`), so that drivers and
the kernel jump from one call to the next.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from backtest_kit._values.config import Config
from backtest_kit._values.signal import NEVER

#: Of a stride: it begins with whichever frame comes first.
ANY: Final = -1


def is_due(when: int, asked_at: int | None, interval: int, at_close: bool) -> bool:
    """Say whether a strategy is asked at `when`, the last call having been at `asked_at`.

    All in milliseconds. `at_close`: where a candle of its interval has just closed; else where no
    call was made less than an interval before.
    """
    if at_close:
        return when % interval == 0
    return asked_at is None or when - asked_at >= interval


def free_from(ended_at: int, reason: str, config: Config, *, reverses: bool = False) -> int:
    """Return from when on (ms) a strategy may be asked again after a signal that ended.

    At the step of its end already where it is asked at closes, or where an exit row said there that
    nothing should be on its side (`reverses`), but not where the data end.
    """
    waits = config.ask_at == "elapsed" and not reverses
    return ended_at + (waits or reason == "end_of_data")


def data_end(timeline: range, step: int, config: Config) -> int:
    """Return the last step (ms) of a backtest's data, which end with its frame; `NEVER`: go on.

    They do where lives may be without an end. `step` is the base interval in milliseconds.
    """
    if config.max_signal_lifetime_minutes:
        return NEVER
    return (timeline.stop - 1) // step * step


def askable(timeline: range, step: int, config: Config) -> int:
    """Return at how many frames a strategy may be asked: at the end of the data not any more."""
    return len(timeline) - (timeline[-1] >= data_end(timeline, step, config))


class Stride(msgspec.Struct, frozen=True):
    """Every `hop`-th frame is due, counted from frame `phase` (`ANY`: from the last call).

    None from frame `stop` on.
    """

    hop: int
    phase: int
    stop: int

    def first(self, frame: int, asks_from: int) -> int:
        """Return the first frame from `frame` on that is due, `asks_from` being the first allowed.

        `asks_from` is `hop` frames after the last call. After the last one: one beyond all frames.
        """
        due = next_due(max(frame, asks_from), self.hop, self.phase)
        return due if due < self.stop else max(due, NEVER)


def next_due(frame: int, hop: int, phase: int) -> int:
    """Return the first frame from `frame` on that is due."""
    return frame if phase < 0 else frame + (phase - frame) % hop


def stride(timeline: range, interval: int, at_close: bool, stop: int) -> Stride | None:
    """Return at which of the first `stop` frames a strategy is asked; `None`: at none, ever."""
    step = timeline.step
    if not at_close:
        return Stride(-(-interval // step), ANY, stop)
    hop = interval // math.gcd(interval, step)
    for phase in range(min(hop, stop)):
        if timeline[phase] % interval == 0:
            return Stride(hop, phase, stop)
    return None

"""When a strategy is asked.

`is_due` is the rule. Over a frame it holds at every so many steps (`stride`), so that drivers and
the kernel jump from one call to the next.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from backtest_kit._values.config import Config

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


def free_from(ended_at: int, reason: str, config: Config) -> int:
    """Return from when on (ms) a strategy may be asked again after a signal that ended.

    At the step of its end already where it is asked at closes, but not where the data end.
    """
    return ended_at + (config.ask_at == "elapsed" or reason == "end_of_data")


class Stride(msgspec.Struct, frozen=True):
    """Every `hop`-th frame is due, counted from frame `phase` (`ANY`: from the last call)."""

    hop: int
    phase: int

    def first(self, frame: int, asks_from: int) -> int:
        """Return the first frame from `frame` on that is due, `asks_from` being the first allowed.

        `asks_from` is `hop` frames after the last call.
        """
        return next_due(max(frame, asks_from), self.hop, self.phase)


def next_due(frame: int, hop: int, phase: int) -> int:
    """Return the first frame from `frame` on that is due."""
    return frame if phase < 0 else frame + (phase - frame) % hop


def stride(timeline: range, interval: int, at_close: bool) -> Stride | None:
    """Return at which frames of `timeline` a strategy is asked; `None`: at none, ever."""
    step = timeline.step
    if not at_close:
        return Stride(-(-interval // step), ANY)
    hop = interval // math.gcd(interval, step)
    for phase in range(min(hop, len(timeline))):
        if timeline[phase] % interval == 0:
            return Stride(hop, phase)
    return None

"""Windows of time: choose in one, judge in the next."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import msgspec

from backtest_kit._values.errors import RegistrationError


def extent(timeline: range) -> tuple[int, int]:
    """Return where a frame begins and ends (excluded), milliseconds."""
    return timeline[0], timeline[-1] + timeline.step


class TrainTestSplit(msgspec.Struct, frozen=True):
    """A train window and the test window after it: milliseconds, ends excluded."""

    train_since: int
    train_until: int
    test_since: int
    test_until: int


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """How to walk forward: the best of each train window is judged on the test window after it.

    Windows move on by the length of `test`. `embargo` is left out between the two, so that what is
    learned from the end of one does not live on into the other. `anchored`: every train window
    begins where the first one does, and grows.

    Raises:
        RegistrationError: a length is not above 0, or the embargo below.
    """

    train: timedelta
    test: timedelta
    embargo: timedelta = timedelta(0)
    anchored: bool = False

    def __post_init__(self) -> None:
        for name in ("train", "test", "embargo"):
            value = getattr(self, name)
            least = timedelta(0) if name == "embargo" else timedelta(minutes=1)
            if not isinstance(value, timedelta) or value < least:
                raise RegistrationError(
                    f"windows: {name}={value!r} must be a timedelta of {least} or more"
                )

    def spans(self, since: int, until: int) -> list[TrainTestSplit]:
        """Return all whole windows within `since` and `until` (milliseconds)."""
        train, test, embargo = (
            length // timedelta(milliseconds=1) for length in (self.train, self.test, self.embargo)
        )
        found: list[TrainTestSplit] = []
        for begin in count(since, test):
            end = begin + train
            if end + embargo + test > until:
                return found
            first = since if self.anchored else begin
            found.append(TrainTestSplit(first, end, end + embargo, end + embargo + test))
        raise AssertionError

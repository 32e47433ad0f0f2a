"""Windows of time: choose in some, judge in others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations, count, pairwise
from types import UnionType
from typing import Final

import msgspec

from backtest_kit._values.errors import RegistrationError

_NONE: Final = timedelta(0)
#: Splits that a cross-validation may have.
MOST_SPLITS: Final = 10_000


def extent(timeline: range) -> tuple[int, int]:
    """Return where a frame begins and ends (excluded), milliseconds."""
    return timeline[0], timeline[-1] + timeline.step


class Window(msgspec.Struct, frozen=True, order=True):
    """A stretch of time in milliseconds UTC, its end excluded."""

    since: int
    until: int

    @property
    def length(self) -> int:
        """How long it is, in milliseconds."""
        return self.until - self.since


class TrainTestSplit(msgspec.Struct, frozen=True):
    """A train window and the test window after it: milliseconds, ends excluded."""

    train_since: int
    train_until: int
    test_since: int
    test_until: int

    @property
    def train(self) -> Window:
        """The window in which a strategy is chosen."""
        return Window(self.train_since, self.train_until)

    @property
    def test(self) -> Window:
        """The window in which it is judged."""
        return Window(self.test_since, self.test_until)


class GroupSplit(msgspec.Struct, frozen=True):
    """Some groups of a frame to test in, numbered from 0, and what is left to train in.

    `train` are windows in order of time, groups that follow each other joined into one.
    """

    test: tuple[int, ...]
    train: tuple[Window, ...]


class Groups(msgspec.Struct, frozen=True):
    """A frame cut into groups, every choice of some of them to test in, and the paths they make.

    `paths` has for each path and each group of it (shape (paths, groups)) the split that tests it.
    """

    windows: tuple[Window, ...]
    splits: tuple[GroupSplit, ...]
    paths: tuple[tuple[int, ...], ...]


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """In which windows of a walk the best is chosen, and in which it is judged.

    With `train` and `test` it walks forward: the best of each train window is judged on the test
    window after it. Windows move on by the length of `test`. `embargo` is left out between the two,
    so that what is learned from the end of one does not live on into the other. `anchored`: every
    train window begins where the first one does, and grows.

    With `combinatorial=(groups, test_groups)` it is cross-validated instead (Lopez de Prado 2018,
    "Advances in Financial Machine Learning", chapter 12): the frame is cut into `groups` equal
    parts, and for every choice of `test_groups` of them the best of the others is judged on these.
    Put together, the parts that were judged make `paths` whole histories. `purge` is left out of
    what is trained in on both sides of each part that is tested, and `embargo` after it besides.

    It stands aside in a test window where no strategy of the train window was worth choosing: by
    the rule of the walk's own sentence, or where `min_metric` is given, with a metric of at least
    that. `fresh`: each window is also run for itself, from clean state.

    Raises:
        RegistrationError: a length is not above 0, or a gap below; both ways, or neither, are asked
            for; `groups` is not above `test_groups`; or an option goes with the other way.
    """

    train: timedelta | None = None
    test: timedelta | None = None
    combinatorial: tuple[int, int] | None = None
    purge: timedelta = _NONE
    embargo: timedelta = _NONE
    anchored: bool = False
    fresh: bool = False
    min_metric: float | None = None

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            self._check_length(name, timedelta(minutes=1), optional=True)
        for name in ("purge", "embargo"):
            self._check_length(name, _NONE)
        for name in ("anchored", "fresh"):
            if not isinstance(value := getattr(self, name), bool):
                raise RegistrationError(f"windows: {name}={value!r} must be True or False")
        least = self.min_metric
        if least is not None and not (_is_number(least, int | float) and math.isfinite(least)):
            raise RegistrationError(f"windows: min_metric={least!r} must be a finite number")
        if self.combinatorial is None:
            self._check_forward()
        else:
            self._check_combinatorial(self.combinatorial)

    def _check_length(self, name: str, least: timedelta, *, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        if not isinstance(value, timedelta) or value < least:
            raise RegistrationError(
                f"windows: {name}={value!r} must be a timedelta of {least} or more"
            )

    def _check_forward(self) -> None:
        if self.train is None or self.test is None:
            missing = "test" if self.train is not None else "train"
            if self.train is None and self.test is None:
                raise RegistrationError(
                    "windows: give train= and test=, or combinatorial=(groups, test_groups)"
                )
            raise RegistrationError(f"windows: {missing}= is missing; train= and test= go together")
        if self.purge:
            raise RegistrationError(
                f"windows: purge={self.purge!r} goes with combinatorial=; what is left out between "
                "train and test is embargo="
            )

    def _check_combinatorial(self, parts: object) -> None:
        if self.train is not None or self.test is not None or self.anchored:
            raise RegistrationError(
                "windows: combinatorial= takes no train=, test= or anchored=; its windows are equal"
                " parts of the frame"
            )
        if not isinstance(parts, tuple | list) or not (
            len(parts) == 2 and all(_is_number(part, int) for part in parts)
        ):
            raise RegistrationError(
                f"windows: combinatorial={parts!r} must be two whole numbers, groups and test "
                "groups, such as (6, 2)"
            )
        groups, test = parts
        if not 1 <= test < groups:
            raise RegistrationError(
                f"windows: combinatorial={parts!r} must leave at least one group of {groups} to "
                "test in and one to train in"
            )
        if (splits := math.comb(groups, test)) > MOST_SPLITS:
            raise RegistrationError(
                f"windows: combinatorial={parts!r} makes {splits:,} splits, and "
                f"{MOST_SPLITS:,} are the most; take fewer groups"
            )

    def spans(self, since: int, until: int) -> list[TrainTestSplit]:
        """Return all whole windows of a walk forward within `since` and `until` (milliseconds)."""
        if self.train is None or self.test is None:
            return []
        train, test, embargo = map(_milliseconds, (self.train, self.test, self.embargo))
        found: list[TrainTestSplit] = []
        for begin in count(since, test):
            end = begin + train
            if end + embargo + test > until:
                return found
            first = since if self.anchored else begin
            found.append(TrainTestSplit(first, end, end + embargo, end + embargo + test))
        raise AssertionError

    def groups(self, since: int, until: int, step: int = 1) -> Groups | None:
        """Return the groups of a cross-validation between `since` and `until` (milliseconds).

        They begin at whole `step`s after `since`. `None` where a group would be empty, or a split
        would have nothing to train in.
        """
        if self.combinatorial is None:
            return None
        number, chosen = self.combinatorial
        steps = (until - since) // step
        bounds = [since + steps * i // number * step for i in range(number)] + [until]
        windows = tuple(Window(a, b) for a, b in pairwise(bounds))
        purge, embargo = map(_milliseconds, (self.purge, self.embargo))
        splits = tuple(
            GroupSplit(test, tuple(_between(windows, test, purge, embargo)))
            for test in combinations(range(number), chosen)
        )
        if any(not window.length for window in windows) or any(not s.train for s in splits):
            return None
        testing = [[i for i, split in enumerate(splits) if g in split.test] for g in range(number)]
        return Groups(windows, splits, tuple(zip(*testing, strict=True)))

    def check_fit(self, timeline: range) -> None:
        """Raise a `RegistrationError` where not one window fits into a frame."""
        since, until = extent(timeline)
        if self.combinatorial is None:
            if not self.spans(since, until):
                assert self.train is not None
                assert self.test is not None
                lengths = self.train, self.test, timedelta(milliseconds=until - since)
                train, test, frame = map(_length, lengths)
                raise RegistrationError(
                    f"not one window of {train} to train and {test} to test fits into {frame}: "
                    "take shorter ones, or a longer frame"
                )
        elif self.groups(since, until, timeline.step) is None:
            raise RegistrationError(
                f"{self.combinatorial[0]} groups, {self.combinatorial[1]} of them to test in, "
                f"with purge={self.purge} and embargo={self.embargo}, leave nothing to train in"
            )

    def parts(self, timeline: range) -> list[Window]:
        """Return every window of a frame that is run for itself, each once, in order."""
        if not self.fresh:
            return []
        found: set[Window] = set()
        for span in self.spans(*extent(timeline)):
            found |= {span.train, span.test}
        groups = self.groups(*extent(timeline), timeline.step)
        if groups is not None:
            found.update(groups.windows, *(split.train for split in groups.splits))
        return sorted(found)


def _between(
    windows: tuple[Window, ...], test: tuple[int, ...], purge: int, embargo: int
) -> Iterator[Window]:
    """Yield what there is to train in around the windows that are tested."""
    begin = windows[0].since
    for group in test:
        end = windows[group].since - purge
        if end > begin:
            yield Window(begin, end)
        begin = windows[group].until + purge + embargo
    if windows[-1].until > begin:
        yield Window(begin, windows[-1].until)


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _length(length: timedelta) -> str:
    """Return a length in words: "20 days", "1 day, 12:00:00"."""
    return str(length).removesuffix(", 0:00:00")


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)

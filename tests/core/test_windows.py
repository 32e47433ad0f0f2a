"""Windows: combinatorial splits as the book counts them, gaps that hold, one error each."""

from datetime import timedelta
from math import comb

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.windows import Window
from trials import DAY, HOUR


@st.composite
def grouped(draw):
    """Windows of a cross-validation, and the frame that they cut: (windows, since, until, step)."""
    groups = draw(st.integers(2, 8))
    step = draw(st.sampled_from([60_000, HOUR, DAY]))
    windows = bk.Windows(
        combinatorial=(groups, draw(st.integers(1, groups - 1))),
        purge=timedelta(hours=draw(st.integers(0, 30))),
        embargo=timedelta(hours=draw(st.integers(0, 30))),
    )
    since = draw(st.integers(0, 100)) * step
    return windows, since, since + draw(st.integers(groups, 400)) * step, step


def test_the_example_of_the_book():
    """Lopez de Prado (2018), figures 12.1 and 12.2: 15 splits, 5 paths, and the first two paths."""
    found = bk.Windows(combinatorial=(6, 2)).groups(0, 6 * DAY)
    assert len(found.splits) == 15
    assert len(found.paths) == 5
    assert [split + 1 for split in found.paths[0]] == [1, 1, 2, 3, 4, 5]
    assert [split + 1 for split in found.paths[1]] == [2, 6, 6, 7, 8, 9]


@given(grouped())
def test_every_group_is_tested_equally_often(case):
    windows, since, until, step = case
    found = windows.groups(since, until, step)
    assume(found is not None)
    groups, tested = windows.combinatorial
    assert len(found.splits) == comb(groups, tested)
    assert len({split.test for split in found.splits}) == len(found.splits)
    for group in range(groups):
        assert sum(group in split.test for split in found.splits) == comb(groups - 1, tested - 1)
    assert len(found.paths) == tested * comb(groups, tested) // groups
    # each test of each group is in one path, and no path has a group of a split that trains in it
    used = [(group, split) for path in found.paths for group, split in enumerate(path)]
    assert len(set(used)) == len(used) == tested * len(found.splits)
    assert all(group in found.splits[split].test for group, split in used)


@given(grouped())
def test_groups_cut_the_frame_and_gaps_are_left_out(case):
    windows, since, until, step = case
    found = windows.groups(since, until, step)
    assume(found is not None)
    assert found.windows[0].since == since
    assert found.windows[-1].until == until
    lengths = [window.length for window in found.windows]
    assert all((window.since - since) % step == 0 for window in found.windows)
    assert max(lengths) - min(lengths) <= step
    milli = timedelta(milliseconds=1)
    purge, embargo = windows.purge // milli, windows.embargo // milli
    for split in found.splits:
        # instant by instant, where anything begins or ends
        tests = [found.windows[group] for group in split.test]
        cut = [(test.since - purge, test.until + purge + embargo) for test in tests]
        edges = {
            since,
            until,
            *(x for pair in cut for x in pair),
            *(w.since for w in found.windows),
        }
        for at in sorted(edge + shift for edge in edges for shift in (-1, 0, 1)):
            inside = since <= at < until and not any(a <= at < b for a, b in cut)
            assert inside == any(train.since <= at < train.until for train in split.train)
        for one, other in zip(split.train, split.train[1:], strict=False):
            assert one.until < other.since


def test_what_leaves_nothing_to_train_in_fits_into_no_frame():
    windows = bk.Windows(combinatorial=(4, 2), purge=timedelta(days=2))
    windows.check_fit(range(0, 12 * DAY, HOUR))
    with pytest.raises(bk.RegistrationError, match=r"4 groups, 2 of them.*purge=2 days"):
        windows.check_fit(range(0, 4 * DAY, HOUR))
    with pytest.raises(bk.RegistrationError, match="4 groups"):
        windows.check_fit(range(0, 2 * HOUR, HOUR))


def test_windows_that_are_run_alone():
    line = range(0, 60 * DAY, HOUR)
    days = {"train": timedelta(days=20), "test": timedelta(days=10)}
    assert bk.Windows(**days).parts(line) == []
    parts = bk.Windows(**days, fresh=True).parts(line)
    spans = bk.Windows(**days).spans(0, 60 * DAY)
    assert set(parts) == {s.train for s in spans} | {s.test for s in spans}
    assert len(parts) == len(set(parts))
    crossed = bk.Windows(combinatorial=(3, 1), fresh=True, purge=timedelta(days=1)).parts(line)
    assert crossed == sorted(
        Window(a * DAY, b * DAY)
        for a, b in [(0, 20), (20, 40), (40, 60), (21, 60), (0, 19), (41, 60), (0, 39)]
    )


FORWARD = {"train": timedelta(days=2), "test": timedelta(days=1)}
GROUPS = {"combinatorial": (6, 2)}


@pytest.mark.parametrize(
    ("given_", "match"),
    [
        ({}, r"give train= and test=, or combinatorial=\(groups, test_groups\)"),
        ({"train": timedelta(days=1)}, "test= is missing"),
        ({"test": timedelta(days=1)}, "train= is missing"),
        (FORWARD | {"train": 5}, "train=5 must be a timedelta"),
        (FORWARD | {"test": timedelta(0)}, "test=.* must be a timedelta"),
        (FORWARD | {"purge": timedelta(1)}, "purge=.* goes with combinatorial="),
        (FORWARD | {"embargo": -timedelta(1)}, "embargo=.* must be a timedelta"),
        (FORWARD | GROUPS, "combinatorial= takes no train="),
        (GROUPS | {"anchored": True}, "takes no train=, test= or anchored="),
        (GROUPS | {"purge": 3}, "purge=3 must be a timedelta"),
        ({"combinatorial": 6}, "combinatorial=6 must be two whole numbers"),
        ({"combinatorial": (6, 2, 1)}, "must be two whole numbers"),
        ({"combinatorial": (6, 2.0)}, "must be two whole numbers"),
        ({"combinatorial": (True, False)}, "must be two whole numbers"),
        ({"combinatorial": (6, 6)}, "must leave at least one group of 6"),
        ({"combinatorial": (6, 0)}, "must leave at least one group of 6"),
        ({"combinatorial": (40, 20)}, "splits, and 10,000 are the most"),
        (FORWARD | {"min_metric": "0"}, "min_metric='0' must be a finite number"),
        (FORWARD | {"min_metric": float("inf")}, "min_metric=inf must be a finite number"),
        (FORWARD | {"min_metric": True}, "min_metric=True must be a finite number"),
        (FORWARD | {"fresh": 1}, "fresh=1 must be True or False"),
        (FORWARD | {"anchored": "no"}, "anchored='no' must be True or False"),
    ],
)
def test_each_wrong_input_is_one_clear_error(given_, match):
    with pytest.raises(bk.RegistrationError, match=match):
        bk.Windows(**given_)

"""Digests of values, arrays and files: equal exactly where the content is."""

import numpy as np
import pytest

from backtest_kit._values.content import digest, digest_files
from backtest_kit._values.errors import FingerprintError

KINDS = [
    1,
    1.0,
    True,
    None,
    "1",
    b"1",
    np.float64(1),
    [1],
    (1,),
    [[1]],
    [1, 2],
    [2, 1],
    {"a": 1},
    {"a": 2},
    np.zeros(2),
    np.zeros(2, np.float32),
    np.zeros(3),
    np.zeros((2, 3)),
    np.zeros((3, 2)),
    np.array([0.0, -0.0]),
]


def test_each_kind_of_content_has_a_digest_of_its_own():
    assert len({digest(value) for value in KINDS}) == len(KINDS)
    assert digest(1, [2]) != digest(1, 2) != digest([1, 2])


def test_equal_content_has_an_equal_digest_wherever_it_lies():
    columns = np.arange(12.0).reshape(3, 4)
    assert digest(columns[:, 1]) == digest(columns[:, 1].copy())
    assert digest({"X": (columns, 3)}) == digest({"X": (columns.copy(), 3)})


def test_a_value_of_another_kind_is_refused_by_name():
    for value in (object(), {1, 2}, np.array([object()]), {"a": [print]}):
        with pytest.raises(FingerprintError, match="has no content that could be compared"):
            digest(value)


def test_files_count_with_their_names_contents_and_order(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, text in zip(paths, ("1", "2", "1"), strict=True):
        path.write_text(text)
    a, b, c = paths
    found = {digest_files(files) for files in ([a], [b], [c], [a, b], [b, a])}
    assert len(found) == 5
    before = digest_files([a])
    a.write_text("2")
    assert digest_files([a]) != before
    a.write_text("1")
    assert digest_files([a]) == before

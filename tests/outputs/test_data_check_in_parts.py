"""Files that are read a piece at a time are what they are when they are read whole."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backtest_kit._reports import data_check
from backtest_kit._reports.data_check import convert, inspect
from backtest_kit._reports.data_export import write_parts
from backtest_kit._values import candle_rules
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.time import to_datetime
from backtest_kit.exchanges import _csv, _parquet, _parts
from markets import market

CHANGES = {
    "gap": lambda rows, i: rows.pop(i),
    "double": lambda rows, i: rows.insert(i, rows[i]),
    "swap": lambda rows, i: rows.insert(0, rows.pop(i)),
    "print": lambda rows, i: _put(rows, i, 2, 30.0),
    "negative": lambda rows, i: _put(rows, i, 3, -1.0),
    "huge": lambda rows, i: _put(rows, i, 4, 5000.0),
    "split": lambda rows, i: [_put(rows, k, range(1, 5), 0.5) for k in range(i, len(rows))],
    "no volume": lambda rows, i: _put(rows, i, 5, 0.0),
    "half": lambda rows, i: _put(rows, i, 0, 1.0, 30_000),
}
changes = st.lists(st.tuples(st.sampled_from([*CHANGES]), st.integers(0, 150)), max_size=3)


def every_change(check):
    """Let each change be tried, whatever chance does."""
    for name in CHANGES:
        check = example(3, [(name, 95)])(check)
    return check


def _put(rows, i, columns, factor, more=0):
    row = [*rows[i]]
    for column in [columns] if isinstance(columns, int) else columns:
        row[column] = row[column] * factor + more
    rows[i] = row


@pytest.fixture
def small(monkeypatch):
    """Pieces of few candles."""
    monkeypatch.setattr(_parts, "BATCH", 40)
    monkeypatch.setattr(candle_rules, "BATCH", 40)
    monkeypatch.setattr(_parquet, "_PIECE", 23)
    monkeypatch.setattr(_csv, "_BLOCK", 1200)
    return monkeypatch


def found(call):
    try:
        return call()
    except BacktestKitError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["ms.csv", "iso.csv", "parquet"])
def test_in_parts_or_whole(kind, small, tmp_path_factory):
    @given(st.integers(0, 50), changes)
    @every_change
    def check(seed, changed):
        folder = tmp_path_factory.mktemp("parts")
        rows = [[*row] for row in market(seed, 200)]
        for name, i in changed:
            CHANGES[name](rows, i % len(rows))  # a market may have a long gap
        path = folder / f"a.{kind}"
        if kind == "parquet":
            write_parts([Candles(*zip(*rows, strict=True))], path)
        else:
            time = str if kind == "ms.csv" else lambda t: to_datetime(int(t)).isoformat()[:23]
            path.write_text("\n".join(",".join([time(int(t)), *map(repr, r)]) for t, *r in rows))
        targets = folder / "in_parts.parquet", folder / "whole.parquet"
        in_parts = found(lambda: inspect(path)), found(lambda: convert(path, targets[0]))
        with small.context() as patch:
            patch.setattr(data_check, "file_parts", lambda *_: None)
            whole = found(lambda: inspect(path)), found(lambda: convert(path, targets[1]))
        assert in_parts == whole
        assert targets[0].exists() == targets[1].exists() == isinstance(whole[1], int)
        if targets[0].exists():
            one, other = (_parquet.ParquetFile(t).read_all().candles for t in targets)
            assert one == other

    check()


def test_a_file_in_order_is_read_in_parts(small, tmp_path):
    """The other test compares nothing if it isn't."""
    small.setattr(data_check, "read_file", None)
    rows = market(3, 200)
    path = tmp_path / "a.csv"
    path.write_text("\n".join(",".join(map(repr, row)) for row in rows))
    assert convert(path, tmp_path / "a.parquet") == len(rows)
    report = inspect(tmp_path / "a.parquet")
    assert report.rows == len(rows)
    assert report.missing == (rows[-1][0] - rows[0][0]) // 60_000 + 1 - len(rows)
    assert np.all(np.diff([gap.start for gap in report.gaps]) > 0)

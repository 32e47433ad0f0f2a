"""Candles: views, accepted shapes, resampling."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._candles import COLUMNS, check_candles, read_candles
from backtest_kit._time import INTERVALS
from markets import START, market

ROWS = [list(row) for row in market(3, 50)]
CANDLES = bk.Candles(*zip(*ROWS, strict=True))


def shapes():
    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    indexed = frame.set_index(pd.to_datetime(frame.pop("timestamp"), unit="ms", utc=True))
    yield "candles", CANDLES
    yield "rows", ROWS
    yield "tuples", [tuple(row) for row in ROWS]
    yield "array", np.array(ROWS)
    yield "dicts", [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    yield "records", [bk.Candle(*row) for row in ROWS]
    yield "pandas", pd.DataFrame(ROWS, columns=COLUMNS)
    yield "pandas with an index", indexed
    yield "pandas of capitals", pd.DataFrame(ROWS, columns=[c.title() for c in COLUMNS])
    yield "polars", pl.DataFrame(ROWS, schema=list(COLUMNS), orient="row")
    yield "its own pandas", CANDLES.to_pandas()
    yield "its own polars", CANDLES.to_polars()


@pytest.mark.parametrize(("name", "source"), [*shapes()])
def test_every_shape_gives_the_same_candles(name, source):
    assert read_candles(source) == CANDLES


def test_columns_are_views_that_can_not_be_written():
    part = CANDLES[10:20]
    assert np.shares_memory(part.close, CANDLES.close)
    assert len(part) == 10
    assert part[0] == CANDLES[10]
    for column in part.columns():
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    with pytest.raises(AttributeError):
        part.close = 1


def test_a_pickle_carries_only_its_window():
    part = CANDLES[5:7]
    assert pickle.loads(pickle.dumps(part)) == part
    assert len(pickle.dumps(part)) < len(pickle.dumps(CANDLES)) / 2


def test_indexing():
    assert CANDLES[-1].timestamp == ROWS[-1][0]
    with pytest.raises(IndexError):
        CANDLES[len(CANDLES)]
    with pytest.raises(ValueError, match="without a step"):
        CANDLES[::2]
    assert [c.close for c in CANDLES] == CANDLES.close.tolist()
    assert len(CANDLES[5:2]) == 0


@given(st.integers(0, 2**32), st.sampled_from(["3m", "5m", "15m", "1h"]))
def test_resampling_agrees_with_pandas(seed, interval):
    candles = bk.Candles(*zip(*market(seed, 200), strict=True))
    rule = f"{INTERVALS[interval] // 60_000}min"
    groups = candles.to_pandas().resample(rule, origin="epoch")
    frame = groups.agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    ).dropna()
    made = candles.resample(interval)
    for name in ("open", "high", "low", "close"):
        assert getattr(made, name).tolist() == frame[name].tolist()
    assert made.volume == pytest.approx(frame["volume"].to_numpy())
    assert np.array_equal(made.volume, np.round(made.volume, 3)), "decimals add up exactly"


@given(st.integers(0, 2**32))
def test_what_is_generated_keeps_the_rules(seed):
    check_candles(bk.Candles(*zip(*market(seed, 100), strict=True)), 60_000)


def test_resampling_needs_a_multiple():
    fives = CANDLES.resample("5m")
    with pytest.raises(ValueError, match="can't resample candles of 300 s into 3m"):
        fives.resample("3m")


@pytest.mark.parametrize(
    "source",
    [
        [[START, 1, 2]],
        {"a": 1},
        3,
        "x",
        [[START + 0.5, 1, 1, 1, 1, 1]],
        pd.DataFrame({"close": [1]}),
        [["x", 1, 1, 1, 1, 1]],
    ],
)
def test_wrong_shapes(source):
    with pytest.raises(bk.BadCandlesError):
        read_candles(source)

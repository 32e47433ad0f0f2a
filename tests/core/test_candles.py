"""Candles: views, accepted shapes, resampling."""

import pickle
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values import candle_rules as rules
from backtest_kit._values.candle_rules import BATCH, check_candles, check_series
from backtest_kit._values.candles import COLUMNS, read_candles, regroup
from backtest_kit._values.time import INTERVALS
from markets import START, market

ROWS = [list(row) for row in market(3, 50)]
CANDLES = bk.Candles(*zip(*ROWS, strict=True))


HAS_FRAMES = bool(find_spec("pandas") and find_spec("polars"))
needs_frames = pytest.mark.skipif(not HAS_FRAMES, reason="needs the extras pandas and polars")


def shapes():
    yield "candles", CANDLES
    yield "rows", ROWS
    yield "tuples", [tuple(row) for row in ROWS]
    yield "array", np.array(ROWS)
    yield "dicts", [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    yield "records", [bk.Candle(*row) for row in ROWS]
    if HAS_FRAMES:
        yield from frames()
    else:
        yield pytest.param("frames", None, marks=needs_frames)


def frames():
    import pandas as pd
    import polars as pl

    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    indexed = frame.set_index(pd.to_datetime(frame.pop("timestamp"), unit="ms", utc=True))
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


@needs_frames
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
        [["x", 1, 1, 1, 1, 1]],
        [dict(zip(COLUMNS, ROWS[0], strict=True)), 5],
    ],
)
def test_wrong_shapes(source):
    with pytest.raises(bk.BadCandlesError):
        read_candles(source)


@needs_frames
def test_a_frame_without_columns():
    import pandas as pd

    with pytest.raises(bk.BadCandlesError):
        read_candles(pd.DataFrame({"close": [1]}))


def broken(column, value, row=3):
    rows = [[START + i * 60_000, 10.0, 12.0, 9.0, 11.0, 1.0] for i in range(6)]
    rows[row][column] = value
    return bk.Candles(*zip(*rows, strict=True))


@pytest.mark.parametrize(
    ("candles", "rule"),
    [
        (broken(0, START + 120_000), "is not after the one before it"),
        (broken(0, START + 60_000), "is not after the one before it"),
        (broken(0, START + 180_001), "is not on the grid of 60 s"),
        (broken(0, -60_000), "is not in milliseconds between 1970 and 9999"),
        (broken(0, START * 1000), "is not in milliseconds between 1970 and 9999"),
        (broken(2, float("nan")), "is not finite"),
        (broken(5, float("inf")), "is not finite"),
        (broken(3, 0.0), "has a price of 0 or less"),
        (broken(5, -0.5), "has a negative volume"),
        (broken(2, 8.0), "has a high below its low"),
        (broken(4, 12.5), "has a close outside its low and high"),
        (broken(4, 8.5), "has a close outside its low and high"),
        (broken(1, 12.5), "has an open outside its low and high"),
        (broken(1, 8.5), "has an open outside its low and high"),
        (broken(2, 11_000.0), "1000 times off"),
        (broken(3, 0.011), "1000 times off"),
    ],
)
def test_each_rule_names_the_candle_that_breaks_it(candles, rule):
    with pytest.raises(bk.BadCandlesError, match=rf"^candle 3 \(.*\) .*{rule}"):
        check_candles(candles, 60_000)


ODD = [np.nan, np.inf, -np.inf, -1.0, -0.0, 0.0, 9.0, 11.0, 12.0, 4_000.0, 11_000.0, 1e300, 1.7e308]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.sampled_from(ODD)), max_size=3),
    st.sampled_from([None, None, 0, -60_000, 30_000, 60_000, 120_000]),
    st.integers(0, 5),
)
def test_the_short_way_says_what_the_rules_say_one_by_one(changes, moved, at):
    rows = [[START + i * 60_000, 10.0, 12.0, 9.0, 11.0, 1.0] for i in range(6)]
    for row, column, value in changes:
        rows[row][column] = value
    if moved is not None:
        rows[at][0] += moved
    candles = bk.Candles(*zip(*rows, strict=True))
    assert said(candles) == said(candles, short=False)


def said(candles, *, short=True):
    with pytest.MonkeyPatch.context() as patch:
        if not short:
            patch.setattr(rules, "_plainly_right", lambda candles, step: False)
        try:
            check_candles(candles, 60_000)
        except bk.BadCandlesError as error:
            return str(error)
        return None


def test_what_lies_at_the_border_of_a_rule_is_kept():
    for candles in (broken(2, 10_999.0), broken(3, 0.0111), broken(5, 0.0), broken(4, 12.0)):
        check_candles(candles, 60_000)


@given(st.integers(0, 49), st.sampled_from([1, 2, 3, 4]), st.sampled_from([np.nan, -1.0, 0.0]))
def test_no_bad_price_gets_through(row, column, value):
    rows = [list(x) for x in ROWS]
    row %= len(rows)
    rows[row][column] = value
    with pytest.raises(bk.BadCandlesError, match=rf"^candle {row} "):
        check_candles(bk.Candles(*zip(*rows, strict=True)), 60_000)


def long_series():
    # a few cheap years and a long expensive tail: no candle is far off the one before it
    n = 4 * BATCH
    steps = np.minimum(np.arange(n) / BATCH, 1.5)
    price = np.round(4 * np.exp(steps * np.log(8_000) / 1.5), 2)
    return [START + np.arange(n) * 60_000, price, price, price, price, np.ones(n)]


def test_a_thousandfold_growth_over_years_is_no_bad_print():
    whole = bk.Candles(*long_series())
    check_candles(whole, 60_000)
    check_series(whole, 60_000)


def test_a_series_is_checked_across_the_borders_of_its_batches():
    columns = long_series()
    columns[0][BATCH] = columns[0][BATCH - 1]
    with pytest.raises(bk.BadCandlesError, match=rf"^candle {BATCH} .* not after"):
        check_series(bk.Candles(*columns), 60_000)
    columns = long_series()
    columns[2][BATCH + 5] = np.nan
    with pytest.raises(bk.BadCandlesError, match=rf"^candle {BATCH + 12} .* not finite"):
        check_series(bk.Candles(*columns), 60_000, 7)


def test_few_candles_with_gaps_are_grouped_where_their_interval_is_known():
    pair = bk.Candles(*zip(*(ROWS[0], [ROWS[0][0] + 7 * 60_000, *ROWS[1][1:]]), strict=True))
    with pytest.raises(ValueError, match="can't resample candles of 420 s"):
        pair.resample("15m")
    made = regroup(pair, 15 * 60_000)
    assert made.timestamp.tolist() == [ROWS[0][0]]
    assert made.close.tolist() == [ROWS[1][4]]


def test_volumes_near_the_end_of_float64_add_up():
    pair = bk.Candles(*([START, START + 60_000], *[[1, 1]] * 4, [1e305, 1e305]))
    assert pair.resample("5m").volume.tolist() == [2e305]

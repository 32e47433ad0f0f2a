"""Candles filled in closed times are counted apart from gaps, however they were loaded."""

import asyncio
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._data.market import GapCount, MarketView
from backtest_kit._values.config import resolved
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, MINUTE, to_datetime

HOUR, DAY = INTERVALS["1h"], INTERVALS["1d"]
MONDAY = 1_704_067_200_000  # 2024-01-01


def row(t):
    return [t, 100.0, 101.0, 99.0, 100.0, 1.0]


def hourly(missing, days=10):
    """Hours from a Monday on, none on weekends, without those in `missing`."""
    times = range(MONDAY, MONDAY + days * DAY, HOUR)
    return [row(t) for i, t in enumerate(times) if (t - MONDAY) // DAY % 7 < 5 and i not in missing]


def exchange(rows, calendar):
    frame = bk.exchanges.FrameExchange(rows)
    return ExchangeSchema(
        exchange_name="x", get_candles=frame.get_candles, calendar=calendar, page_limit=30
    )


def loaded(schema, engine, ranges, **settings):
    """Return the view of a run that has loaded some ranges, in order."""
    engine.set_config(**settings)
    view = MarketView(engine.store, schema, resolved(engine.config, "1h"), MONDAY + 20 * DAY)

    async def work():
        for since, until in ranges:
            await view._load(("X", "1h"), since, until)

    asyncio.run(work())
    return view


#: How far what is loaded grows, forward and backward, from the hours 100 to 120 on.
parts = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4)


@given(st.sets(st.integers(1, 220), max_size=20), parts)
def test_closed_times_and_gaps_are_counted_apart(missing, parts):
    schema = exchange(hourly(missing), "weekdays")
    begin, end, ranges = 100, 120, [(MONDAY + 100 * HOUR, MONDAY + 120 * HOUR)]
    for forward, backward in parts:
        since = end - 1
        end = min(end + forward, 239)
        ranges.append((MONDAY + since * HOUR, MONDAY + end * HOUR))
        begin = max(begin - backward, 0)
        ranges.append((MONDAY + begin * HOUR, MONDAY + end * HOUR))
    ranges.append((MONDAY, MONDAY + 10 * DAY))
    with bk.Engine() as engine:
        view = loaded(schema, engine, ranges)
        for until in (MONDAY + 3 * DAY, MONDAY + 6 * DAY, MONDAY + 10 * DAY):
            hours = (until - MONDAY) // HOUR
            gone = {i for i in missing if i < hours and i // 24 % 7 < 5}
            rest = {i for i in range(hours) if i // 24 % 7 >= 5}
            filled = sum(series.filled for series in view.gaps(until))
            assert filled == len(gone)
            assert sum(series.closed for series in view.gaps(until)) == len(rest)


def test_with_data_as_the_calendar_nothing_is_a_gap(engine):
    view = loaded(exchange(hourly({7, 30}), "data"), engine, [(MONDAY, MONDAY + 10 * DAY)])
    (series,) = view.gaps(MONDAY + 10 * DAY)
    assert (series.filled, series.gaps, series.closed) == (0, (), 2 + 48)


def test_without_a_calendar_a_weekend_is_a_gap(engine):
    view = loaded(exchange(hourly(set()), None), engine, [(MONDAY, MONDAY + 10 * DAY)])
    (series,) = view.gaps(MONDAY + 10 * DAY)
    assert (series.filled, series.closed) == (48, 0)


def test_gaps_raise_only_while_the_market_is_open(engine):
    policy = {"gap_policy": "raise"}
    span = [(MONDAY, MONDAY + 10 * DAY)]
    view = loaded(exchange(hourly(set()), "weekdays"), engine, span, **policy)
    assert view.loaded("X", "1h").rows == 240
    with pytest.raises(bk.GapError, match=r"2024-01-02T06:00Z is missing \(1 missing in all"):
        loaded(exchange(hourly({30}), "weekdays"), bk.Engine(), span, **policy)
    with pytest.raises(bk.GapError, match="48 missing in all"):
        loaded(exchange(hourly(set()), None), bk.Engine(), span, **policy)


def test_windows_stay_on_the_whole_grid(engine):
    """Twenty-four hours are twenty-four candles; those of a weekend are flat and without volume."""
    view = loaded(exchange(hourly(set()), "weekdays"), engine, [(MONDAY, MONDAY + 10 * DAY)])
    window = view.window("X", "1h", 24, MONDAY + 7 * DAY)
    assert np.diff(window.timestamp).tolist() == [HOUR] * 23
    assert (window.close == 100.0).all()
    assert not window.volume.any()
    segment = view.loaded("X", "1h")
    assert segment.closed.sum() == 48
    with pytest.raises(ValueError, match="read-only"):
        segment.closed[0] = True


def test_longer_candles_know_closed_times_too(engine):
    schema = exchange(hourly(set()), "weekdays")
    view = loaded(schema, engine, [])
    asyncio.run(view.provide("X", "1d", 5, MONDAY + 9 * DAY))
    (series,) = view.gaps(MONDAY + 9 * DAY)
    assert (series.interval, series.filled, series.closed) == ("1d", 0, 2)


def test_nothing_is_counted_before_anything_is_loaded():
    assert (GapCount().until(MONDAY), GapCount().closed_until(MONDAY)) == ((), 0)


def test_a_strategy_that_is_due_in_closed_times_only_is_told_so():
    """Days end at midnight UTC, when the market of New York is closed."""
    pytest.importorskip("exchange_calendars", reason="needs the extra calendars")
    start = to_datetime(MONDAY)
    rows = [row(MONDAY + i * MINUTE) for i in range(4 * 1440)]
    with bk.Engine():
        errors = []
        bk.listen_error(lambda event: errors.append(str(event.error)))
        bk.add_exchange(bk.exchanges.FrameExchange(rows), calendar="XNYS")
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=start + timedelta(minutes=10),
            end_date=start + timedelta(days=3),
        )
        bk.add_strategy(strategy_name="s", interval="1d", get_signal=lambda symbol, when: None)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
    (error,) = errors
    assert "strategy 's' was never asked" in error
    assert "calendar 'XNYS'" in error

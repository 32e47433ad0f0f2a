"""Live by the wall clock on candles longer than a minute, and through closed times."""

import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
import reference
from backtest_kit._data import calendar as calendars
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, to_datetime, to_ms
from effort import examples
from live.world import Stage, always, flat
from markets import MINUTE, START, configs, market, script

HOUR, DAY = 60 * MINUTE, 1440 * MINUTE


@pytest.fixture(autouse=True)
def glance(monkeypatch):
    """Look at the clock by the minute: hours by the second take long, even in this world."""
    monkeypatch.setattr("backtest_kit._live.clocks._GLANCE_MS", MINUTE)


def resampled(rows):
    """Return the hours of minutes."""
    columns = bk.Candles(*zip(*rows, strict=True)).resample("1h").columns()
    return [*zip(*(column.tolist() for column in columns), strict=True)]


@examples(6)
@given(st.integers(0, 2**32), st.sampled_from(["1h", "2h", "4h"]), configs)
def test_a_calm_run_on_hours_equals_the_reference(seed, interval, config):
    rows = market(seed, 60 * 40, gaps=False)
    answer = script(seed, 1.0)
    start, end = START + 12 * HOUR, START + 36 * HOUR
    with bk.Engine():
        stage = Stage(
            rows, start=start, interval=interval, answer=answer, **config, base_interval="1h"
        )
        stage.play(end + MINUTE)
        hours = resampled(rows)
        found = [
            (t.action, t.timestamp, getattr(t, "pnl", None) and t.pnl.pnl_percentage)
            for t in stage.transitions()
        ]
    expected = reference.backtest(
        hours, start, end, HOUR, INTERVALS[interval], answer, config, base=HOUR, live=True
    )
    assert found == [
        (f[0], f[1], f[4] if f[0] == "closed" else None)
        for f in expected
        if f[1] <= end and f[0] != "partial"
    ]


def test_steps_come_just_after_each_hour():
    stage = Stage(flat(6000), base_interval="1h", interval="2h", start=START + 3 * HOUR)
    stage.play(START + 10 * HOUR + MINUTE)
    assert stage.steps() == [START + i * HOUR for i in range(3, 11)]
    assert [at for at, _ in stage.asked] == [START + i * HOUR for i in (4, 6, 8, 10)]
    assert all(now - at < 1000 for at, now in stage.asked)


def test_a_start_within_the_hour_waits_for_its_end_and_has_missed_nothing():
    stage = Stage(
        flat(6000), base_interval="1h", interval="1h", start=START + 3 * HOUR + 20 * MINUTE
    )
    stage.play(START + 5 * HOUR + MINUTE)
    assert [at for at, _ in stage.asked] == [START + 4 * HOUR, START + 5 * HOUR]
    assert not stage.errors


def test_a_failed_hour_is_tried_again_by_the_minute():
    since = START + 4 * HOUR
    stage = Stage(
        flat(6000),
        base_interval="1h",
        interval="1h",
        start=START + 3 * HOUR,
        faults=[(since, since + 3 * MINUTE, "fail")],
        answer=always,
        get_candles_retry_count=0,
        max_signal_lifetime_minutes=0,
    )
    stage.play(since + 10 * MINUTE)
    assert [t.action for t in stage.transitions()] == ["opened", "closed"]
    closed = stage.transitions()[-1]
    # what lived was followed as soon as the candles were there; the hour itself is not asked late
    assert closed.timestamp == since
    assert [at for at, _ in stage.asked] == [START + 3 * HOUR]
    assert 2 <= len(stage.error_texts("feed")) <= 4


@pytest.mark.parametrize("calendar", ["weekdays", "XNYS"])
def test_nobody_is_asked_in_closed_times_and_nothing_is_missed(calendar, engine):
    friday = START + 4 * DAY
    rows = flat(9 * 1440)
    stage = Stage(rows, base_interval="1h", interval="1h", start=friday)
    old = engine.exchanges.get("venue")
    closed = ExchangeSchema(exchange_name="closing", get_candles=old.get_candles, calendar=calendar)
    bk.add_exchange(closed)
    stage.task = lambda: bk.Live.background("X", strategy_name="s", exchange_name="closing")
    stage.play(friday + 4 * DAY + MINUTE)
    asked = [to_datetime(at) for at, _ in stage.asked]
    assert asked
    if calendar == "weekdays":
        days = [friday + i * HOUR for i in range(25)]
        days += [friday + 3 * DAY + i * HOUR for i in range(1, 25)]
        assert [at for at, _ in stage.asked] == days
    else:  # 14:30 to 21:00 in winter: the hour of the opening is open
        assert [a.hour for a in asked] == [15, 16, 17, 18, 19, 20, 21] * 2
    assert not stage.errors
    quiet = [minute for *_, minute in stage.venue.requests]
    saturday = (friday + DAY) // MINUTE + 5
    assert not [m for m in quiet if saturday <= m < saturday + 2 * 1440 - 10]


def test_a_calendar_is_loaded_in_a_thread_and_ahead_of_its_year(engine, monkeypatch):
    loaded, read = [], calendars._read_sessions

    def noted(*years):
        loaded.append((years, threading.current_thread() is threading.main_thread()))
        return read(*years)

    monkeypatch.setattr(calendars, "_loaded", {})
    monkeypatch.setattr(calendars, "_read_sessions", noted)
    december = to_ms(datetime(2024, 12, 10, tzinfo=UTC))
    rows = [(at + december - START - DAY, *rest) for at, *rest in flat(30 * 1440)]
    stage = Stage(rows, base_interval="1h", interval="1h", start=december)
    venue = engine.exchanges.get("venue")
    bk.add_exchange(exchange_name="XNYS", get_candles=venue.get_candles, calendar="XNYS")
    stage.task = lambda: bk.Live.background("X", strategy_name="s", exchange_name="XNYS")
    stage.play(december + 28 * DAY + MINUTE)
    # the next two months are looked at when it begins: is the market ever open when it is asked?
    assert loaded == [(("XNYS", 2024, 2025), False)]
    closed = {"2024-12-25", "2025-01-01"}
    days = {f"{to_datetime(at):%Y-%m-%d}" for at, _ in stage.asked}
    assert len(days) == 18
    assert not days & closed
    assert not stage.errors


def test_a_calendar_that_does_not_reach_so_far_ends_no_run(engine, monkeypatch):
    friday = START + 4 * DAY
    ends, known_again = friday + 18 * HOUR, friday + 20 * HOUR

    def bounded(calendar, when, step):
        if ends <= when < known_again:
            raise bk.DataError("the calendar is recorded to this year")
        return False

    monkeypatch.setattr("backtest_kit._live.driver.closed_at", bounded)
    stage = Stage(
        flat(9 * 1440),
        base_interval="1h",
        interval="1h",
        start=friday + 15 * HOUR,
        answer=lambda t, price: always(t, price) | {"minute_estimated_time": 4 * 60},
    )
    old = engine.exchanges.get("venue")
    closing = ExchangeSchema(
        exchange_name="closing", get_candles=old.get_candles, calendar="weekdays"
    )
    bk.add_exchange(closing)
    stage.task = lambda: bk.Live.background("X", strategy_name="s", exchange_name="closing")
    stage.play(known_again + MINUTE)
    assert [(t.action, t.timestamp) for t in stage.transitions()][:2] == [
        ("opened", friday + 15 * HOUR),
        ("closed", friday + 19 * HOUR),
    ]
    assert stage.error_texts("feed")

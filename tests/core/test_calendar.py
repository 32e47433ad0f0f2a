"""When a market is closed: each calendar against a second, slow way to say the same."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._data.calendar import check_calendar, closed_at, closed_candles
from backtest_kit._values.time import INTERVALS, to_datetime, to_ms

MINUTE, DAY = INTERVALS["1m"], INTERVALS["1d"]
steps = st.sampled_from([*INTERVALS.values()])


def mask(calendar, first, step, rows, filled=True):
    return closed_candles(calendar, first, step, np.full(rows, filled))


@given(st.integers(0, 20_000), steps, st.integers(1, 300))
def test_weekdays_are_open_from_monday_to_friday(day, step, rows):
    first = day * DAY // step * step
    for i, closed in enumerate(mask("weekdays", first, step, rows)):
        begin = first + i * step
        # every minute would do; every day's first is enough, as candles begin on a grid
        days = {to_datetime(begin).date(), to_datetime(begin + step - 1).date()}
        days |= {to_datetime(t).date() for t in range(begin, begin + step, DAY)}
        assert closed == all(d.weekday() >= 5 for d in days)


#: Holidays and early closes of New York in autumn 2013.
CLOSED_DAYS = {date(2013, 9, 2), date(2013, 11, 28), date(2013, 12, 25)}
HALF_DAYS = {date(2013, 11, 29), date(2013, 12, 24)}


def new_york_is_open(minute):
    """Say if New York trades in the minute from `minute` (ms), by its own wall clock."""
    local = to_datetime(minute).astimezone(ZoneInfo("America/New_York"))
    if local.weekday() >= 5 or local.date() in CLOSED_DAYS:
        return False
    end = time(13) if local.date() in HALF_DAYS else time(16)
    return time(9, 30) <= local.time() < end


@given(
    st.datetimes(datetime(2013, 9, 1), datetime(2013, 12, 20)),
    st.sampled_from(["1m", "5m", "30m", "1h", "4h"]),
    st.integers(1, 40),
)
def test_new_york_is_closed_by_its_own_clock(when, interval, rows):
    step = INTERVALS[interval]
    first = to_ms(when.replace(tzinfo=UTC)) // step * step
    for i, closed in enumerate(mask("XNYS", first, step, rows)):
        minutes = range(first + i * step, first + (i + 1) * step, MINUTE)
        assert closed != any(map(new_york_is_open, minutes))


def test_days_of_new_york_carry_the_date_of_their_session():
    first = to_ms(datetime(2013, 11, 20, tzinfo=UTC))
    for i, closed in enumerate(mask("XNYS", first, DAY, 20)):
        day = date(2013, 11, 20) + timedelta(days=i)
        assert closed == (day.weekday() >= 5 or day in CLOSED_DAYS)
    # of three days, one with a session is enough
    assert not mask("XNYS", first // (3 * DAY) * 3 * DAY, 3 * DAY, 10).any()


def test_a_break_at_noon_is_closed():
    # Hong Kong, Tuesday 3 September 2013: 09:30 to 12:00 and 13:00 to 16:00, UTC+8
    first = to_ms(datetime(2013, 9, 3, tzinfo=UTC))
    open_hours = np.flatnonzero(~mask("XHKG", first, 60 * MINUTE, 24))
    assert open_hours.tolist() == [1, 2, 3, 5, 6, 7]


def test_a_market_that_never_closes():
    assert not mask("24/7", 0, 60 * MINUTE, 24 * 400).any()


def test_data_are_closed_where_there_is_no_candle():
    filled = np.array([False, True, True, False])
    assert closed_candles("data", 0, DAY, filled).tolist() == filled.tolist()


@given(st.integers(15_950, 16_050), st.sampled_from(["weekdays", "XNYS"]), steps)
def test_one_candle_is_told_as_many_are(day, calendar, step):
    first = day * DAY // step * step
    for i, closed in enumerate(mask(calendar, first, step, 5)):
        assert closed_at(calendar, first + (i + 1) * step, step) == closed
    assert not closed_at(None, first + step, step)
    assert not closed_at("data", first + step, step)


def test_an_unknown_calendar_is_told_at_once(monkeypatch):
    for known in (None, "weekdays", "data", "XNYS", "NYSE"):
        check_calendar(known)
    with pytest.raises(bk.BacktestKitError, match="calendar 'XNIS' is neither"):
        check_calendar("XNIS")
    monkeypatch.setitem(__import__("sys").modules, "exchange_calendars", None)
    with pytest.raises(bk.BacktestKitError, match=r"pip install 'backtest-kit\[calendars\]'"):
        check_calendar("XNYS")


def test_years_that_a_calendar_does_not_know():
    with pytest.raises(bk.DataError, match="calendar 'XSHG', years 1985 to 1985"):
        mask("XSHG", to_ms(datetime(1985, 1, 1, tzinfo=UTC)), DAY, 10)
    assert mask("XSHG", to_ms(datetime(1991, 1, 1, tzinfo=UTC)), DAY, 10).any()

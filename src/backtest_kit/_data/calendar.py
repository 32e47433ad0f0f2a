"""When a market is closed, so that nights and weekends are neither gaps nor moments to trade."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Ints
from backtest_kit._values.errors import BacktestKitError, DataError
from backtest_kit._values.signal import NEVER
from backtest_kit._values.time import INTERVALS, to_datetime

Mask = npt.NDArray[np.bool_]

_DAY: Final = INTERVALS["1d"]
#: No exchange has been closed for longer since its calendar was written down.
_LONGEST_REST: Final = 16 * _DAY
#: How far ahead `is_ever_open` looks, in milliseconds.
LOOK_AHEAD: Final = 60 * _DAY
#: 1 January 1970 was a Thursday; days of the week count from Monday.
_THURSDAY: Final = 3
_OWN: Final = ("weekdays", "data")


class _Sessions(NamedTuple):
    """When a market is open: begins and ends, breaks left out, and the days of the sessions."""

    opens: Ints
    closes: Ints
    days: Ints


def closed_candles(calendar: str, first: int, step: int, filled: Mask) -> Mask:
    """Say of candles with open times `first`, `first + step` ... (ms) if the market was closed.

    `filled` marks those that are missing. A candle is closed if the market is for all of its time;
    one of a day or longer, which carries the date of its session, if no session has its dates.

    Raises:
        BacktestKitError: as `check_calendar`.
        DataError: the calendar does not reach so far.
    """
    if calendar == "data":
        return filled
    begin = first + step * np.arange(len(filled), dtype=np.int64)
    if calendar == "weekdays":
        weekday = (begin // _DAY + _THURSDAY) % 7
        return (weekday >= 5) & (weekday * _DAY + begin % _DAY + step <= 7 * _DAY)
    end = begin + step
    years = to_datetime(first).year, to_datetime(int(end[-1]) - 1 if len(end) else first).year
    sessions = _sessions(calendar, *years)
    opens, closes = sessions.opens, sessions.closes
    if step >= _DAY:
        opens, closes = sessions.days, sessions.days + _DAY
    # sessions that begin before the candle's end, less those that are over when it begins
    return np.searchsorted(opens, end, "left") <= np.searchsorted(closes, begin, "right")


def closed_at(calendar: str | None, when: int, step: int) -> bool:
    """Say if the market is known to be closed for all of the candle that closes at `when` (ms).

    The calendar "data" knows nothing before the candles have come; raises as `closed_candles`.
    """
    if calendar is None or calendar == "data":
        return False
    return bool(closed_candles(calendar, when - step, step, np.ones(1, dtype=np.bool_))[0])


def open_step(calendar: str | None, when: int, step: int) -> int:
    """Return the first step at or after `when` (ms) at which the market may be open.

    By what the calendar knows beforehand: "data" closes nothing before its candles have come, and
    no market rests for longer than `_LONGEST_REST`.
    """
    first = -(-when // step) * step
    if when == NEVER:
        return when
    if calendar is None or calendar == "data":
        return first
    ahead = np.ones(_LONGEST_REST // step + 1, dtype=np.bool_)
    try:
        closed = closed_candles(calendar, first - step, step, ahead)
    except DataError:  # it does not reach so far: each step that gets there says so
        return first
    return first + int(closed.argmin()) * step


async def load_calendar(calendar: str | None, since: int, until: int) -> None:
    """Load what a calendar says of [since, until] (ms), and of the days after it, in a thread.

    Years of sessions take half a second, for which nothing else on the event loop should wait. What
    can't be had is reported where it is needed.
    """
    if calendar is None or calendar in _OWN:
        return
    years = to_datetime(since).year, to_datetime(until + _LONGEST_REST).year
    if _known(calendar, *years) is None:
        with suppress(DataError):
            await asyncio.to_thread(_sessions, calendar, *years)


def is_ever_open(calendar: str | None, since: int, interval: int, base: int) -> bool:
    """Say whether, in the two months after `since` (ms), a multiple of `interval` is an open step.

    By what the calendar knows beforehand, as `open_step`.
    """
    if calendar is None or calendar == "data":
        return True
    first = since // interval * interval + interval
    count = (LOOK_AHEAD // interval + 1) * interval // base
    try:
        closed = closed_candles(calendar, first - base, base, np.ones(count, dtype=np.bool_))
    except DataError:  # it does not reach so far: each step that gets there says so
        return True
    return not bool(closed[:: interval // base].all())


def check_calendar(calendar: str | None) -> None:
    """Raise a `BacktestKitError` where a calendar is unknown, or needs what is not installed."""
    if calendar is not None and calendar not in _OWN:
        _package(calendar)


def _package(name: str) -> Any:
    try:
        import exchange_calendars as package
    except ImportError:
        raise BacktestKitError(
            f"calendar {name!r} needs exchange-calendars: pip install 'backtest-kit[calendars]'"
        ) from None
    if name not in package.get_calendar_names(include_aliases=True):
        raise BacktestKitError(
            f'calendar {name!r} is neither "weekdays" nor "data", and exchange-calendars does not '
            "know it (its get_calendar_names() lists those it does)"
        )
    return package


#: By name: the years (first and last) of the sessions that have been loaded.
_loaded: dict[str, dict[tuple[int, int], _Sessions]] = {}


def _known(name: str, first: int, last: int) -> _Sessions | None:
    loaded = [*_loaded.get(name, {}).items()]  # a copy: a thread may add to it
    return next((found for years, found in loaded if years[0] <= first and last <= years[1]), None)


def _sessions(name: str, first: int, last: int) -> _Sessions:
    """Return the sessions of a calendar in the years `first` to `last` at least."""
    found = _known(name, first, last)
    if found is None:
        found = _loaded.setdefault(name, {})[first, last] = _read_sessions(name, first, last)
    return found


def _read_sessions(name: str, first: int, last: int) -> _Sessions:
    """Return the sessions of a calendar from the year before `first` to the one after `last`."""
    package = _package(name)
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of that package's own use of pandas
        schedule = _schedule(package, pd, name, first, last)

    def instants(column: str) -> Ints:
        times = pd.DatetimeIndex(schedule[column]).tz_convert(None).to_numpy()
        return np.asarray(times.astype("datetime64[ms]").astype(np.int64))

    breaks = schedule["break_start"].notna().to_numpy()
    return _Sessions(
        np.sort(np.concatenate((instants("open"), instants("break_end")[breaks]))),
        np.sort(np.concatenate((instants("close"), instants("break_start")[breaks]))),
        np.asarray(schedule.index.to_numpy().astype("datetime64[ms]").astype(np.int64)),
    )


def _schedule(package: Any, pd: Any, name: str, first: int, last: int) -> Any:
    """Return a calendar's table of sessions; a year more at either end where it is known."""
    for margin in (1, 0):
        try:
            return package.get_calendar(
                name,
                start=pd.Timestamp(year=first - margin, month=1, day=1),
                end=pd.Timestamp(year=last + margin, month=12, day=31),
            ).schedule
        except ValueError as error:
            reason = error
    raise DataError(f"calendar {name!r}, years {first} to {last}: {reason}")

"""Time as the engine counts it: integer milliseconds since the epoch, UTC, on the minute grid."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, Literal, get_args

import msgspec

from backtest_kit._values.errors import ArgumentError

Interval = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d"]
#: Milliseconds since the epoch, UTC; what is read from JSON lies in the years 69 to 9575.
Instant = Annotated[int, msgspec.Meta(ge=-60_000_000_000_000, le=240_000_000_000_000)]
MINUTE: Final = 60_000
_UNIT = {"m": MINUTE, "h": 60 * MINUTE, "d": 1440 * MINUTE}
INTERVALS: Final[dict[str, int]] = {
    name: int(name[:-1]) * _UNIT[name[-1]] for name in get_args(Interval)
}
_NAMES: Final = {ms: name for name, ms in INTERVALS.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def interval_ms(interval: str) -> int:
    """Return the length of `interval` in milliseconds.

    Raises:
        ArgumentError: the interval is unknown; the message lists the known ones.
    """
    try:
        return INTERVALS[interval]
    except (KeyError, TypeError):
        known = " ".join(INTERVALS)
        raise ArgumentError(f"unknown interval {interval!r}; use one of: {known}") from None


def interval_name(ms: int) -> str:
    """Return the name of an interval of `ms` milliseconds, such as `1h`; `KeyError` for others."""
    return _NAMES[ms]


def to_ms(moment: datetime, name: str = "datetime") -> int:
    """Return an aware datetime as integer milliseconds since the epoch.

    Raises:
        ArgumentError: `moment` has no time zone.
        TypeError: `moment` is not a datetime.
    """
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} must be a datetime, not {moment!r}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ArgumentError(
            f"{name}={moment.isoformat()} is naive; give it a time zone, for example "
            f"{name}.replace(tzinfo=timezone.utc)"
        )
    return (moment - _EPOCH) // _MILLISECOND


def to_instant(value: object, name: str = "instant") -> int:
    """Return what a person gives for an instant, in milliseconds, on a whole minute.

    That is an aware datetime, a date, or a text in ISO 8601; the last two are in UTC, unless the
    text names its zone.

    Raises:
        ArgumentError: the text is no ISO 8601, or the datetime has no time zone.
        TypeError: it is none of these.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ArgumentError(f"{name}={value!r} is no ISO 8601 date or time") from None
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise TypeError(f"{name}={value!r} must be a date, a datetime with a zone, or ISO 8601")
    return to_ms(value, name) // MINUTE * MINUTE


def to_datetime(ms: int) -> datetime:
    """Return integer milliseconds since the epoch as an aware UTC datetime."""
    return _EPOCH + timedelta(milliseconds=ms)


def iso(ms: int) -> str:
    """Return milliseconds as `2024-01-31T23:59Z`, with seconds only when there are any."""
    try:
        moment = to_datetime(ms)
    except OverflowError:  # after the year 9999
        return f"{ms} ms"
    spec = "minutes" if ms % MINUTE == 0 else "milliseconds" if ms % 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def frames_before(timeline: range, instant: int) -> int:
    """Return how many frames of a timeline come before `instant` (ms): the index of the next."""
    index = -((timeline.start - instant) // timeline.step)
    return min(max(index, 0), len(timeline))

"""Times as people write them, as milliseconds since the epoch."""

from __future__ import annotations

import importlib
import re
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Ints
from backtest_kit._values.errors import BadCandlesError
from backtest_kit._values.time import INTERVALS, iso
from backtest_kit.exchanges._layout import NAIVE, ORDERS, Layout

_DAY: Final = INTERVALS["1d"]
_CLOCK: Final = (
    r"(?P<H>\d{1,2})(?::?(?P<M>\d\d)(?::?(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?)?)?"
    r"\s*(?P<p>[AaPp][Mm])?"
)
_ZONE: Final = r"(?P<z>Z|UTC|GMT|(?:UTC|GMT)?[+-]\d\d:?\d\d)?"
_SPLIT: Final = (
    r"^(?P<a>\d{1,4})(?P<s>[./-])(?P<b>\d{1,2})[./-](?P<c>\d{1,4})"
    rf"(?:[ T,]+{_CLOCK})?\s*{_ZONE}$"
)
_COMPACT: Final = (
    r"^(?P<a>(?:19|20)\d\d)(?P<s>)(?P<b>\d\d)(?P<c>\d\d)"
    rf"(?:[ T]?(?P<H>\d\d):?(?P<M>\d\d)(?::?(?P<S>\d\d)(?P<f>)(?P<p>))?)?\s*{_ZONE}$"
)
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?")
#: Digits that are a date (and a time), and not a count of seconds.
COMPACT: Final = re.compile(r"(19|20)\d\d[01]\d[0-3]\d([ T]?[0-2]\d:?[0-5]\d(:?[0-5]\d)?)?")
_FORMAT: Final = "say which with date_format= (--date-format dmy, mdy, or a strptime format)"
_NO_DATE_FORMAT: Final = "give date_format= (--date-format) if it is one"


class Times:
    """Reads the times of one table; `notes` are what it had to assume."""

    def __init__(self, given: Layout, where: str) -> None:
        self._given = given
        self._where = where
        self.notes: list[str] = []

    def read(self, column: Any) -> Ints:
        """Return an Arrow column as milliseconds UTC, shape (n,).

        Raises:
            BadCandlesError: one is missing, no time, or can't be known; the message names it and
                the option that tells.
        """
        import pyarrow as pa

        if not len(column):
            return np.zeros(0, dtype=np.int64)
        if column.null_count:
            row = column.is_null().combine_chunks().to_numpy(zero_copy_only=False).argmax()
            raise BadCandlesError(f"{self._where}: candle {int(row)} has no time")
        kind = column.type
        if pa.types.is_dictionary(kind):
            return self.read(column.cast(kind.value_type))
        if pa.types.is_date(kind):
            return _ms(column.cast(pa.timestamp("ms")))
        if pa.types.is_timestamp(kind):
            zoned = kind.tz is not None
            local = _ms(column)
            return local if zoned else self._localised(local)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return epoch_ms(column.to_numpy())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(kind):
            return self._text(column.cast(pa.string()))
        raise BadCandlesError(f"{self._where}: times such as {column[0]} are of the type {kind}")

    def _text(self, column: Any) -> Ints:
        import pyarrow as pa

        given = self._given.date_format
        if given is not None and given not in ORDERS:
            return self._formatted(column, given)
        first = column[0].as_py().strip()
        iso_like = _ISO.fullmatch(first)
        if iso_like and iso_like[4] is None and given in (None, "ymd"):
            try:
                return self._localised(_ms(column.cast(pa.timestamp("us"))))
            except pa.ArrowInvalid:
                pass  # a row is another way of writing, or none: look at each part of it
        return self._parts(column, _COMPACT if COMPACT.fullmatch(first) else _SPLIT)

    def _parts(self, column: Any, pattern: str) -> Ints:
        """Return times by their parts, in the order of day, month and year that they show."""
        pc: Any = importlib.import_module("pyarrow.compute")  # made of functions at run time
        parts = pc.extract_regex(pc.utf8_trim_whitespace(column), pattern)
        part = {name: pc.struct_field(parts, name) for name in "asbcHMSfpz"}
        bad = _bools(pc.is_null(part["a"]))
        if bad.any():
            self._no_time(column, bad)
        a, b, c = (_ints(part[name]) for name in "abc")
        year, month, day = self._ordered(column, part, a, b, c)
        date = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
        days = date.astype("datetime64[D]") + (day - 1)
        hour, minute, second = (_ints(part[name]) for name in "HMS")
        half = pc.utf8_upper(part["p"])
        noon = _bools(pc.equal(half, "PM"))
        hour = np.where(noon | _bools(pc.equal(half, "AM")), hour % 12 + 12 * noon, hour)
        bad = (month < 1) | (month > 12) | (hour > 23) | (minute > 59) | (second > 59)
        bad |= (day < 1) | (days.astype("datetime64[M]") != date)
        if bad.any():
            self._no_time(column, bad)
        padded = pc.utf8_slice_codeunits(pc.utf8_rpad(part["f"], 3, "0"), 0, 3)
        clock = ((hour * 60 + minute) * 60 + second) * 1000 + _ints(padded)
        local = np.asarray(days.astype("datetime64[ms]").astype(np.int64) + clock, dtype=np.int64)
        if not clock.any():  # dates: a day's candle is that of its date, wherever it began
            return local
        zones = pc.dictionary_encode(part["z"]).combine_chunks()
        names = zones.dictionary.to_pylist()
        offsets = np.array([_offset(name) for name in names], dtype=np.int64)
        if "" not in names:
            return np.asarray(local - offsets[zones.indices.to_numpy()], dtype=np.int64)
        if len(names) > 1:
            raise BadCandlesError(f"{self._where}: some times have a zone, and some have none")
        return self._localised(local)

    def _ordered(
        self, column: Any, part: dict[str, Any], a: Ints, b: Ints, c: Ints
    ) -> tuple[Ints, Ints, Ints]:
        """Return years, months and days."""
        pc: Any = importlib.import_module("pyarrow.compute")
        wide = _ints(pc.binary_length(part["a"])) == 4, _ints(pc.binary_length(part["c"])) == 4
        given, example = self._given.date_format, column[0].as_py()
        if wide[0].all():
            return a, b, c
        if not wide[1].all() and given is None:
            raise BadCandlesError(f"{self._where}: {example!r} may be any date; {_FORMAT}")
        if given == "ymd":
            return _whole_year(a), b, c
        dotted = _bools(pc.equal(part["s"], ".")).all()
        day_first, month_first = bool((a > 12).any()), bool((b > 12).any())
        order = given or ("dmy" if dotted or day_first else "mdy" if month_first else None)
        if order is None:
            raise BadCandlesError(
                f"{self._where}: {example!r} may be day/month or month/day, and no date here "
                f"tells; {_FORMAT}"
            )
        if given is None and not dotted:
            self.notes.append(f"dates such as {example!r} are {'/'.join(order)}, as others show")
        return (_whole_year(c), b, a) if order == "dmy" else (_whole_year(c), a, b)

    def _formatted(self, column: Any, form: str) -> Ints:
        import pyarrow as pa

        pc: Any = importlib.import_module("pyarrow.compute")
        texts = pc.utf8_trim_whitespace(column)
        if "%z" not in form and "%Z" not in form and "%f" not in form:
            found = pc.strptime(texts, format=form, unit="ms", error_is_null=True)
            bad = _bools(found.is_null())
            if not bad.any():
                return self._localised(_ms(found))
            self._no_time(column, bad)
        moments = []
        for i, text in enumerate(texts.to_pylist()):
            try:
                moments.append(datetime.strptime(text, form))  # noqa: DTZ007 - zone: see below
            except ValueError:
                self._no_time(column, np.arange(len(texts)) == i)
        aware = [moment.tzinfo is not None for moment in moments]
        utc = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments]
        local = pa.array(utc, pa.timestamp("ms", "UTC"))
        return _ms(local) if all(aware) else self._localised(_ms(local))

    def _no_time(self, column: Any, bad: npt.NDArray[np.bool_]) -> None:
        i = int(bad.argmax())
        raise BadCandlesError(
            f"{self._where}: candle {i} has the time {column[i].as_py()!r}, which is neither a "
            f"number nor a date that is known; {_NO_DATE_FORMAT}"
        )

    def _localised(self, local: Ints) -> Ints:
        """Return local times as UTC."""
        import pyarrow as pa

        zone = self._given.timezone
        if not (local % _DAY).any():  # dates, which belong to no zone
            return local
        if zone is None:
            self.notes.append(NAIVE)
            return local
        pc: Any = importlib.import_module("pyarrow.compute")
        times = pa.array(local, pa.timestamp("ms"))
        early, late = (
            _ms(pc.assume_timezone(times, zone, ambiguous=way, nonexistent=way)).copy()
            for way in ("earliest", "latest")
        )
        twice = np.flatnonzero(early != late)
        skipped = twice[late[twice] - early[twice] == 1]
        if len(skipped):
            i = int(skipped[0])
            raise BadCandlesError(
                f"{self._where}: candle {i} has the time {iso(int(local[i]))[:-1]}, which {zone} "
                "does not have (the clocks went forward); is timezone= (--timezone) right?"
            )
        if not len(twice):
            return early
        way = self._given.ambiguous_time
        if way == "raise":
            i = int(twice[0])
            raise BadCandlesError(
                f"{self._where}: candle {i} has the time {iso(int(local[i]))[:-1]}, which {zone} "
                "has twice (the clocks went back); say which with ambiguous_time= "
                "(--ambiguous-time earlier, later, or in_order: as the rows follow each other)"
            )
        return late if way == "later" else early if way == "earlier" else _in_order(early, late)


def epoch_ms(times: npt.NDArray[Any]) -> Ints:
    """Return times since the epoch as milliseconds; each may be in s, ms, us or ns.

    Each for itself: the Binance archive changed from ms to us at a new year. Until 5138 a count of
    one unit can't be mistaken for another's, from 1973 on.
    """
    if times.dtype.kind == "f":
        whole = np.abs(times)
        with np.errstate(invalid="ignore"):
            scaled = np.select(
                [whole >= 1e17, whole >= 1e14, whole >= 1e11],
                [times / 1e6, times / 1e3, times],
                times * 1e3,
            )
        if not np.isfinite(scaled).all():
            i = int((~np.isfinite(scaled)).argmax())
            raise BadCandlesError(f"candle {i} has the time {times[i]!r}")
        return np.asarray(np.floor(scaled), dtype=np.int64)
    whole = np.abs(times.astype(np.int64))
    kept: Ints = times.astype(np.int64)
    scaled = np.select(
        [whole >= 10**17, whole >= 10**14, whole >= 10**11],
        [kept // 1_000_000, kept // 1000, kept],
        kept * 1000,
    )
    return np.asarray(scaled, dtype=np.int64)


def _in_order(early: Ints, late: Ints) -> Ints:
    """Return, where there are two, the earlier time while that is after the row before it."""
    back = len(early) > 1 and early[-1] < early[0]
    if back:
        return _in_order(early[::-1], late[::-1])[::-1]
    times = early.copy()
    for i in np.flatnonzero(early != late).tolist():
        if i and times[i] <= times[i - 1]:
            times[i] = late[i]
    return times


def _ms(column: Any) -> Ints:
    import pyarrow as pa

    counts = column.cast(pa.timestamp("ms", getattr(column.type, "tz", None)), safe=False)
    return np.asarray(counts.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _bools(column: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(_numpy(column), dtype=np.bool_)


def _ints(column: Any) -> Ints:
    import pyarrow as pa

    pc: Any = importlib.import_module("pyarrow.compute")
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), "0", column)
    return np.asarray(_numpy(column.cast(pa.int64())), dtype=np.int64)


def _numpy(column: Any) -> Any:
    import pyarrow as pa

    chunked = isinstance(column, pa.ChunkedArray)
    return column.to_numpy() if chunked else column.to_numpy(zero_copy_only=False)


def _is_view(kind: Any) -> bool:
    import pyarrow as pa

    return bool(getattr(pa.types, "is_string_view", lambda _: False)(kind))


def _whole_year(year: Ints) -> Ints:
    return np.where(year >= 100, year, np.where(year >= 70, 1900 + year, 2000 + year))


def _offset(zone: str) -> int:
    """Return an offset such as `GMT+01:00` in milliseconds."""
    digits = re.sub(r"[^\d+-]", "", zone)
    if not digits:
        return 0
    sign = -1 if digits[0] == "-" else 1
    return sign * (int(digits[1:3]) * 60 + int(digits[3:5])) * 60_000

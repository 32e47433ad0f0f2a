"""Which column of a table is what, and what its reader must be told because the table does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from backtest_kit._values.candles import COLUMNS, Candles, Ints
from backtest_kit._values.errors import BadCandlesError, ConfigError, did_you_mean

AmbiguousTime = Literal["raise", "earlier", "later", "in_order"]
#: Orders of day, month and year that `date_format` may name; anything else is a `strptime` format.
ORDERS: Final = ("dmy", "mdy", "ymd")
#: Names of the time of a candle, the surest first; a date may have its time in another column.
_TIMES: Final = (
    *("timestamp", "open_time", "opentime", "unix", "unix_timestamp", "unix_time", "epoch"),
    *("ts", "t", "datetime", "date_time", "gmt_time", "local_time", "date", "time"),
    *("index", "", "unnamed:_0", "__index_level_0__"),
)
_NAMES: Final = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    # MetaTrader 5 has the real volume of a currency pair too, which is 0
    "volume": ("volume", "tickvol", "tick_volume", "vol", "v", "base_volume"),
}
#: Columns of yfinance, a pair of names each, as pandas writes them.
_PAIR: Final = re.compile(r"\('([^']*)', '([^']*)'\)")
NO_VOLUME: Final = "no volume: it counts as 0, and average prices are means of closes"
NAIVE: Final = "times without a zone are taken as UTC"


class Layout(msgspec.Struct, frozen=True):
    """What a file does not say itself; `layout` makes one of what a user gives, and checks it."""

    columns: tuple[tuple[str, str], ...] = ()
    timezone: str | None = None
    date_format: str | None = None
    ambiguous_time: AmbiguousTime = "raise"

    def __bool__(self) -> bool:
        return self != Layout()


class Unread(msgspec.Struct, frozen=True):
    """A row that could not be read, and was left out because that was asked for."""

    row: int
    reason: str
    text: str


class Reading(msgspec.Struct, frozen=True, eq=False):
    """Candles as they were read, not checked, and what the reader assumed.

    `rows` are the places of the candles among the file's rows, where that is not their order.
    """

    candles: Candles
    notes: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()
    rows: Ints | None = None


class Places(msgspec.Struct, frozen=True):
    """Where the columns are: the time (in one column, or date and time), four prices, a volume."""

    time: tuple[int, ...]
    prices: tuple[int, int, int, int]
    volume: int | None

    @property
    def values(self) -> tuple[int, ...]:
        """The places of the prices and of the volume, where there is one."""
        return self.prices if self.volume is None else (*self.prices, self.volume)


def layout(
    columns: Mapping[str, str] | None,
    timezone: str | None,
    date_format: str | None,
    ambiguous_time: AmbiguousTime,
) -> Layout:
    """Return a layout.

    Raises:
        ConfigError: an unknown column, time zone, format or way.
    """
    given = {str(name): str(theirs) for name, theirs in (columns or {}).items()}
    for name in given:
        if name not in COLUMNS:
            raise ConfigError(f"columns: no column {name!r}{did_you_mean(name, COLUMNS)}")
    if timezone is not None:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"timezone={timezone!r} is no time zone, such as Europe/Berlin"
            ) from None
    if date_format is not None and date_format not in ORDERS and "%" not in date_format:
        raise ConfigError(
            f"date_format={date_format!r} must be dmy, mdy, ymd or a format such as %d/%m/%Y %H:%M"
        )
    if ambiguous_time not in get_args(AmbiguousTime):
        known = ", ".join(get_args(AmbiguousTime))
        raise ConfigError(f"ambiguous_time={ambiguous_time!r} must be one of: {known}")
    return Layout(tuple(sorted(given.items())), timezone, date_format, ambiguous_time)


def find_places(names: Sequence[str], given: Layout, where: str) -> Places:
    """Return where the columns of these names are.

    Raises:
        BadCandlesError: a column is missing, or there are several of it; the message says which.
    """
    plain = _unpaired([str(name).strip().strip('"') for name in names], where)
    known: dict[str, int] = {}
    for i, name in enumerate(plain):
        known.setdefault(_normal(name), i)
    found = {ours: _given(theirs, plain, where) for ours, theirs in given.columns}
    for ours, usual in _NAMES.items():
        here = [(known[name],) for name in usual if name in known]
        if ours == "volume":  # CryptoDataDownload: "Volume BTC", then that of the other currency
            here += [(i,) for name, i in known.items() if name.startswith("volume_")]
        if here:
            found.setdefault(ours, here[0])
    time = found.pop("timestamp", None) or _time(known)
    lacking = ["a time"] * (time is None) + [n for n in COLUMNS[1:5] if n not in found]
    if time is None or lacking:
        raise BadCandlesError(
            f"{where} has no column {', '.join(lacking)}; it has: {', '.join(plain)} (name them "
            "with columns=, on the command line --columns open=o,high=h ...)"
        )
    o, h, low, c = (found[name][0] for name in COLUMNS[1:5])
    return Places(time, (o, h, low, c), found["volume"][0] if "volume" in found else None)


def _time(known: Mapping[str, int]) -> tuple[int, ...] | None:
    name = next((name for name in _TIMES if name in known), None)
    if name is None:
        return None
    if name == "date" and "time" in known:
        return known["date"], known["time"]
    return (known[name],)


def _given(theirs: str, names: Sequence[str], where: str) -> tuple[int, ...]:
    """Return the places of a column that the user named, by name or by number from 1."""
    parts = [theirs] if theirs in names else theirs.split("+")
    lower = [name.lower() for name in names]
    places = []
    for part in map(str.strip, parts):
        if part in names:
            places.append(names.index(part))
        elif part.lower() in lower:
            places.append(lower.index(part.lower()))
        elif part.isdecimal() and 0 < int(part) <= len(names):
            places.append(int(part) - 1)
        else:
            raise BadCandlesError(f"{where} has no column {part!r}{did_you_mean(part, names)}")
    return tuple(places)


def _normal(name: str) -> str:
    return re.sub(r"[\s.\-]+", "_", name.strip().strip("<>").lower())


def _unpaired(names: list[str], where: str) -> list[str]:
    """Return the names of prices where each is paired with a symbol, as yfinance has them."""
    pairs = [_PAIR.fullmatch(name) for name in names]
    if not any(pairs):
        return names
    usual = {name for some in _NAMES.values() for name in some} | {*_TIMES, "adj_close"}
    plain, symbols = [], set()
    for name, pair in zip(names, pairs, strict=True):
        if pair is None:
            plain.append(name)
            continue
        first = _normal(pair[1]) in usual
        plain.append(pair[1] if first else pair[2])
        symbols.add(pair[2] if first else pair[1])
    one_symbol(sorted(symbols - {""}), where)
    return plain


def one_symbol(symbols: Sequence[str], where: str) -> None:
    """Raise `BadCandlesError` where a table holds several symbols."""
    if len(symbols) > 1:
        raise BadCandlesError(
            f"{where} holds the candles of {', '.join(symbols)}; give each a file of its own"
        )

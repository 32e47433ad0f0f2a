"""Candles from data frames in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backtest_kit._values.candles import Candles, read_candles
from backtest_kit._values.content import digest
from backtest_kit._values.errors import BadCandlesError, UnknownNameError, did_you_mean
from backtest_kit.exchanges._layout import AmbiguousTime, Layout, Reading, layout
from backtest_kit.exchanges._recorded import Loaded, Recording, Series
from backtest_kit.exchanges._tables import table_reading


class FrameExchange(Recording):
    """Candles of a pandas or polars frame, or of anything else that `get_candles` may return.

    Give one, which serves any symbol, or a mapping from symbols to several. `calendar` is that of
    `ExchangeSchema`. The time of a frame may be its index; names, times and the other options are
    those of `ParquetExchange`.

    Raises:
        BadCandlesError: a frame has the wrong shape, or breaks a rule of the data plane.
        ConfigError: an option has no meaning.
    """

    def __init__(
        self,
        frame: object,
        exchange_name: str = "frame",
        *,
        calendar: str | None = None,
        columns: Mapping[str, str] | None = None,
        timezone: str | None = None,
        date_format: str | None = None,
        ambiguous_time: AmbiguousTime = "raise",
    ) -> None:
        super().__init__(exchange_name, calendar)
        self._layout = layout(columns, timezone, date_format, ambiguous_time)
        self._frames = frame if isinstance(frame, Mapping) else None
        if self._frames is None:
            where = f"the frame of {exchange_name!r}"
            reading = _read(frame, self._layout, where)
            self._all = Loaded(reading.candles, where, reading.notes)

    def open(self, symbol: str) -> Series:
        """Return the candles of a symbol."""
        if self._frames is None:
            self.note(symbol, self._all.notes)
            return self._all
        if symbol not in self._frames:
            raise UnknownNameError(f"no frame of {symbol!r}{did_you_mean(symbol, self._frames)}")
        where = f"the frame of {symbol!r}"
        reading = _read(self._frames[symbol], self._layout, where)
        self.note(symbol, reading.notes)
        return Loaded(reading.candles, where)

    def content_digest(self) -> str:
        """Return a digest of all candles."""
        if self._frames is None:
            return digest(self._all.columns)
        way = msgspec.structs.astuple(self._layout) if self._layout else ()
        found = {
            name: _read(frame, self._layout, f"the frame of {name!r}").candles.columns()
            for name, frame in self._frames.items()
        }
        return digest(found, *way)


def _read(frame: object, given: Layout, where: str) -> Reading:
    """Return the candles of a frame, or of another shape that has no columns with names."""
    import pyarrow as pa

    if isinstance(frame, Candles) or not hasattr(frame, "columns"):
        if given:
            raise BadCandlesError(f"{where} is no data frame, so its columns have no names")
        return Reading(read_candles(frame))
    data: Any = frame
    if hasattr(data, "to_arrow"):
        table = data.to_arrow()
    else:
        try:
            table = pa.Table.from_pandas(data)
        except (pa.ArrowInvalid, pa.ArrowTypeError, AttributeError, TypeError) as error:
            raise BadCandlesError(f"{where}: {error}") from None
    return table_reading(table, given, where)

"""Candles from data frames in memory."""

from __future__ import annotations

from collections.abc import Mapping

from backtest_kit._values.candles import read_candles
from backtest_kit._values.content import digest
from backtest_kit._values.errors import UnknownNameError, did_you_mean
from backtest_kit.exchanges._recorded import Loaded, Recording, Series


class FrameExchange(Recording):
    """Candles of a pandas or polars frame, or of anything else that `get_candles` may return.

    Give one, which serves any symbol, or a mapping from symbols to several. `calendar` is that of
    `ExchangeSchema`.

    Raises:
        BadCandlesError: a frame has the wrong shape, or breaks a rule of the data plane.
    """

    def __init__(
        self, frame: object, exchange_name: str = "frame", *, calendar: str | None = None
    ) -> None:
        super().__init__(exchange_name, calendar)
        self._frames = frame if isinstance(frame, Mapping) else None
        if self._frames is None:
            self._all = Loaded(read_candles(frame), f"the frame of {exchange_name!r}")

    def open(self, symbol: str) -> Series:
        """Return the candles of a symbol."""
        if self._frames is None:
            return self._all
        if symbol not in self._frames:
            raise UnknownNameError(f"no frame of {symbol!r}{did_you_mean(symbol, self._frames)}")
        return Loaded(read_candles(self._frames[symbol]), f"the frame of {symbol!r}")

    def content_digest(self) -> str:
        """Return a digest of all candles."""
        if self._frames is None:
            return digest(self._all.columns)
        candles = {name: read_candles(frame) for name, frame in self._frames.items()}
        return digest({name: columns.columns() for name, columns in candles.items()})

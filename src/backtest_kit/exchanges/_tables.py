"""Candles from Arrow tables, such as data frames and Feather files become."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import BadCandlesError
from backtest_kit.exchanges._layout import NO_VOLUME, Layout, Reading, find_places
from backtest_kit.exchanges._recorded import oldest_first
from backtest_kit.exchanges._times import Times


def table_reading(table: Any, given: Layout, where: str) -> Reading:
    """Return the candles of an Arrow table, oldest first, not checked.

    Raises:
        BadCandlesError: a column is missing or not numeric, or a time can't be read.
    """
    import pyarrow as pa

    pc: Any = importlib.import_module("pyarrow.compute")
    places = find_places(table.column_names, given, where)
    times = Times(given, where)
    parts = [table.column(i) for i in places.time]
    if len(parts) > 1:
        parts = [pc.binary_join_element_wise(*(part.cast(pa.string()) for part in parts), " ")]
    moments = times.read(parts[0])
    try:
        values = [table.column(i).cast(pa.float64()).to_numpy() for i in places.values]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadCandlesError(f"{where}: {error}") from None
    notes = [*times.notes]
    if places.volume is None:
        values.append(np.zeros(len(moments)))
        notes.append(NO_VOLUME)
    return oldest_first(Reading(Candles(moments, *values), tuple(notes)))

"""Candles for a page: whole numbers of ticks, as differences, compressed."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Final

import numpy as np

from backtest_kit._values.candles import Candles, Floats, regroup
from backtest_kit._values.time import INTERVALS, MINUTE

#: More candles than this are thinned for the page, which stays under 10 MB.
MOST_CANDLES: Final = 800_000
_MOST_DIGITS: Final = 9
_LARGEST: Final = 2**30


def packed_candles(candles: Candles) -> dict[str, Any]:
    """Return candles as JSON values, which `charts.js` unpacks; there is at least one.

    Prices are exact where they are decimal fractions that fit, else within a 2^30th of the largest.
    Where there are too many, they are those of a longer interval; `step` (ms) says which.
    """
    step = spacing_of(candles)
    candles, step = _thinned(candles, step)
    t, o, h, low, c, _ = candles.columns()
    scale = _scale(np.concatenate((o, h, low, c)))
    opens, highs, lows, closes = (np.rint(x * scale).astype(np.int64) for x in (o, h, low, c))
    before = np.concatenate(([0], closes[:-1]))
    columns = (
        np.diff((t - t[0]) // step, prepend=-1) - 1,
        opens - before,
        highs - np.maximum(opens, closes),
        np.minimum(opens, closes) - lows,
        closes - opens,
    )
    planes = b"".join(
        np.ascontiguousarray(x.astype("<i4").view(np.uint8).reshape(-1, 4).T).tobytes()
        for x in columns
    )
    return {
        "start": int(t[0]),
        "step": step,
        "rows": len(t),
        "scale": scale,
        "ladder": [ms for ms in sorted(INTERVALS.values()) if ms > step and ms % step == 0],
        "packed": base64.b64encode(zlib.compress(planes, 6)).decode(),
    }


def _thinned(candles: Candles, step: int) -> tuple[Candles, int]:
    if len(candles) <= MOST_CANDLES:
        return candles, step
    longer = [ms for ms in sorted(INTERVALS.values()) if ms > step and ms % step == 0]
    for ms in longer:
        if np.count_nonzero(np.diff(candles.timestamp // ms)) < MOST_CANDLES:
            return regroup(candles, ms), ms
    return candles, step


def spacing_of(candles: Candles) -> int:
    """Return the distance (ms) of which all distances are multiples; a minute for one candle."""
    t = candles.timestamp
    return int(np.gcd.reduce(np.diff(t))) if len(t) > 1 else MINUTE


def _scale(prices: Floats) -> float:
    """Return what prices are multiplied by to become whole numbers."""
    largest = float(np.abs(prices).max())
    for digits in range(_MOST_DIGITS + 1):
        scale = 10.0**digits
        if largest * scale >= _LARGEST:
            break
        if (np.rint(prices * scale) / scale == prices).all():
            return scale
    return _LARGEST / largest if largest else 1.0

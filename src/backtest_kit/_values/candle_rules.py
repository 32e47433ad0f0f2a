"""The rules of the data plane, which every candle has to keep."""

from __future__ import annotations

from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt

from backtest_kit._values.candles import Candles, Floats
from backtest_kit._values.errors import BadCandlesError
from backtest_kit._values.time import iso

Mask = npt.NDArray[np.bool_]

#: A price this many times above or below the two closes before it is no price.
ANOMALY_FACTOR: Final = 1000.0
#: A price this many times above or below the two closes before it may be a bad print.
SUSPICIOUS_FACTOR: Final = 20.0
#: Candles of a whole series that are checked at once.
BATCH: Final = 100_000
_YEAR_10000: Final = 253_402_300_800_000
#: Below it, the sum of a candle's values is finite.
_LARGE: Final = 1e300


def check_series(candles: Candles, step: int, row: int = 0) -> None:
    """Check a series by batches, so that little memory is needed; raises as `check_candles`."""
    for begin in range(0, len(candles), BATCH):
        start = max(0, begin - 2)  # the order and the closes across the border too
        check_candles(candles[start : begin + BATCH], step, row + start)


def far_off(high: Floats, low: Floats, close: Floats, factor: float) -> Mask:
    """Say which candles have a price `factor` times above or below both of the closes before it.

    Both, so that the candle after a bad close is no stranger, nor is the second one of a move that
    was real. The second candle has one close before it; the first has none, and is not far off.
    """
    found = np.zeros(len(close), dtype=np.bool_)
    if len(close) > 1:
        one, two = close[:-1], np.concatenate((close[:1], close[:-2]))
        found[1:] = high[1:] >= np.maximum(one, two) * factor
        found[1:] |= low[1:] * factor <= np.minimum(one, two)
    return found


def check_prints(candles: Candles, before: Candles) -> None:
    """Check the first candles of a page against the newest ones before it, as `check_candles`."""
    if not len(before) or not len(candles):
        return
    last, first = before[-2:], candles[:2]
    high, low, close = (
        np.concatenate((a, b))
        for a, b in zip(last.columns()[2:5], first.columns()[2:5], strict=True)
    )
    off = far_off(high, low, close, ANOMALY_FACTOR)[len(last) :]
    if off.any():
        _raise(candles, int(off.argmax()), _far_off(float(last.close[-1])))


def check_candles(candles: Candles, step: int, row: int = 0) -> None:
    """Check one batch of candles of `step` milliseconds against every rule of the data plane.

    Ascending without duplicates, between 1970 and 9999, on the grid of the interval, finite,
    positive (volume: not negative), `low <= open, close <= high`, and no price 1000 times off both
    of the two closes before it (see `far_off`). Gaps are no error here. `row` is the number of the
    first candle in messages.

    Raises:
        BadCandlesError: the message names the rule, the first candle that breaks it and its values.
    """
    if not len(candles) or _plainly_right(candles, step):
        return
    for broken, what in rules(candles, step):
        if broken.any():
            i = int(broken.argmax())
            _raise(candles, i, what or _far_off(float(candles.close[i - 1])), row)


def rules(candles: Candles, step: int) -> tuple[tuple[Mask, str], ...]:
    """Return the rules of `check_candles`: which candles break each, and what to say of them.

    The last one, a price 1000 times off, has no text: it names the close before.
    """
    t, o, h, low, c, v = candles.columns()
    with np.errstate(invalid="ignore", over="ignore"):
        return (
            (
                (t < 0) | (t >= _YEAR_10000),
                "has a time that is not in milliseconds between 1970 and 9999",
            ),
            (np.concatenate(((False,), t[1:] <= t[:-1])), "is not after the one before it"),
            (t % step != 0, f"is not on the grid of {step // 1000} s"),
            (~np.isfinite(o + h + low + c + v), "has a value that is not finite"),
            ((np.minimum(np.minimum(o, h), np.minimum(low, c)) <= 0), "has a price of 0 or less"),
            (v < 0, "has a negative volume"),
            (h < low, "has a high below its low"),
            ((c > h) | (c < low), "has a close outside its low and high"),
            ((o > h) | (o < low), "has an open outside its low and high"),
            (far_off(h, low, c, ANOMALY_FACTOR), ""),
        )


def _far_off(close: float) -> str:
    return f"has a price {ANOMALY_FACTOR:.0f} times off the close before it, {close!r}"


def _raise(candles: Candles, i: int, what: str, row: int = 0) -> NoReturn:
    x = candles[i]
    when = iso(x.timestamp) if 0 <= x.timestamp < _YEAR_10000 else x.timestamp
    raise BadCandlesError(
        f"candle {row + i} ({when}) {what}: open={x.open!r} high={x.high!r} "
        f"low={x.low!r} close={x.close!r} volume={x.volume!r}"
    )


def _plainly_right(candles: Candles, step: int) -> bool:
    """Say whether candles without gaps keep all rules; false: look at them one rule at a time.

    Most do, and are recognized in a quarter of the time: no division, no median, and a NaN fails.
    """
    t, o, h, low, c, v = candles.columns()
    lowest, highest = float(low.min()), float(h.max())
    return bool(
        int(t[0]) >= 0
        and int(t[0]) % step == 0
        and int(t[-1]) < _YEAR_10000
        and (t[1:] - t[:-1] == step).all()
        # so does the close before any of them
        and 0 < lowest <= highest < lowest * (ANOMALY_FACTOR / 2)
        and ((low <= o) & (o <= h) & (low <= c) & (c <= h)).all()
        and v.min() >= 0
        and max(highest, v.max()) < _LARGE
    )

"""What candles a walk is over, by their content: which hours and days of which prices.

Data are the same where a whole hour (or day) of them has the same time and the same open, high, low
and close, whatever the file, the exchange and the symbol are called, and whichever interval the
candles have. So a series to which candles were appended shares its older hours with the one before;
one whose prices were changed shares those hours that were not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from backtest_kit._data.base import run_config
from backtest_kit._values.candles import Candles, Ints
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.time import INTERVALS
from backtest_kit._walker.trial import TrialSetup

_HOUR: Final = INTERVALS["1h"]
_DAY: Final = INTERVALS["1d"]
#: Candles that are asked for at once.
_CANDLES: Final = 200_000


async def data_identity(setup: TrialSetup) -> bytes:
    """Return a number for each hour and day of the candles in a frame: int64, sorted, each once.

    The hours in which the frame begins and ends count whole; of days, those that lie within it.
    Candles longer than a day count one by one. "" where the candles can't be had: each trial
    reports that.
    """
    line, found = setup.frame.timeline, set[int]()
    try:
        for symbol in setup.symbols:
            config = run_config(setup.engine.config, setup.exchange, symbol)
            step = INTERVALS[config.base_interval]
            length = _HOUR if step <= _HOUR else max(_DAY, step)
            since, until = line[0] // length * length, -(-line[-1] // length) * length
            part = max(_CANDLES * step // _DAY, 1) * _DAY
            for begin in range(since // _DAY * _DAY, until, part):
                span = max(begin, since), min(begin + part, until)
                pages = await setup.engine.store.pages(
                    setup.exchange, symbol, config.base_interval, *span, config
                )
                found.update(_numbers(pages, step, (line[0], line[-1])))
    except (BacktestKitError, OSError):
        return b""
    return np.array(sorted(found), dtype="<i8").tobytes()


def share(first: bytes, second: bytes) -> bool:
    """Say whether two identities have an hour or a day in common."""
    a, b = np.frombuffer(first, "<i8"), np.frombuffer(second, "<i8")
    return len(np.intersect1d(a, b, assume_unique=True)) > 0


def _numbers(pages: list[Candles], step: int, span: tuple[int, int]) -> Iterator[int]:
    """Yield the numbers of the hours of candles, and of the days that lie within `span`."""
    if not sum(map(len, pages)):
        return
    times = np.concatenate([page.timestamp for page in pages])
    prices = [
        np.concatenate([getattr(page, name) for page in pages])
        for name in ("open", "high", "low", "close")
    ]
    for length in (_HOUR, _DAY) if step <= _DAY else (step,):
        if length < step:
            continue
        at: Ints = times // length * length
        begins = np.flatnonzero(np.diff(at, prepend=at[0] - 1))
        ends = np.append(begins[1:], len(at)) - 1
        rows = np.stack(
            [
                prices[0][begins],
                np.maximum.reduceat(prices[1], begins),
                np.minimum.reduceat(prices[2], begins),
                prices[3][ends],
            ],
            axis=1,
        )
        for when, row in zip(at[begins].tolist(), rows, strict=True):
            whole = length == _HOUR or (span[0] <= when and when + length <= span[1])
            if whole and row[1] > row[2]:  # where the price did not move, any market is alike
                content = f"{length} {when} ".encode() + row.astype("<f8").tobytes()
                number = hashlib.blake2b(content, digest_size=8).digest()
                yield int.from_bytes(number, "little", signed=True)

"""The candles and rules that all frameworks share, and what runs are compared by."""

import sys
from pathlib import Path

import numpy as np

FIRST = 1_388_534_400_000  # 2014-01-01
MINUTE = 60_000
DAY, YEAR = 1440, 525_600
STOP, SLOW, LIFE = 0.8, 100, 240
ENDLESS = 100 * YEAR  # no lifetime
CASH = 1e9
ONE = ((20, SLOW, 1.0),)  # sets are (fast, slow, take profit in percent)
HUNDRED = tuple(
    (fast, slow, goal)
    for fast in (5, 10, 15, 20, 25)
    for slow in (40, 60, 80, 100)
    for goal in (0.6, 0.8, 1.0, 1.2, 1.4)
)
THOUSAND = tuple(
    (fast, slow, tenths / 10)
    for fast in range(5, 25, 2)
    for slow in range(46, 101, 6)
    for tenths in range(6, 16)
)


def prices(rows):
    """Closes of a synthetic market on a grid of 0.25: sums of them are exact."""
    import asyncio

    import backtest_kit as bk

    source, parts = bk.exchanges.SyntheticExchange(seed=1), []
    for row in range(0, rows, 64 * DAY):
        count = min(64 * DAY, rows - row)
        candles = asyncio.run(source.get_candles("X", "1m", FIRST + row * MINUTE, count))
        parts.append(candles.close)
    return np.round(np.concatenate(parts) * 4) / 4


def trailing(close, count):
    """The mean of the last `count` closes, from one cumulative sum."""
    total = np.concatenate(([0.0], np.cumsum(close)))
    mean = np.full(len(close), np.nan)
    mean[count - 1 :] = (total[count:] - total[:-count]) / count
    return mean


def turned(fast, slow):
    """True where the fast mean comes to lie above the slow one, from row `SLOW` on."""
    above = fast > slow
    side = np.zeros(len(above), dtype=bool)
    side[1:] = above[1:] & ~above[:-1]
    side[:SLOW] = False
    return side


def same(own, other, rows):
    """Compare trades of each set; one that is open at the last candle counts for none."""
    assert len(own) == len(other), f"{len(own)} sets and {len(other)}"
    own, other = ([each[each[:, 1] < rows - 1] for each in trades] for trades in (own, other))
    for i, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        count = min(len(mine), len(theirs))
        differ = np.flatnonzero((mine[:count] != theirs[:count]).any(axis=1))
        assert not len(differ), f"set {i}: we trade {mine[differ[0]]}, they {theirs[differ[0]]}"
        assert len(mine) == len(theirs), f"set {i}: {len(mine)} trades of ours, {len(theirs)}"
    return sum(map(len, own))


def pairs(entries, exits):
    """Trades as rows of (candle of entry, candle of exit)."""
    return np.array([entries, exits], dtype=np.int64).T.reshape(-1, 2)


def peak():
    """Return the most memory that this process has had, in megabytes."""
    if sys.platform == "linux":  # ru_maxrss is inherited from the parent process there
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)

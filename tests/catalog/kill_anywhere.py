"""Kill a download at the calls that touch its catalog, go on, and compare with an unbroken one.

Run as a program of its own (it forks, and must have no threads):
    python tests/catalog/kill_anywhere.py MOMENTS
The moments are drawn, always the same. What each leaves is read, then the download goes on to the
end. Prints one line of JSON.
"""

import gc
import json
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow.parquet  # noqa: F401 - once, before the processes that are forked

import backtest_kit as bk
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._values.clock import Clock
from backtest_kit._values.time import to_datetime
from doom import process

HOUR = 3_600_000
#: 2024-01-20T00:00Z, and three months later: four files, of which one is rewritten several times.
BEGIN = 1_705_708_800_000
END = BEGIN + 75 * 24 * HOUR


class Still(Clock):
    """Stands at a moment after all candles, so that runs write the same."""

    def wall_ms(self):
        return END + 24 * HOUR


class Venue:
    """Has a candle an hour, but for every 500th."""

    exchange_name = "venue"
    page_limit = 25
    intervals = ("1h",)

    async def get_candles(self, symbol, interval, since, limit):
        hours = range(since // HOUR, since // HOUR + limit)
        return [[h * HOUR, 1 + h % 7, 9, 1, 1 + h % 8, h % 5] for h in hours if h % 500]


def download(folder, doom=None):
    """Download whole; in a process that is doomed, count the calls."""
    if doom:
        doom.arm()
    with bk.Engine() as engine:
        engine.clock = Still()
        begin, end = to_datetime(BEGIN), to_datetime(END)
        found = bk.data.download(
            Venue(), "BTC/USDT", start=begin, end=end, interval="1h", catalog=folder
        )
    assert found.whole, found


def whole(folder):
    """Check that all there is, is what the venue has, and known."""
    catalog = Catalog(folder)
    for key in catalog.series():
        for month in catalog.months(key):
            data = catalog.read(key, month)
            told = [t // HOUR for since, until in data.covered for t in range(since, until, HOUR)]
            assert (data.candles.timestamp // HOUR).tolist() == [h for h in told if h % 500]
            assert catalog.passport(key, month).rows == len(data.candles)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.parquet")}


def main(moments):
    gc.freeze()  # nothing of it is copied by those that are forked
    with tempfile.TemporaryDirectory() as top:
        unbroken = Path(top) / "0"
        _, calls = process(download, unbroken, 0)
        points = sorted(random.Random(1).sample(range(1, calls + 1), moments))
        folders = {Path(top) / str(point): point for point in points}
        kills = sum(process(download, folder, point)[0] for folder, point in folders.items())
        # only now: what is forked must have no threads
        expected, began = files(unbroken), set()
        for folder in folders:
            whole(folder)
            began.add(len(files(folder)))
            download(folder)
            assert files(folder) == expected, folder
            assert not [*folder.rglob("*.tmp")]
    found = {"calls": calls, "kills": kills, "files": len(expected), "began": sorted(began)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""How long one live step of 100 symbols takes, and what of it is exchange, state and engine.

`python -m benchmarks.live_step`. The runs are those of `bk.Live` by the wall clock, only that the
clock is set to the next minute as soon as a step is done. The exchange answers after 100 ms, as one
over the network does; the state is kept in files on the disk. Parts are measured by leaving
them out: a state in memory, an exchange that answers at once.
"""

import asyncio
import statistics
import tempfile
import time
from types import SimpleNamespace
from unittest import mock

from rich.console import Console
from rich.table import Table

import backtest_kit as bk
from backtest_kit._values.clock import Clock
from backtest_kit._values.time import INTERVALS, MINUTE
from backtest_kit.testing import MemoryAdapter

SYMBOLS = [f"S{i}/USDT" for i in range(100)]
BEGIN = 1_704_067_200_000
LATENCY = 0.1
MINUTES = 21


class SettableClock(Clock):
    """A wall clock that goes on by itself, and can be set."""

    def __init__(self):
        self.base, self.began = BEGIN + 600, time.perf_counter()

    def wall_ms(self):
        return int(self.base + (time.perf_counter() - self.began) * 1000)

    def to(self, when):
        """Set the clock to `when`, milliseconds."""
        self.base, self.began = when, time.perf_counter()


class Ticks:
    """Hands out a step when the benchmark says so."""

    def __init__(self, minute):
        self.minute = minute

    async def next(self, after, tried, wake):
        if after == self.minute.now:
            await self.minute.changed.wait()
        return self.minute.now

    def over(self, when):
        return False

    def left(self, when):
        return None


def exchange(latency):
    async def get_candles(symbol, interval, since, limit):
        if latency:
            await asyncio.sleep(latency)
        step = INTERVALS[interval]
        return [[since + i * step, 100.0, 100.1, 99.9, 100.0, 1.0] for i in range(limit)]

    return get_candles


async def steps(latency, adapter, opens, paid=False):
    """Return the seconds of idle steps, and of steps at which all strategies are asked."""
    minute = SimpleNamespace(now=BEGIN, changed=asyncio.Event())
    clock = SettableClock()
    done, errors, all_done = [], [], asyncio.Event()

    def finished(event):
        done.append(event)
        if len(done) % len(SYMBOLS) == 0:
            all_done.set()

    async def get_signal(symbol, when):
        (await bk.get_candles(symbol, "5m", 50)).close.mean()
        (await bk.get_candles(symbol, "1m", 50)).close.mean()
        if not opens:
            return None
        return bk.Signal(
            position="long",
            price_take_profit=110.0,
            price_stop_loss=90.0,
            minute_estimated_time=4,
        )

    with (
        bk.Engine() as engine,
        mock.patch("backtest_kit._live.live.WallTicker", return_value=Ticks(minute)),
    ):
        engine.clock = clock
        bk.use_persist_adapter(adapter)
        bk.add_exchange(exchange_name="e", get_candles=exchange(latency))
        bk.add_strategy(strategy_name="s", interval="5m", get_signal=get_signal)
        bk.listen_performance(finished)
        bk.listen_error(lambda event: errors.append(event.error))
        bk.add_account(account_name="main", currency="USDT", balance=1e6)
        names = {"strategy_name": "s", "exchange_name": "e"}
        names |= {"account_name": "main"} if paid else {}
        tasks = [bk.Live.background(symbol, **names) for symbol in SYMBOLS]
        idle, asking = [], []
        for i in range(MINUTES):
            began = time.perf_counter()
            await all_done.wait()
            all_done.clear()
            seconds = time.perf_counter() - began
            if i > 5:  # the first ones fill the caches
                (asking if i % 5 == 0 else idle).append(seconds)
            await asyncio.sleep(0.05)  # what is entered into the journal after a step
            event, minute.changed = minute.changed, asyncio.Event()
            minute.now += MINUTE
            clock.to(minute.now + 600)
            event.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not errors, errors[0]
    return statistics.median(idle), statistics.median(asking)


def measure(latency, stored, opens, paid):
    """Return what `steps` does, with the state in files or in memory."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        adapter = bk.FileAdapter(folder) if stored else MemoryAdapter()
        return asyncio.run(steps(latency, adapter, opens, paid))


def main():
    table = Table(
        title=f"one live step of {len(SYMBOLS)} symbols, strategies of 5m", title_justify="left"
    )
    for name in ("Step", "Whole", "of the minute", "Exchange", "State", "Engine, strategies"):
        table.add_column(name, justify="left" if name == "Step" else "right")
    rows = {}
    for paid in (False, True):
        for opens in (False, True):
            whole, memory, engine = (
                measure(latency, stored, opens, paid)
                for latency, stored in ((LATENCY, True), (LATENCY, False), (0, False))
            )
            for i, name in enumerate(("nothing to do", "all asked")):
                title = f"{name}, {'all open a position' if opens else 'none opens'}"
                title += ", on one account" if paid else ""
                rows[title] = whole[i], memory[i], engine[i]
                if opens and not i:
                    rows.pop(title)
    for title, (whole, memory, engine) in rows.items():
        parts = memory - engine, max(whole - memory, 0), engine
        table.add_row(
            title,
            f"{whole * 1e3:.0f} ms",
            f"{whole / 60:.2%}",
            *(f"{part * 1e3:.0f} ms, {part / whole:.0%}" for part in parts),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

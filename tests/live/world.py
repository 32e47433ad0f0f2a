"""A world for live runs: time that passes only while everybody waits, and an exchange in it."""

import asyncio
import contextlib
import time
from types import SimpleNamespace
from unittest import mock

import backtest_kit as bk
from backtest_kit._values.time import INTERVALS
from backtest_kit.testing import MemoryAdapter
from markets import MINUTE, START

T0 = START + 100 * MINUTE


class TravelLoop(asyncio.SelectorEventLoop):
    """An event loop that leaps to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__()
        self.travelled = 0.0
        select = self._selector.select

        def leap(timeout=None):
            ready = select(0)
            if ready or timeout is None:
                return ready or select(timeout)
            self.travelled += timeout
            return ready

        self._selector.select = leap

    def time(self):
        return self.travelled


class World:
    """Wall-clock time, which tests may set ahead and back with `skew` (ms)."""

    def __init__(self, start):
        self.start, self.skew = start, 0
        self.loop = None

    @property
    def now(self):
        """The true time, milliseconds."""
        return self.start + round(self.loop.travelled * 1000)

    def run(self, coroutine):
        self.loop = TravelLoop()
        clock = SimpleNamespace(
            time_ns=lambda: (self.now + self.skew) * 1_000_000,
            perf_counter_ns=time.perf_counter_ns,
        )
        with (
            mock.patch("backtest_kit._values.clock.time", clock),
            asyncio.Runner(loop_factory=lambda: self.loop) as runner,
        ):
            return runner.run(coroutine)

    async def until(self, when):
        """Sleep until the true time is `when`."""
        await asyncio.sleep(max(0, when - self.now) / 1000)


class Venue:
    """An exchange that knows only candles that have closed, and misbehaves on command.

    `faults` are (since, until, kind): within them a request hangs, fails, is answered with nothing,
    with rows out of order, or with the newest candle missing ("late").
    """

    def __init__(self, world, rows, faults=(), delay_ms=0):
        self.world, self.faults, self.delay = world, list(faults), delay_ms
        self.rows = rows
        self.times = [row[0] for row in rows]
        self.requests = []
        self.fetched = 0

    async def get_candles(self, symbol, interval, since, limit):
        now = self.world.now
        self.requests.append((symbol, interval, now // MINUTE))
        await asyncio.sleep(self.delay / 1000)
        kind = next((k for a, b, k in self.faults if a <= now < b), None)
        if kind == "hang":
            await asyncio.sleep(10**9)
        if kind == "fail":
            raise ConnectionError("503 Service Unavailable")
        step = INTERVALS[interval]
        until = min(since + limit * step, now // step * step)
        if kind == "late":
            until -= step
        rows = self._rows(since, until, step)
        if kind == "empty":
            return []
        if kind == "shuffled":
            return self._rows(since - 2 * step, until, step)[::-1]
        self.fetched += len(rows)
        return rows

    def _rows(self, since, until, step):
        first = self.times[0]
        begin, end = max(0, (since - first) // MINUTE), max(0, (until - first) // MINUTE)
        part = self.rows[begin:end]
        if step == MINUTE or not part:
            return [list(row) for row in part]
        n = step // MINUTE
        return [
            [
                g[0][0],
                g[0][1],
                max(r[2] for r in g),
                min(r[3] for r in g),
                g[-1][4],
                sum(r[5] for r in g),
            ]
            for g in (part[i : i + n] for i in range(0, len(part) // n * n, n))
        ]


@contextlib.asynccontextmanager
async def running(*tasks):
    """Cancel background runs at the end, as a killed process would, but tidily."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


def flat(minutes=600, price=100.0):
    """A market in which nothing happens."""
    return [
        (START + i * MINUTE, price, price + 0.1, price - 0.1, price, 1.0) for i in range(minutes)
    ]


class Stage:
    """A world, an exchange and a strategy whose answers and calls the test holds."""

    def __init__(self, rows, *, start=T0, faults=(), answer=None, interval="1m", **config):
        self.world = World(start + 500)  # the step `start` is due
        self.venue = Venue(self.world, rows, faults)
        self.asked, self.told, self.errors = [], [], []
        self.adapter = MemoryAdapter()
        bk.use_persist_adapter(self.adapter)
        bk.set_config(**config)
        bk.add_exchange(exchange_name="venue", get_candles=self.venue.get_candles)

        async def get_signal(symbol, when):
            at = round(when.timestamp() * 1000)
            self.asked.append((at, self.world.now))
            price = await bk.get_average_price(symbol)
            reply = None if answer is None else answer(at, price)
            return await reply if asyncio.iscoroutine(reply) else reply

        bk.add_strategy(strategy_name="s", interval=interval, get_signal=get_signal)
        bk.listen_signal_live(self.told.append)
        bk.listen_error(self.errors.append)

    def task(self, symbol="X"):
        return bk.Live.background(symbol, strategy_name="s", exchange_name="venue")

    def play(self, until, at_times=()):
        """Run one symbol until the true time `until`, doing things at times on the way."""

        async def main():
            task = self.task()
            async with running(task):
                for when, act in sorted(at_times, key=lambda pair: pair[0]):
                    await self.world.until(when)
                    act(task)
                await self.world.until(until)
                return task.status

        return self.world.run(main())

    def transitions(self):
        return [t for t in self.told if t.action not in ("idle", "active", "waiting")]

    def steps(self):
        """The instants of the steps; one that ends a signal may open the next, and tell of both."""
        found, ended = [], None
        for tick in self.told:
            if tick.timestamp != ended:
                found.append(tick.timestamp)
            ended = tick.timestamp if tick.action in ("closed", "cancelled") else None
        return found

    def error_texts(self, where):
        return [str(event.error) for event in self.errors if event.where == where]


def once(at, **proposal):
    """Answer at one instant."""
    defaults = {
        "position": "long",
        "price_take_profit": 110.0,
        "price_stop_loss": 90.0,
        "minute_estimated_time": 5,
    }
    return lambda when, price: defaults | proposal if when == at else None


def always(at, price):
    """Answer whenever asked."""
    return once(at, minute_estimated_time=10)(at, price)

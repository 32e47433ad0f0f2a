"""Live runs in simulated time, with an exchange that fails on command."""

import asyncio
import contextlib

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import FaultyExchange, MemoryAdapter, SimulatedTime
from markets import MINUTE, START

T0 = START + 100 * MINUTE


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


BRACKET = {"position": "long", "price_take_profit": 110.0, "price_stop_loss": 90.0}


def clock(since, until, **options):
    """A virtual clock between two minutes after the start of the markets."""
    return bk.VirtualClock(
        to_datetime(START + since * MINUTE), to_datetime(START + until * MINUTE), **options
    )


def flat(minutes=600, price=100.0):
    """A market in which nothing happens."""
    return [
        (START + i * MINUTE, price, price + 0.1, price - 0.1, price, 1.0) for i in range(minutes)
    ]


class Stage:
    """Simulated time, an exchange and a strategy whose answers and calls the test holds."""

    def __init__(
        self, rows, *, start=T0, faults=(), answer=None, interval="1m", more=None, **config
    ):
        self.world = SimulatedTime(start + 500)  # the step `start` is due
        self.venue = FaultyExchange(self.world, rows, faults)
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

        asked = {"get_signal": get_signal} | (more or {})
        if "get_signals" in asked:
            del asked["get_signal"]
        bk.add_strategy(strategy_name="s", interval=interval, **asked)
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
    defaults = BRACKET | {"minute_estimated_time": 5}
    return lambda when, price: defaults | proposal if when == at else None


def always(at, price):
    """Answer whenever asked."""
    return once(at, minute_estimated_time=10)(at, price)


class Plain:
    """State in a dict, with sync methods, which are called in threads."""

    def __init__(self):
        self.documents = {}

    def read(self, kind, key):
        return self.documents.get((kind, key))

    def write(self, kind, key, document):
        self.documents[kind, key] = document

    def delete(self, kind, key):
        self.documents.pop((kind, key), None)

    def list(self, kind):
        return sorted(key for own, key in self.documents if own == kind)


class Full(MemoryAdapter):
    """A disk that is full at times."""

    full = False

    async def write(self, kind, key, document):
        if self.full and kind == "run":
            raise OSError(28, "No space left on device")
        await super().write(kind, key, document)

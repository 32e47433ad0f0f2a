"""Live runs over real candles have the trades of a backtest, also killed and started again."""

import asyncio
import random
from datetime import datetime

import pytest

import backtest_kit as bk
from backtest_kit._values.time import iso, to_datetime, to_ms
from backtest_kit.exchanges._parts import read_file
from backtest_kit.testing import MemoryAdapter

MINUTE = 60_000
CASES = [
    ("BTCUSDT-1m-2023", "2023-03-23T06:00Z", 2),
    ("BTCUSDT-1m-2020-03", "2020-03-11T00:00Z", 3),
    ("BTCUSDT-1m-2018-01_2018-02", "2018-02-07T12:00Z", 3),
    ("EURUSD-fxcm-1m-2014-05", None, 4),
    ("SPY-1m-2013-10", None, 6),
    ("ETHUSD-coinbase-1m-2018-04", None, 2),
]


async def get_signal(symbol, when):
    """A breakout, entered at once or by a waiting signal below or above the price."""
    closes = (await bk.get_candles(symbol, "5m", 21)).close
    price = await bk.get_average_price(symbol)
    side = 1 if closes[-1] >= closes[:-1].max() else -1 if closes[-1] <= closes[:-1].min() else 0
    if not side:
        return None
    waits = when.minute % 2
    entry = price * (1 - side * 0.001) if waits else price
    return {
        "position": "long" if side > 0 else "short",
        "price_open": entry if waits else None,
        "price_take_profit": entry * (1 + side * 0.006),
        "price_stop_loss": entry * (1 - side * 0.006),
        "minute_estimated_time": 240,
    }


class Killed(BaseException):
    """The process is gone."""


class Mortal(MemoryAdapter):
    """Dies at some write."""

    def __init__(self, documents, lives):
        super().__init__(documents)
        self.lives = lives

    async def write(self, kind, key, document):
        self.lives -= 1
        if self.lives < 0:
            raise Killed
        await super().write(kind, key, document)


def register(candles, told):
    bk.add_exchange(bk.exchanges.FrameExchange(candles))
    names = ("on_open", "on_schedule", "on_cancel", "on_close")
    bk.add_strategy(
        strategy_name="s",
        interval="5m",
        get_signal=get_signal,
        callbacks=dict.fromkeys(names, told.append),
    )


def backtest(candles, start, end):
    told = []
    with bk.Engine():
        register(candles, told)
        bk.add_frame(
            frame_name="f", interval="1m", start_date=to_datetime(start), end_date=to_datetime(end)
        )
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
    return told


def live(candles, start, end, documents, lives):
    """Be one process; return what it told, and whether it came to the end."""
    told = []

    async def main():
        clock = bk.VirtualClock(to_datetime(start), to_datetime(end))
        async for _ in bk.Live.run("X", strategy_name="s", exchange_name="frame", clock=clock):
            pass

    with bk.Engine():
        register(candles, told)
        bk.use_persist_adapter(Mortal(documents, lives))
        try:
            asyncio.run(main())
        except Killed:
            return told, False
    return told, True


@pytest.mark.parametrize(("name", "start", "days"), CASES)
def test_live_equals_backtest(real_data, name, start, days):
    candles = read_file(real_data / f"{name}.parquet").candles
    first = int(candles.timestamp[0]) + 200 * MINUTE
    begin = first if start is None else to_ms(datetime.fromisoformat(start), "start")
    end = min(begin + days * 1440 * MINUTE, int(candles.timestamp[-1]) + MINUTE)
    expected = [tick for tick in backtest(candles, begin, end) if tick.timestamp <= end]
    # what lives when the data end, lives on
    expected = [
        tick
        for tick in expected
        if "end_of_data" not in (getattr(tick, "close_reason", ""), getattr(tick, "reason", ""))
    ]
    assert sum(tick.action == "closed" for tick in expected) >= 5
    assert {"scheduled", "opened", "closed"} <= {tick.action for tick in expected}

    calm, survived = live(candles, begin, end, {}, 10**9)
    assert survived
    assert calm == expected, iso(end)

    rng, documents, told, kills = random.Random(7), {}, {}, -1
    survived = False
    while not survived:
        kills += 1
        part, survived = live(candles, begin, end, documents, rng.randrange(5, 80))
        for tick in part:
            assert told.setdefault(tick.transition_id, tick) == tick
    assert kills >= 5
    assert [*told.values()] == expected

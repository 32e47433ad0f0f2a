"""What `backtest_kit.testing` offers: the checks of exchanges, a moment, simulated time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit.testing import (
    EXCHANGE_CHECKS,
    FaultyExchange,
    MemoryAdapter,
    SimulatedTime,
    check_exchange,
    moment,
)
from markets import MINUTE, START, market

ROWS = market(8, 500, gaps=False)
SINCE = datetime.fromtimestamp(START / 1000, UTC)


@pytest.mark.parametrize("interval", ["1m", "5m"])
@pytest.mark.parametrize("check", EXCHANGE_CHECKS)
@pytest.mark.parametrize("kind", ["frame", "synthetic", "faulty", "schema"])
def test_our_exchanges_pass(kind, check, interval):
    time = SimulatedTime(START + 500 * MINUTE)
    exchange = {
        "frame": lambda: bk.exchanges.FrameExchange(ROWS),
        "synthetic": bk.exchanges.SyntheticExchange,
        "faulty": lambda: FaultyExchange(time, ROWS),
        "schema": lambda: bk.ExchangeSchema(
            exchange_name="e", get_candles=bk.exchanges.FrameExchange(ROWS).get_candles
        ),
    }[kind]()
    check(exchange, "X", SINCE, interval)


class Bad(bk.exchanges.FrameExchange):
    """Right, but for what a test breaks."""

    def __init__(self):
        super().__init__(ROWS)
        self.calls = 0

    async def get_candles(self, symbol, interval, since, limit):
        self.calls += 1
        return await super().get_candles(symbol, interval, since, limit)


class Unsorted(Bad):
    async def get_candles(self, *question):
        return [*await super().get_candles(*question)][::-1]


class Short(Bad):
    """Answers with less than it has."""

    async def get_candles(self, symbol, interval, since, limit):
        return await super().get_candles(symbol, interval, since, min(limit, 20))


class Forgetful(Bad):
    async def get_candles(self, *question):
        found = await super().get_candles(*question)
        return found[self.calls % 2 :]


class Mixing(Bad):
    """Gives every one of several callers what the last of them has asked for."""

    async def get_candles(self, symbol, interval, since, limit):
        self.question = (symbol, interval, since, limit)
        await asyncio.sleep(0)
        return await super().get_candles(*self.question)


class Nothing(Bad):
    async def get_candles(self, *question):
        return []


class Prophet(Bad):
    """Makes up candles where there are none."""

    async def get_candles(self, symbol, interval, since, limit):
        found = await super().get_candles(symbol, interval, since, limit)
        return found if len(found) else [(since, 1.0, 1.0, 1.0, 1.0, 1.0)]


class Numbers(Bad):
    def format_price(self, symbol, price):
        return round(price, 2)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Unsorted, "not after the one before"),
        (Short, "two pages differ"),
        (Forgetful, "another answer the second time|two pages differ"),
        (Mixing, "mixed up"),
        (Nothing, "no 1m candles of X from 2024"),
        (Prophet, "year 2100"),
        (Numbers, "format_price returns 1234.57, which is no text"),
    ],
)
def test_the_checks_find_bad_exchanges(kind, text):
    check_exchange(Bad(), "X", SINCE)
    with pytest.raises(AssertionError, match=text):
        check_exchange(kind(), "X", SINCE)


def test_a_moment_lets_a_strategy_be_called_by_itself():
    def get_signal(symbol, when):
        window = bk.candles(symbol, "5m", 3)
        assert bk.get_date() == when == bk.get_context().when
        return symbol, float(window.close[-1]), bk.average_price(symbol), bk.get_mode()

    when = SINCE + timedelta(minutes=101)
    with moment("X", when, ROWS, mode="live"):
        symbol, close, price, mode = get_signal("X", when)
    assert (symbol, close, mode) == ("X", ROWS[99][4], "live")
    whole = [row for row in ROWS if row[0] < START + 101 * MINUTE]
    with moment("X", when, whole):
        assert get_signal("X", when)[2] == price, "candles of later make no difference"
        with pytest.raises(bk.DataRangeError, match="data begin"):
            bk.candles("X", "1h", 3)
    with pytest.raises(bk.ContextError):
        bk.get_date()


@given(minute=st.integers(20, 400), fails=st.booleans())
def test_a_moment_answers_as_a_run_does(minute, fails):
    """The same function, asked by a backtest and by itself; also async, and where data lack."""
    asked = []

    async def get_signal(symbol, when):
        window = await bk.get_candles(symbol, "15m", 40 if fails else 1)
        answer = window.close[-1], await bk.get_average_price(symbol)
        asked.append((when, answer))

    def play():
        bk.add_exchange(bk.exchanges.FrameExchange(ROWS))
        bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
        bk.add_frame(frame_name="f", interval="1m", start_date=when, end_date=when)
        errors = []
        bk.listen_error(errors.append)
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        assert not errors
        return bk.Backtest.get_data("X", strategy_name="s").warming

    async def alone():
        with moment("X", when, ROWS):
            await get_signal("X", when)

    when = SINCE + timedelta(minutes=minute)
    with bk.Engine():
        warming = play()
    try:
        asyncio.run(alone())
    except bk.DataRangeError:
        assert warming == 1, "at the start of a run it is no error"
        assert not asked
    else:
        assert warming == 0
        assert len(asked) == 2
        assert asked[0] == asked[1]


def test_hours_of_a_live_run_pass_at_once_and_its_clock_can_be_wrong(engine):
    time = SimulatedTime(SINCE + timedelta(minutes=100, seconds=1))
    venue = FaultyExchange(time, ROWS, [(START + 160 * MINUTE, START + 163 * MINUTE, "fail")])
    asked, errors = [], []
    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(venue)
    bk.add_strategy(
        strategy_name="s", interval="1m", get_signal=lambda symbol, when: asked.append(when)
    )
    bk.listen_error(errors.append)
    outside = engine.clock

    async def main():
        task = bk.Live.background("X", strategy_name="s", exchange_name="faulty")
        await time.until(START + 200 * MINUTE)
        time.skew = 10 * MINUTE
        await time.until(START + 205 * MINUTE)
        task.cancel()

    time.run(main())
    assert time.now == START + 205 * MINUTE
    assert asked[0] == SINCE + timedelta(minutes=100)
    assert len(asked) > 90, "the run goes on after the outage"
    assert max(asked) <= SINCE + timedelta(minutes=205), "the exchange has no candles of later"
    assert {event.where for event in errors} >= {"feed"}
    assert engine.clock is outside

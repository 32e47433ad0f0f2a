"""A catalog in front of an exchange: asked once, recorded as it was seen, replayed exactly."""

import asyncio
import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._catalog.catalog import Catalog
from backtest_kit._catalog.writing import alone
from backtest_kit._values.time import to_datetime
from backtest_kit.exchanges import _cached
from command import run_here
from effort import examples
from markets import MINUTE, START, market, script

ROWS = market(3, 400)
STEPS = {"1m": MINUTE, "5m": 5 * MINUTE}


class Venue:
    """Has the market as it is at `now`; counts what it is asked."""

    exchange_name, page_limit, intervals = "venue", 1000, ("1m", "5m")

    def __init__(self):
        self.now, self.asked, self.closed = START, [], False
        self.whole = {
            name: bk.Candles(*zip(*ROWS, strict=True)).resample(name) for name in self.intervals
        }

    async def get_candles(self, symbol, interval, since, limit):
        self.asked.append((interval, since, limit))
        whole, step = self.whole[interval], STEPS[interval]
        until = min(since + limit * step, self.now)  # the forming candle too
        begin, end = whole.timestamp.searchsorted((since, until))
        return whole[int(begin) : int(end)]

    async def close(self):
        self.closed = True


@pytest.fixture
def venue(monkeypatch):
    made = Venue()
    monkeypatch.setattr(_cached, "wall_ms", lambda: made.now)
    return made


requests = st.tuples(
    st.integers(0, 30),  # minutes that pass before it
    st.sampled_from(["1m", "5m"]),
    st.integers(0, 60),
    st.integers(1, 60),
)


@examples(25)
@given(st.lists(requests, min_size=1, max_size=8))
def test_whatever_is_asked_the_answers_are_the_exchange_s(tmp_path_factory, asked):
    folder = tmp_path_factory.mktemp("cached")
    venue = Venue()
    venue.now += 70 * MINUTE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cached, "wall_ms", lambda: venue.now)
        asyncio.run(_compare(venue, folder, asked))


async def _compare(venue, folder, asked):
    cached = bk.exchanges.CachedExchange(venue, folder, record=True)
    for passed, interval, back, limit in asked:
        venue.now += passed * MINUTE
        step = STEPS[interval]
        since = (venue.now - back * MINUTE) // step * step
        until = min(since + limit * step, venue.now // step * step)
        whole = venue.whole[interval]
        begin, end = whole.timestamp.searchsorted((since, max(since, until)))
        before = len(venue.asked)
        answer = await cached.get_candles("X", interval, since, limit)
        assert answer == whole[int(begin) : int(end)]
        if until - since == limit * step and venue.now - until > 5 * MINUTE:
            again = len(venue.asked)
            assert await cached.get_candles("X", interval, since, limit) == answer
            assert len(venue.asked) == again <= before + 1


def test_candles_of_a_longer_interval_are_made_of_those_there_are(venue, tmp_path):
    venue.now += 300 * MINUTE

    async def ask():
        cached = bk.exchanges.CachedExchange(venue, tmp_path, record=True)
        await cached.get_candles("X", "1m", START, 200)
        found = await cached.get_candles("X", "5m", START, 50)
        await cached.close()
        return found

    assert asyncio.run(ask()) == venue.whole["5m"][:50]
    assert venue.asked == [("1m", START, 200), ("5m", START + 200 * MINUTE, 10)]
    assert venue.closed


def test_without_record_nothing_is_written(venue, tmp_path):
    venue.now += 300 * MINUTE
    cached = bk.exchanges.CachedExchange(venue, tmp_path / "none")
    asyncio.run(cached.get_candles("X", "1m", START, 200))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("trouble", ["full", "in use"])
def test_what_cannot_be_recorded_now_is_recorded_later(trouble, venue, tmp_path, caplog):
    venue.now += 300 * MINUTE
    cached = bk.exchanges.CachedExchange(venue, tmp_path, record=True)

    caplog.set_level("WARNING", "backtest_kit")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        if trouble == "full":
            patch.setattr("backtest_kit._catalog.catalog.tempfile.mkstemp", full)
            first = asyncio.run(cached.get_candles("X", "1m", START, 50))
        else:
            with alone(Catalog(tmp_path)):
                first = asyncio.run(cached.get_candles("X", "1m", START, 50))
    assert first == venue.whole["1m"][: len(first)]
    assert "can't be recorded now" in caplog.text
    asyncio.run(cached.get_candles("X", "1m", START + 50 * MINUTE, 50))
    series = bk.exchanges.CatalogExchange(tmp_path).series("X")
    whole = venue.whole["1m"]
    assert series.read(0, 2**60) == whole[: int(whole.timestamp.searchsorted(START + 100 * MINUTE))]


def test_a_recorded_session_is_replayed_exactly(tmp_path, monkeypatch):
    def session(exchange, folder):
        told, decide = [], script(4, 0.5)

        def get_signal(symbol, when):
            seen = bk.candles(symbol, "5m", 20)
            told.append((when, seen.close.tolist(), seen.timestamp.tolist()))
            return decide(int(when.timestamp() * 1000), bk.average_price(symbol))

        with bk.Engine():
            bk.set_config(
                state_dir=str(folder),
                min_take_profit_distance_percent=0,
                min_stop_loss_distance_percent=0,
            )
            bk.add_exchange(exchange)
            bk.add_strategy(strategy_name="s", interval="3m", get_signal=get_signal)
            begin = START + 150 * MINUTE
            clock = bk.VirtualClock(to_datetime(begin), to_datetime(begin + 60 * MINUTE))

            async def run():
                events = bk.Live.run(
                    "X", strategy_name="s", exchange_name=exchange.exchange_name, clock=clock
                )
                return [event.to_json() async for event in events]

            return asyncio.run(run()), told

    venue = Venue()
    venue.now += 400 * MINUTE
    monkeypatch.setattr(_cached, "wall_ms", lambda: venue.now)
    cached = bk.exchanges.CachedExchange(venue, tmp_path / "data", record=True)
    events, told = session(cached, tmp_path / "one")
    assert len(told) > 3
    assert events
    recorded = bk.exchanges.CatalogExchange(tmp_path / "data")
    assert session(recorded, tmp_path / "two") == (events, told)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--record",), "--record needs --catalog"),
        (("--catalog", "data", "--replay", "x.csv"), "--catalog is for an exchange"),
    ],
)
def test_a_mistake_is_one_line(words, text, tmp_path):
    done = run_here("live", "x.py", "--symbol", "X", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert text in done.stderr

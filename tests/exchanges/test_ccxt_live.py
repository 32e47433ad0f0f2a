"""A real ccxt client in live use, against a local server that misbehaves on command.

Time leaps over pauses, and is the real one while the exchange is asked.
"""

import asyncio
import gc
import json
import selectors
import time

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._engine.engine import current_engine
from backtest_kit._values.errors import TryLaterError
from backtest_kit.exchanges._ccxt import _tells_of_none
from backtest_kit.testing import LeapingEventLoop, MemoryAdapter, SimulatedTime
from command import PATIENCE
from exchanges import ccxt_server as binance
from exchanges.ccxt_server import BinanceServer, http_date, status
from live.world import T0, flat, once, running
from markets import MINUTE, START, market

ccxt = pytest.importorskip("ccxt")
ROWS = market(33, 700, gaps=False, quiet=False)


class NetworkLoop(LeapingEventLoop):
    """Leaps over pauses, but lets real time pass while `asking`."""

    def __init__(self):
        super().__init__()
        self.asking = 0
        leap = self._selector.select

        def wait(timeout=None):
            if not self.asking:
                return leap(timeout)
            began = time.perf_counter()
            ready = selectors.DefaultSelector.select(self._selector, timeout)
            self.advance(time.perf_counter() - began)
            return ready

        self._selector.select = wait


class Stage(SimulatedTime):
    """A server with its own time, an engine whose clock is off by `skew`, and what was seen."""

    def __init__(self, rows=ROWS, start=T0, answer=None, client=None, **config):
        super().__init__(start + 500)  # the step `start` is due
        self.rows = rows
        self.true = {row[0]: row for row in rows}
        self.seen, self.told, self.errors = [], [], []
        self.server = BinanceServer(rows, lambda: self.now)
        self.server.__enter__()
        self.exchange = self.server.exchange(**(client or {}))
        real = self.exchange.get_candles

        async def get_candles(*arguments):
            self.loop.asking += 1
            try:
                return await real(*arguments)
            finally:
                self.loop.asking -= 1

        self.exchange.get_candles = get_candles
        bk.use_persist_adapter(MemoryAdapter())
        bk.set_config(**config)
        bk.add_exchange(self.exchange)

        async def get_signal(symbol, when):
            at = round(when.timestamp() * 1000)
            self.seen.append((at, self.now, await bk.get_candles(symbol, "1m", 10)))
            return None if answer is None else answer(at, 0.0)

        bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
        bk.listen_signal_live(self.told.append)
        bk.listen_error(self.errors.append)

    def run(self, coroutine):
        async def whole():
            try:
                return await coroutine
            finally:
                await self.exchange.close()

        return super().run(whole())

    def new_loop(self):
        return NetworkLoop()

    def live(self, minutes, acts=()):
        """Run until 40 s after step number `minutes`; `acts` are (true time, function)."""

        async def main():
            task = bk.Live.background("BTC/USDT", strategy_name="s", exchange_name="binance")
            async with running(task):
                for when, act in acts:
                    await self.until(when)
                    act()
                await self.until(T0 + minutes * MINUTE + 40_000)
            return bk.Live.get_data("BTC/USDT", strategy_name="s")

        return self.run(main())

    async def load(self, minutes, until=T0, symbol="BTC/USDT"):
        """Return what the feed gives for the `minutes` before `until`."""
        engine = current_engine()
        schema = engine.exchanges.get("binance")
        since = until - minutes * MINUTE
        return await engine.feed.load(schema, symbol, "1m", since, until, engine.config)

    def is_true(self, columns):
        rows = np.column_stack(columns)
        return len(rows) > 0 and all(tuple(row) == self.true[int(row[0])] for row in rows)

    def all_true(self):
        return bool(self.seen) and all(self.is_true(c.columns()) for _, _, c in self.seen)

    def minutes_asked(self):
        return [(at - T0) // MINUTE for at, _, _ in self.seen]

    def error_texts(self, where):
        return [str(event.error) for event in self.errors if event.where == where]


@pytest.fixture
def stage():
    stages = []

    def make(*arguments, **options):
        stages.append(Stage(*arguments, **options))
        return stages[-1]

    yield make
    for made in stages:
        made.server.__exit__()


def test_a_calm_run_sees_only_closed_candles_at_every_minute(stage):
    """Although the exchange adds the forming one to each answer."""
    calm = stage()
    data = calm.live(20)
    assert calm.minutes_asked() == list(range(21))
    assert calm.all_true()
    assert (data.missed, calm.errors) == (0, [])
    assert len(calm.server.asked) == 21 + 1, "once a minute, and the ten candles of the first"


@pytest.mark.parametrize("skew", [-3_000, 700, 3_000, 25_000])
def test_a_skewed_clock_lets_no_forming_candle_pass(stage, skew):
    skewed = stage(start=T0 - skew)  # the step T0 is due by the local clock
    skewed.skew = skew
    data = skewed.live(20 if skew < 0 else 19)
    assert skewed.all_true()
    assert data.missed == 0
    assert skewed.errors == []
    assert skewed.minutes_asked()[:20] == list(range(20))
    assert all(now >= at for at, now, _ in skewed.seen[1:]), "acted before the minute had ended"


def test_without_a_date_only_the_local_clock_counts(stage):
    undated = stage()
    undated.server.fault(binance.undated)
    undated.live(5)
    assert undated.all_true()
    assert len(undated.seen) == 6


def test_what_a_cache_has_kept_is_as_old_as_it_says(stage):
    cached = stage()
    cached.server.fault(binance.cached(20), since=T0 + 5 * MINUTE, until=T0 + 10 * MINUTE + 21_000)
    data = cached.live(12)
    assert cached.all_true()
    assert data.missed == 0


def test_a_clock_minutes_ahead_does_not_end_the_run(stage):
    """The exchange calls a range in its future a bad request, which otherwise is a refusal."""

    def refuse_the_future(server, handler, query):
        if int(query["startTime"]) + int(query["limit"]) * MINUTE > server.now() + MINUTE:
            return status(400, "Illegal characters found in parameter", -1100)(
                server, handler, query
            )
        return server.answer(handler, server.klines(query))

    ahead = stage(feed_wait_ms=5_000)
    ahead.server.fault(refuse_the_future)
    data = ahead.live(
        20,
        [
            (T0 + 5 * MINUTE + 5_000, lambda: setattr(ahead, "skew", 4 * MINUTE)),
            (T0 + 10 * MINUTE + 5_000, lambda: setattr(ahead, "skew", 0)),
        ],
    )
    assert any("-1100" in text for text in ahead.error_texts("feed"))
    assert ahead.all_true()
    assert ahead.minutes_asked()[-1] == 20
    assert data.steps + data.missed == 21


OUTAGES = {
    "503": status(503),
    "500": status(500, "Internal error", -1000),
    "429": status(429, "Too many requests", -1003, Retry_After="20"),
    "418": status(418, "Banned", -1003, Retry_After="150"),
    "403": status(403),
    "html": binance.page,
    "cut off": binance.cut_off,
    "connection lost": binance.drop,
    "hang": binance.hang,
    "empty": binance.empty,
    "one short": binance.late,
    "stale": binance.stale,
}


@pytest.mark.parametrize("kind", OUTAGES)
def test_an_outage_is_followed_through_afterwards(stage, kind):
    """Entry before it, stop-loss in the middle of it: closed at that minute, once it is over."""
    rows = flat()
    i = (T0 - START) // MINUTE
    for k in range(i + 6, i + 9):  # the price falls for three minutes and recovers
        rows[k] = (rows[k][0], 95.0, 95.1, 80.0, 80.0, 50.0)
    out = stage(
        rows,
        answer=once(T0 + 2 * MINUTE, minute_estimated_time=60),
        client={"timeout": 120} if kind == "hang" else None,
        feed_wait_ms=1_500,
        get_candles_retry_count=0,
    )
    out.server.fault(OUTAGES[kind], since=T0 + 6 * MINUTE + 30_000, until=T0 + 9 * MINUTE + 30_000)
    data = out.live(15)
    opened, closed = [t for t in out.told if t.action in ("opened", "closed")]
    assert opened.timestamp == T0 + 2 * MINUTE
    assert (closed.timestamp, closed.close_reason) == (T0 + 7 * MINUTE, "stop_loss")
    assert out.all_true()
    assert out.minutes_asked()[-1] == 15
    assert not {7, 8} & set(out.minutes_asked())
    assert data.steps + data.missed == 16
    assert out.error_texts("feed")
    assert out.error_texts("missed steps")


def test_rows_out_of_order_are_put_in_order(stage):
    shuffled = stage()
    shuffled.server.fault(binance.backwards)
    data = shuffled.live(10)
    assert shuffled.all_true()
    assert data.missed == 0
    assert shuffled.errors == []


PASSING = {
    **OUTAGES,
    "doubled": binance.doubled,
    "418": status(418, "Banned", -1003, Retry_After="50"),
    "clock": status(400, "Timestamp for this request was 1000ms ahead", -1021),
    "maintenance": status(504),
    "unknown": status(400, "An unknown error", -1000),
    "503 of its own": status(503, "Service unavailable", -9, Retry_After="9"),
    "odd": status(429, "Too many requests", -1003, Retry_After="soon"),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_asked_again(stage, kind):
    passing = stage(get_candles_timeout_ms=300)
    passing.server.fault(PASSING[kind], times=2)
    segment = passing.run(passing.load(30))
    assert (segment.first, segment.stop) == (T0 - 30 * MINUTE, T0)
    assert passing.is_true(segment.columns)
    assert not segment.filled.any()
    assert passing.errors == []


REFUSALS = {
    "symbol": (status(400, "Invalid symbol.", -1121), "Invalid symbol"),
    "key": (status(401, "API-key format invalid.", -2014), "API-key format invalid"),
    "interval": (status(400, "Invalid interval.", -1120), "Invalid interval"),
    "country": (status(451, "from a restricted location", 0), "restricted location"),
    "service": (status(404, "This service is no longer available.", -1016), "no longer"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_ends_the_run_at_once(stage, kind):
    refused = stage()
    answer, text = REFUSALS[kind]
    refused.server.fault(answer, since=T0 + 5 * MINUTE)
    with pytest.raises(bk.ExchangeRefusedError, match=f"binance: .*{text}"):
        refused.run(_until_it_ends())
    assert len([at for at in refused.server.times_asked() if at >= T0 + 5 * MINUTE]) == 1
    assert refused.minutes_asked() == [0, 1, 2, 3, 4]


def test_an_unknown_symbol_ends_the_run_before_any_candle_is_asked_for(stage):
    refused = stage()
    with pytest.raises(bk.ExchangeRefusedError, match="does not have market symbol NOPE/USDT"):
        refused.run(_until_it_ends("NOPE/USDT"))
    assert refused.server.asked == []


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        *((name, True) for name in ("BadSymbol", "PermissionDenied", "AccountNotEnabled")),
        *((name, True) for name in ("AccountSuspended", "NotSupported", "ArgumentsRequired")),
        *((name, True) for name in ("RestrictedLocation", "InvalidProxySettings")),
        *((name, False) for name in ("InvalidNonce", "OnMaintenance", "RequestTimeout")),
        *((name, False) for name in ("MarketClosed", "NullResponse", "ExchangeError")),
    ],
)
def test_which_errors_of_ccxt_are_refusals(stage, monkeypatch, name, refused):
    async def fail(*arguments, **options):
        raise getattr(ccxt, name)("no")

    monkeypatch.setattr("ccxt.async_support.binance.fetch_ohlcv", fail)
    asked = stage()
    with pytest.raises(bk.ExchangeRefusedError if refused else getattr(ccxt, name), match="no"):
        asked.run(asked.exchange.get_candles("BTC/USDT", "1m", START, 5))


@pytest.mark.parametrize("code", [401, 407, 451, 511])
def test_a_position_outlives_a_refusal(stage, code):
    """A proxy or a captive portal answers for the exchange: told each minute, and tried again."""
    rows = [list(row) for row in ROWS]
    held = stage(
        rows,
        answer=once(T0 + 2 * MINUTE, price_take_profit=150.0, price_stop_loss=50.0),
        max_stop_loss_distance_percent=0,
        feed_wait_ms=1_500,
        get_candles_retry_count=0,
    )
    answer = status(code, "<html>please log in</html>")
    held.server.fault(answer, since=T0 + 4 * MINUTE, until=T0 + 9 * MINUTE)
    held.live(12)
    opened, closed = [t for t in held.told if t.action in ("opened", "closed")]
    assert (opened.timestamp, closed.timestamp) == (T0 + 2 * MINUTE, T0 + 7 * MINUTE)
    assert closed.close_reason == "time_expired"
    told = held.error_texts("feed")
    assert len(told) == 5, "once a minute"
    assert all(str(code) in text and "log in" in text for text in told)
    assert held.minutes_asked()[-1] == 12


RUBBISH = {
    "page": (binance.page, "We'll be back soon"),
    "cut off": (binance.cut_off, "no list of candles"),
    "nothing": (binance.rubbish(b""), "nothing at all"),
    "word": (binance.rubbish("maintenance"), "maintenance"),
    "object": (binance.rubbish({"status": "error", "message": "moved"}), "moved"),
    "rows of another kind": (binance.rubbish([["a"]]), r'\[\["a"\]\]'),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_is_named_and_not_read_as_no_candle(stage, kind):
    strange = stage(get_candles_retry_count=1)
    answer, text = RUBBISH[kind]
    strange.server.fault(answer)
    with pytest.raises(ccxt.BadResponse, match=f"answered HTTP 200 with .*{text}"):
        strange.run(strange.exchange.get_candles("BTC/USDT", "1m", START, 5))


def test_rubbish_in_place_of_the_markets_is_no_unknown_symbol(stage):
    portal = stage()
    portal.server.fault(binance.page, path="/exchangeInfo")
    with pytest.raises(ccxt.BadResponse, match=r"answered HTTP 200 with .*be back soon"):
        portal.run(portal.exchange.get_candles("BTC/USDT", "1m", START, 5))


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"result": {"list": []}}, {"data": None}, {"error": [], "result": {"X": []}}],
)
def test_no_candle_may_be_said_in_many_ways(answer):
    assert _tells_of_none(json.dumps(answer))


def test_keys_are_not_used_for_what_is_public_and_no_error_holds_one(stage):
    """Not even where ccxt would sign a request of its own accord, for the list of currencies."""
    keys = {"apiKey": "KEY-1234", "secret": "SECRET-5678", "password": "WORD-90"}
    options = {"fetchCurrencies": True, "fetchMarkets": {"types": ["spot"]}}
    signed = stage(client={**keys, "options": {"defaultType": "spot", **options}})
    assert len(signed.run(signed.exchange.get_candles("BTC/USDT", "1m", START, 5))) == 5
    assert signed.server.heard
    assert not [text for text in signed.server.heard if "KEY" in text or "signature" in text]
    for code in (401, 403, 407, 418, 451, 500):
        signed.server.faults.clear()
        signed.server.fault(status(code, "no KEY-1234 with SECRET-5678 at //me:WORD-90@proxy"))
        with pytest.raises((ccxt.BaseError, bk.DataError)) as caught:
            signed.run(signed.exchange.get_candles("BTC/USDT", "1m", START, 5))
        error = caught.value
        assert error.__cause__ is None
        assert error.__suppress_context__, "what ccxt raised is not shown with it"
        assert not [word for word in (*keys.values(), "startTime=") if word in str(error)]


def test_keys_are_used_where_there_is_no_candle_without(stage, monkeypatch):
    fetch = ccxt.async_support.binance.fetch_ohlcv

    async def fetch_ohlcv(client, *arguments, **options):
        client.check_required_credentials()
        return await fetch(client, *arguments, **options)

    monkeypatch.setattr("ccxt.async_support.binance.fetch_ohlcv", fetch_ohlcv)
    closed = stage(client={"apiKey": "KEY-1234", "secret": "SECRET-5678"})

    async def twice():
        asked = [closed.exchange.get_candles("BTC/USDT", "1m", START, 5) for _ in range(2)]
        return await asyncio.gather(*asked)

    assert [len(candles) for candles in closed.run(twice())] == [5, 5]


def test_without_keys_an_exchange_that_wants_some_refuses(stage, monkeypatch):
    async def fetch_ohlcv(client, *arguments, **options):
        client.check_required_credentials()

    monkeypatch.setattr("ccxt.async_support.binance.fetch_ohlcv", fetch_ohlcv)
    keyless = stage()
    with pytest.raises(bk.ExchangeRefusedError, match='requires "apiKey"'):
        keyless.run(keyless.exchange.get_candles("BTC/USDT", "1m", START, 5))


async def _until_it_ends(symbol="BTC/USDT"):
    async with asyncio.timeout(1200):
        await bk.Live.background(symbol, strategy_name="s", exchange_name="binance")


@pytest.mark.parametrize("code", [418, 429, 503])
@pytest.mark.parametrize("form", ["seconds", "fraction", "date"])
def test_retry_after_is_kept_for_all_symbols(stage, code, form):
    """Although the local clock is 10 s ahead, which a date must not be compared with."""
    limited = stage(get_candles_retry_delay_ms=1)
    limited.skew = 10_000

    def limit(server, handler, query):
        text = {"seconds": "30", "fraction": "30.0", "date": http_date(server.now() + 30_000)}
        number = -9 if form == "fraction" else None  # one that ccxt does not know
        status(code, "Too much", number, Retry_After=text[form])(server, handler, query)

    limited.server.fault(limit, times=1, symbol="ETHUSDT")

    async def main():
        async def btc():
            while not limited.server.asked:  # ETH has been limited
                await asyncio.sleep(0.001)
            await asyncio.sleep(2)
            return await limited.load(20)

        return await asyncio.gather(limited.load(20, symbol="ETH/USDT"), btc())

    for segment in limited.run(main()):
        assert limited.is_true(segment.columns)
    first, *others = limited.server.times_asked()
    assert len(others) >= 2
    # a date has whole seconds; afterwards it doesn't take long
    assert all(first + 28_990 <= at <= first + 40_000 for at in others)


def test_a_long_ban_is_not_waited_for_and_nothing_is_asked_meanwhile(stage):
    banned = stage(feed_wait_ms=2_000)
    ban = status(418, "Way too much request weight used", -1003, Retry_After="200")
    banned.server.fault(ban, times=1, since=T0 + 3 * MINUTE)
    data = banned.live(10)
    (begin,) = [at for at in banned.server.times_asked() if at // MINUTE == T0 // MINUTE + 3]
    assert not [at for at in banned.server.times_asked() if begin < at < begin + 200_000]
    text = banned.error_texts("feed")[0]
    assert "not to be asked again before 2024-01-01T01:46:2" in text
    assert "Way too much request weight" in text
    assert banned.minutes_asked() == [0, 1, 2, 6, 7, 8, 9, 10]
    assert (data.steps, data.missed) == (8, 3)
    assert banned.all_true()


@pytest.mark.parametrize("first", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize("other", [status(503), binance.drop])
def test_answers_to_requests_side_by_side_are_not_mixed_up(stage, first, other):
    """One is limited, the other down or without an answer; whichever comes first."""
    mixed = stage()
    limit = status(503, "limit", Retry_After="7")

    def slowly(kind, symbol):
        def answer(server, handler, query):
            while len(server.asked) < 2 or (symbol != first and not done):
                time.sleep(0.001)
            kind(server, handler, query)
            done.append(symbol)

        return answer

    done = []
    mixed.server.fault(slowly(limit, "BTCUSDT"), symbol="BTCUSDT")
    mixed.server.fault(slowly(other, "ETHUSDT"), symbol="ETHUSDT")

    async def main():
        return await asyncio.gather(
            *(mixed.exchange.get_candles(f"{s}/USDT", "1m", START, 5) for s in ("BTC", "ETH")),
            return_exceptions=True,
        )

    limited, down = mixed.run(main())
    assert isinstance(limited, TryLaterError)
    assert limited.after == 7.0
    assert type(down).__name__ == "ExchangeNotAvailable"


def test_a_request_for_the_markets_that_is_given_up_does_not_take_the_others_with_it(stage):
    """All wait for the same one; it hangs, and the first has no more patience."""
    slow = stage()

    def in_time(server, handler, query):
        server.released.wait(PATIENCE)
        server.answer(handler, {"timezone": "UTC", "symbols": binance.SYMBOLS})

    slow.server.fault(in_time, times=1, path="/exchangeInfo")

    async def main():
        patient = asyncio.create_task(slow.exchange.get_candles("ETH/USDT", "1m", START, 5))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await slow.exchange.get_candles("BTC/USDT", "1m", START, 5)
        slow.server.released.set()
        return await patient

    assert slow.is_true(slow.run(main()).columns())


def test_an_empty_page_before_candles_is_asked_for_again(stage):
    hole = stage(max_candles_per_request=20)
    hole.server.fault(
        lambda server, handler, query: server.answer(
            handler, [] if len(server.asked) in (2, 3) else server.klines(query)
        )
    )
    segment = hole.run(hole.load(90))
    assert hole.is_true(segment.columns)
    assert not segment.filled.any()
    assert segment.rows == 90


def test_requests_keep_the_rate_that_the_client_is_given(stage):
    """By ccxt's count for Binance, the markets cost 4 and a page of candles 0.4 times 30 ms."""
    limited = stage(client={"rateLimit": 30})
    limited.server.most = 5

    async def main():
        began = time.perf_counter()
        await asyncio.gather(
            *(limited.exchange.get_candles(f"{s}/USDT", "1m", START, 15) for s in ("BTC", "ETH"))
        )
        return time.perf_counter() - began

    assert limited.run(main()) >= 0.15  # never faster, however fast the machine
    assert len(limited.server.asked) == 6


def test_a_real_outage_of_the_market_is_filled(stage):
    i = (T0 - START) // MINUTE
    rows = [*ROWS[: i - 70], *ROWS[i - 25 :]]
    hole = stage(rows, max_candles_per_request=20)
    segment = hole.run(hole.load(90))
    assert segment.rows == 90
    assert int(segment.filled.sum()) == 45
    assert len(hole.server.asked) <= 5 + 5 + 1


def test_the_client_is_closed(stage, caplog):
    caplog.set_level("WARNING")
    closed = stage()
    closed.live(2)
    gc.collect()
    assert "release all resources" not in caplog.text


def _attempts(get_candles, **config):
    """Let an exchange fail; return the times (s) of the attempts and the error."""
    world, times = SimulatedTime(T0), []

    async def counted(*arguments):
        times.append(world.loop.time())
        return get_candles()

    bk.set_config(**config)
    bk.add_exchange(exchange_name="any", get_candles=counted)

    async def main():
        engine = current_engine()
        schema = engine.exchanges.get("any")
        return await engine.store.load(schema, "X", "1m", START, START + MINUTE, engine.config)

    with pytest.raises(bk.FetchError) as caught:
        world.run(main())
    return times, caught.value


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("delay", "pauses"),
    [(5_000, [5, 10, 20, 40, 60, 60]), (90_000, [90] * 6), (0, [0] * 6)],
)
def test_pauses_grow_to_a_bound_and_vary(delay, pauses):
    times, _ = _attempts(
        lambda: _raise(ConnectionError("down")),
        get_candles_retry_delay_ms=delay,
        get_candles_retry_count=6,
    )
    found = np.diff(times)
    assert len(found) == 6
    assert np.all(found >= 0.79 * np.array(pauses))
    assert np.all(found <= 1.21 * np.array(pauses) + 1e-6)
    assert delay == 0 or len({round(x / p, 6) for x, p in zip(found, pauses, strict=True)}) > 1


def test_any_exchange_may_say_when_to_ask_again():
    times, error = _attempts(
        lambda: _raise(TryLaterError("busy", 40)), get_candles_retry_delay_ms=100
    )
    assert len(times) == 4
    assert all(40 <= pause <= 45 for pause in np.diff(times))
    assert "failed 4 times, last with TryLaterError: busy" in str(error)


@pytest.mark.parametrize("after", [None, 0, -5, float("nan")])
def test_where_it_does_not_say_the_usual_pauses_are_kept(after):
    times, _ = _attempts(
        lambda: _raise(TryLaterError("busy", after)), get_candles_retry_delay_ms=1000
    )
    assert [round(pause / 2**k) for k, pause in enumerate(np.diff(times))] == [1, 1, 1]


@pytest.mark.parametrize(("after", "until"), [(300, "T01:45:00Z|T01:45Z"), (1e300, "2024-01-02")])
@pytest.mark.parametrize("retries", [0, 3])
def test_who_wants_to_be_left_alone_for_long_is_an_error_at_once(after, until, retries):
    times, error = _attempts(
        lambda: _raise(TryLaterError("go away", after)), get_candles_retry_count=retries
    )
    assert len(times) == 1
    assert isinstance(error.__cause__, TryLaterError)
    assert "not to be asked again before" in str(error)
    assert any(text in str(error) for text in until.split("|"))

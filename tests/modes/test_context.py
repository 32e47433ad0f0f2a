"""The ambient context: each run sees its own, also across tasks, and nothing leaks."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

import backtest_kit as bk
from backtest_kit._engine.engine import current_engine

pytestmark = pytest.mark.usefixtures("asyncio_debug")

START = datetime(2024, 1, 1, tzinfo=UTC)


def frame(minutes=300, name="f", interval="1m"):
    bk.add_frame(
        frame_name=name,
        interval=interval,
        start_date=START,
        end_date=START + timedelta(minutes=minutes),
    )


async def collect(symbol, **names):
    return [tick async for tick in bk.Backtest.run(symbol, **names)]


async def test_runs_side_by_side_never_see_each_other():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame()
    seen = []

    async def look(symbol, when):
        await asyncio.sleep(0)
        context = bk.get_context()
        own = await asyncio.create_task(ask_in_task())
        assert own == (when, symbol)
        both = await asyncio.gather(ask_in_task(), bk.get_candles(symbol, "1m", 3))
        assert both[0] == (when, symbol)
        assert context.symbol == symbol
        assert context.when == when == bk.get_date()
        assert (context.strategy_name, context.mode) == (strategy_of(symbol), "backtest")
        seen.append((symbol, when))

    async def ask_in_task():
        await asyncio.sleep(0)
        return bk.get_date(), bk.get_context().symbol

    def strategy_of(symbol):
        return f"s{symbol}"

    for symbol in "ABC":
        bk.add_strategy(strategy_name=strategy_of(symbol), interval="5m", get_signal=look)
    errors = []
    bk.listen_error(errors.append)
    await asyncio.gather(
        *(
            collect(s, strategy_name=strategy_of(s), exchange_name="synthetic", frame_name="f")
            for s in "ABC"
        )
    )
    assert not errors
    for symbol in "ABC":
        times = [when for s, when in seen if s == symbol]
        assert times == [START + timedelta(minutes=5 * i) for i in range(61)]
    order = [s for s, _ in seen]
    assert order != sorted(order), "the runs must really have been interleaved"


async def test_nothing_leaks_into_the_consumer():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame(2000)

    @bk.strategy("s", interval="1m")
    async def s(symbol, when):
        p = await bk.get_average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=p * 1.01,
            price_stop_loss=p * 0.99,
            minute_estimated_time=5,
        )

    results = bk.Backtest.run("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
    n = 0
    async for _ in results:
        n += 1
        with pytest.raises(bk.ContextError, match="get_signal"):
            bk.get_date()
        if n == 3:
            break
    await results.aclose()
    with pytest.raises(bk.ContextError):
        bk.get_context()


@pytest.mark.parametrize("name", ["get_date", "get_mode", "get_context"])
def test_outside_a_run_the_error_says_where_it_works(name):
    with pytest.raises(bk.ContextError, match=rf"{name}\(\) works only while a strategy runs"):
        getattr(bk, name)()


async def test_two_engines_share_nothing():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    with bk.Engine():
        assert bk.list_exchanges() == []
        bk.set_config(percent_fee=0.7)
    assert [e.exchange_name for e in bk.list_exchanges()] == ["synthetic"]
    assert bk.get_config().percent_fee == 0.1


async def test_run_sync_works_inside_a_running_loop():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame()
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    assert (
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
        == []
    )
    assert bk.Backtest.get_data("X", strategy_name="s").calls == 301


async def test_a_sync_strategy_reads_other_intervals_and_symbols():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame(120)
    seen = []

    @bk.strategy("s", interval="30m")
    def s(symbol, when):
        hours = bk.candles(symbol, "1h", 20)
        other = bk.candles("OTHER", "15m", 3)
        seen.append((len(hours), len(other), bk.average_price("OTHER")))

    bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
    assert [x[:2] for x in seen] == [(20, 3)] * 5


async def test_the_throttle_counts_from_the_last_call_and_every_call_uses_it_up():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame(60)
    calls = []

    @bk.strategy("s", interval="15m")
    async def s(symbol, when):
        calls.append((when - START) // timedelta(minutes=1))
        if len(calls) == 1:
            raise ValueError("boom")
        if len(calls) == 2:
            return {"position": "sideways"}
        return None

    bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
    assert calls == [0, 15, 30, 45, 60]


def test_threads_may_share_an_engine():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame(3000)
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: bk.candles(symbol, "5m", 3) and None,
    )
    shared = current_engine()
    found = {}

    def work(symbol):
        with shared:
            found[symbol] = bk.Backtest.run_sync(
                symbol, strategy_name="s", exchange_name="synthetic", frame_name="f"
            )

    threads = [threading.Thread(target=work, args=(symbol,)) for symbol in "ABCD"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set("ABCD")
    assert bk.list_exchanges()


def test_what_is_logged_goes_to_the_users_logger_once(caplog):
    caplog.set_level("INFO", logger="mine")
    bk.set_logger(logging.getLogger("mine"))
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    frame(30)

    def broken(symbol, when):
        raise ValueError("boom")

    bk.add_strategy(strategy_name="s", interval="1m", get_signal=broken)
    bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic", frame_name="f")
    (line,) = (r.getMessage() for r in caplog.records if r.name == "mine")
    assert line.startswith("get_signal of s X synthetic: ValueError: boom (")
    assert line.endswith('raise ValueError("boom"))')
    assert bk.Backtest.get_data("X", strategy_name="s").error_count == 31

"""Listeners: order, isolation, once, draining, and events that nobody waits for."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import backtest_kit as bk
from command import PATIENCE

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = {"strategy_name": "s", "exchange_name": "synthetic", "frame_name": "f"}


@pytest.fixture(autouse=True)
def busy():
    bk.add_exchange(bk.exchanges.SyntheticExchange())
    bk.add_frame(
        frame_name="f", interval="1m", start_date=START, end_date=START + timedelta(minutes=500)
    )

    async def get_signal(symbol, when):
        if when.minute % 10:
            return None
        p = await bk.get_average_price(symbol)
        entry = p * 0.9995 if when.minute in (20, 50) else None
        return bk.Signal(
            position="long",
            price_take_profit=p * 1.02,
            price_stop_loss=p * 0.98,
            minute_estimated_time=15,
            price_open=entry,
        )

    bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)


async def test_every_minute_is_told_once_in_order_with_its_own_now():
    told = []

    async def slow(tick):
        await asyncio.sleep(0)
        assert bk.get_date().timestamp() * 1000 == tick.timestamp
        window = await bk.get_candles("BTCUSDT", "1m", 2)
        assert int(window.timestamp[-1]) + 60_000 == tick.timestamp
        told.append(tick)

    errors = []
    bk.listen_error(errors.append)
    bk.listen_signal_backtest(slow)
    bk.Backtest.run_sync("BTCUSDT", **NAMES)
    assert not errors
    times = [tick.timestamp for tick in told]
    assert times == sorted(times)
    first, last = times[0], times[-1]
    assert set(times) == set(range(first, last + 1, 60_000)), "no minute is missing"
    assert {tick.action for tick in told} >= {
        "idle",
        "opened",
        "active",
        "closed",
        "scheduled",
        "waiting",
    }
    for tick in told:
        assert bk.tick_from_json(tick.to_json()) == tick


async def test_a_listener_that_raises_stops_nobody():
    told, errors = [], []

    def broken(tick):
        raise KeyError("listener")

    bk.listen_signal(broken)
    bk.listen_signal(told.append)
    bk.listen_error(errors.append)
    bk.listen_error(broken)
    quiet = len(bk.Backtest.run_sync("BTCUSDT", **NAMES))
    assert quiet == sum(tick.action == "closed" for tick in told)
    assert len(errors) == len(told)
    assert errors[0].where == "a listener of signal"
    assert errors[0].symbol == "BTCUSDT"


async def test_calls_of_one_listener_never_overlap_and_the_run_waits_for_them():
    running, told = 0, []

    async def listener(tick):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001)
        running -= 1
        told.append(tick.timestamp)

    def closed(tick):
        return tick.action == "closed"

    errors = []
    bk.listen_error(errors.append)
    bk.listen_signal(listener)
    results = [tick async for tick in bk.Backtest.run("BTCUSDT", **NAMES)]
    assert not errors
    assert len(told) > 500
    assert results


async def test_once_and_unsubscribe():
    opened, none = [], []
    bk.listen_signal_once(lambda tick: tick.action == "opened", opened.append)
    stop = bk.listen_signal(none.append)
    stop()
    bk.Backtest.run_sync("BTCUSDT", **NAMES)
    assert [tick.action for tick in opened] == ["opened"]
    assert none == []


async def test_callbacks_are_awaited_and_guarded():
    told, errors = [], []

    async def on_open(tick):
        await asyncio.sleep(0)
        told.append(("open", tick.signal.id))
        raise OSError("user code")

    def on_close(tick):
        told.append(("close", tick.signal.id))

    schema = bk.list_strategies()[0]
    bk.add_strategy(
        strategy_name="c",
        interval="1m",
        get_signal=schema.get_signal,
        callbacks={"on_open": on_open, "on_close": on_close},
    )
    bk.listen_error(errors.append)
    results = bk.Backtest.run_sync("BTCUSDT", **(NAMES | {"strategy_name": "c"}))
    assert [x for x in told if x[0] == "close"] == [("close", r.signal.id) for r in results]
    assert [x[0] for x in told] == ["open", "close"] * len(results)
    assert {e.where for e in errors} == {"callback on_open"}
    assert len({r.signal.id for r in results}) == len(results), "ids are distinct"


async def test_progress_done_performance():
    progress, done, performance = [], [], []
    bk.listen_backtest_progress(progress.append)
    bk.listen_done_backtest(done.append)
    bk.listen_performance(performance.append)
    await bk.Backtest.background("BTCUSDT", **NAMES)
    shares = [event.progress for event in progress]
    assert shares == sorted(shares)
    assert (shares[-1], progress[-1].processed_frames, progress[-1].total_frames) == (1.0, 501, 501)
    assert len(done) == 1
    kinds = {event.metric_type for event in performance}
    assert kinds == {"backtest_total", "backtest_timeframe", "backtest_signal"}
    assert all(event.duration >= 0 for event in performance)


async def test_background_stop_status_and_exit():
    exits, done = [], []
    bk.listen_exit(exits.append)
    bk.listen_done_backtest(done.append)
    task = bk.Backtest.background("BTCUSDT", **NAMES)
    assert task.status == "running"
    task.stop()
    assert task.status == "stopping"
    await task
    assert task.status == "done"
    assert not bk.Backtest.get_data("BTCUSDT", strategy_name="s").complete

    def down(symbol, interval, since, limit):
        raise OSError("no network")

    bk.add_exchange(exchange_name="down", get_candles=down)
    failing = bk.Backtest.background("BTCUSDT", **(NAMES | {"exchange_name": "down"}))
    with pytest.raises(bk.FetchError, match="no network"):
        await failing
    assert failing.status == "failed"
    assert [type(event.error) for event in exits] == [bk.FetchError]
    assert len(done) == 2, "done is told after a failure as well"


async def test_an_event_that_nobody_waits_for_is_not_built(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("built")

    monkeypatch.setattr("backtest_kit._backtest.driver.TickIdle", forbidden)
    for name in ("TickActive", "TickWaiting"):
        monkeypatch.setattr(f"backtest_kit._rules.transitions.{name}", forbidden)
    for name in ("ProgressEvent", "PerformanceEvent", "DoneEvent"):
        monkeypatch.setattr(f"backtest_kit._engine.run.{name}", forbidden)
    assert bk.Backtest.run_sync("BTCUSDT", **NAMES)


async def test_a_listener_may_run_a_backtest_itself():
    inner = []

    async def again(event):
        bk.listen_done_backtest_once(lambda e: False, print)
        if not inner:
            inner.append(None)
            inner[0] = [t async for t in bk.Backtest.run("OTHER", **NAMES)]

    bk.listen_done_backtest(again)
    await asyncio.wait_for(bk.Backtest.background("BTCUSDT", **NAMES), PATIENCE)
    assert inner[0]


async def test_listening_changes_no_trade():
    quiet = bk.Backtest.run_sync("BTCUSDT", **NAMES)
    bk.listen_signal(lambda tick: None)
    assert bk.Backtest.run_sync("BTCUSDT", **NAMES) == quiet


async def test_a_backtest_is_stopped_by_its_name_and_the_done_listener_knows_the_mode():
    told = []
    bk.listen_done_backtest(lambda event: told.append((bk.get_mode(), bk.get_context().symbol)))
    task = bk.Backtest.background("BTCUSDT", **NAMES)
    with pytest.raises(bk.UnknownNameError, match=r"no backtest of s on OTHER .*s BTCUSDT"):
        bk.Backtest.stop("OTHER", strategy_name="s")
    bk.Backtest.stop("BTCUSDT", strategy_name="s", frame_name="f")
    await task
    assert not bk.Backtest.get_data("BTCUSDT", strategy_name="s").complete
    assert told == [("backtest", "BTCUSDT")]
    with pytest.raises(bk.UnknownNameError, match=r"running: nothing"):
        bk.Backtest.stop("BTCUSDT", strategy_name="s")

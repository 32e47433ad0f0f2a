"""Listeners, callbacks and consumers that never return, and live runs that go on without them."""

import asyncio
import threading

import pytest

import backtest_kit as bk
from backtest_kit._engine.backlog import MOST_EVENTS, Backlog
from backtest_kit.testing import MemoryAdapter
from live.world import BRACKET, T0, Stage, clock, flat, once, running
from markets import MINUTE

ENTRY, STOP_LOSS = T0 + 3 * MINUTE, T0 + 13 * MINUTE
SYMBOLS = [f"S{i}" for i in range(30)]


def falling():
    """A flat market that falls through the stop at the candle that closes at `STOP_LOSS`."""
    rows = flat()
    for i in range(112, 118):
        rows[i] = (rows[i][0], 80.0, 80.1, 79.9, 80.0, 50.0)
    return rows


class Blocked:
    """Sync code that does not return before the test ends, or async code that never does."""

    def __init__(self):
        self.released = threading.Event()
        self.calls = 0

    def sync(self, event):
        self.calls += 1
        self.released.wait(50)

    async def hang(self, event):
        self.calls += 1
        await asyncio.Event().wait()


@pytest.fixture
def blocked():
    found = Blocked()
    yield found
    found.released.set()


@pytest.fixture
def stage():
    return Stage(falling(), answer=once(ENTRY, minute_estimated_time=60))


ATTACKS = [
    "async listener",
    "sync listener",
    "async callback",
    "sync callback",
    "named listener",
    "consumer",
    "error listener",
]


def attack(kind, stage, blocked):
    """Let one kind of code hang; return the symbols whose consumer does."""
    function = blocked.sync if kind.startswith(("sync", "error")) else blocked.hang
    if "callback" in kind:
        (schema,) = bk.list_strategies()
        bk.add_strategy(
            strategy_name="s",
            interval="1m",
            get_signal=schema.get_signal,
            callbacks={"on_open": function, "on_tick": function},
            replace=True,
        )
    elif kind == "named listener":
        bk.listen_transitions(function, name="telegram")
    elif kind == "error listener":
        bk.listen_error(function)
        bk.listen_signal_live(lambda tick: 1 / 0)
    elif kind != "consumer":
        bk.listen_signal_live(function)
    # sync code is called in threads, as by the real clock
    stage.world.waits_for_threads = "sync" in kind or "error" in kind
    return SYMBOLS if kind == "consumer" else ()


@pytest.mark.parametrize("kind", ATTACKS)
def test_what_never_returns_stops_no_trading_and_no_stop(kind, engine, stage, blocked):
    behind = []

    async def on_error(event):
        if isinstance(event.error, bk.ListenerBehindError | bk.CallbackTimeoutError):
            behind.append(str(event.error))

    bk.listen_error(on_error)
    hanging = attack(kind, stage, blocked)

    async def consume(symbol):
        async for _ in bk.Live.run(symbol, strategy_name="s", exchange_name="venue"):
            blocked.calls += 1
            await asyncio.Event().wait()

    async def main():
        tasks = [stage.task(symbol) for symbol in SYMBOLS if symbol not in hanging]
        consumers = [asyncio.ensure_future(consume(symbol)) for symbol in hanging]
        async with running(*tasks, *consumers):
            await stage.world.until(STOP_LOSS + 10_000)
            found = {symbol: bk.Live.get_data(symbol, strategy_name="s") for symbol in SYMBOLS}
            await stage.world.until(STOP_LOSS + 10 * MINUTE + 10_000)
            asked = stage.world.now
            for symbol in SYMBOLS:
                bk.Live.stop(symbol, strategy_name="s")
            for task in tasks:
                await task
            while engine.live.running:
                await asyncio.sleep(0.1)
        return found, stage.world.now - asked

    found, took = stage.world.run(main())
    for symbol in SYMBOLS:
        data = found[symbol]
        (trade,) = data.signals
        assert (trade.close_timestamp, trade.close_reason) == (STOP_LOSS, "stop_loss")
        assert data.missed == 0
    assert took <= 40_000, "stopping waits for a while, not for ever"
    assert blocked.calls
    if kind != "consumer":
        assert behind, "it is told of"


def test_what_is_left_of_many_events_is_bounded_and_the_newest_states(stage):
    """One that comes back after twenty minutes finds the newest state, and every transition."""
    heard, gate = [], []

    async def slow(tick):
        gate.append(tick)
        if len(gate) == 1:
            await asyncio.sleep(1200)
        heard.append(tick)

    bk.listen_signal_live(slow)
    stage.play(T0 + 25 * MINUTE)
    assert [t.action for t in heard if t.action not in ("idle", "active")] == ["opened", "closed"]
    assert len(heard) < 12, "idle and active results stood for those before them"
    times = [tick.timestamp for tick in heard]
    assert times == sorted(times)
    assert len(stage.told) > 20


def test_a_burst_of_other_events_is_dropped_and_counted():
    backlog = Backlog()
    for i in range(MOST_EVENTS + 240):
        backlog.add(f"event {i}", None, 0.0)
    assert len(backlog) == MOST_EVENTS
    assert backlog.behind == MOST_EVENTS + 240
    assert backlog.complaint(1.0) is None, "a burst is none of its fault"
    assert "is 1,240 events behind, of which 240 were dropped" in backlog.complaint(11.0)
    assert backlog.complaint(12.0) is None, "told once, and again when it has doubled"
    while backlog:
        backlog.take(0.0)
        backlog.told()
    assert (backlog.behind, backlog.lost, backlog.dropped) == (0, 0, 240)


def test_sync_listeners_in_threads_see_the_run_and_the_market():
    stage = Stage(flat(), answer=once(ENTRY, minute_estimated_time=3))
    stage.world.waits_for_threads = True
    seen, loop_thread = [], threading.current_thread()

    def listener(tick):
        price = bk.average_price("X")
        window = bk.candles("X", "5m", 3)
        assert threading.current_thread() is not loop_thread
        seen.append(
            (
                bk.get_mode(),
                bk.get_context().symbol,
                bk.get_date().timestamp() * 1000 == tick.timestamp,
                len(window),
                round(price),
            )
        )

    bk.listen_signal_live(listener)

    async def main():
        task = stage.task()
        async with running(task):
            for minute in range(8):
                await stage.world.until(T0 + minute * MINUTE + 10_000)
                while len(seen) <= minute:
                    # a thread's work takes no time by this clock
                    await asyncio.to_thread(threading.Event().wait, 0.01)
            task.stop()
            await task

    stage.world.run(main())
    # this clock leaps while threads work: they may seem slow, nothing else may be wrong
    assert not [e for e in stage.errors if not isinstance(e.error, bk.ListenerBehindError)]
    assert {*seen} == {("live", "X", True, 3, 100)}


def test_a_replay_waits_for_its_listeners_but_not_once_it_is_stopped():
    blocked = Blocked()
    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(5000)))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    bk.listen_signal_live(blocked.hang)

    async def main():
        task = bk.Live.background(
            "X", strategy_name="s", exchange_name="frame", clock=clock(50, 4000)
        )
        while not blocked.calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        data = bk.Live.get_data("X", strategy_name="s")
        assert task.status == "running"
        assert data.steps < 3900, "it waits"
        task.stop()
        async with asyncio.timeout(30):
            await task

    asyncio.run(main())
    assert blocked.calls == 1


def test_a_consumer_that_comes_back_gets_every_result_in_order():
    got = []
    stage = Stage(
        flat(),
        answer=lambda at, price: BRACKET | {"minute_estimated_time": 2} if at >= ENTRY else None,
    )

    async def consume():
        async for tick in bk.Live.run("X", strategy_name="s", exchange_name="venue"):
            got.append(tick)
            if len(got) == 1:
                await asyncio.sleep(20 * 60)

    async def main():
        task = asyncio.ensure_future(consume())
        async with running(task):
            await stage.world.until(T0 + 30 * MINUTE)

    stage.world.run(main())
    assert [t.action for t in got[:4]] == ["opened", "closed", "opened", "closed"]
    assert got == stage.transitions()[: len(got)]
    assert len(got) > 15

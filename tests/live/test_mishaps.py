"""What goes wrong around a live run at the worst moment, and must not end or mislead it."""

import asyncio
import contextlib
import sqlite3
import threading
import time

import pytest

import backtest_kit as bk
from backtest_kit._live.stored import stored_runs
from backtest_kit._state.files import FileAdapter
from backtest_kit._state.lock import OwnerLock
from backtest_kit._state.sqlite import SqliteAdapter
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from live.world import T0, Stage, flat, running
from markets import MINUTE, START

BRACKET = {"position": "long", "price_take_profit": 110.0, "price_stop_loss": 90.0}


def once(at, **fields):
    signal = BRACKET | {"minute_estimated_time": 30} | fields
    return lambda when, price: bk.Signal(**signal) if when == at else None


def clock(since, until, **options):
    return bk.VirtualClock(
        to_datetime(START + since * MINUTE), to_datetime(START + until * MINUTE), **options
    )


def test_a_series_whose_first_request_failed_is_asked_for_again():
    stage = Stage(flat(), get_candles_retry_delay_ms=10)
    honest, asked, seen = stage.venue.get_candles, [], []

    async def get_candles(symbol, interval, since, limit):
        if interval == "5m" and stage.world.now < T0 + 3 * MINUTE:
            raise ConnectionError("503")
        return await honest(symbol, interval, since, limit)

    async def get_signal(symbol, when):
        asked.append(when)
        seen.append(await bk.get_candles(symbol, "5m", 5))

    bk.add_exchange(exchange_name="shaky", get_candles=get_candles)
    bk.add_strategy(strategy_name="t", interval="1m", get_signal=get_signal)

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="shaky")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)

    stage.world.run(main())
    assert len(asked) >= 9
    assert len(seen) >= 6


def test_a_candle_of_a_long_interval_that_is_late_is_asked_for_each_minute():
    start = START + 117 * MINUTE
    stage = Stage(flat(), start=start)
    honest, good, bad = stage.venue.get_candles, [], []

    async def get_candles(symbol, interval, since, limit):
        candles = await honest(symbol, interval, since, limit)
        late = START + 120 * MINUTE <= stage.world.now < START + 120 * MINUTE + 40_000
        if interval == "1h" and late:
            return [candle for candle in candles if candle.timestamp < START + 60 * MINUTE]
        return candles

    async def get_signal(symbol, when):
        try:
            await bk.get_candles(symbol, "1h", 1)
            good.append(when)
        except bk.DataRangeError:
            bad.append(when)

    bk.add_exchange(exchange_name="late", get_candles=get_candles)
    bk.add_strategy(strategy_name="t", interval="1m", get_signal=get_signal)

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="late")
        async with running(task):
            await stage.world.until(START + 130 * MINUTE)

    stage.world.run(main())
    assert bad == [to_datetime(START + 120 * MINUTE)]
    assert to_datetime(START + 121 * MINUTE) in good


def test_a_clock_that_jumps_ahead_and_comes_back_stalls_nothing():
    stage = Stage(flat(3000), answer=once(T0 + MINUTE))

    def jump(ms):
        return lambda task: setattr(stage.world, "skew", ms)

    moves = [(T0 + 3 * MINUTE + 20_000, jump(600 * MINUTE)), (T0 + 5 * MINUTE + 20_000, jump(0))]
    stage.play(T0 + 60 * MINUTE, moves)
    opened, closed = (t for t in stage.told if t.action in ("opened", "closed"))
    assert closed.close_timestamp - opened.timestamp == 30 * MINUTE


def played(state_dir, *, cut):
    """A run on recorded candles, cancelled inside `on_open` where `cut`; what it told."""
    told, reached = [], asyncio.Event()
    rows = flat(300)
    # the candle before the entry touches the stop
    rows[50] = (rows[50][0], 100.0, 100.1, 89.0, 100.0, 1e-9)

    async def on_open(tick):
        if cut:
            reached.set()
            await asyncio.sleep(60)

    def on_tick(tick):
        if tick.action in ("opened", "closed"):
            told.append((tick.action, tick.timestamp, getattr(tick, "close_reason", None)))

    def get_signal(symbol, when):
        if when == to_datetime(START + 51 * MINUTE):
            return BRACKET | {"minute_estimated_time": 30}
        return None

    with bk.Engine():
        bk.set_config(state_dir=str(state_dir), exit_trigger="wick")
        bk.add_exchange(bk.exchanges.FrameExchange(rows))
        bk.add_strategy(
            strategy_name="s",
            interval="1m",
            get_signal=get_signal,
            callbacks={"on_open": on_open, "on_tick": on_tick},
        )

        async def main():
            task = bk.Live.background(
                "X", strategy_name="s", exchange_name="frame", clock=clock(40, 200)
            )
            if cut:
                await reached.wait()
                task.cancel()
            with pytest.raises(asyncio.CancelledError) if cut else contextlib.nullcontext():
                await task

        asyncio.run(main())
    return told


def test_a_run_cancelled_within_a_step_does_not_do_it_again(tmp_path):
    calm = played(tmp_path / "calm", cut=False)
    assert [each[0] for each in calm] == ["opened", "closed"]
    played(tmp_path / "cut", cut=True)
    (run,) = stored_runs(FileAdapter(tmp_path / "cut"))
    assert run.state.at == run.state.signal.pending_at
    assert played(tmp_path / "cut", cut=False) == calm


def test_a_run_cancelled_inside_a_check_takes_no_slot_with_it():
    inside, opened = asyncio.Event(), []

    async def one_at_a_time(check):
        if check.symbol == "A":
            inside.set()
            await asyncio.sleep(60)
        return None if check.active_count < 1 else "full"

    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_risk(risk_name="r", validations=[one_at_a_time])
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 5},
        risk_name="r",
        callbacks={"on_open": opened.append},
    )

    async def main():
        names = {"strategy_name": "s", "exchange_name": "frame", "clock": clock(50, 100)}
        first, second = (bk.Live.background(symbol, **names) for symbol in "AB")
        await inside.wait()
        first.cancel()
        await second

    asyncio.run(main())
    assert len(opened) >= 8
    assert {tick.symbol for tick in opened} == {"B"}


def test_asking_a_paced_replay_to_stop_again_and_again_does_not_hold_it_up():
    told, asked = [], []
    bk.listen_signal_live(told.append)
    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(
        strategy_name="s",
        interval="1m",
        get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 10},
    )

    async def main():
        task = bk.Live.background(
            "X", strategy_name="s", exchange_name="frame", clock=clock(50, 250, speed=300)
        )
        while not any(tick.action == "opened" for tick in told):
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):  # ten minutes of the signal are two seconds
            while task.status in ("running", "stopping"):
                task.stop()
                asked.append(task.status)
                await asyncio.sleep(0.1)
        await task

    asyncio.run(main())
    assert asked.count("stopping") > 5
    (closed,) = (tick for tick in told if tick.action == "closed")
    assert closed.close_timestamp - closed.signal.pending_at == 10 * MINUTE


def test_errors_of_on_candle_data_are_events():
    stage = Stage(flat(), answer=once(T0 + MINUTE, minute_estimated_time=5))

    def on_candle_data(*arguments):
        raise RuntimeError("a slip")

    bk.add_exchange(
        exchange_name="told",
        get_candles=stage.venue.get_candles,
        callbacks={"on_candle_data": on_candle_data},
    )

    async def main():
        task = bk.Live.background("X", strategy_name="s", exchange_name="told")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)
            assert task.status == "running"

    stage.world.run(main())
    assert [t.action for t in stage.told if t.action in ("opened", "closed")] == [
        "opened",
        "closed",
    ]
    assert {event.where for event in stage.errors} == {"callback on_candle_data"}


@pytest.mark.parametrize("mode", ["live", "backtest"])
def test_user_code_that_waits_for_a_cancelled_task_is_an_error_of_its_step(mode):
    asked, errors = [], []

    async def get_signal(symbol, when):
        asked.append(when)
        if len(asked) == 3:
            task = asyncio.create_task(asyncio.sleep(9))
            task.cancel()
            await task

    bk.use_persist_adapter(MemoryAdapter())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=get_signal)
    bk.listen_error(errors.append)
    names = {"strategy_name": "s", "exchange_name": "frame"}
    if mode == "live":

        async def main():
            await bk.Live.background("X", **names, clock=clock(50, 80))

        asyncio.run(main())
    else:
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=to_datetime(START + 50 * MINUTE),
            end_date=to_datetime(START + 80 * MINUTE),
        )
        bk.Backtest.run_sync("X", **names, frame_name="f")
    assert len(asked) == 31
    (event,) = errors
    assert event.where == "get_signal"
    assert "raised CancelledError" in str(event.error)


@pytest.mark.parametrize("left", ["an empty file", "a file without its table"])
def test_a_state_whose_first_write_was_killed_can_be_started_again(tmp_path, left):
    path = tmp_path / "state.db"
    if left == "an empty file":
        path.touch()
    else:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    adapter = SqliteAdapter(path)
    assert adapter.list("run") == []
    assert adapter.read("run", "x") is None
    adapter.write("run", "x", b"{}")
    assert adapter.read("run", "x") == b"{}"
    adapter.release()


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


class Slow(Plain):
    """Writes in a thread, and takes its time; notes two writes at once."""

    def __init__(self):
        super().__init__()
        self.busy, self.clashes, self.writing = 0, 0, threading.Event()

    def write(self, kind, key, document):
        self.busy += 1
        self.clashes += self.busy > 1
        if b'"signal":{' in document:
            self.writing.set()
            time.sleep(0.3)
        super().write(kind, key, document)
        self.busy -= 1


def test_a_write_that_was_cancelled_is_over_before_the_next_and_counts():
    adapter = Slow()
    with bk.Engine() as engine:
        bk.use_persist_adapter(adapter)
        bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
        bk.add_risk(risk_name="r", validations=[lambda check: None])
        bk.add_strategy(
            strategy_name="s",
            interval="1m",
            get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 5},
            risk_name="r",
        )

        async def main():
            task = bk.Live.background(
                "X", strategy_name="s", exchange_name="frame", clock=clock(50, 100)
            )
            while not adapter.writing.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        (record,) = engine.records.all()
    assert adapter.clashes == 0
    (run,) = stored_runs(adapter)
    assert run.state.signal is not None
    assert run.state.at == run.state.signal.pending_at
    assert record is not None


class Gate(Plain):
    """Holds one of its calls until it is let go, in a thread."""

    def __init__(self, name):
        super().__init__()
        self.name, self.taken = name, 0
        self.inside, self.go = threading.Event(), threading.Event()

    def _pass(self, name):
        if name == self.name:
            self.inside.set()
            self.go.wait(10)
            self.name = None

    def acquire(self):
        self._pass("acquire")
        self.taken += 1

    def release(self):
        self.taken -= 1

    def read(self, kind, key):
        if kind == "run":
            self._pass("read")
        return super().read(kind, key)


@pytest.mark.parametrize("name", ["acquire", "read"])
def test_a_run_cancelled_while_it_enters_can_be_started_again(name):
    adapter = Gate(name)
    bk.use_persist_adapter(adapter)
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)

    async def main():
        def start():
            return bk.Live.background(
                "X", strategy_name="s", exchange_name="frame", clock=clock(50, 60)
            )

        task = start()
        while not adapter.inside.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.05)
        adapter.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert adapter.taken == 0
        await start()
        assert adapter.taken == 0

    asyncio.run(main())


class Stuck(Plain):
    def acquire(self):
        pass

    def release(self):
        raise ConnectionError("the line is dead")


def test_a_state_that_can_not_be_given_back_does_not_hide_how_the_run_ended():
    done, errors = [], []
    bk.use_persist_adapter(Stuck())
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    bk.listen_done_live(done.append)
    bk.listen_error(errors.append)

    async def main():
        await bk.Live.background("X", strategy_name="s", exchange_name="frame", clock=clock(50, 60))

    asyncio.run(main())
    assert len(done) == 1
    assert "the line is dead" in str(errors[-1].error)


def test_a_lock_whose_note_can_not_be_written_is_given_back(tmp_path, monkeypatch):
    lock = OwnerLock(tmp_path / "lock")
    (tmp_path / "lock.owner").mkdir()
    with pytest.raises(OSError, match=r"lock\.owner"):
        lock.acquire()
    (tmp_path / "lock.owner").rmdir()
    other = OwnerLock(tmp_path / "lock")
    other.acquire()
    other.release()


def test_a_check_that_takes_longer_than_the_minute_opens_nothing():
    async def slow(check):
        await asyncio.sleep(150)

    stage = Stage(flat(), answer=once(T0 + MINUTE))
    bk.add_risk(risk_name="r", validations=[slow])
    answer = once(T0 + MINUTE)
    bk.add_strategy(
        strategy_name="t",
        interval="1m",
        get_signal=lambda symbol, when: answer(round(when.timestamp() * 1000), 100.0),
        risk_name="r",
    )

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="venue")
        async with running(task):
            await stage.world.until(T0 + 10 * MINUTE)

    stage.world.run(main())
    assert not [tick for tick in stage.told if tick.action == "opened"]
    assert any("the chance has gone" in str(event.error) for event in stage.errors)


class Full(MemoryAdapter):
    """A disk that is full at times."""

    full = False

    async def write(self, kind, key, document):
        if self.full and kind == "run":
            raise OSError(28, "No space left on device")
        await super().write(kind, key, document)


def test_stopping_with_a_full_disk_is_tried_again():
    stage = Stage(flat(), answer=once(T0 + MINUTE, price_open=95.0))
    adapter = Full()
    bk.use_persist_adapter(adapter)

    async def main():
        task = stage.task()
        await stage.world.until(T0 + 3 * MINUTE)
        adapter.full = True
        task.stop()
        await stage.world.until(T0 + 5 * MINUTE + 30_000)
        assert task.status == "stopping"
        adapter.full = False
        await task

    stage.world.run(main())
    actions = [tick.action for tick in stage.told if tick.action in ("scheduled", "cancelled")]
    assert actions == ["scheduled", "cancelled"]
    assert stage.told[-1].reason == "user"


def spike(minute):
    rows = flat()
    rows[minute] = (rows[minute][0], 112.0, 112.0, 112.0, 112.0, 1e6)
    return rows


def test_a_run_whose_first_writes_failed_is_followed_after_a_restart():
    stage = Stage(spike(110), answer=once(T0 + 2 * MINUTE, minute_estimated_time=60))
    adapter = Full()
    bk.use_persist_adapter(adapter)

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 20_000)
            adapter.full = True
            await stage.world.until(T0 + MINUTE + 30_000)
            adapter.full = False
            await stage.world.until(T0 + 5 * MINUTE)
        await stage.world.until(T0 + 20 * MINUTE)
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 30 * MINUTE)

    stage.world.run(main())
    (closed,) = (tick for tick in stage.told if tick.action == "closed")
    assert closed.close_reason == "take_profit"
    assert closed.close_timestamp == T0 + 11 * MINUTE


def test_an_older_copy_of_the_state_is_followed_from_its_own_time():
    stage = Stage(spike(110), answer=once(T0 + MINUTE, minute_estimated_time=60))

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 5 * MINUTE)
            copy = dict(stage.adapter.documents)
            await stage.world.until(T0 + 20 * MINUTE)
        before = len(stage.told)
        for (kind, key), document in copy.items():
            if kind == "run":
                await stage.adapter.write(kind, key, document)
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 25 * MINUTE)
        return stage.told[before:]

    again = stage.world.run(main())
    (closed,) = (tick for tick in again if tick.action == "closed")
    assert closed.close_timestamp == T0 + 11 * MINUTE


def test_a_kill_while_catching_up_loses_no_missed_step():
    stage = Stage(flat(), answer=once(T0 + MINUTE, minute_estimated_time=20))
    stored = []

    class Noting(MemoryAdapter):
        async def write(self, kind, key, document):
            await super().write(kind, key, document)
            if kind == "run":
                stored.append(dict(self.documents))

    adapter = Noting()
    bk.use_persist_adapter(adapter)

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 5 * MINUTE)
        await stage.world.until(T0 + 60 * MINUTE)
        began = len(stored)
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 60 * MINUTE + 30_000)
            whole = bk.Live.get_data("X", strategy_name="s").missed
        return whole, stored[began:]

    whole, states = stage.world.run(main())
    assert whole >= 54
    assert states
    for documents in states:  # as if killed right after each write
        with bk.Engine():
            again = Stage(flat(), start=T0 + 61 * MINUTE)
            again.adapter.documents.update(documents)

            async def resume(again=again):
                task = again.task()
                async with running(task):
                    await again.world.until(T0 + 61 * MINUTE + 30_000)
                    return bk.Live.get_data("X", strategy_name="s").missed

            assert again.world.run(resume()) >= whole


def test_stopping_during_the_check_of_an_activation_drops_the_signal():
    rows = flat()
    rows[104:] = [(row[0], 95.0, 95.1, 94.9, 95.0, 1.0) for row in rows[104:]]
    stage = Stage(rows)
    answer = once(T0 + MINUTE, price_open=96.0)

    inside = asyncio.Event()

    async def slow(check):
        if stage.world.now > T0 + 4 * MINUTE:
            inside.set()
            await asyncio.sleep(30)

    bk.add_risk(risk_name="r", validations=[slow])
    bk.add_strategy(
        strategy_name="t",
        interval="1m",
        get_signal=lambda symbol, when: answer(round(when.timestamp() * 1000), 100.0),
        risk_name="r",
    )

    async def main():
        task = bk.Live.background("X", strategy_name="t", exchange_name="venue")
        await inside.wait()
        task.stop()
        await task

    stage.world.run(main())
    actions = [tick.action for tick in stage.told if tick.action not in ("idle", "active")]
    assert actions[0] == "scheduled"
    assert actions[-1] == "cancelled"
    assert "opened" not in actions
    assert stage.told[-1].reason == "user"


def test_an_adapter_that_raises_a_cancellation_is_an_error_of_the_state():
    class Odd(MemoryAdapter):
        async def write(self, kind, key, document):
            if b'"sequence":1' in document:
                raise asyncio.CancelledError
            await super().write(kind, key, document)

    stage = Stage(flat(), answer=once(T0 + MINUTE))
    bk.use_persist_adapter(Odd())

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 5 * MINUTE)
            assert task.status == "running"

    stage.world.run(main())
    assert any(isinstance(event.error, bk.StateError) for event in stage.errors)

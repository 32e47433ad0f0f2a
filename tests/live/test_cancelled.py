"""Runs that are cancelled anywhere, and code that cancels: nothing is lost or done twice."""

import asyncio
import contextlib
import threading
import time

import pytest

import backtest_kit as bk
from backtest_kit._live.stored import stored_runs
from backtest_kit._state.files import FileAdapter
from backtest_kit._values.time import to_datetime
from backtest_kit.testing import MemoryAdapter
from command import PATIENCE
from live.world import BRACKET, T0, Plain, Stage, clock, flat, once, running
from markets import MINUTE, START

pytestmark = pytest.mark.usefixtures("asyncio_debug")


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
            self.go.wait(PATIENCE)
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


def test_an_adapter_that_raises_a_cancellation_is_an_error_of_the_state():
    class Odd(MemoryAdapter):
        async def write(self, kind, key, document):
            if b'"sequence":1' in document:
                raise asyncio.CancelledError
            await super().write(kind, key, document)

    stage = Stage(flat(), answer=once(T0 + MINUTE, minute_estimated_time=30))
    bk.use_persist_adapter(Odd())

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 5 * MINUTE)
            assert task.status == "running"

    stage.world.run(main())
    assert any(isinstance(event.error, bk.StateError) for event in stage.errors)


@pytest.mark.parametrize("name", ["acquire", "read", "write", "release"])
@pytest.mark.parametrize("times", [2, 3])
def test_a_second_cancel_during_a_call_of_the_state_leaks_no_lock(name, times, tmp_path):
    """It used to give up waiting: the lock was held until the process ended."""

    class Held(FileAdapter):
        inside, go, holds = threading.Event(), threading.Event(), True

        def _pass(self, called):
            if called == name and Held.holds:
                Held.holds = False
                self.inside.set()
                self.go.wait(10)

        def acquire(self):
            self._pass("acquire")
            super().acquire()

        def read(self, kind, key):
            self._pass("read")
            return super().read(kind, key)

        def write(self, kind, key, document):
            self._pass("write")
            super().write(kind, key, document)

        def release(self):
            self._pass("release")
            super().release()

    bk.use_persist_adapter(Held(tmp_path))
    bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)

    async def main():
        def start(until):
            return bk.Live.background(
                "X", strategy_name="s", exchange_name="frame", clock=clock(50, until)
            )

        task = start(60)
        while not Held.inside.is_set():
            await asyncio.sleep(0.01)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0.02)
        Held.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        other = FileAdapter(tmp_path)
        await asyncio.to_thread(other.acquire)
        await asyncio.to_thread(other.release)
        await start(70)

    asyncio.run(main())


def test_a_program_that_ends_while_a_run_is_being_cancelled_ends_quietly():
    """The end of `asyncio.run` cancels everything again, also who waits for the steps."""
    stage, said = Stage(flat()), []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
        results = bk.Live.run("X", strategy_name="s", exchange_name="venue")
        task = asyncio.ensure_future(anext(results))
        await stage.world.until(T0 + 5 * MINUTE)
        task.cancel()
        await asyncio.sleep(0)

    stage.world.run(main())
    assert not said

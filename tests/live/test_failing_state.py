"""State that can not be written, is half written, old, or is not given back."""

import asyncio
import sqlite3

import pytest

import backtest_kit as bk
from backtest_kit._state.lock import OwnerLock
from backtest_kit._state.sqlite import SqliteAdapter
from backtest_kit.testing import MemoryAdapter
from live.world import T0, Full, Plain, Stage, clock, flat, once, running
from markets import MINUTE

pytestmark = pytest.mark.usefixtures("asyncio_debug")


def test_a_state_whose_first_write_was_killed_can_be_started_again(tmp_path):
    """As release 0.1.0 left it; now a file has its table from the first."""
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    adapter = SqliteAdapter(path)
    assert adapter.list("run") == []
    assert adapter.read("run", "x") is None
    adapter.write("run", "x", b"{}")
    assert adapter.read("run", "x") == b"{}"
    adapter.release()


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


def test_an_older_copy_of_the_state_is_refused_once_then_followed_from_its_own_time():
    stage = Stage(spike(110), answer=once(T0 + MINUTE, minute_estimated_time=60))

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 5 * MINUTE)
            copy = dict(stage.adapter.documents)
            await stage.world.until(T0 + 20 * MINUTE)
        before = len(stage.told)
        ((name, older),) = ((n, document) for n, document in copy.items() if n[0] == "run")
        stage.adapter.documents[name] = older
        with pytest.raises(bk.CorruptStateError, match="is an older copy"):
            await stage.task()
        with pytest.raises(bk.CorruptStateError, match="was moved to"):
            await stage.task()
        stage.adapter.documents[name] = older
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 25 * MINUTE)
        assert any("goes on from an older copy" in text for text in stage.error_texts("state"))
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

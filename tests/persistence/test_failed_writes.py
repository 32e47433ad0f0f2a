"""A write that raised may have been done: what is stored is made sure of, then told."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit._live.stored import stored_runs
from backtest_kit._state import files
from live.world import BRACKET, T0, Plain, Stage, clock, flat, once, running
from markets import MINUTE


class WritesThenRaises:
    """Around an adapter: stores the document of a run that opens a signal, and then raises.

    Of later writes of it as many fail as `more` says, without having stored anything.
    """

    def __init__(self, adapter, more=0):
        self.adapter, self.left, self.log, self.failed = adapter, more + 1, [], False

    def __getattr__(self, name):
        return getattr(self.adapter, name)

    def write(self, kind, key, document):
        opens = kind == "run" and b'"signal":{' in document
        if self.left and kind == "run" and (opens or self.failed):
            self.left -= 1
            self.failed = True
            if opens:
                self.adapter.write(kind, key, document)
            self.log.append("failed")
            raise TimeoutError("no answer in time")
        self.adapter.write(kind, key, document)
        self.log.append("written")


def play(adapter, inner):
    """Run for some minutes; return what was told, each with the signal that is stored then."""
    told, errors = [], []

    async def look(tick):
        (run,) = await asyncio.to_thread(stored_runs, inner)
        adapter.log.append("told")
        told.append((tick.action, run.state.signal is not None))

    with bk.Engine():
        bk.use_persist_adapter(adapter)
        bk.add_exchange(bk.exchanges.FrameExchange(flat(300)))
        bk.add_strategy(
            strategy_name="s",
            interval="1h",
            get_signal=lambda symbol, when: BRACKET | {"minute_estimated_time": 5},
            callbacks={"on_tick": look},
        )
        bk.listen_error(lambda event: errors.append(str(event.error)))

        async def main():
            await bk.Live.background(
                "X", strategy_name="s", exchange_name="frame", clock=clock(50, 70)
            )

        asyncio.run(main())
    return told, errors


MAKERS = {
    "files": lambda folder: bk.FileAdapter(folder / "state"),
    "sqlite": lambda folder: bk.SqliteAdapter(folder / "state.db"),
    "memory": lambda folder: Plain(),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_step_whose_write_failed_is_undone_in_the_store_too(kind, tmp_path):
    inner = MAKERS[kind](tmp_path)
    adapter = WritesThenRaises(inner)
    told, errors = play(adapter, inner)
    assert adapter.log.count("failed") == 1
    assert "no answer in time" in errors[0]
    assert len(told) >= 15
    assert set(told) == {("idle", False)}, "what is told and what is stored agree"


def test_nothing_is_told_before_it_is_known_what_is_stored():
    """Neither the step's document nor the earlier one can be written: the run stands still."""
    inner = Plain()
    adapter = WritesThenRaises(inner, more=4)
    told, errors = play(adapter, inner)
    first, last = adapter.log.index("failed"), len(adapter.log) - adapter.log[::-1].index("failed")
    assert adapter.log[first:last] == ["failed"] * 5
    assert adapter.log[last] == "written"
    assert set(told) == {("idle", False)}
    assert len(errors) >= 4


@pytest.mark.skipif(os.name == "nt", reason="folders can't be flushed there")
def test_a_folder_that_can_not_be_flushed_after_the_rename(tmp_path, monkeypatch):
    """The real system call fails: the new document lies there, and was not told of."""
    inner = bk.FileAdapter(tmp_path / "state")
    flush, failed = files.flush, []

    def broken(folder):
        document = next(folder.glob("*.json"), None)
        if not failed and document is not None and b'"signal":{' in document.read_bytes():
            failed.append(folder)
            raise OSError(5, "Input/output error", str(folder))
        flush(folder)

    monkeypatch.setattr(files, "flush", broken)
    told, errors = play(WritesThenRaises(inner, more=-1), inner)
    assert failed
    assert "Input/output error" in errors[0]
    assert set(told) == {("idle", False)}


def test_a_database_that_could_not_be_opened_is_opened_at_the_next_write(tmp_path, monkeypatch):
    adapter = bk.SqliteAdapter(tmp_path / "state.db")
    connect = sqlite3.connect

    def broken(*arguments, **options):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite3, "connect", broken)
    with pytest.raises(sqlite3.OperationalError):
        adapter.write("run", "x", b"1")
    monkeypatch.setattr(sqlite3, "connect", connect)
    assert adapter.read("run", "x") is None
    adapter.write("run", "x", b"1")
    assert adapter.read("run", "x") == b"1"
    assert not [path for path in Path(tmp_path).iterdir() if path.name.startswith(".")]
    adapter.release()


def test_what_can_not_be_stored_at_all_is_an_error_of_the_state():
    stage = Stage(flat(), answer=once(T0 + 2 * MINUTE, note="\ud800"))

    async def main():
        task = stage.task()
        async with running(task):
            await stage.world.until(T0 + 5 * MINUTE)
            assert task.status == "running"

    stage.world.run(main())
    assert stage.transitions() == []
    assert stage.errors

"""The stores of live state: the suite every adapter must pass, and what is special to each."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit.testing import ADAPTER_CHECKS, HOSTILE_KEYS, MemoryAdapter, check_adapter

MAKERS = {
    "files": lambda folder, shared: lambda: bk.FileAdapter(folder / "state"),
    "sqlite": lambda folder, shared: lambda: bk.SqliteAdapter(folder / "state.db"),
    "memory": lambda folder, shared: lambda: MemoryAdapter(shared),
}


@pytest.mark.parametrize("check", ADAPTER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", MAKERS)
def test_conformance(kind, check, tmp_path):
    check(MAKERS[kind](tmp_path, {}))


class Forgetful(MemoryAdapter):
    async def write(self, kind, key, document):
        if key != "kept":
            await super().write(kind, key, document)


class Careless(MemoryAdapter):
    """Takes keys for file names of a system that ignores case."""

    async def write(self, kind, key, document):
        await super().write(kind, key.lower(), document)

    async def read(self, kind, key):
        return await super().read(kind, key.lower())


@pytest.mark.parametrize("kind", [Forgetful, Careless])
def test_the_suite_finds_bad_adapters(kind):
    shared = {}
    with pytest.raises(AssertionError):
        check_adapter(lambda: kind(shared))


def test_files_stay_in_their_folder_and_say_whose_they_are(tmp_path):
    folder = tmp_path / "state"
    adapter = bk.FileAdapter(folder)
    for key in HOSTILE_KEYS:
        adapter.write("../run", key, b"{}")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(HOSTILE_KEYS)
    assert all(path.is_relative_to(folder) and len(path.name) < 160 for path in files)
    assert all(path.name.isascii() for path in files)
    assert len({path.name.lower() for path in files}) == len(files)
    for path in files:
        assert b'"key":' in path.read_bytes().partition(b"\n")[0]


def test_half_written_files_are_no_documents_and_are_tidied_up(tmp_path):
    adapter = bk.FileAdapter(tmp_path)
    adapter.write("run", "x", b"1")
    (document,) = (tmp_path / "run").iterdir()
    left = document.with_name(f".{document.name}.tmp")
    left.write_bytes(b'{"kind"')
    assert adapter.list("run") == ["x"]
    adapter.acquire()
    assert not left.exists()
    assert adapter.read("run", "x") == b"1"
    adapter.release()


def test_a_damaged_file_is_handed_over_whole(tmp_path):
    adapter = bk.FileAdapter(tmp_path)
    adapter.write("run", "x", b"1")
    Path(adapter.where("run", "x")).write_bytes(b"\x00\xff rubbish\nmore")
    assert adapter.read("run", "x") == b"\x00\xff rubbish\nmore"
    assert adapter.list("run") == []
    ((key, problem),) = adapter.unreadable("run")
    assert key is None
    assert "does not say whose document" in problem


def test_a_write_that_fails_leaves_the_old_document_and_no_litter(tmp_path, monkeypatch):
    adapter = bk.FileAdapter(tmp_path)
    adapter.write("run", "x", b"old")

    def full(handle, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        adapter.write("run", "x", b"new")
    monkeypatch.undo()
    assert adapter.read("run", "x") == b"old"
    assert len([*(tmp_path / "run").iterdir()]) == 1


class Disk:
    """A disk that forgets what was not flushed: what would survive a power cut at any moment."""

    def __init__(self, monkeypatch):
        self.names, self.contents = {}, {}  # durable: folder entries, and files' bytes
        self.open, self.pending = {}, {}
        self.states = []
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}

        def open_(path, flags, *mode):
            handle = real["open"](path, flags, *mode)
            self.open[handle] = str(path)
            return handle

        def fsync(handle):
            path = self.open[handle]
            if Path(path).is_dir():
                for name, target in [*self.pending.items()]:
                    if str(Path(name).parent) == path:
                        self.names[name] = target
            else:
                self.contents[os.fstat(handle).st_ino] = Path(path).read_bytes()
            self.states.append(self.after_a_power_cut())
            real["fsync"](handle)

        def replace(source, target):
            real["replace"](source, target)
            self.pending[str(target)] = Path(target).stat().st_ino
            # a file system may write the name before anyone asks it to
            self.states.append(self.after_a_power_cut() | {str(target): self._content(target)})

        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)

    def _content(self, path):
        return self.contents.get(Path(path).stat().st_ino, b"(lost)")

    def after_a_power_cut(self):
        return {name: self.contents.get(inode, b"(lost)") for name, inode in self.names.items()}


def test_a_power_cut_leaves_the_old_document_or_the_new_one(tmp_path, monkeypatch):
    adapter = bk.FileAdapter(tmp_path)
    disk = Disk(monkeypatch)
    adapter.write("run", "x", b"old")
    path = adapter.where("run", "x")
    assert disk.after_a_power_cut()[path].endswith(b"\nold"), "durable once write returns"
    disk.states.clear()
    adapter.write("run", "x", b"new")
    assert disk.after_a_power_cut()[path].endswith(b"\nnew")
    assert {state[path].rpartition(b"\n")[2] for state in disk.states} == {b"old", b"new"}


HOLD = """
import sys, backtest_kit as bk
adapter = {make}
adapter.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("make", "text"),
    [(bk.FileAdapter, "bk.FileAdapter({!r})"), (bk.SqliteAdapter, "bk.SqliteAdapter({!r})")],
)
def test_a_second_process_is_refused_by_name_until_the_first_is_killed(tmp_path, make, text):
    place = str(tmp_path / "state")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(make=text.format(place))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        adapter = make(place)
        with pytest.raises(bk.StateOwnedError, match=f"process {holder.pid} on .*stop that one"):
            adapter.acquire()
        holder.kill()
        holder.wait()
    adapter.acquire()
    adapter.release()


def test_sqlite_reads_without_making_anything(tmp_path):
    adapter = bk.SqliteAdapter(tmp_path / "state.db")
    assert adapter.list("run") == []
    assert adapter.read("run", "x") is None
    adapter.delete("run", "x")
    assert [*tmp_path.iterdir()] == []


def test_sqlite_is_durable_in_the_strict_sense(tmp_path):
    adapter = bk.SqliteAdapter(tmp_path / "state.db")
    adapter.acquire()
    adapter.write("run", "x", b"1")
    assert adapter._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert adapter._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other = sqlite3.connect(tmp_path / "state.db")
    assert other.execute("SELECT kind, key, document FROM documents").fetchall() == [
        ("run", "x", b"1")
    ]
    other.close()
    adapter.release()


def test_what_is_no_adapter_is_refused():
    with pytest.raises(bk.RegistrationError, match="lacks read, write, delete, list"):
        bk.use_persist_adapter(object())

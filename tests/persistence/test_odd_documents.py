"""What is odd about one document concerns its run alone, and every command says what it is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import backtest_kit as bk
from backtest_kit._live.stored import read_stored
from command import run, run_here
from persistence.test_damage import KEYS, documents, encode, enter, fill

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX files")
ODD = {
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe": lambda path: os.mkfifo(path),
    "deep nesting": lambda path: path.write_bytes(
        path_line(path) + b'{"version":1,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "deep nesting in the first line": lambda path: path.write_bytes(b"[" * 100_000),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00\n\xff"),
    "huge numbers": lambda path: path.write_bytes(
        path_line(path) + b'{"version":' + b"9" * 5000 + b',"data":{}}'
    ),
    "nothing": lambda path: path.write_bytes(b""),
}


def path_line(path):
    return json.dumps({"kind": "run", "key": str(KEYS[0])}, separators=(",", ":")).encode() + b"\n"


@posix
@pytest.mark.parametrize("what", ODD)
def test_one_odd_document_concerns_its_run_alone(what, tmp_path):
    adapter = bk.FileAdapter(tmp_path)
    fill(adapter, KEYS)
    path = Path(adapter.where("run", str(KEYS[0])))
    path.unlink()
    ODD[what](path)
    stored = read_stored(adapter)
    by_key = {run.key: run for run in stored.runs}
    assert by_key[KEYS[1]].state.signal is not None
    assert by_key[KEYS[0]].damage
    assert by_key[KEYS[0]].state is None
    for _ in range(2):
        state, reported = enter(adapter, KEYS[0])
        assert state is None
        assert any(str(path) in str(error) for error in reported)
        state, _ = enter(adapter, KEYS[1])
        assert state.signal is not None


@posix
@pytest.mark.parametrize("what", ["a folder", "a link to nothing", "a pipe"])
def test_an_odd_document_of_a_run_whose_journal_is_empty_is_not_nothing(what, tmp_path):
    """No other document could tell that there was a position."""
    adapter = bk.FileAdapter(tmp_path)
    path = Path(adapter.where("run", str(KEYS[0])))
    path.parent.mkdir()
    ODD[what](path)
    state, reported = enter(adapter, KEYS[0])
    assert state is None
    assert str(path) in str(reported[-1])


@pytest.mark.parametrize("key", ["two/parts", "a/b/c/d/e", "a/b/c%2", "", "a/b/ü"])
@pytest.mark.parametrize("kind", ["run", "run.corrupt"])
def test_a_key_that_is_no_runs_is_reported_and_left_alone(kind, key, tmp_path):
    adapter = bk.FileAdapter(tmp_path)
    fill(adapter)
    adapter.write(kind, key or " ", b"?")
    state, reported = enter(adapter, KEYS[0])
    assert state.signal is not None
    assert "is not the key of a run" in str(reported[0])
    assert any("is not the key of a run" in text for text in read_stored(adapter).problems)
    assert adapter.read(kind, key or " ") == b"?"


@posix
def test_the_commands_say_what_is_wrong_and_show_the_others(tmp_path):
    adapter = bk.FileAdapter(tmp_path / "state")
    fill(adapter, KEYS)
    path = Path(adapter.where("run", str(KEYS[0])))
    path.unlink()
    path.mkdir()
    for arguments in (("state",), ("state", "--json"), ("report", "live")):
        done = run_here(*arguments, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "it is a folder" in done.stderr
        assert "Traceback" not in done.stderr
        assert "Y" in done.stdout
    (tmp_path / "state" / "journal").rename(tmp_path / "journal")
    (tmp_path / "state" / "journal").write_text("mine")
    done = run_here("state", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "it is no folder" in done.stderr


ADAPTER = """
import backtest_kit as bk
from pathlib import Path

class Mine:
    async def read(self, kind, key):
        path = Path("mine") / f"{kind} {key}".encode().hex()
        return path.read_bytes() if path.exists() else None
    async def write(self, kind, key, document):
        (Path("mine") / f"{kind} {key}".encode().hex()).write_bytes(document)
    async def delete(self, kind, key): ...
    async def list(self, kind):
        names = [bytes.fromhex(path.name).decode() for path in Path("mine").iterdir()]
        return sorted(n.partition(" ")[2] for n in names if n.partition(" ")[0] == kind)

bk.use_persist_adapter(Mine())

@bk.strategy("s", interval="1m")
def s(symbol, when): ...
"""


@pytest.mark.parametrize("kind", ["files", "sqlite", "a user's own"])
def test_state_and_report_read_every_kind_of_store(kind, tmp_path):
    place = ("--state", tmp_path / "state")
    if kind == "files":
        fill(bk.FileAdapter(tmp_path / "state"))
    elif kind == "sqlite":
        fill(bk.SqliteAdapter(tmp_path / "state"))
    else:
        (tmp_path / "mine").mkdir()
        (tmp_path / "strategy.py").write_text(ADAPTER)
        place = ("--state-of", "strategy.py")
        for (of, key), document in documents(KEYS[0]).items():
            content = encode(of, key, document)
            (tmp_path / "mine" / f"{of} {key}".encode().hex()).write_bytes(content)
    # what a user's adapter does in the event loop would be taken for this package's
    command = run if kind == "a user's own" else run_here
    (shown,) = json.loads(command("state", *place, "--json", cwd=tmp_path).stdout)
    assert shown["state"]["signal"]["price_open"] == 100.0
    (report,) = json.loads(command("report", "live", *place, "--json", cwd=tmp_path).stdout)
    assert report["signal"] == shown["state"]["signal"]
    both = run_here("state", "--state", ".", "--state-of", "x.py", cwd=tmp_path)
    assert (both.returncode, both.stderr.count("\n")) == (2, 1)


@posix
def test_state_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        files, sqlite = bk.FileAdapter(tmp_path / "files"), bk.SqliteAdapter(tmp_path / "a" / "db")
        for adapter in (files, sqlite):
            adapter.acquire()
            adapter.write("run", "x", b"{}")
        found = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
        for adapter in (files, sqlite):
            adapter.release()
    finally:
        os.umask(before)
    assert len(found) >= 9
    for path, mode in found.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path


HOLD = """
import sys, backtest_kit as bk
adapter = bk.{kind}({place!r})
adapter.acquire()
adapter.write("run", "x", b"1")
print("held", flush=True)
for line in sys.stdin:
    try:
        adapter.write("run", "x", b"2")
        print("written", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


def holder(kind, place):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(kind=kind, place=str(place))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def says(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@posix
@pytest.mark.parametrize("done", ["removed", "replaced", "through a link", "relative"])
@pytest.mark.parametrize("kind", ["FileAdapter", "SqliteAdapter"])
def test_the_lock_holds_whatever_becomes_of_its_file(kind, done, tmp_path, monkeypatch):
    place = tmp_path / "deep" / "state"
    place.parent.mkdir()
    lock = place / "lock" if kind == "FileAdapter" else place.with_name("state.lock")
    other = place
    with holder(kind, place) as process:
        if done == "removed":
            lock.unlink()
        elif done == "replaced":
            lock.unlink()
            lock.touch()
        elif done == "through a link":
            other = tmp_path / "link"
            other.symlink_to(place)
        else:
            monkeypatch.chdir(place.parent)
            other = Path("state")
        with pytest.raises(bk.StateOwnedError, match=f"process {process.pid}"):
            getattr(bk, kind)(other).acquire()
        assert says(process) == "written"
        with pytest.raises(bk.StateOwnedError, match=f"process {process.pid}"):
            getattr(bk, kind)(other).acquire()
        process.kill()
        process.wait()
    adapter = getattr(bk, kind)(other)
    adapter.acquire()
    assert adapter.read("run", "x") == b"2"
    adapter.release()


@posix
@pytest.mark.parametrize("kind", ["FileAdapter", "SqliteAdapter"])
def test_what_was_moved_away_from_under_its_owner_is_written_no_more(kind, tmp_path):
    place = tmp_path / "state"
    with holder(kind, place) as process:
        place.rename(tmp_path / "moved")
        assert says(process) == "OSError"
        process.kill()
        process.wait()
    if kind == "FileAdapter":  # a database has left its log behind
        assert bk.FileAdapter(tmp_path / "moved").read("run", "x") == b"1"


@posix
def test_an_owner_that_lost_every_trace_of_its_lock_stops_writing(tmp_path):
    place = tmp_path / "state"
    with holder("SqliteAdapter", place) as process:
        for name in ("state.lock", "state.lock.owner"):
            (tmp_path / name).unlink()
        second = bk.SqliteAdapter(place)
        second.acquire()
        assert says(process) == "StateOwnedError"
        second.release()
        process.kill()
        process.wait()


@posix
def test_a_database_with_a_second_name_is_refused(tmp_path):
    """SQLite would keep another journal beside each: see sqlite.org/howtocorrupt.html."""
    bk.SqliteAdapter(tmp_path / "a.db").write("run", "x", b"1")
    (tmp_path / "b.db").hardlink_to(tmp_path / "a.db")
    with pytest.raises(OSError, match="another name"):
        bk.SqliteAdapter(tmp_path / "b.db").acquire()


def test_an_empty_database_is_damage(tmp_path):
    (tmp_path / "state.db").touch()
    adapter = bk.SqliteAdapter(tmp_path / "state.db")
    for use in (
        lambda: adapter.list("run"),
        lambda: adapter.read("run", "x"),
        lambda: adapter.write("run", "x", b"1"),
    ):
        with pytest.raises(OSError, match="it is empty, so what it held is lost"):
            use()
    state, reported = enter(adapter, KEYS[0])
    assert state is None
    assert reported


KILL = """
import os, signal, sys
from pathlib import Path
import backtest_kit as bk

def write(place, told):
    adapter = bk.SqliteAdapter(place)
    adapter.acquire()
    for i in range(3):
        adapter.write("run", "x", b"%d" % i)
        os.write(told, b".")
    adapter.release()

for point in range(1, 200):
    folder = Path(sys.argv[1], str(point))
    folder.mkdir()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.environ.update(DOOM=str(point), DOOM_IN=str(folder))
        write(folder / "state.db", writer)
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    told = len(os.read(reader, 10))
    os.close(reader)
    adapter = bk.SqliteAdapter(folder / "state.db")
    found = adapter.read("run", "x")
    assert (0 if found is None else int(found) + 1) >= told, (point, told, found)
    adapter.acquire()
    adapter.write("run", "x", b"9")
    assert adapter.read("run", "x") == b"9"
    adapter.release()
    if status == 0:
        print(point - 1)
        sys.exit()
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


@pytest.fixture
def in_memory(tmp_path):
    """A folder that is no slower than it must be."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=base) as folder:
        yield folder


@pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD")
def test_a_database_killed_at_any_call_can_be_opened_again(tmp_path, record_property, in_memory):
    """SIGKILL at the nth call that writes, flushes or renames, from the very first."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "doom.c", tmp_path / "doom.so"
    source.write_text(DOOM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", KILL, in_memory],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    record_property(
        "measured", f"SQLite: killed at {int(done.stdout)} calls, opened again each time"
    )


def test_a_hot_journal_that_release_0_1_0_left_is_rolled_back(tmp_path):
    """Its first write, killed: the file begun, and the journal to undo it."""
    done = subprocess.run(
        [sys.executable, "-c", HOT, tmp_path / "state.db"], check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "state.db-journal").stat().st_size
    adapter = bk.SqliteAdapter(tmp_path / "state.db")
    assert adapter.read("run", "x") is None
    assert adapter.list("run") == []
    assert not (tmp_path / "state.db").exists(), "or it would be an empty file, which is damage"
    adapter.write("run", "x", b"1")
    assert adapter.read("run", "x") == b"1"
    adapter.release()


HOT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
connection.execute("CREATE TABLE documents (kind TEXT)")
connection.executemany("INSERT INTO documents VALUES (?)", [("x" * 3000,)] * 100)
os.kill(os.getpid(), signal.SIGKILL)
"""
DOOM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/types.h>

static int inside(int fd) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    const char *folder = getenv("DOOM_IN");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}
static void step(void) {
    static int count;
    if (getenv("DOOM") && ++count == atoi(getenv("DOOM"))) kill(getpid(), SIGKILL);
}
#define REAL(name, type) static type real; if (!real) real = (type)dlsym(RTLD_NEXT, name)
typedef ssize_t (*pw)(int, const void *, size_t, off_t);
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
    REAL("pwrite64", pw);
    if (!inside(fd)) return real(fd, data, n, at);
    step();
    real(fd, data, n / 2, at);
    step();
    return real(fd, data, n, at);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }
typedef int (*fs)(int);
int fsync(int fd) { REAL("fsync", fs); if (inside(fd)) step(); return real(fd); }
int fdatasync(int fd) { REAL("fdatasync", fs); if (inside(fd)) step(); return real(fd); }
typedef int (*rn)(const char *, const char *);
int rename(const char *from, const char *to) {
    REAL("rename", rn);
    const char *folder = getenv("DOOM_IN");
    int ours = folder && strncmp(from, folder, strlen(folder)) == 0;
    if (ours) step();
    int result = real(from, to);
    if (ours) step();
    return result;
}
"""

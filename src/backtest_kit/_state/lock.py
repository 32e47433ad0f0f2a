"""A lock that one process at a time holds, and that names its holder to the others."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec
from filelock import FileLock, Timeout

from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import StateOwnedError
from backtest_kit._values.time import iso

#: The notes of the locks that this process holds.
_held_here: set[Path] = set()
#: Of a folder that another process has locked.
_TAKEN: Final = -1
#: The mode of files that are for their owner alone.
PRIVATE: Final = 0o600


class Owner(msgspec.Struct, frozen=True):
    """The process that holds a lock; `since` in milliseconds UTC.

    `lock` is the number of the lock's file, which tells whether it was replaced; 0 if unknown.
    """

    pid: int
    host: str
    since: int
    command: str
    lock: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} ({self.command}), since {iso(self.since)}"

    def alive(self) -> bool | None:
        """Return whether the process still runs, `None` if unknown (another host, Windows)."""
        if self.host != socket.gethostname() or os.name == "nt":
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        except OverflowError:  # no number of a process
            return None
        return True


def this_process(lock: int = 0) -> Owner:
    """Return this process as an owner, of the lock's file with this number."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "python"
    since = wall_ms() // 1000 * 1000
    return Owner(os.getpid(), socket.gethostname(), since, command[:200], lock)


class OwnerLock:
    """A lock that the operating system frees when its process dies, however it dies.

    `path` is the lock's file; a file beside it names the holder. `folder` is locked with it where
    the system can do so, so that removing the file frees nothing.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self._path = path
        self._note = path.with_name(path.name + ".owner")
        self._lock = FileLock(path, mode=PRIVATE, thread_local=False)
        self._folder = folder
        self._handle: int | None = None
        self._held: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StateOwnedError: another process (or engine) has it.
            OSError: the folder can't be written.
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise self._refusal() from None
        try:
            number = self._path.stat().st_ino
            left = self.owner()
            if left is not None and left.lock not in (0, number) and self._lives(left):
                raise self._refusal(
                    f" (its lock file was replaced; if it has ended, delete {self._note})"
                )
            self._handle = None if self._folder is None else _lock_folder(self._folder)
            if self._handle == _TAKEN:
                self._handle = None
                raise self._refusal()
            write_private(self._note, msgspec.json.encode(this_process(number)))
            self._held = identity(self._anchor)
            _held_here.add(self._note.resolve())
        except BaseException:
            self._let_go()
            raise

    def check(self) -> None:
        """Make sure that the lock is still held: that its file or folder is the one that was taken.

        A file that was removed is made and locked again.

        Raises:
            StateOwnedError: another process has taken it.
            OSError: the folder was moved or replaced.
        """
        if self._held is None or identity(self._anchor) == self._held:
            return
        if self._anchor == self._folder:
            raise OSError(
                errno.ESTALE, "it was moved or replaced since it was opened", str(self._folder)
            )
        self._let_go()
        self.acquire()

    def release(self) -> None:
        """Give the lock back."""
        if self._lock.is_locked:
            owner = self.owner()
            if owner is not None and owner.pid == os.getpid():
                self._note.unlink(missing_ok=True)
        self._let_go()

    def owner(self) -> Owner | None:
        """Return the process that the file beside the lock names; it may be dead."""
        try:
            if not stat.S_ISREG(self._note.stat().st_mode):
                return None
            return msgspec.json.decode(self._note.read_bytes(), type=Owner)
        except (OSError, ValueError, RecursionError):
            return None

    @property
    def _anchor(self) -> Path:
        """What must stay the same while the lock is held."""
        return self._path if self._handle is None or self._folder is None else self._folder

    def _lives(self, owner: Owner) -> bool | None:
        """Say whether an owner still runs; one with this process's number may be long gone."""
        if owner.pid == os.getpid():
            return self._note.resolve() in _held_here
        return owner.alive()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held = None
            _held_here.discard(self._note.resolve())
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        self._lock.release()

    def _refusal(self, more: str = "") -> StateOwnedError:
        return StateOwnedError(
            f"the state in {self._path.parent} is in use by {self.owner() or 'another process'}"
            f"{more}; stop that one first, or give this one a state_dir of its own"
        )


def write_private(path: Path, content: bytes) -> None:
    """Write a small file that is for its owner alone; raises OSError."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, PRIVATE)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another in its place; `None` where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _lock_folder(folder: Path) -> int | None:
    """Return a handle that locks a folder, `None` where that can't be done, or `_TAKEN`."""
    if sys.platform == "win32":
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return _TAKEN
    except OSError:  # a file system without such locks: the file's lock must do
        os.close(handle)
        return None
    return handle

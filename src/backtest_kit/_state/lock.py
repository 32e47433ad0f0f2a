"""A lock that one process at a time holds, and that names its holder to the others."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from backtest_kit._values.clock import wall_ms
from backtest_kit._values.errors import StateOwnedError
from backtest_kit._values.time import iso


class Owner(msgspec.Struct, frozen=True):
    """The process that holds a lock; `since` in milliseconds UTC."""

    pid: int
    host: str
    since: int
    command: str

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
        return True


def this_process() -> Owner:
    """Return this process as an owner."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else "python"
    return Owner(os.getpid(), socket.gethostname(), wall_ms() // 1000 * 1000, command[:200])


class OwnerLock:
    """A lock that the operating system frees when its process dies, however it dies.

    `path` is the lock's file; a file beside it names the holder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note = path.with_name(path.name + ".owner")
        self._lock = FileLock(path, thread_local=False)

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StateOwnedError: another process (or engine) has it.
            OSError: the folder can't be written.
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            owner = self.owner()
            raise StateOwnedError(
                f"the state in {self._path.parent} is in use by {owner or 'another process'}; "
                "stop that one first, or give this one a state_dir of its own"
            ) from None
        try:
            self._note.write_bytes(msgspec.json.encode(this_process()))
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        """Give the lock back."""
        if self._lock.is_locked:
            self._note.unlink(missing_ok=True)
            self._lock.release()

    def owner(self) -> Owner | None:
        """Return the process that the file beside the lock names; it may be dead."""
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Owner)
        except (OSError, msgspec.MsgspecError):
            return None

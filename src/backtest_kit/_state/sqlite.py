"""Documents in one SQLite file."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from backtest_kit._state.files import flush, is_file, make_folder
from backtest_kit._state.lock import PRIVATE, Owner, OwnerLock, identity

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS documents (kind TEXT, key TEXT, document BLOB NOT NULL, "
    "PRIMARY KEY (kind, key)) WITHOUT ROWID"
)


class SqliteAdapter:
    """State in the SQLite file `path`, which is made when it is first written to.

    Every write is a transaction of its own, flushed to the disk (`synchronous=FULL`). The file is
    made whole under another name, for its owner alone (0600), so that an empty one is damage. It
    must not have a second name (a hard link), under which SQLite would not see its own journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: OwnerLock | None = None
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._checked = False

    def read(self, kind: str, key: str) -> bytes | None:
        """Return the document, or `None` where there is none; raises sqlite3.Error, OSError."""
        rows = self._query("SELECT document FROM documents WHERE kind=? AND key=?", kind, key)
        if not rows:
            return None
        document = rows[0][0]
        # whatever a damaged row holds is handed over, to be set aside
        return document if isinstance(document, bytes) else str(document).encode()

    def write(self, kind: str, key: str, document: bytes) -> None:
        """Store a document durably.

        Raises:
            sqlite3.Error, OSError: that failed; the earlier document is there, or the new one.
            StateOwnedError: the file was acquired, and is another process's now.
        """
        self._execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", kind, key, document)

    def delete(self, kind: str, key: str) -> None:
        """Remove a document; raises sqlite3.Error, OSError."""
        if is_file(self.path):
            self._execute("DELETE FROM documents WHERE kind=? AND key=?", kind, key)

    def list(self, kind: str) -> list[str]:
        """Return the keys of a kind, sorted; raises sqlite3.Error, OSError."""
        rows = self._query("SELECT key FROM documents WHERE kind=?", kind)
        return sorted(str(key) for (key,) in rows)

    def where(self, kind: str, key: str) -> str:
        """Return a text that tells where a document is."""
        return f"{self.path} (kind {kind!r}, key {key!r})"

    def acquire(self) -> None:
        """Become the owner of the file, under whichever name it is reached.

        Raises:
            StateOwnedError: another process has it.
            OSError, sqlite3.Error: it can't be made or written, or has a second name.
        """
        path = self._real_path()
        make_folder(path.parent)
        if is_file(path) and path.stat().st_nlink > 1:
            raise OSError(
                errno.EMLINK, "it has another name (a hard link): remove one of them", str(path)
            )
        lock = OwnerLock(path.with_name(path.name + ".lock"))
        lock.acquire()
        self._lock = lock

    def release(self) -> None:
        """Close the file and give it back."""
        with self._guard:
            self._close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def owner(self) -> Owner | None:
        """Return the process that last took the file and has not released it; it may be dead."""
        path = self._real_path()
        return OwnerLock(path.with_name(path.name + ".lock")).owner()

    def _real_path(self) -> Path:
        """Return where the file is, so that all names of it have one lock, journal and log.

        Raises:
            OSError: something else is there, such as a link to nothing.
        """
        is_file(self.path)
        return Path(os.path.realpath(self.path))

    def _execute(self, sql: str, *arguments: object) -> None:
        with self._guard:
            if self._lock is not None:
                self._lock.check()
            if self._connection is None:
                self._open()
            elif identity(self.path) != self._opened:
                self._close()
                raise OSError(
                    errno.ESTALE, "it was moved or replaced since it was opened", str(self.path)
                )
            assert self._connection is not None
            self._connection.execute(sql, arguments)

    def _open(self) -> None:
        path = self._real_path()
        if not _is_there(path):
            _create(path)
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._check(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(_TABLE)
            self._opened = identity(path)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._checked = False

    def _query(self, sql: str, *arguments: object) -> Sequence[tuple[Any, ...]]:
        """Read without changing anything, also where nothing is yet."""
        with self._guard:
            if self._connection is not None:
                return self._connection.execute(sql, arguments).fetchall()
            path = self._real_path()
            if not _is_there(path):
                return []
            # what a write that was killed has left must be rolled back first, which is a write
            mode = "rw" if _journal(path).exists() else "ro"
            with closing(sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True)) as connection:
                if self._check(connection):
                    return connection.execute(sql, arguments).fetchall()
            if mode == "rw" and path.stat().st_size == 0:
                path.unlink()  # its first write was rolled back
            return []

    def _check(self, connection: sqlite3.Connection) -> bool:
        """Return whether the table is there; once, look for damage that would hide documents.

        Raises:
            sqlite3.DatabaseError: the file is damaged.
        """
        connection.text_factory = _text
        there = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        if there not in ([], ["documents"]):
            raise sqlite3.DatabaseError(f"it has the tables {', '.join(map(str, there))}")
        if not self._checked:
            ((verdict,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"it is damaged: {verdict}")
            self._checked = True
        return bool(there)  # the first write of release 0.1.0 may have been killed before that


def _text(value: bytes) -> str:
    """Return text that may be damaged: one odd key is no reason to list none."""
    return value.decode(errors="backslashreplace")


def _is_there(path: Path) -> bool:
    """Return whether a database is there.

    Raises:
        OSError: something else is, or an empty file.
    """
    if not is_file(path):
        return False
    # release 0.1.0, killed at its first write, left an empty file with a journal beside it
    if path.stat().st_size == 0 and not _journal(path).exists():
        raise OSError(
            errno.EINVAL, "it is empty, so what it held is lost: put a copy back", str(path)
        )
    return True


def _create(path: Path) -> None:
    """Make a database with its table, whole or not at all."""
    make_folder(path.parent)
    new = path.with_name(f".{path.name}.new")
    for left in (new, _journal(new), new.with_name(new.name + "-wal")):
        left.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_TABLE)
    os.replace(new, path)  # noqa: PTH105 - the system call, to be seen as one
    flush(path.parent)


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-journal")

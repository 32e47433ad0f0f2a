"""Documents in one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from backtest_kit._state.lock import OwnerLock

_TABLE = (
    "CREATE TABLE IF NOT EXISTS documents (kind TEXT, key TEXT, document BLOB NOT NULL, "
    "PRIMARY KEY (kind, key)) WITHOUT ROWID"
)


class SqliteAdapter:
    """State in the SQLite file `path`, which is made when it is first written to.

    Every write is a transaction of its own, flushed to the disk (`synchronous=FULL`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: OwnerLock | None = None
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, kind: str, key: str) -> bytes | None:
        """Return the document, or `None` where there is none; raises sqlite3.Error."""
        rows = self._query("SELECT document FROM documents WHERE kind=? AND key=?", kind, key)
        return bytes(rows[0][0]) if rows else None

    def write(self, kind: str, key: str, document: bytes) -> None:
        """Store a document durably; raises sqlite3.Error, and then nothing has changed."""
        self._execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", kind, key, document)

    def delete(self, kind: str, key: str) -> None:
        """Remove a document; raises sqlite3.Error."""
        if self.path.exists():
            self._execute("DELETE FROM documents WHERE kind=? AND key=?", kind, key)

    def list(self, kind: str) -> list[str]:
        """Return the keys of a kind, sorted; raises sqlite3.Error."""
        rows = self._query("SELECT key FROM documents WHERE kind=?", kind)
        return sorted(key for (key,) in rows)

    def where(self, kind: str, key: str) -> str:
        """Return a text that tells where a document is."""
        return f"{self.path} (kind {kind!r}, key {key!r})"

    def acquire(self) -> None:
        """Become the owner of the file.

        Raises:
            StateOwnedError: another process has it.
            OSError, sqlite3.Error: it can't be made or written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = OwnerLock(self.path.with_name(self.path.name + ".lock"))
        lock.acquire()
        self._lock = lock

    def release(self) -> None:
        """Close the file and give it back."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _execute(self, sql: str, *arguments: object) -> None:
        with self._guard:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self.path, check_same_thread=False, isolation_level=None
                )
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute(_TABLE)
            self._connection.execute(sql, arguments)

    def _query(self, sql: str, *arguments: object) -> Sequence[tuple[Any, ...]]:
        """Read without changing anything, also where nothing is yet."""
        with self._guard:
            if self._connection is not None:
                return self._connection.execute(sql, arguments).fetchall()
            if not self.path.exists():
                return []
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                there = connection.execute("SELECT name FROM sqlite_master").fetchall()
                if ("documents",) not in there:  # its maker was killed before the table was made
                    return []
                return connection.execute(sql, arguments).fetchall()

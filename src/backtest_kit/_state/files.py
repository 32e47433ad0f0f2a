"""Documents as files, each written whole and durably."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from backtest_kit._state.lock import Owner, OwnerLock

_LONGEST_SLUG: Final = 120
_logger = logging.getLogger("backtest_kit")


class _Header(msgspec.Struct, frozen=True):
    kind: str
    key: str


class FileAdapter:
    """State as files in `folder`: a folder for each kind, a file for each document.

    A file's first line says kind and key, the rest is the document. Its name is made of the
    key's harmless characters and a hash of the whole key, so that no key can leave the folder,
    collide with another (also where file names ignore case) or be too long.

    A document is written to a temporary file, which is flushed to the disk and renamed over the old
    one; then the folder is flushed. A reader never sees half a document, and after a crash the old
    or the new one is there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock: OwnerLock | None = None

    def read(self, kind: str, key: str) -> bytes | None:
        """Return the document, or `None` where there is none; raises OSError."""
        try:
            content = self._path(kind, key).read_bytes()
        except FileNotFoundError:
            return None
        line, newline, document = content.partition(b"\n")
        # a file whose first line is not ours is damaged: hand over all of it, to be set aside
        return document if newline and _header(line) == _Header(kind, key) else content

    def write(self, kind: str, key: str, document: bytes) -> None:
        """Store a document whole and durably; raises OSError, and then nothing has changed."""
        path = self._path(kind, key)
        if not path.parent.is_dir():
            _make(path.parent)
        temporary = path.with_name(f".{path.name}.tmp")
        content = msgspec.json.encode(_Header(kind, key)) + b"\n" + document
        try:
            _write_durably(temporary, content)
            os.replace(temporary, path)  # noqa: PTH105 - the system call, to be seen as one
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush(path.parent)

    def delete(self, kind: str, key: str) -> None:
        """Remove a document durably; raises OSError."""
        path = self._path(kind, key)
        if path.exists():
            path.unlink()
            _flush(path.parent)

    def list(self, kind: str) -> list[str]:
        """Return the keys of a kind, sorted; a file whose first line is damaged is logged."""
        folder = self._folder(kind)
        keys = []
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if path.name.startswith("."):
                continue
            with path.open("rb") as stream:
                header = _header(stream.readline())
            if header is None or header.kind != kind or self._path(kind, header.key) != path:
                _logger.error("%s does not say whose document it is; it was left alone", path)
            else:
                keys.append(header.key)
        return sorted(keys)

    def where(self, kind: str, key: str) -> str:
        """Return the path of a document."""
        return str(self._path(kind, key))

    def acquire(self) -> None:
        """Become the owner of the folder, and delete temporary files of an owner that was killed.

        Raises:
            StateOwnedError: another process has it.
            OSError: the folder can't be made or written.
        """
        _make(self.folder)
        lock = OwnerLock(self.folder / "lock")
        lock.acquire()
        self._lock = lock
        for left in self.folder.glob("*/.*.tmp"):
            left.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def owner(self) -> Owner | None:
        """Return the process that last took the folder and has not released it; it may be dead."""
        return OwnerLock(self.folder / "lock").owner()

    def _folder(self, kind: str) -> Path:
        return self.folder / _slug(kind)

    def _path(self, kind: str, key: str) -> Path:
        digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        return self._folder(kind) / f"{_slug(key)}-{digest}.json"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:_LONGEST_SLUG]


def _header(line: bytes) -> _Header | None:
    try:
        return msgspec.json.decode(line, type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _make(folder: Path) -> None:
    """Make a folder and its parents, durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _flush(path.parent)


def _write_durably(path: Path, content: bytes) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush(folder: Path) -> None:
    """Make the names in a folder durable; Windows does so by itself and has no way to ask."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Documents as files, each written whole and durably."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from backtest_kit._state.lock import PRIVATE, Owner, OwnerLock

_LONGEST_SLUG: Final = 120
#: Bytes of a first line: kind and key, of which names make up the most.
_LONGEST_LINE: Final = 100_000


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
    or the new one is there. Files are made for their owner alone (0600, folders 0700).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock: OwnerLock | None = None

    def read(self, kind: str, key: str) -> bytes | None:
        """Return the document, or `None` where there is none; raises OSError."""
        path = self._path(kind, key)
        if not is_file(path.parent.parent, folder=True) or not is_file(path.parent, folder=True):
            return None
        if not is_file(path):
            return None
        content = path.read_bytes()
        line, newline, document = content.partition(b"\n")
        # a file whose first line is not ours is damaged: hand over all of it, to be set aside
        return document if newline and line == _first_line(kind, key) else content

    def write(self, kind: str, key: str, document: bytes) -> None:
        """Store a document whole and durably.

        Raises:
            OSError: that failed; the earlier document is there, or the new one, whole.
            StateOwnedError: the folder was acquired, and is another process's now.
        """
        path = self._path(kind, key)
        if self._lock is not None:
            self._lock.check()
        if not path.parent.is_dir():
            make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.tmp")
        content = _first_line(kind, key) + b"\n" + document
        try:
            _write_durably(temporary, content)
            os.replace(temporary, path)  # noqa: PTH105 - the system call, to be seen as one
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush(path.parent)

    def delete(self, kind: str, key: str) -> None:
        """Remove a document durably; raises OSError."""
        path = self._path(kind, key)
        if path.exists():
            path.unlink()
            flush(path.parent)

    def unreadable(self, kind: str) -> list[tuple[str | None, str]]:
        """Return what lies among the files of a kind and is no document of it; raises OSError.

        For each there is the key that its first line says, if any, and a text that says what is
        wrong.
        """
        return [
            (key, f"{os.fsencode(path).decode(errors='backslashreplace')}: {problem}")
            for path, key, problem in self._files(kind)
            if problem
        ]

    def list(self, kind: str) -> list[str]:
        """Return the keys of a kind, sorted; without what `unreadable` returns.

        Raises:
            OSError: the folder can't be read.
        """
        return sorted(key for _, key, problem in self._files(kind) if key and not problem)

    def where(self, kind: str, key: str) -> str:
        """Return the path of a document."""
        return str(self._path(kind, key))

    def acquire(self) -> None:
        """Become the owner of the folder, and delete temporary files of an owner that was killed.

        While it is held, every `write` makes sure that the folder is still the same one.

        Raises:
            StateOwnedError: another process has it.
            OSError: the folder can't be made or written.
        """
        make_folder(self.folder)
        lock = OwnerLock(self.folder / "lock", self.folder)
        lock.acquire()
        self._lock = lock
        for left in self.folder.glob("*/.*.tmp"):
            if not left.is_dir():
                left.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def owner(self) -> Owner | None:
        """Return the process that last took the folder and has not released it; it may be dead."""
        return OwnerLock(self.folder / "lock", self.folder).owner()

    def _files(self, kind: str) -> Iterator[tuple[Path, str | None, str]]:
        """Yield what lies in the folder of a kind: path, key, and what is wrong ("" if nothing)."""
        folder = self._folder(kind)
        if not is_file(self.folder, folder=True) or not is_file(folder, folder=True):
            return
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.suffix != ".json":
                continue
            key = None
            try:
                is_file(path)
                with path.open("rb") as stream:
                    header = _header(stream.readline(_LONGEST_LINE))
            except OSError as error:
                yield path, None, f"can't be read ({error.strerror or error})"
                continue
            problem = "its first line does not say whose document it is"
            if header is not None:
                key = header.key if header.kind == kind else None
                problem = f"it is the document {header.kind} {header.key}, in the place of another"
                if key is not None and self._path(kind, key) == path:
                    problem = ""
            yield path, key, problem

    def _folder(self, kind: str) -> Path:
        return self.folder / _slug(kind)

    def _path(self, kind: str, key: str) -> Path:
        digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        return self._folder(kind) / f"{_slug(key)}-{digest}.json"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:_LONGEST_SLUG]


def _first_line(kind: str, key: str) -> bytes:
    return msgspec.json.encode(_Header(kind, key))


def _header(line: bytes) -> _Header | None:
    try:
        return msgspec.json.decode(line, type=_Header)
    except (ValueError, RecursionError):
        return None


def is_file(path: Path, *, folder: bool = False) -> bool:
    """Return whether a file (or a folder) is there.

    Raises:
        OSError: something else is there: a folder, a link to nothing, a pipe, which may never end.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "it is a link to nothing", str(path)) from None
        return False
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        what = "a folder" if stat.S_ISDIR(mode) else "no folder" if folder else "no ordinary file"
        raise OSError(errno.EINVAL, f"it is {what}", str(path))
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, durably; for their owner alone (0700) where there are modes.

    Raises:
        OSError: it can't be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        flush(path.parent)


def _write_durably(path: Path, content: bytes) -> None:
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, PRIVATE)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(folder: Path) -> None:
    """Make the names in a folder durable; Windows does so by itself and has no way to ask.

    Raises:
        OSError: that failed.
    """
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

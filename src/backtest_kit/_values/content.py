"""Digests of content: plain values, arrays and files. Equal content has an equal digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest_kit._values.errors import FingerprintError

_PLAIN: Final = (bool, int, float, str, bytes, type(None), np.generic)


class ContentHash:
    """A hash over tagged contents, in which neighbouring contents can't run into each other."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def put(self, tag: str, content: bytes) -> None:
        """Add bytes under a tag that says what they are."""
        self._hash.update(f"{tag} {len(content)}:".encode())
        self._hash.update(content)

    def put_array(self, array: npt.NDArray[Any]) -> None:
        """Add the type, shape and elements of an array that holds no Python objects."""
        self.put("array", f"{array.dtype!r}{array.shape}".encode())
        self.put("data", np.ascontiguousarray(array).tobytes())

    def hexdigest(self) -> str:
        """Return the digest of all that was added, in hexadecimal."""
        return self._hash.hexdigest()


def digest(*values: object) -> str:
    """Return the digest of plain values, arrays, and tuples, lists and mappings of them.

    Raises:
        FingerprintError: a value is of another kind; the message names it.
    """
    content = ContentHash()
    for value in values:
        _put(content, value)
    return content.hexdigest()


def _put(content: ContentHash, value: object) -> None:
    if isinstance(value, _PLAIN):
        content.put(type(value).__name__, repr(value).encode())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        content.put_array(value)
    elif isinstance(value, tuple | list | Mapping):
        items = [*value.items()] if isinstance(value, Mapping) else value
        content.put(type(value).__name__, str(len(items)).encode())
        for item in items:
            _put(content, item)
    else:
        raise FingerprintError(f"{value!r} has no content that could be compared")


def digest_files(paths: Iterable[Path]) -> str:
    """Return the digest of the names and contents of files, in their order; raises OSError."""
    whole = hashlib.blake2b(digest_size=16)
    for path in paths:
        whole.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "blake2b").digest())
    return whole.hexdigest()

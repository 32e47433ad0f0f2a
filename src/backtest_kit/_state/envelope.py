"""The envelope of a stored document: its version, whose it is, and a digest of all of its bytes."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from backtest_kit._values.errors import StateError

#: The version of the documents that this release writes.
VERSION: Final = 4
#: The first version that has a digest.
FIRST_SEALED: Final = 2
#: Bytes of the digest: no change goes unnoticed, by chance or by damage.
_DIGEST_SIZE: Final = 16


class DamagedError(ValueError):
    """A document is not what was written; `key` is whose it is, where it is that of another."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class _Version(msgspec.Struct):
    version: int


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """Version 1, of release 0.1.0: without a digest."""

    version: int
    data: msgspec.Raw


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    kind: str
    key: str
    digest: str
    data: msgspec.Raw


def seal(kind: str, key: str, payload: bytes, version: int = VERSION) -> bytes:
    """Return the JSON of a document with its envelope."""
    head = msgspec.json.encode({"version": version, "kind": kind, "key": key})
    digest = _digest(version, kind, key, payload).encode()
    return b'%s,"digest":"%s","data":%s}' % (head[:-1], digest, payload)


def unseal(kind: str, key: str, content: bytes) -> tuple[int, bytes]:
    """Return the version and the payload of a document.

    Raises:
        StateError: a newer release wrote it.
        DamagedError: it is not, byte for byte, what was written for this kind and key.
    """
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version == 1:
            return 1, bytes(msgspec.json.decode(content, type=_Plain).data)
        if version > VERSION:
            _refuse_newer(version, content)
        envelope = msgspec.json.decode(content, type=_Sealed)
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error
    payload = bytes(envelope.data)
    if content != seal(envelope.kind, envelope.key, payload, version):
        raise DamagedError("its content does not fit its digest")
    if (envelope.kind, envelope.key) != (kind, key):
        raise DamagedError(
            f"it is the document {envelope.kind} {envelope.key}, in the place of another",
            envelope.key if envelope.kind == kind else None,
        )
    return version, payload


def _digest(version: int, kind: str, key: str, payload: bytes) -> str:
    found = hashlib.blake2b(msgspec.json.encode((version, kind, key)), digest_size=_DIGEST_SIZE)
    found.update(payload)
    return found.hexdigest()


def _refuse_newer(version: int, content: bytes) -> None:
    """Raise StateError; DamagedError where a known release wrote it and only the number changed."""
    try:
        envelope = msgspec.json.decode(content, type=_Sealed)
    except ValueError:
        envelope = None  # a newer release may have another envelope
    if envelope is not None and envelope.digest in (
        _digest(known, envelope.kind, envelope.key, bytes(envelope.data))
        for known in range(FIRST_SEALED, VERSION + 1)
    ):
        raise DamagedError(f"its version, {version}, does not fit its digest")
    raise StateError(
        f"the state was written by a newer release (version {version} of the documents; this one "
        f"reads up to {VERSION}): install that release, or choose another state_dir"
    )

"""Where in the user's own files something happened."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from pathlib import Path
from types import CodeType, TracebackType
from typing import Final

import msgspec

_PACKAGE: Final = str(Path(__file__).parents[1]) + os.sep
_LIBRARY: Final = sysconfig.get_path("stdlib") + os.sep
_INSTALLED: Final = ("site-packages", "dist-packages")


class Place(msgspec.Struct, frozen=True):
    """A line of user code; `file` is relative where it lies in the current folder.

    `code` is the line as it stands there, empty where it can't be read.
    """

    file: str
    line: int
    code: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.code}" if self.code else where


def place_of(error: BaseException) -> Place | None:
    """Return the user's line at which an error arose; `None` if none of theirs was running.

    That is the innermost one outside this package and outside of what is installed. An error that
    has none of its own may have a cause that has.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        found = _innermost(cause.__traceback__)
        if found is not None:
            return _place(*found)
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def caller() -> Place | None:
    """Return the user's line that called into this package; `None` if no user code did."""
    frame = sys._getframe(1)  # noqa: SLF001 - what `inspect` calls
    while frame is not None and not _is_users(frame.f_code):
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else _place(frame.f_code, frame.f_lineno)


def _innermost(trace: TracebackType | None) -> tuple[CodeType, int] | None:
    found = None
    while trace is not None:
        if _is_users(trace.tb_frame.f_code):
            found = trace.tb_frame.f_code, trace.tb_lineno
        trace = trace.tb_next
    return found


def _is_users(code: CodeType) -> bool:
    name = code.co_filename
    if name.startswith((_PACKAGE, _LIBRARY, "<frozen ", "<string>", "<__array_function__")):
        return False
    return not any(part in _INSTALLED for part in Path(name).parts)


def _place(code: CodeType, line: int) -> Place:
    name = code.co_filename
    here = os.getcwd() + os.sep  # noqa: PTH109 - as text, which `name` is
    shown = name.removeprefix(here) if os.path.isabs(name) else name  # noqa: PTH117 - text too
    return Place(shown, line, linecache.getline(name, line).strip())

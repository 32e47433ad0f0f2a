"""What code reads that its fingerprint can't see: environment variables and files.

They are found in compiled code, by name, so that some may be missed (a path in a variable is "a
file"; one that a library reads is not seen at all), and some may never be read.
"""

from __future__ import annotations

import builtins
import dis
import logging
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from backtest_kit._values.origin import is_user_module
from backtest_kit._walker.bytecode import nested

#: Instructions that say nothing of names and values.
_SILENT: Final = frozenset(
    {"CACHE", "COPY_FREE_VARS", "EXTENDED_ARG", "NOP", "PRECALL", "PUSH_NULL", "RESUME"}
)
_ROOTS: Final = frozenset(
    {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_FAST_CHECK", "LOAD_DEREF"}
)
_LINKS: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
#: Methods of a path, and functions of libraries by the beginning of their names.
_METHODS: Final = frozenset({"read_text", "read_bytes"})
_READERS: Final = ("read_", "scan_")
_OF_NUMPY: Final = frozenset({"load", "loadtxt", "genfromtxt", "fromfile", "memmap"})
#: How many variables and files a warning names.
_NAMED: Final = 5
_LIBRARIES: Final = frozenset({"pandas", "polars", "pyarrow", "joblib", "cudf", "dask"})


def unseen_by(function: FunctionType) -> Iterator[str]:
    """Yield what a function reads, each with where: "environment variable 'X' in f (m.py:3)"."""
    for code in nested(function.__code__):
        for what, line in _reads(code, function.__globals__):
            file = pathlib.PurePath(code.co_filename).name
            yield f"{what} in {code.co_qualname} ({file}:{line})"


def warn_of_unseen(logger: logging.Logger, unseen: Sequence[str], remedy: str) -> None:
    """Name in the log what stored results don't show a change of, and what to do after one."""
    if not unseen:
        return
    others = len(unseen) - _NAMED
    logger.warning(
        "stored results don't show whether what strategies read has changed: %s%s; after a "
        "change, %s",
        *("; ".join(unseen[:_NAMED]), f" and {others} more" if others > 0 else "", remedy),
    )


def _reads(code: CodeType, known: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield what code reads, and in which line."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SILENT]
    imported: dict[str, Any] = {}
    line = code.co_firstlineno
    at = 0
    while at < len(steps):
        step = steps[at]
        line = (step.positions and step.positions.lineno) or line
        if step.opname == "IMPORT_NAME" and at + 1 < len(steps):
            _note_import(step.argval, steps[at + 1 :], imported)
        if step.opname not in _ROOTS and step.opname not in _LINKS:
            at += 1
            continue
        names = [str(step.argval)]
        rooted = step.opname in _ROOTS
        end = at + 1
        while end < len(steps) and steps[end].opname in _LINKS:
            names.append(str(steps[end].argval))
            end += 1
        held = imported if names[0] in imported else known
        root = held.get(names[0], getattr(builtins, names[0], None)) if rooted else None
        what = _what(root, names[rooted:])
        if names == ["open"] and any(s.argval == "Path" for s in steps[max(at - 3, 0) : at]):
            what = "file"
        if what is not None:
            # of a function the text comes after it, of a method of a path before
            after = steps[end : end + 1]
            before = steps[max(at - 2, 0) : at]
            near = after if rooted or what.startswith("environment") else before
            text = next((s.argval for s in near if isinstance(s.argval, str)), None)
            constant = text is not None and any(s.opname == "LOAD_CONST" for s in near)
            name = f" {text!r}" if constant else ""
            yield f"{what}{name}", line
        at = end


def _what(root: Any, names: list[str]) -> str | None:
    """Return what a chain of names reads, from what its first one stands for."""
    while isinstance(root, ModuleType) and names and hasattr(root, names[0]):
        if root is os and names[0] in ("environ", "getenv", "environb"):
            return "environment variable"
        module, root = root, getattr(root, names[0])
        if not is_user_module(module.__name__) and _reads_files(module, names[0]):
            return "file"
        names = names[1:]
    if root is os.environ or root is os.getenv:
        return "environment variable"
    if root is builtins.open and not names:
        return "file"
    if callable(root) and not names and _is_reader(root):
        return "file"
    return "file" if names and names[-1] in _METHODS else None


def _reads_files(module: ModuleType, name: str) -> bool:
    package = module.__name__.partition(".")[0]
    if package == "numpy":
        return name in _OF_NUMPY
    if package in ("io", "codecs", "gzip", "bz2", "lzma"):
        return name == "open"
    if package == "sqlite3":
        return name == "connect"
    return package in _LIBRARIES and (name.startswith(_READERS) or name == "load")


def _is_reader(function: Any) -> bool:
    """Say whether a function that was imported by name reads files."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__name__", "")
    return (
        module is not None
        and not is_user_module(module.__name__)
        and _reads_files(module, str(name))
    )


def _note_import(name: str, after: list[dis.Instruction], imported: dict[str, Any]) -> None:
    """Note under which names a function imports what; what is not loaded yet is not looked at."""
    if after and after[0].opname.startswith("STORE_"):
        imported[str(after[0].argval)] = sys.modules.get(name.partition(".")[0])
    for step, store in zip(after[::2], after[1::2], strict=False):
        if step.opname != "IMPORT_FROM":
            return
        imported[str(store.argval)] = getattr(sys.modules.get(name), str(step.argval), None)

"""Whose code it is: the user's own, or a library's."""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from pathlib import Path
from types import FunctionType
from typing import Final

#: The folder of the whole library, of which this module lies in a package.
LIBRARY: Final = Path(__file__).parents[1]
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})


def is_user_module(module: str | None) -> bool:
    """Say whether a module is the user's own: not built in, and not of a library."""
    found = sys.modules.get(module or "")
    if found is None or module == "__main__":  # a script, an interactive session
        return True
    file = getattr(found, "__file__", None)
    if file is not None:
        return is_user_file(file)
    return any(map(is_user_file, getattr(found, "__path__", ())))  # a folder without __init__.py


def is_user_function(function: FunctionType) -> bool:
    """Say whether the code of a function is the user's own.

    Its `__module__` does not tell: `functools.wraps` makes it that of what is wrapped.
    """
    file = function.__code__.co_filename
    return is_user_module(function.__globals__.get("__name__")) or _is_file_of_user(file)


def is_user_class(kind: type) -> bool:
    """Say whether a class is the user's own, also one with the name and module of another."""
    if is_user_module(kind.__module__):
        return True
    named: object = sys.modules[kind.__module__]
    for part in kind.__qualname__.split("."):
        named = getattr(named, "__dict__", {}).get(part)
    if named is kind:
        return False
    items = [getattr(item, "__func__", item) for item in vars(kind).values()]
    functions = [item for item in items if isinstance(item, FunctionType)]
    return any(map(is_user_function, functions)) or not (named is None or functions)


@functools.cache
def is_user_file(file: str) -> bool:
    """Say whether a source file is the user's own."""
    path = Path(file).resolve()
    if not _INSTALLED.isdisjoint(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in _library_folders())


@functools.cache
def _is_file_of_user(file: str) -> bool:
    return Path(file).is_file() and is_user_file(file)  # of code without a file it is "<string>"


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [site.getusersitepackages(), str(LIBRARY)]
    return tuple(Path(folder).resolve() for folder in folders)

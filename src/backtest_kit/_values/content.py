"""What a value is, as a digest: equal code, parameters and data give the same one in any process.

Functions of the user's own modules go in as their compiled code, what they close over and the
globals they name, and so on through whatever these are; own modules that they import, with their
whole source; libraries with name and version. What only shows at run time (a file that is read, a
name looked up by `getattr`) can't be seen.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import random
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

import numpy as np

from backtest_kit._values.errors import FingerprintError

#: The folder of the whole library, of which this module lies in a package.
LIBRARY: Final = Path(__file__).parents[1]
_ATOMS: Final = (type(None), bool, int, float, complex, str, bytes, range, type(...))
#: The generators behind the functions of the modules random and numpy.random.
_SHARED: Final = (random.random.__self__, np.random.uniform.__self__)  # type: ignore[attr-defined]
_DESCRIPTORS: Final = (GetSetDescriptorType, MemberDescriptorType, WrapperDescriptorType)
_METHODS: Final = (FunctionType, classmethod, staticmethod, property)
#: Of a class, what says nothing about what it does, or says it once more.
_UNTOLD: Final = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"),
        *("__static_attributes__", "__annotations__", "__annotate__", "__annotate_func__"),
        *("__annotations_cache__", "__dataclass_fields__", "__dataclass_params__"),
        *("__match_args__", "__abstractmethods__", "_abc_impl", "__orig_bases__"),
        *("__parameters__", "__slotnames__"),
    }
)


def digest(*values: object) -> str:
    """Return the digest of values, in hexadecimal.

    Raises:
        FingerprintError: something in them has no content that could be told (an open file, a
            lock); the message names it.
    """
    while True:
        found = _Digest()
        try:
            for value in values:
                found.add(value)
        except FingerprintError:
            raise
        except Exception as error:  # whatever an object does when it is looked at
            raise FingerprintError(f"can't be compared: {type(error).__name__}: {error}") from error
        if not found.loaded:
            return found.hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Return the digest of the contents of files, with their names, in their order."""
    whole = hashlib.blake2b(digest_size=16)
    for path in paths:
        whole.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "blake2b").digest())
    return whole.hexdigest()


@functools.cache
def digest_library() -> str:
    """Return the digest of this library's own source, of Python's and NumPy's version."""
    sources = digest_files(sorted(LIBRARY.rglob("*.py")))
    return digest(sources, sys.version_info[:2], np.__version__)


class _Digest:
    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._seen: dict[int, int] = {}
        self._alive: list[object] = []  # so that no id is given to another
        #: Whether something was imported on the way: packages may know more now.
        self.loaded = False

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind in _ATOMS:
            self._put(kind.__name__, repr(value).encode())
        elif kind is CodeType:
            self._code(value)
        elif kind is tuple:
            self._items("tuple", value)
        elif id(value) in self._seen:
            self._put("seen", str(self._seen[id(value)]).encode())
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            self._compound(value)

    def _compound(self, value: Any) -> None:
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, ModuleType):
            self._module(value)
        elif isinstance(value, MethodType) and _is_shared(value.__self__):
            self._library("random", value.__name__)
        elif isinstance(value, MethodType):
            self._items("method", (value.__func__, value.__self__))
        elif isinstance(value, BuiltinFunctionType):
            owner = value.__self__
            self._put("builtin", f"{value.__module__}.{value.__qualname__}".encode())
            if not (owner is None or isinstance(owner, ModuleType) or _is_shared(owner)):
                self.add(owner)
        elif isinstance(value, staticmethod | classmethod):
            self._items(type(value).__name__, (value.__func__,))
        elif isinstance(value, property):
            self._items("property", (value.fget, value.fset, value.fdel))
        elif isinstance(value, _DESCRIPTORS):
            self._put("descriptor", value.__name__.encode())
        elif isinstance(value, enum.Enum):
            self._items("enum", (type(value), value.name))
        elif type(value) is np.ndarray and not value.dtype.hasobject:
            self._put("array", f"{value.dtype!r}{value.shape}".encode())
            self._put("data", np.ascontiguousarray(value).tobytes())
        elif type(value) is list:
            self._items("list", value)
        elif type(value) in (set, frozenset):
            self._items("set", sorted(digest(item) for item in value))
        elif isinstance(value, Mapping) and type(value).__module__ == "builtins":
            self._items("dict", [part for item in value.items() for part in item])
        else:
            self._instance(value)

    def _put(self, tag: str, content: bytes) -> None:
        self._hash.update(f"{tag} {len(content)}:".encode())
        self._hash.update(content)

    def _items(self, tag: str, items: Any) -> None:
        self._put(tag, str(len(items)).encode())
        for item in items:
            self.add(item)

    def _code(self, code: CodeType) -> None:
        self._put("code", code.co_code)
        self.add((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
        self.add((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
        self.add((code.co_flags, code.co_exceptiontable, code.co_consts))

    def _function(self, function: FunctionType) -> None:
        if not _is_own(function.__module__):
            self._library(function.__module__, function.__qualname__)
            self._bound(function)  # as of a decorator that a library has
            return
        self._put("function", function.__name__.encode())
        self._code(function.__code__)
        self.add((function.__defaults__, function.__kwdefaults__, function.__dict__))
        self._bound(function)
        known = function.__globals__
        for name in sorted(set(_named(function.__code__))):
            if name in known:
                self._put("global", name.encode())
                self.add(known[name])
        for level, name, parts in sorted(set(_imported(function.__code__))):
            self._import(level, name, parts, known.get("__package__") or "")

    def _bound(self, function: FunctionType) -> None:
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # nothing in it yet
                self._put("empty", b"")

    def _class(self, value: type) -> None:
        if not _is_own(value.__module__):
            self._library(value.__module__, value.__qualname__)
            return
        self._put("class", value.__qualname__.encode())
        self.add((value.__bases__, type(value)))
        numbered = issubclass(value, enum.Enum)
        if numbered:
            members: Any = value
            self.add(tuple((member.name, member.value) for member in members))
        self.add((getattr(value, "__struct_fields__", 0), getattr(value, "__struct_defaults__", 0)))
        for name, item in sorted(vars(value).items()):
            if name in _UNTOLD or name.startswith("__struct_"):
                continue
            if numbered and not isinstance(item, _METHODS):
                continue
            self._put("attribute", name.encode())
            self.add(item)

    def _module(self, module: ModuleType) -> None:
        name = module.__name__
        if not _is_own(name):
            self._library(name, "")
            return
        self._put("module", name.encode())
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_file():
            self._put("source", Path(file).read_bytes())
        # any of it may be reached by its name
        for key, value in sorted(vars(module).items()):
            if not key.startswith("__"):
                self._put("global", key.encode())
                self.add(value)

    def _import(self, level: int, name: str, parts: tuple[str, ...], package: str) -> None:
        """Add what a function imports when it is called: now, as it will be then."""
        self._put("import", f"{level} {name} {parts}".encode())
        try:
            whole = importlib.util.resolve_name("." * level + name, package) if level else name
            self._load(whole)
            for part in parts:
                if not hasattr(sys.modules.get(whole), part):
                    self._load(f"{whole}.{part}")
        except ImportError:  # it may never be called
            return
        if whole in sys.modules:
            self.add(sys.modules[whole])

    def _load(self, name: str) -> None:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None and _is_own_file(spec.origin):
                importlib.import_module(name)
                self.loaded = True

    def _library(self, module: str, name: str) -> None:
        version = _version((module or "").partition(".")[0])
        self._put("library", f"{module} {name} {version}".encode())

    def _instance(self, value: Any) -> None:
        kind = type(value)
        if kind.__module__ == "functools" or kind.__module__.startswith("numba."):
            # compiled or cached: what counts is the function
            inner = getattr(value, "py_func", None) or getattr(value, "__wrapped__", None)
            if kind is functools.cached_property:
                inner = value.func
            if isinstance(inner, FunctionType):
                self._items(kind.__qualname__, (inner,))
                return
        try:
            how = value.__reduce_ex__(4)
        except Exception as error:
            raise FingerprintError(
                f"{value!r} has no content that could be compared: {error}"
            ) from error
        if isinstance(how, str):
            self._put("name", f"{type(value).__module__}.{how}".encode())
            return
        if _is_own(kind.__module__) and {"__getstate__", "__reduce__"} & vars(kind).keys():
            self.add(getattr(value, "__dict__", None))  # also what it leaves out there
        self._put("object", str(len(how)).encode())
        for part in how:
            self.add([*part] if isinstance(part, Iterator) else part)


def _is_shared(owner: object) -> bool:
    return any(owner is generator for generator in _SHARED)


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yield code and all code within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _named(code: CodeType) -> Iterator[str]:
    """Yield the globals that code names."""
    for each in _nested(code):
        for step in dis.get_instructions(each):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield step.argval


def _imported(code: CodeType) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield level, module and names of each import in code."""
    for each in _nested(code):
        steps = [*dis.get_instructions(each)]
        for i, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":  # after the level and the names, both constants
                yield steps[i - 2].argval or 0, step.argval, tuple(steps[i - 1].argval or ())


def _is_own(module: str | None) -> bool:
    """Say whether a module is the user's: no library's, no built-in one."""
    found = sys.modules.get(module or "")
    if found is None:
        return True
    file = getattr(found, "__file__", None)
    if file is not None:
        return _is_own_file(file)
    # a folder without __init__.py, or what was typed in
    return found.__name__ == "__main__" or any(map(_is_own_file, getattr(found, "__path__", ())))


@functools.cache
def _version(package: str) -> str:
    """Return the version of a library, "" of what comes with Python."""
    if package in sys.stdlib_module_names:
        return ""
    known = getattr(sys.modules.get(package), "__version__", None)
    if known is not None:
        return str(known)
    names = importlib.metadata.packages_distributions().get(package, ())
    return " ".join(importlib.metadata.version(name) for name in names)


@functools.cache
def _is_own_file(file: str) -> bool:
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _library_folders())


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [site.getusersitepackages(), str(LIBRARY)]
    return tuple(Path(folder).resolve() for folder in folders)

"""Fingerprints of user code: equal code, parameters and data give the same one in any process.

A function of the user's own modules counts with its compiled code, what it closes over and the
globals that it names, and so on through whatever these are; a module that it imports, with its
whole source; a library, with name and version. What only shows at run time (a file that the code
reads, a name looked up by `getattr`) can't be seen; files and environment variables are named.
"""

from __future__ import annotations

import enum
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._values.content import ContentHash, digest_files
from backtest_kit._values.errors import FingerprintError
from backtest_kit._values.origin import (
    LIBRARY,
    is_user_class,
    is_user_file,
    is_user_function,
    is_user_module,
)
from backtest_kit._walker.bytecode import imports, names_of_globals
from backtest_kit._walker.unseen import unseen_by

#: The generators behind the functions of the modules random and numpy.random: their state is not
#: the strategy's own.
_GLOBAL_GENERATORS: Final = (
    random.random.__self__,  # type: ignore[attr-defined]
    np.random.uniform.__self__,  # type: ignore[attr-defined]
)
_CACHE: Final = type(functools.cache(len))
_SINGLE_DISPATCH: Final = functools.singledispatch(len).__code__  # type: ignore[attr-defined]
_CALLABLE: Final = (FunctionType, MethodType, functools.partial)
_METHODS: Final = (FunctionType, classmethod, staticmethod, property)
#: Attributes of a class that do not affect what it does, or repeat what others say.
_IGNORED_ATTRIBUTES: Final = frozenset(
    {
        *("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"),
        *("__static_attributes__", "__annotations__", "__annotate__", "__annotate_func__"),
        *("__annotations_cache__", "__dataclass_fields__", "__dataclass_params__"),
        *("__match_args__", "__abstractmethods__", "_abc_impl", "__orig_bases__"),
        *("__parameters__", "__slotnames__"),
    }
)


class Examined(NamedTuple):
    """A fingerprint in hexadecimal, and what the code reads that it can't see."""

    fingerprint: str
    unseen: tuple[str, ...]


def fingerprint(*values: object) -> str:
    """Return the fingerprint of values, functions and classes among them, in hexadecimal.

    Raises:
        FingerprintError: something in them has no content that could be compared (an open file, a
            lock); the message names it.
    """
    return examine(*values).fingerprint


def examine(*values: object) -> Examined:
    """Return the fingerprint of values, and what is not in it (`unseen_by`); raises the same."""
    while True:
        found = _Fingerprint()
        try:
            for value in values:
                found.add(value)
        except FingerprintError:
            raise
        except Exception as error:  # anything that user code does when it is inspected
            raise FingerprintError(f"can't be compared: {type(error).__name__}: {error}") from error
        if not found.imported_modules:  # else modules seen earlier may have other globals now
            return Examined(found.hexdigest(), tuple(found.unseen))


@functools.cache
def library_fingerprint() -> str:
    """Return the fingerprint of this library's own source, and of Python's and NumPy's version."""
    sources = digest_files(sorted(LIBRARY.rglob("*.py")))
    return fingerprint(sources, sys.version_info[:2], np.__version__)


_Visit = Callable[["_Fingerprint", Any], None]


class _Fingerprint(ContentHash):
    """One walk through values and all that they refer to, each object once."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[int, int] = {}  # of the objects visited so far, by id
        self._visited: list[object] = []  # kept alive, so that no id is used again
        #: Whether modules were imported on the way.
        self.imported_modules = False
        #: What the functions read that is not part of the fingerprint, in order.
        self.unseen: dict[str, None] = {}

    def add(self, value: Any) -> None:
        """Add a value, and all that it refers to."""
        kind = type(value)
        if kind in self._PLAIN:
            self._PLAIN[kind](self, value)
        elif id(value) in self._numbers:
            self.put("seen", str(self._numbers[id(value)]).encode())
        else:
            self._numbers[id(value)] = len(self._numbers)
            self._visited.append(value)
            self._method_for(value)(self, value)

    def _method_for(self, value: object) -> _Visit:
        kind = type(value)
        if kind in self._BY_TYPE:
            return self._BY_TYPE[kind]
        # of a proxy, __class__ is the type of what it wraps
        bases = (*kind.__mro__, *value.__class__.__mro__)
        known = (self._BY_BASE[base] for base in bases if base in self._BY_BASE)
        return next(known, _Fingerprint._instance)

    def _items(self, tag: str, items: Any) -> None:
        self.put(tag, str(len(items)).encode())
        for item in items:
            self.add(item)

    def _atom(self, value: Any) -> None:
        self.put(type(value).__name__, repr(value).encode())

    def _tuple(self, value: tuple[Any, ...]) -> None:
        self._items("tuple", value)

    def _list(self, value: list[Any]) -> None:
        self._items("list", value)

    def _set(self, value: set[Any] | frozenset[Any]) -> None:
        self._items("set", sorted(fingerprint(item) for item in value))

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        self._items("dict", [part for item in value.items() for part in item])

    def _array(self, value: npt.NDArray[Any]) -> None:
        if value.dtype.hasobject:
            self._instance(value)
        else:
            self.put_array(value)

    def _bound_method(self, value: MethodType) -> None:
        if _is_global_generator(value.__self__):
            self._library("random", value.__name__)
        else:
            self._items("method", (value.__func__, value.__self__))

    def _builtin(self, value: BuiltinFunctionType) -> None:
        owner = value.__self__
        self.put("builtin", f"{value.__module__}.{value.__qualname__}".encode())
        if not (owner is None or isinstance(owner, ModuleType) or _is_global_generator(owner)):
            self.add(owner)

    def _wrapped_method(self, value: staticmethod[..., Any] | classmethod[Any, ..., Any]) -> None:
        self._items(type(value).__name__, (value.__func__,))

    def _property(self, value: property) -> None:
        self._items("property", (value.fget, value.fset, value.fdel))

    def _descriptor(self, value: Any) -> None:
        self.put("descriptor", value.__name__.encode())

    def _enum_member(self, value: enum.Enum) -> None:
        self._items("enum", (type(value), value.name))

    def _code(self, code: CodeType) -> None:
        self.put("code", code.co_code)
        self.add((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
        self.add((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
        self.add((code.co_flags, code.co_exceptiontable, code.co_consts))

    def _function(self, function: FunctionType) -> None:
        if not is_user_function(function):
            self._function_of_library(function)
            return
        self.put("function", function.__name__.encode())
        if isinstance(function.__code__, CodeType):
            self.unseen.update(dict.fromkeys(unseen_by(function)))
        self._code(function.__code__)
        self.add((function.__defaults__, function.__kwdefaults__, function.__dict__))
        self._closure(function)
        if not issubclass(type(function), FunctionType):  # a proxy, with a decorator's own function
            found = gc.get_referents(function)
            self._items("proxy", [f for f in found if isinstance(f, _CALLABLE) and f != function])
        known = function.__globals__
        for name in sorted(set(names_of_globals(function.__code__))):
            if name in known:
                self.put("global", name.encode())
                self.add(known[name])
        for level, name, parts in sorted(set(imports(function.__code__))):
            self._late_import(level, name, parts, known.get("__package__") or "")

    def _function_of_library(self, function: FunctionType) -> None:
        """Add a library's function, and what a decorator of a library was given by the user."""
        self._library(function.__globals__["__name__"], function.__code__.co_qualname)
        if function.__code__ is _SINGLE_DISPATCH:
            self.add(function.__dict__["registry"])  # the rest is a cache
            return
        self._closure(function)
        kept = [function.__defaults__ or (), (function.__kwdefaults__ or {}).values()]
        for value in itertools.chain(*kept, function.__dict__.values()):
            if isinstance(value, FunctionType | MethodType | functools.partial):
                self.add(value)

    def _closure(self, function: FunctionType) -> None:
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # not assigned yet
                self.put("empty", b"")

    def _class(self, value: type) -> None:
        if not is_user_class(value):
            self._library(value.__module__, value.__qualname__)
            return
        self.put("class", value.__qualname__.encode())
        self.add((value.__bases__, type(value)))
        numbered = issubclass(value, enum.Enum)
        if numbered:
            members: Any = value
            self.add(tuple((member.name, member.value) for member in members))
        self.add((getattr(value, "__struct_fields__", 0), getattr(value, "__struct_defaults__", 0)))
        for name, item in sorted(vars(value).items()):
            if name in _IGNORED_ATTRIBUTES or name.startswith("__struct_"):
                continue
            if numbered and not isinstance(item, _METHODS):
                continue
            self.put("attribute", name.encode())
            self.add(item)

    def _module(self, module: ModuleType) -> None:
        name = module.__name__
        if not is_user_module(name):
            self._library(name, "")
            return
        self.put("module", name.encode())
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_file():
            self.put("source", Path(file).read_bytes())
        # the user of the module may reach any of it by name
        for key, value in sorted(vars(module).items()):
            if not key.startswith("__"):
                self.put("global", key.encode())
                self.add(value)

    def _late_import(self, level: int, name: str, parts: tuple[str, ...], package: str) -> None:
        """Add what a function will import when it is called, and import it now."""
        self.put("import", f"{level} {name} {parts}".encode())
        try:
            whole = importlib.util.resolve_name("." * level + name, package) if level else name
            self._import_if_own(whole)
            for part in parts:
                if not hasattr(sys.modules.get(whole), part):
                    self._import_if_own(f"{whole}.{part}")
        except ImportError:  # the function may never be called
            return
        if whole in sys.modules:
            self.add(sys.modules[whole])

    def _import_if_own(self, name: str) -> None:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None and is_user_file(spec.origin):
                importlib.import_module(name)
                self.imported_modules = True

    def _library(self, module: str, name: str) -> None:
        version = _version((module or "").partition(".")[0])
        self.put("library", f"{module} {name} {version}".encode())

    def _instance(self, value: Any) -> None:
        kind = type(value)
        inner = getattr(value, "py_func", None) if kind.__module__.startswith("numba.") else None
        if kind is functools.cached_property:
            inner = value.func
        if inner is not None:
            self._items(kind.__qualname__, (inner,))
            return
        if kind is _CACHE:
            self.put("cache", b"")
            self._hidden_functions(value)
            return
        own_state = is_user_class(kind) and {"__getstate__", "__reduce__"} & vars(kind).keys()
        if own_state:
            self.add(getattr(value, "__dict__", None))  # with what pickle would leave out
        try:
            how = value.__reduce_ex__(4)
        except Exception as error:
            raise FingerprintError(
                f"{value!r} has no content that could be compared: {error}"
            ) from error
        if isinstance(how, str):
            self.put("name", f"{kind.__module__}.{how}".encode())
            self._hidden_functions(value)
            return
        self.put("object", str(len(how)).encode())
        for part in how:
            self.add([*part] if isinstance(part, Iterator) else part)

    def _hidden_functions(self, value: Any) -> None:
        """Add the functions in an object of C, such as a cache, that pickle knows by name only."""
        inner = getattr(value, "__wrapped__", None)
        self.add(inner)
        if not (isinstance(inner, FunctionType) and is_user_function(inner)):
            # `functools.wraps` may have named another
            found = gc.get_referents(value)
            self._items("functions", [f for f in found if isinstance(f, FunctionType)])

    #: Values without an identity of their own: two equal ones are the same.
    _PLAIN: ClassVar[dict[type, _Visit]] = {
        **dict.fromkeys((bool, int, float, complex, str, bytes, range), _atom),
        **dict.fromkeys((type(None), type(...)), _atom),
        CodeType: _code,
        tuple: _tuple,
    }
    #: For exactly these types, since a subclass may have a state of its own.
    _BY_TYPE: ClassVar[dict[type, _Visit]] = {
        list: _list,
        set: _set,
        frozenset: _set,
        dict: _mapping,
        MappingProxyType: _mapping,
        np.ndarray: _array,
    }
    #: For these types and their subclasses.
    _BY_BASE: ClassVar[dict[type, _Visit]] = {
        FunctionType: _function,
        type: _class,
        ModuleType: _module,
        MethodType: _bound_method,
        BuiltinFunctionType: _builtin,
        staticmethod: _wrapped_method,
        classmethod: _wrapped_method,
        property: _property,
        GetSetDescriptorType: _descriptor,
        MemberDescriptorType: _descriptor,
        WrapperDescriptorType: _descriptor,
        enum.Enum: _enum_member,
    }


def _is_global_generator(owner: object) -> bool:
    return any(owner is generator for generator in _GLOBAL_GENERATORS)


@functools.cache
def _version(package: str) -> str:
    """Return the version of a library, "" for what comes with Python."""
    if package in sys.stdlib_module_names:
        return ""
    known = getattr(sys.modules.get(package), "__version__", None)
    if known is not None:
        return str(known)
    names = importlib.metadata.packages_distributions().get(package, ())
    return " ".join(importlib.metadata.version(name) for name in names)

"""What runs leave behind in a strategy that is no factory: state that changed while a run lasted.

Looked at are the closure, the defaults, the attributes and the globals of a function, the arguments
of a partial, the object that it is bound to, and so on through the user's own functions. A look is
a few microseconds where there is no state, and bounded where there is much: of long lists, dicts
and arrays a part is looked at. So it may miss a change; what it finds has changed. Objects of
libraries count by their identity, except random generators, and models that have `fit` and
`get_params`.
"""

from __future__ import annotations

import dis
import functools
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

import numpy as np

from backtest_kit._values.origin import is_user_class, is_user_function

#: Items of a container, values of an array, and values of a whole look that are looked at.
_ITEMS: Final = 64
_VALUES: Final = 4096
_MOST: Final = 20_000
#: Changes that are remembered.
_REMEMBERED: Final = 256
_ATOMS: Final = frozenset({type(None), bool, str, bytes})
_NUMBERS: Final = frozenset({float, complex, range})


class _Part(NamedTuple):
    """A piece of state: what it is called, what it held, and what keeps its identity from reuse."""

    label: str
    content: int
    holder: object


class _Change(NamedTuple):
    before: int | None
    after: int
    holder: object


#: By piece of state: what it held when a run began, and when that run ended.
_changes: OrderedDict[tuple[object, ...], _Change] = OrderedDict()


class Leftovers:
    """The state of one strategy as one run finds it; `found` names what earlier runs changed."""

    def __init__(
        self,
        function: Callable[..., Any],
        manage: Callable[..., Any] | None = None,
        *,
        made: bool,
    ) -> None:
        self._functions = (function,) if manage is None else (function, manage)
        self._made = made
        self._begun = self._look()
        self.found = tuple(
            part.label
            for key, part in self._begun.items()
            if (change := _changes.get(key)) is not None and change.after == part.content
        )

    def note(self) -> None:
        """Remember what has changed since the run began."""
        ended = self._look()
        for key, (_, content, holder) in ended.items():
            before = self._begun.get(key)
            if before is not None and before.content == content:
                continue
            known = _changes.pop(key, None)
            if known is not None:
                clean = known.before
            else:
                clean = None if before is None else before.content
            if clean != content:  # or it is again as it was before the first run
                _changes[key] = _Change(clean, content, holder)
        while len(_changes) > _REMEMBERED:
            _changes.popitem(last=False)

    def _look(self) -> dict[tuple[object, ...], _Part]:
        try:
            found: dict[tuple[object, ...], _Part] = {}
            for function in self._functions:
                found |= _parts(function, made=self._made)
            return found
        except Exception:  # noqa: BLE001 - whatever an object does when it is looked at
            return {}


def _parts(function: Callable[..., Any], *, made: bool) -> dict[tuple[object, ...], _Part]:
    """Return all state that a function can reach by name; of one just `made`, the globals."""
    found: dict[tuple[object, ...], _Part] = {}
    content = _Content()
    functions: list[FunctionType] = []
    seen: set[int] = set()

    def follow(value: Any) -> bool:
        """Go on with the code of an own function or class; say whether there is no more to it."""
        if isinstance(value, MethodType):
            follow(value.__func__)
            return False
        if isinstance(value, functools.partial):
            if not made and id(value) not in seen:
                seen.add(id(value))
                given = [*enumerate(value.args, 1), *value.keywords.items()]
                for name, item in given:
                    put(f"argument {name!r} of a partial", value, f"{name}", item)
            return follow(value.func)
        if isinstance(value, FunctionType):
            if value not in functions and is_user_function(value):
                functions.append(value)
            return True
        if isinstance(value, type):
            if id(value) not in seen and is_user_class(value):
                seen.add(id(value))
                for name, item in [*vars(value).items()]:
                    inner = getattr(item, "__func__", item)
                    if not name.startswith("__") and not isinstance(item, property):
                        put(f"class variable '{value.__name__}.{name}'", value, name, inner)
            return True
        return isinstance(value, ModuleType)

    def put(label: str, owner: object, name: str, value: Any) -> None:
        try:
            if not follow(value):
                found[id(owner), name] = _Part(label, content.of(value), owner)
        except Exception:  # noqa: BLE001 - whatever an object does when it is looked at
            return

    while isinstance(function, functools.partial):
        follow(function)
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is None and not isinstance(function, FunctionType):
        owner = function  # an object with __call__
        follow(vars(type(function)).get("__call__"))
    if owner is not None and not isinstance(owner, ModuleType):
        follow(type(owner))
        if not made:
            name = type(owner).__name__
            found[id(owner), ""] = _Part(f"object of '{name}'", content.state(owner), owner)
    follow(function)
    for each in functions:  # grows while it is gone through
        if not made:
            for name, cell in zip(each.__code__.co_freevars, each.__closure__ or (), strict=True):
                try:
                    put(f"closure variable {name!r}", cell, name, cell.cell_contents)
                except ValueError:  # nothing in it yet
                    continue
            for name, default in _defaults(each):
                put(f"default of {name!r}", each, name, default)
            for name, item in each.__dict__.items():
                put(f"attribute '{each.__name__}.{name}'", each, f".{name}", item)
        known = each.__globals__
        for name in _named(each.__code__):
            if name in known:
                put(f"global {name!r}", known, name, known[name])
    return found


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    defaults = function.__defaults__ or ()
    code = function.__code__
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    yield from zip(names, defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


class _Content:
    """What values hold, as numbers that are compared within this process."""

    def __init__(self) -> None:
        self._left = _MOST
        self._seen: set[int] = set()

    def of(self, value: Any) -> int:
        kind = type(value)
        if kind in _ATOMS:
            return hash((kind, value))
        if kind is int:
            return hash((kind, hex(value)))  # -1 and -2 have the same hash
        if kind in _NUMBERS:
            return hash((kind, repr(value)))
        self._left -= 1
        if self._left < 0 or id(value) in self._seen:
            return 0
        self._seen.add(id(value))
        try:
            return hash((kind, self._compound(value, kind)))
        finally:
            self._seen.discard(id(value))

    def state(self, value: Any) -> int:
        """Return what the attributes of an object hold."""
        names = {n for k in type(value).__mro__ for n in _slots(k) if hasattr(value, n)}
        slots = [(name, getattr(value, name)) for name in sorted(names)]
        return self._pairs([*getattr(value, "__dict__", {}).items(), *slots])

    def _compound(self, value: Any, kind: type) -> object:
        if isinstance(value, FunctionType | type | ModuleType):
            return id(value)
        if isinstance(value, MethodType):
            return id(value.__func__), self.of(value.__self__)
        if isinstance(value, functools.partial):
            return self.of(value.func), self.of(value.args), self.of(value.keywords)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, list | tuple | deque):
            ends = [*islice(value, _ITEMS), *islice(reversed(value), _ITEMS)]
            return len(value), tuple(map(self.of, ends))
        if isinstance(value, dict):
            items = value.items()
            ends = [*islice(items, _ITEMS), *islice(reversed(items), _ITEMS)]
            return len(value), self._pairs(ends)
        if isinstance(value, set | frozenset):
            few = len(value) <= _ITEMS
            return len(value), frozenset(map(self.of, value)) if few else 0
        if isinstance(value, random.Random):
            return value.getstate()
        if isinstance(value, np.random.Generator):
            return repr(value.bit_generator.state)
        if is_user_class(kind) or (hasattr(value, "fit") and hasattr(value, "get_params")):
            return self.state(value)
        return id(value)

    def _pairs(self, pairs: Iterable[tuple[Any, Any]]) -> int:
        return hash(tuple((self.of(name), self.of(item)) for name, item in pairs))

    def _array(self, value: Any) -> object:
        if value.dtype.hasobject:
            return value.shape, id(value)
        step = -(-value.size // _VALUES) or 1
        return value.shape, value.dtype.str, value.flat[::step].tobytes()


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


@functools.lru_cache(maxsize=1024)
def _named(code: CodeType) -> tuple[str, ...]:
    """Return the globals that code names."""
    names = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL")
    }
    inner = (name for c in code.co_consts if isinstance(c, CodeType) for name in _named(c))
    return tuple(sorted({*names, *inner}))

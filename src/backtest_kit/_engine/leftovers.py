"""What runs leave behind in a strategy that is no factory: state that changed while a run lasted.

Looked at are the closure, the defaults, the attributes and the globals of a function, what it names
of the user's own modules, the arguments of a partial, the object that it is bound to, and so on
through the user's own functions. State that a module holds is `shared`: any other strategy may see
it, so a trial that changes it makes figures depend on the order of trials. A look is
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
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

import numpy as np

from backtest_kit._values.origin import is_user_class, is_user_function, is_user_module

#: Items of a container, values of an array, and values of a whole look that are looked at.
_ITEMS: Final = 64
_VALUES: Final = 4096
_MOST: Final = 20_000
#: Changes that are remembered.
_REMEMBERED: Final = 256
_ATOMS: Final = frozenset({type(None), bool, str, bytes})
_CALLABLE: Final = (FunctionType, MethodType, functools.partial)
_EMPTY: Final = CellType()
_NUMBERS: Final = frozenset({float, complex, range})


#: By what a piece of state is known in this process: who holds it, and under which name.
StateKey = tuple[object, ...]
#: Containers are known by themselves as well: several may hold the same one.
_CONTAINERS: Final = (list, dict, set, deque, bytearray, np.ndarray)


class Part(NamedTuple):
    """A piece of state: what it is called, what it held, and what keeps its identity from reuse.

    `place` says where in the code it is, in any process.
    """

    label: str
    content: int
    holder: object
    shared: bool
    place: str


class _Change(NamedTuple):
    before: int | None
    after: int
    holder: object
    by: str


#: By piece of state: what it held when a run began, and when that run ended.
_changes: OrderedDict[StateKey, _Change] = OrderedDict()


def any_changes() -> bool:
    """Say whether any run in this process has left anything changed."""
    return bool(_changes)


class Leftovers:
    """The state of one strategy as one run finds it; `found` names what earlier runs changed.

    `of_others` is what was changed by runs of other strategies, each with the name of one. `begun`
    is all of the state, `changed` the places of what has changed until `note`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        manage: Callable[..., Any] | None = None,
        *,
        made: bool,
        name: str = "",
    ) -> None:
        self._functions = (function,) if manage is None else (function, manage)
        self._made = made
        self._name = name
        self.begun = self._look()
        left = [
            (part.label, change.by)
            for key, part in self.begun.items()
            if (change := _changes.get(key)) is not None and change.after == part.content
        ]
        self.found = tuple(dict.fromkeys(label for label, _ in left))
        self.of_others = tuple(dict.fromkeys((label, by) for label, by in left if by != name))
        self.changed: tuple[str, ...] = ()

    def note(self) -> tuple[str, ...]:
        """Remember what has changed since the run began; return what of it is shared."""
        ended = self._look()
        shared, changed = [], []
        for key, (label, content, holder, is_shared, place) in ended.items():
            before = self.begun.get(key)
            if before is not None and before.content == content:
                continue
            changed.append(place)
            if is_shared:
                shared.append(label)
            known = _changes.pop(key, None)
            if known is not None:
                clean = known.before
            else:
                clean = None if before is None else before.content
            if clean != content:  # or it is again as it was before the first run
                _changes[key] = _Change(clean, content, holder, self._name)
        while len(_changes) > _REMEMBERED:
            _changes.popitem(last=False)
        self.changed = tuple(dict.fromkeys(changed))
        return tuple(dict.fromkeys(shared))

    def _look(self) -> dict[StateKey, Part]:
        try:
            found: dict[StateKey, Part] = {}
            for function in self._functions:
                found |= _parts(function, made=self._made)
            return found
        except Exception:  # noqa: BLE001 - whatever an object does when it is looked at
            return {}


def _parts(function: Callable[..., Any], *, made: bool) -> dict[StateKey, Part]:
    """Return all state that a function can reach by name; of one just `made`, what is shared."""
    return _Look(made=made).at(function)


class _Look:
    """One look at all that a function can reach."""

    def __init__(self, *, made: bool) -> None:
        self._made = made
        self._found: dict[StateKey, Part] = {}
        #: How many pieces of state have the same place so far.
        self._places: dict[str, int] = {}
        self._content = _Content()
        #: Functions of the user's own, and whether a module holds them.
        self._functions: dict[FunctionType, bool] = {}
        self._seen: set[int] = set()

    def at(self, function: Callable[..., Any]) -> dict[StateKey, Part]:
        """Return the state that a strategy's function can reach."""
        while isinstance(function, functools.partial):
            self._follow(function, shared=False)
            function = function.func
        owner = getattr(function, "__self__", None)
        if owner is None and not isinstance(function, FunctionType):
            owner = function  # an object with __call__
            self._follow(vars(type(function)).get("__call__"), shared=False)
        if owner is not None and not isinstance(owner, ModuleType):
            self._follow(type(owner), shared=False)
            if not self._made:
                label = f"object of '{type(owner).__name__}'"
                place = self._place((id(owner), ""), type(owner), label)
                state = self._content.state(owner)
                self._found[id(owner), ""] = Part(label, state, owner, False, place)
        self._follow(function, shared=False)
        done = 0
        while done < len(self._functions):  # there may be more after each
            for each, shared in [*self._functions.items()][done:]:
                self._function(each, shared=shared)
                done += 1
        return self._found

    def _function(self, function: FunctionType, *, shared: bool) -> None:
        """Look at a function's own state, and at the globals that it names."""
        own = self._made and not shared  # what it holds by itself was made for this run
        free, cells = function.__code__.co_freevars, function.__closure__ or ()
        for name, cell in zip(free, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # nothing in it yet
                continue
            if own:
                self._follow(value, shared=False)
            else:
                label = f"closure variable {name!r}"
                self._put(label, cell, name, value, function, shared=shared)
        if not own:
            for name, default in _defaults(function):
                self._put(f"default of {name!r}", function, name, default, shared=shared)
            for name, item in function.__dict__.items():
                label = f"attribute '{function.__name__}.{name}'"
                self._put(label, function, f".{name}", item, shared=shared)
        known = function.__globals__
        names, attributes = _named(function.__code__)
        for name in names:
            if name in known:
                value = known[name]
                self._put(f"global {name!r}", known, name, value, shared=True)
                self._module(value, name, attributes)

    def _module(self, value: Any, label: str, attributes: tuple[str, ...]) -> None:
        """Look at what code may mean of a module of the user's own: what it names of anything."""
        if not isinstance(value, ModuleType) or not is_user_module(value.__name__):
            return
        known = vars(value)
        for name in attributes:
            if name in known and (id(known), name) not in self._found:
                inner, item = f"{label}.{name}", known[name]
                self._put(f"global '{inner}'", known, name, item, shared=True)
                if item is not value and id(item) not in self._seen:
                    self._seen.add(id(item))
                    self._module(item, inner, attributes)

    def _put(
        self,
        label: str,
        owner: object,
        name: str,
        value: Any,
        where: object = None,
        *,
        shared: bool,
    ) -> None:
        """Take what an owner holds; `where`: in whose code, if not in the owner's."""
        try:
            if not self._follow(value, shared=shared):
                key: StateKey = (id(owner), name)
                place = self._place(key, owner if where is None else where, label)
                content = self._content.of(value)
                self._found[key] = Part(label, content, owner, shared, place)
                if isinstance(value, _CONTAINERS):
                    known = self._found.get((id(value), ""))
                    others = shared or (known is not None and known.shared)
                    self._found[id(value), ""] = Part(label, content, value, others, place)
        except Exception:  # noqa: BLE001 - whatever an object does when it is looked at
            return

    def _place(self, key: StateKey, owner: object, label: str) -> str:
        """Return where something is in the code; what is there several times is counted."""
        if key in self._found:
            return self._found[key].place
        if isinstance(owner, dict):
            where = str(owner.get("__name__"))
        else:
            named = owner.func if isinstance(owner, functools.partial) else owner
            where = f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
        place = f"{where}: {label}"
        count = self._places[place] = self._places.get(place, 0) + 1
        return place if count == 1 else f"{place} {count}"

    def _follow(self, value: Any, *, shared: bool) -> bool:
        """Go on with the code of an own function or class; say whether there is no more to it."""
        if isinstance(value, MethodType):
            self._follow(value.__func__, shared=shared)
            return False
        if isinstance(value, functools.partial):
            if (shared or not self._made) and id(value) not in self._seen:
                self._seen.add(id(value))
                given = [*enumerate(value.args, 1), *value.keywords.items()]
                for name, item in given:
                    label = f"argument {name!r} of a partial"
                    self._put(label, value, f"{name}", item, shared=shared)
            return self._follow(value.func, shared=shared)
        if isinstance(value, FunctionType):
            if not is_user_function(value):
                # what a decorator of a library was given
                cells = [cell for cell in value.__closure__ or () if cell != _EMPTY]
                for inner in (*(c.cell_contents for c in cells), *value.__dict__.values()):
                    if isinstance(inner, _CALLABLE) and id(inner) not in self._seen:
                        self._seen.add(id(inner))
                        self._follow(inner, shared=shared)
            elif value not in self._functions:
                # those in a function are made when it is called, perhaps for each strategy
                apart = "<locals>" in value.__code__.co_qualname
                self._functions[value] = shared or not apart
            return True
        if isinstance(value, type):
            if id(value) not in self._seen and is_user_class(value):
                self._seen.add(id(value))
                for name, item in [*vars(value).items()]:
                    inner = getattr(item, "__func__", item)
                    if not name.startswith("__") and not isinstance(item, property):
                        apart = "<locals>" in value.__qualname__
                        label = f"class variable '{value.__name__}.{name}'"
                        self._put(label, value, name, inner, shared=shared or not apart)
            return True
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, FunctionType):  # what a decorator that is a class was given
            self._follow(wrapped, shared=shared)
        return isinstance(value, ModuleType)


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
def _named(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the globals that code names, and the attributes of anything."""
    names, attributes = set[str](), set[str]()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"):
            names.add(step.argval)
        elif step.opname.endswith(("_ATTR", "_METHOD")):
            attributes.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner, of_inner = _named(constant)
            names.update(inner)
            attributes.update(of_inner)
    return tuple(sorted(names)), tuple(sorted(attributes))

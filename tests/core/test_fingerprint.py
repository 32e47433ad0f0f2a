"""Fingerprints: equal for equal code, parameters and data; another for anything that may matter."""

import contextlib
import copy
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from functools import lru_cache, partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit._values.errors import FingerprintError
from backtest_kit._values.origin import LIBRARY
from backtest_kit._walker.fingerprint import fingerprint, library_fingerprint

MAIN = """
import enum
import functools
from dataclasses import dataclass
import numpy as np
import own_helper
from own_helper import factor

LEVEL = 3
WEIGHTS = np.array([1.0, 2.0])
NAMES = {"a", "b", "c"}


class Side(enum.Enum):
    UP = 1
    DOWN = 2


class Base:
    def limit(self):
        return 10


@dataclass
class Rules(Base):
    fast: int = 5
    side: Side = Side.UP

    def allow(self, x):
        return x < self.limit()


RULES = Rules()


def smooth(x, window=4):
    return x * window


@functools.lru_cache
def cached(x):
    return x + 1


def make(period):
    def get_signal(symbol, when):
        if symbol in NAMES and RULES.allow(period):
            return [smooth(w) for w in WEIGHTS] + [LEVEL, cached(2), factor(3)]
        from own_late import answer
        return lambda: answer + own_helper.deep.SETTING
    return get_signal


def unrelated():
    return 1


get_signal = make(20)
"""
FILES = {
    "own_main": MAIN,
    "own_helper": "import own_deep as deep\ndef factor(x):\n    return x * 2\n",
    "own_deep": "import os\nSETTING = int(os.environ.get('SETTING', 1))\n",
    "own_late": "answer = 42\n",
}
CHANGES = {
    "a constant in the code": ("own_main", "return 10", "return 11"),
    "a closed-over parameter": ("own_main", "make(20)", "make(21)"),
    "a default": ("own_main", "window=4", "window=5"),
    "a helper": ("own_main", "x * window", "x / window"),
    "a global number": ("own_main", "LEVEL = 3", "LEVEL = 4"),
    "a global array": ("own_main", "[1.0, 2.0]", "[1.0, 2.5]"),
    "a global set": ("own_main", '"b", "c"', '"b", "d"'),
    "the field of an object": ("own_main", "RULES = Rules()", "RULES = Rules(6)"),
    "the method of a class": ("own_main", "x < self.limit()", "x <= self.limit()"),
    "a member of an enum": ("own_main", "UP = 1", "UP = 3"),
    "a cached function": ("own_main", "return x + 1", "return x + 2"),
    "a function of another module": ("own_helper", "x * 2", "x * 3"),
    "a module of another module": ("own_deep", "'SETTING', 1", "'SETTING', 2"),
    "a module that is imported late": ("own_late", "42", "43"),
}
SAME = {
    "a comment": ("own_main", "LEVEL = 3", "LEVEL = 3  # of five"),
    "lines that move": ("own_main", "import enum", "\n\n\nimport enum"),
    "what is not used": ("own_main", "    return 1\n", "    return 2\n"),
}


@pytest.fixture
def strategy(tmp_path, monkeypatch):
    """Return what writes a changed strategy, and returns its fingerprint as a new process would."""
    monkeypatch.syspath_prepend(tmp_path)

    def found(module=None, old="", new=""):
        for name, text in FILES.items():
            if name == module:
                assert text.count(old) == 1
                text = text.replace(old, new)
            (tmp_path / f"{name}.py").write_text(text)
        for name in FILES:
            sys.modules.pop(name, None)
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        try:
            spec = importlib.util.spec_from_file_location("own_main", tmp_path / "own_main.py")
            loaded = sys.modules["own_main"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
            return fingerprint(loaded.get_signal)
        finally:
            sys.dont_write_bytecode = False
            for name in FILES:
                sys.modules.pop(name, None)

    return found


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_may_change_an_answer_changes_the_fingerprint(strategy, change):
    assert strategy(*CHANGES[change]) != strategy()


@pytest.mark.parametrize("change", SAME)
def test_what_can_change_no_answer_does_not(strategy, change):
    assert strategy(*SAME[change]) == strategy()


def test_a_value_made_from_the_environment_counts(strategy, monkeypatch):
    before = strategy()
    monkeypatch.setenv("SETTING", "2")
    assert strategy() != before


def test_the_fingerprint_is_the_same_in_every_process(strategy, tmp_path):
    here = strategy()
    code = (
        "import own_main as m; from backtest_kit._walker.fingerprint import fingerprint; "
        "print(fingerprint(m.get_signal))"
    )
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}{os.pathsep}{LIBRARY.parent}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.timedeltas(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
    ),
)


@given(values)
def test_a_copy_has_the_fingerprint_of_the_original(value):
    assert fingerprint(copy.deepcopy(value)) == fingerprint(value)


@given(values, values)
def test_values_have_one_fingerprint_exactly_where_they_print_the_same(first, second):
    same = repr(first) == repr(second)
    if same or not _has_sets(first) or not _has_sets(second):
        assert (fingerprint(first) == fingerprint(second)) == same


def _has_sets(value):
    return "frozenset" in repr(value)


def test_kinds_that_print_alike_differ():
    assert fingerprint([1]) != fingerprint((1,))
    assert fingerprint(1) != fingerprint(1.0) != fingerprint("1.0")
    assert fingerprint(np.zeros(2)) != fingerprint(np.zeros(2, np.float32))
    assert fingerprint(np.zeros((2, 3))) != fingerprint(np.zeros((3, 2)))
    assert fingerprint([0.0]) != fingerprint([-0.0])
    assert fingerprint(["a", "b"], "c") != fingerprint(["a"], "b", "c")
    assert fingerprint({3, 1, 2}) == fingerprint({2, 3, 1})


def test_the_method_of_an_array_counts_with_the_array():
    assert fingerprint(np.zeros(3).mean) == fingerprint(np.zeros(3).mean)
    assert fingerprint(np.zeros(3).mean) != fingerprint(np.ones(3).mean)


def test_partials_and_caches_are_seen_through():
    def rule(x, y):
        return x + y

    assert fingerprint(partial(rule, 1)) == fingerprint(partial(rule, 1))
    assert fingerprint(partial(rule, 1)) != fingerprint(partial(rule, 2))
    assert fingerprint(lru_cache(rule)) == fingerprint(lru_cache(rule))
    assert fingerprint(lru_cache(rule)) != fingerprint(lru_cache(lambda x, y: x - y))


def test_a_subclass_of_a_container_counts_with_its_own_state():
    class Levels(list):
        pass

    first, second = Levels([1]), Levels([1])
    assert fingerprint(first) == fingerprint(second) != fingerprint([1])
    second.name = "other"
    assert fingerprint(first) != fingerprint(second)


def test_what_refers_to_itself_has_a_fingerprint():
    a, b = [1], [1]
    a.append(a)
    b.append(b)
    assert fingerprint(a) == fingerprint(b)


def test_what_has_no_content_is_named(tmp_path):
    lock = threading.Lock()
    with (tmp_path / "f").open("w") as file:
        for thing in (lock, file, {"deep": [lock]}, lambda: file):
            with pytest.raises(FingerprintError, match=r"lock|TextIOWrapper"):
                fingerprint(thing)


def test_what_is_too_deep_to_be_looked_at_is_named():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(FingerprintError, match="can't be compared: RecursionError"):
        fingerprint(deep)


def test_a_function_of_a_library_counts_with_what_it_closes_over():
    first, second = (functools.singledispatchmethod(lambda self, i=i: i).func for i in (1, 2))
    assert fingerprint(first) != fingerprint(second)
    one, other = (
        contextlib.contextmanager(function) for function in (lambda: iter([1]), lambda: iter([2]))
    )
    for function in (one, other):
        del function.__wrapped__
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.slow
def test_the_library_counts_with_its_source(tmp_path):
    """Any of its modules, in whichever package."""
    copy = tmp_path / "backtest_kit"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import backtest_kit._walker.fingerprint as f; print(f.library_fingerprint())"

    # coverage would take the copy for a part of the library that is not tested
    outside = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}

    def told():
        return subprocess.run(
            [sys.executable, "-c", code],
            env=outside | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert told() == library_fingerprint()
    for name in ("_rules/life.py", "_engine/run.py", "cli/walk.py", "__init__.py"):
        path = copy / name
        source = path.read_bytes()
        path.write_bytes(source + b" ")
        assert told() != library_fingerprint(), name
        path.write_bytes(source)


def one(source, old, new):
    """Two versions of a strategy in one file."""
    return {"own_main": source.replace("?", old)}, {"own_main": source.replace("?", new)}


def two(main, module, source, old, new):
    """Two versions of a module that a strategy uses."""
    return tuple({"own_main": main, module: source.replace("?", text)} for text in (old, new))


CLASSES = "import enum\nclass Side(enum.Enum):\n    LONG = 1\n    SHORT = 2\n"
WRAPS = "import functools\nimport numpy as np\nas_mean = functools.wraps(np.mean)\n"
HIDDEN = {
    "a member of an enum as a class attribute": one(
        CLASSES + "class S:\n    side = Side.?\n    def __call__(self):\n        return self.side\n"
        "get_signal = S()\n",
        "LONG",
        "SHORT",
    ),
    "a property of an enum": one(
        "import enum\nclass M(enum.Enum):\n    A = 1\n    @property\n    def limit(self):\n"
        "        return ?\ndef get_signal():\n    return M.A.limit\n",
        "5",
        "6",
    ),
    "a class method of an enum": one(
        "import enum\nclass M(enum.Enum):\n    A = 1\n    @classmethod\n    def limit(cls):\n"
        "        return ?\ndef get_signal():\n    return M.limit()\n",
        "5",
        "6",
    ),
    "the state of a decorator that is a class": one(
        "import functools\nclass Limit:\n    def __init__(self, f, most):\n"
        "        functools.update_wrapper(self, f)\n        self.most = most\n"
        "    def __call__(self):\n        return self.most\n"
        "get_signal = Limit(lambda: 1, ?)\n",
        "5",
        "6",
    ),
    "a default of a struct": one(
        "import msgspec\nclass P(msgspec.Struct):\n    fast: int = ?\n"
        "def get_signal():\n    return P().fast\n",
        "5",
        "6",
    ),
    "a metaclass": one(
        "class M(type):\n    def limit(cls):\n        return ?\n"
        "class P(metaclass=M):\n    pass\ndef get_signal():\n    return P.limit()\n",
        "5",
        "6",
    ),
    "a mask": one(
        "import numpy as np\nX = np.ma.array([1, 2], mask=[0, ?])\n"
        "def get_signal():\n    return X.sum()\n",
        "0",
        "1",
    ),
    "the names of a structured array": one(
        "import numpy as np\nX = np.zeros(1, dtype=[('?', 'i8')])\n"
        "def get_signal():\n    return X.dtype.names\n",
        "a",
        "b",
    ),
    "what does not travel": one(
        "class P:\n    def __init__(self):\n        self.fast = ?\n    def __getstate__(self):\n"
        "        return {}\np = P()\ndef get_signal():\n    return p.fast\n",
        "5",
        "6",
    ),
    "a value set in another module": one(
        "import own_config\nown_config.P['fast'] = ?\ndef get_signal():\n"
        "    return own_config.P['fast']\n",
        "5",
        "6",
    ),
    "a list behind two modules": two(
        "import own_config\ndef get_signal():\n    return own_config.LEVELS\n",
        "own_values",
        "LEVELS = [?]\n",
        "5",
        "6",
    ),
    "a cached function behind two modules": two(
        "import own_config\ndef get_signal():\n    return own_config.f()\n",
        "own_values",
        "import functools\nLEVELS = []\n@functools.cache\ndef f():\n    return ?\n",
        "5",
        "6",
    ),
    "a module in a folder that is no package": two(
        "import own_pkg.helper\ndef get_signal():\n    return own_pkg.helper.f()\n",
        "own_pkg/helper",
        "def f():\n    return ?\n",
        "5",
        "6",
    ),
    "a part of a folder that is imported late": two(
        "def get_signal():\n    from own_pkg import helper\n    return helper.f()\n",
        "own_pkg/helper",
        "def f():\n    return ?\n",
        "5",
        "6",
    ),
    "what a late import imports": two(
        "def get_signal():\n    import own_config\n    return own_config.LEVELS\n",
        "own_values",
        "LEVELS = [?]\n",
        "5",
        "6",
    ),
    "a function under the name of a library's": one(
        WRAPS + "@as_mean\ndef get_signal():\n    return ?\n", "5", "6"
    ),
    "a method under the name of a library's": one(
        WRAPS + "class S:\n    @as_mean\n    def ask(self):\n        return ?\n"
        "get_signal = S().ask\n",
        "5",
        "6",
    ),
    "a class under the name of a library's": one(
        WRAPS + "@functools.wraps(np.ndarray, updated=())\nclass P:\n    def ask(self):\n"
        "        return ?\ndef get_signal():\n    return P().ask()\n",
        "5",
        "6",
    ),
    "values in a class under the name of a library's": one(
        WRAPS + "@functools.wraps(np.ndarray, updated=())\nclass P:\n    fast = ?\n"
        "def get_signal():\n    return P.fast\n",
        "5",
        "6",
    ),
    "a callable object under the name of a library's": one(
        WRAPS + "class S:\n    def __call__(self):\n        return ?\nget_signal = as_mean(S())\n",
        "5",
        "6",
    ),
    "a chain of names": one(
        WRAPS + "@as_mean\n@functools.wraps(len)\n@functools.lru_cache\n@as_mean\n"
        "def get_signal():\n    return ?\n",
        "5",
        "6",
    ),
    "a cache under the name of a library's": one(
        WRAPS + "@as_mean\n@functools.lru_cache\ndef get_signal():\n    return ?\n", "5", "6"
    ),
    "a cached partial": one(
        WRAPS + "get_signal = functools.cache(functools.partial(max, ?, 1))\n", "5", "6"
    ),
    "a partial under the name of its function": one(
        WRAPS + "def rule(x):\n    return x\n"
        "get_signal = functools.update_wrapper(functools.partial(rule, ?), rule)\n",
        "5",
        "6",
    ),
    "a partial under the name of a library's": one(
        WRAPS + "get_signal = as_mean(functools.partial(lambda x: x, ?))\n", "5", "6"
    ),
    "a lambda as a default": one(
        WRAPS + "@as_mean\ndef get_signal(*, limit=as_mean(lambda: ?)):\n    return limit()\n",
        "5",
        "6",
    ),
    "a function as an attribute of a function": one(
        WRAPS + "@as_mean\ndef get_signal():\n    return get_signal.limit()\n"
        "get_signal.limit = as_mean(lambda: ?)\n",
        "5",
        "6",
    ),
    "a function for one type": one(
        WRAPS + "@functools.singledispatch\ndef rule(x):\n    return 1\n"
        "@rule.register\ndef _(x: int):\n    return ?\ndef get_signal():\n    return rule(1)\n",
        "5",
        "6",
    ),
    "a function for any type": one(
        WRAPS + "@as_mean\n@functools.singledispatch\ndef rule(x):\n    return ?\n"
        "def get_signal():\n    return rule(1)\n",
        "5",
        "6",
    ),
    "a method for one type": one(
        WRAPS + "class S:\n    @functools.singledispatchmethod\n    def ask(self, x):\n"
        "        return 1\n    @ask.register\n    def _(self, x: int):\n        return ?\n"
        "def get_signal():\n    return S().ask(1)\n",
        "5",
        "6",
    ),
    "a function in a vectorized one": one(
        WRAPS + "rule = np.vectorize(as_mean(lambda x: x + ?))\n"
        "def get_signal():\n    return int(rule(1))\n",
        "5",
        "6",
    ),
    "a module that is closed over": two(
        WRAPS + "import own_config\ndef make(module):\n    @as_mean\n    def get_signal():\n"
        "        return module.LEVELS\n    return get_signal\nget_signal = make(own_config)\n",
        "own_values",
        "LEVELS = [?]\n",
        "5",
        "6",
    ),
    "an object that is pickled as a name": one(
        WRAPS + "class P:\n    def __init__(self, fast):\n        self.fast = fast\n"
        "    def __reduce__(self):\n        return 'p'\np = P(?)\n"
        "def get_signal():\n    return p.fast\n",
        "5",
        "6",
    ),
    "a relative import that is late": two(
        "from own_pkg.strategy import get_signal\n",
        "own_pkg/helper",
        "def f():\n    return ?\n",
        "5",
        "6",
    ),
}
AROUND = {
    "own_config": "P = {}\nfrom own_values import *\n",
    "own_values": "LEVELS = []\n",
    "own_pkg/strategy": "def get_signal():\n    from .helper import f\n    return f()\n",
    "own_pkg/helper": "def f(): ...\n",
}


@pytest.mark.parametrize("what", HIDDEN)
def test_what_is_easily_overlooked_is_not(what, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    found = []
    for i, files in enumerate(HIDDEN[what]):
        for name, text in (AROUND | files).items():
            path = tmp_path / str(i) / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / str(i))
            try:
                get_signal = importlib.import_module("own_main").get_signal
                before = fingerprint(get_signal)
                found.append((before, get_signal()))
                assert fingerprint(get_signal) == before, "being asked changed it"
            finally:
                for name in [name for name in sys.modules if name.startswith("own_")]:
                    del sys.modules[name]
    (first, answer), (second, other) = found
    assert answer != other, "the case itself is wrong"
    assert first != second


def test_a_decorator_of_compiled_code_counts_with_its_own_function():
    wrapt = pytest.importorskip("wrapt")

    def decorated(limit):
        @wrapt.decorator
        def at_most(wrapped, instance, args, kwargs):
            return min(wrapped(*args), limit)

        return at_most(lambda symbol, when: 3)

    assert fingerprint(decorated(1)) == fingerprint(decorated(1)) != fingerprint(decorated(2))

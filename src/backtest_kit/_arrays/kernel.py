"""The compiled kernel: `simulate` and the rules, as Numba compiles them, with searches of its own.

Bit for bit the same as Python: each float comes from the same operations in the same order, without
fast-math. Importing this module imports Numba.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays import (
    hold,
    layout,
    paying,
    purse,
    random_entries,
    searches,
    stages,
    together,
)
from backtest_kit._arrays import simulate as plain
from backtest_kit._arrays.layout import Columns, Rules, Work
from backtest_kit._arrays.paying import Account
from backtest_kit._rules import (
    account,
    asking,
    holding,
    life,
    management,
    position,
    proposal,
    sizing,
)
from backtest_kit._values import results
from backtest_kit._values.candles import Floats, Ints

F = TypeVar("F", bound=Callable[..., Any])

_LANE: Final = 32
_BLOCK: Final = 2048
_OPTIONS: Final = {"nogil": True, "error_model": "numpy", "fastmath": False, "forceinline": True}


def available() -> bool:
    """Say whether Numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


def _compiled(function: F) -> F:
    """Return `function`, to be compiled at its first call; as it is where Numba is missing."""
    if not available():
        return function
    numba: Any = importlib.import_module("numba")
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder can be written to
        return numba.njit(**_OPTIONS)(function)  # type: ignore[no-any-return]


def _inlined(function: F, **compiled: Callable[..., Any]) -> F:
    """Return a function of another module for use in compiled code, with what it calls compiled.

    It is not kept by itself: what is kept is the code into which it is inlined.
    """
    return _called(function, compiled, forceinline=True)


def _called(
    function: F, compiled: Mapping[str, Callable[..., Any]], *, forceinline: bool = True
) -> F:
    """Do the same for a function that is long, or called from many places: the compiler decides."""
    if not available():
        return function
    numba: Any = importlib.import_module("numba")
    # only called from compiled code, it needs no wrappers; it makes no arrays and keeps none, so
    # that references to those it is given need not be counted
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    options = {**_OPTIONS, **wrappers, "forceinline": forceinline}
    return numba.njit(**options)(_with(function, function.__name__, {**compiled}))  # type: ignore[no-any-return]


def _all_of(
    module: ModuleType,
    compiled: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
    *,
    forceinline: bool = True,
) -> dict[str, Callable[..., Any]]:
    """Return the functions of a module of rules, compiled, by name.

    Each may call `compiled` ones, which come before its own, and any other of the module.
    """
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    }
    done: dict[str, Callable[..., Any]] = dict(compiled)
    while not own.keys() <= done.keys():
        for name, function in own.items():
            called = {other for other in function.__code__.co_names if other in own}
            if name not in done and called <= {*done}:
                done[name] = _called(function, done, forceinline=forceinline)
    return done


def _with(function: Any, name: str, replaced: dict[str, Callable[..., Any]]) -> Any:
    """Return a function whose globals are `replaced`; Numba keeps code by its qualified name."""
    made = FunctionType(function.__code__, {**function.__globals__, **replaced}, name)
    made.__qualname__ = name  # a new function takes that of its code
    return made


def _named_after_sources() -> str:
    """Return a name that changes with every rule: Numba knows a cached function by its name.

    It looks for changes in the file of that function alone, and the rules are in others.
    """
    whole = hashlib.blake2b(digest_size=8)
    rules = (life, account, holding, position, management, proposal, asking, sizing)
    own = (layout, purse, paying, searches, stages, hold, plain, together, random_entries)
    for module in (*rules, *own, results):
        whole.update(Path(module.__file__ or "").read_bytes())
    whole.update(Path(__file__).read_bytes())
    return f"simulate_{whole.hexdigest()}"


@_compiled
def next_signal(
    rules: Rules, side: npt.NDArray[np.int8], k: int, steps: int, next_open: Ints
) -> tuple[int, int, int]:
    """Ask from step k on; return how often, how often in vain, and the row found (or -1)."""
    end = min(rules.start + rules.until * rules.step, steps)
    if len(next_open):
        at = k
        while at < end and next_open[at] == at:
            at += rules.hop * rules.step
        end = min(at, end)
    row = (rules.epoch + k) // rules.interval - rules.base
    rest = (rules.epoch + k) % rules.interval
    asked = missing = 0
    while k < end:
        asked += 1
        if row < rules.first_row or row >= len(side):
            missing += 1
        elif side[np.uint64(row)] != 0:
            return asked, missing, row
        k, row, rest = k + rules.hop * rules.step, row + rules.rows, rest + rules.rest
        if rest >= rules.interval:
            row, rest = row + 1, rest - rules.interval
    return asked, missing, -1


@_compiled
def first_touch(
    low: Floats, high: Floats, since: int, last: int, lower: float, upper: float
) -> int:
    """Return the first step after `since` that reaches a level, else `last`; -1: the data end."""
    steps = len(low)
    k, end = since + 1, min(last + 1, steps)
    while k + _LANE <= end:  # counted without branches, so that it becomes wide instructions
        hits = 0
        for j in range(_LANE):
            i = np.uint64(k + j)  # unsigned: no index from the end
            hits += int(low[i] <= lower) + int(high[i] >= upper)
        if hits:
            break
        k += _LANE
    while k < end and low[np.uint64(k)] > lower and high[np.uint64(k)] < upper:
        k += 1
    k = min(k, last)
    return k if k < steps else -1


@_compiled
def trailing_touch(
    low: Floats,
    high: Floats,
    since: int,
    last: int,
    lower: float,
    upper: float,
    side: float,
    best: float,
    factor: float,
) -> tuple[int, float]:
    """Do what `fast_forward.trailing_touch` does, a row at a time."""
    k, end = since + 1, min(last + 1, len(low))
    if side > 0:
        lower = max(lower, best * factor)
        while k < end and low[np.uint64(k)] > lower and high[np.uint64(k)] < upper:
            if k == last:
                break
            if high[np.uint64(k)] > best:
                best = high[np.uint64(k)]
                lower = max(lower, best * factor)
            k += 1
    else:
        upper = min(upper, best * factor)
        while k < end and low[np.uint64(k)] > lower and high[np.uint64(k)] < upper:
            if k == last:
                break
            if low[np.uint64(k)] < best:
                best = low[np.uint64(k)]
                upper = min(upper, best * factor)
            k += 1
    return (k, best) if k < len(low) else (-1, best)


_life = _all_of(life)
_account = _all_of(account)
_holding = _all_of(holding, _account)
_position = _all_of(position, _holding)
_amounts: dict[str, Callable[..., Any]] = {
    each.__name__: _called(each, _account)
    for each in (
        sizing.bounded_amounts,
        sizing.default_cost,
        sizing.fitted,
        sizing.risked_quantity,
    )
}
_purse = _all_of(purse, _account | _amounts)
_own = {each.__name__: each for each in (first_touch, trailing_touch, next_signal)}
_searches = _all_of(searches, _own)
_proposals: dict[str, Callable[..., Any]] = {
    **_all_of(asking),
    **_life,
    "never_reached": _inlined(proposal.never_reached),
    "problems_of": _inlined(proposal.problems_of, opens_now=_life["opens_now"]),
    "management_problems": _called(
        management.management_problems,
        {"level_problems": _called(management.level_problems, {}), **_holding},
    ),
}
_paying = _all_of(paying, _holding | _purse, forceinline=False)


def _trade_parts(*, forceinline: bool) -> dict[str, Callable[..., Any]]:
    """Return what follows a trade, compiled."""
    parts = _all_of(stages, _searches | _proposals | _holding, forceinline=forceinline)
    parts |= _all_of(hold, _searches | _position, forceinline=forceinline) | _paying
    return parts | {"note_legs": _called(plain.note_legs, parts, forceinline=forceinline)}


_parts = _trade_parts(forceinline=True)
#: `simulate`, compiled.
simulate: Callable[[Columns, Rules, Ints, Ints, Floats, Work, Account], int] = _compiled(
    _with(
        plain.simulate,
        _named_after_sources(),
        _parts | {"hold": _called(plain.hold, _parts)},
    )
)

#: `random_entries.enter_at_random`, compiled.
enter_at_random: Callable[..., None] = _compiled(
    _with(
        random_entries.enter_at_random,
        _named_after_sources().replace("simulate", "enter_at_random"),
        {"simulate": simulate, "with_levels": _compiled(random_entries.with_levels)},
    )
)

_views = {each.__name__: _compiled(each) for each in (together.columns_of, together.work_of)}
_joint = _all_of(together, _trade_parts(forceinline=False) | _views, forceinline=False)
#: `together.play_together`, compiled.
play_together: Callable[..., int] = _compiled(
    _with(
        together.play_together,
        _named_after_sources().replace("simulate", "play_together"),
        _joint,
    )
)


@_compiled
def _doubled(source: Floats, target: Floats, size: int, width: int) -> None:
    w = np.uint64(width)  # unsigned: no index from the end, so that it becomes wide instructions
    for i in range(np.uint64(size)):
        target[i] = source[i] + source[i + w]


@_compiled
def _quadrupled(source: Floats, target: Floats, size: int, width: int) -> None:
    one, two, three = np.uint64(width), np.uint64(2 * width), np.uint64(3 * width)
    for i in range(np.uint64(size)):
        target[i] = (source[i] + source[i + one]) + (source[i + two] + source[i + three])


@_compiled
def window_means(values: Floats, count: int) -> Floats:
    """Do what `_array_strategy.trailing_mean` does, a block at a time, in the same order."""
    n = len(values)
    mean = np.empty(n)
    here, there, total = np.empty(_BLOCK + count), np.empty(_BLOCK + count), np.empty(_BLOCK)
    mean[: count - 1] = np.nan
    for start in range(0, n - count + 1, _BLOCK):
        rows = min(_BLOCK, n - count + 1 - start)
        size, begin, width = rows + count - 1, np.uint64(0), 1
        sums = values[start : start + size]  # sums[i] is the sum of `width` values from i on
        total[:rows] = 0.0
        while True:
            if count & width:
                for i in range(np.uint64(rows)):
                    total[i] += sums[begin + i]
                begin += np.uint64(width)
            if 2 * width > count:
                break
            if count & (2 * width) or 4 * width > count:
                size -= width
                _doubled(sums, here, size, width)
                width *= 2
            else:
                size -= 3 * width
                _quadrupled(sums, here, size, width)
                width *= 4
            sums = here
            here, there = there, here
        out = mean[start + count - 1 : start + count - 1 + rows]
        for i in range(np.uint64(rows)):
            out[i] = total[i] / count
    return mean

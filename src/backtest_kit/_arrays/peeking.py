"""Does row i of an array strategy depend on candles up to i only, and on how many of them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from backtest_kit._arrays.signals import Signals, evaluate
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import PeekingError
from backtest_kit._values.time import iso

GetSignals = Callable[[Candles], Signals]
#: Side, exits, kind, take profit, stop loss, lifetime, entry, trailing stop and from where on,
#: breakeven, levels; NaN is None, so that it equals itself.
Answer = tuple[float | None, ...]
NONE: Final[Answer] = (0.0, 0.0, 0.0)
#: Prices nearer than this may differ by rounding alone, which is no look into the future.
ROUNDING: Final = 1e-9
#: Rows at which all later candles are left out of the whole array, where a window says otherwise.
_CUTS: Final = 4
#: Of the candles, which part the windows that are looked at together come to; at least so many.
#: Of those looked at alone, which part with the future scrambled; how many doubtful ones.
_SHARE: Final = 32
_LEAST: Final = 24
_THIRD: Final = 3
_DOUBTS: Final = 12
_PRICES: Final = ("price_take_profit", "price_stop_loss", "minute_estimated_time", "price_open")
_MANAGED: Final = ("trailing_stop", "trailing_activate_percent", "breakeven_percent")
_LEVELS: Final = ("take_profits", "stop_losses", "entries")
_EXITS: Final = ("exit_long", "exit_short")
_GOLDEN: Final = 0.6180339887498949


def answer(signals: Signals, row: int) -> Answer:
    """Return what row `row` says; without a side the rest does not matter."""
    side = float(signals.side[row])
    long, short = signals.exit_long, signals.exit_short
    exits = (
        0.0 if long is None else float(long[row]),
        0.0 if short is None else float(short[row]),
    )
    if side == 0:
        return side, *exits
    columns = (
        signals.price_take_profit,
        signals.price_stop_loss,
        signals.minute_estimated_time,
        signals.price_open,
    )
    values = [float(column[row]) for column in columns]
    if signals.is_managed:
        more = (getattr(signals, name) for name in _MANAGED)
        values += [np.nan if column is None else float(column[row]) for column in more]
        values += [x for name in _LEVELS for pair in getattr(signals, name) for x in pair]
    return (side, *exits, float(signals.relative), *(None if v != v else v for v in values))


def scrambled(candles: Candles, row: int) -> Candles:
    """Return the candles up to `row` as they are, the later ones backwards and at other prices.

    They keep their times and the rules of candles; the factors, between a half and two, repeat
    nowhere and are the same each time.
    """
    t, *columns = candles.columns()
    factor = 0.5 + 1.5 * (np.arange(1, len(t) - row) * _GOLDEN % 1.0)
    mixed = [t, *(np.concatenate((c[: row + 1], c[:row:-1] * factor)) for c in columns)]
    for column in mixed[1:]:
        column.flags.writeable = False
    return Candles.view(tuple(mixed), 0, len(t))  # type: ignore[arg-type]


def after_the_cut(function: GetSignals, candles: Candles, row: int) -> Answer:
    """Return the answer of row `row` where later candles don't exist."""
    return answer(evaluate(function, candles[: row + 1]), row)


def sampled(signals: Signals, first: int, most: int) -> list[int]:
    """Return rows from `first` on, ascending: half spread evenly, half of those with a side.

    The last ones are among them, which have the most candles before them.
    """
    if first >= len(signals):
        return []
    even = np.linspace(len(signals) - 1, first, most - most // 2).astype(np.int64)
    busy = signals.busy()
    if signals.has_exits:
        busy = np.union1d(busy, np.union1d(signals.exits(1), signals.exits(-1)))
    busy = busy[np.searchsorted(busy, first) :]
    place = np.linspace(max(len(busy) - 1, 0), 0, most // 2).astype(np.int64)
    return [int(row) for row in np.union1d(even, busy[place] if len(busy) else even)]


def verify(
    function: GetSignals, candles: Candles, signals: Signals, warmup: int, most: int, name: str
) -> int | None:
    """Compare `signals` (of all candles) with windows of `warmup` candles, at `most` rows.

    Returns the first row where a window says something else, since the strategy remembers more
    than that, or by rounding; `None` where there is none. More rows are looked at together, and
    alone where that says something else.

    Raises:
        PeekingError: a row depends on later candles; the first of those looked at is named.
    """
    many = sampled(signals, warmup - 1, max(len(candles) // (_SHARE * warmup), _LEAST))
    apart = max(len(many) // most, 1)
    alone = many[apart // 2 :: apart]
    doubtful = _otherwise(function, candles, signals, many, warmup)[:_DOUBTS]
    scrambled_behind = {*doubtful, *alone[::_THIRD]}
    first, cuts = None, 0
    for row in sorted({*alone, *doubtful}):
        seen, known = answer(signals, row), window_answer(function, candles, row, warmup)
        if known != seen:
            first = row if first is None else first
            if cuts < _CUTS:
                cuts += 1
                cut = after_the_cut(function, candles, row)
                if beyond_rounding(cut, seen):
                    raise peeking(name, candles, row, seen, cut)
        if row in scrambled_behind:
            beyond = future_answer(function, candles, row, warmup, warmup)
            if beyond_rounding(known, beyond):
                raise peeking(name, candles, row, beyond, known)
    return first


def _otherwise(
    function: GetSignals, candles: Candles, signals: Signals, rows: Sequence[int], warmup: int
) -> list[int]:
    """Return those rows that say something else where their windows are put one after another.

    In that one array other windows lie before and behind each, and its times go on as if it were
    one stretch. A strategy that looks at times may rightly say something else there: it is to be
    asked once more, by windows alone.
    """
    if not rows:
        return []
    ends = np.asarray(rows)[np.argsort(np.arange(1, len(rows) + 1) * _GOLDEN % 1.0)]
    places = (ends[:, None] + np.arange(1 - warmup, 1)).ravel()
    t, *prices = candles.columns()
    step = int(t[1] - t[0]) if len(t) > 1 else 0
    times = int(t[0]) + step * np.arange(len(places))
    columns = [times, *(column.take(places) for column in prices)]
    for column in columns:
        column.flags.writeable = False
    try:
        there = evaluate(function, Candles.view(tuple(columns), 0, len(places)))  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever the reason: single windows decide
        return [*rows]
    own = np.arange(warmup - 1, len(places), warmup)
    other = signals.side[ends] != there.side[own]
    for name in _PRICES:
        here, says = getattr(signals, name)[ends], getattr(there, name)[own]
        other |= (here != says) & ~((here != here) & (says != says)) & (signals.side[ends] != 0)
    for name in _MANAGED:
        if getattr(signals, name) is None and getattr(there, name) is None:
            continue
        here, says = (
            np.nan if column is None else column[places]
            for column, places in ((getattr(signals, name), ends), (getattr(there, name), own))
        )
        other |= (here != says) & ~((here != here) & (says != says)) & (signals.side[ends] != 0)
    for name in _EXITS:
        if getattr(signals, name) is None and getattr(there, name) is None:
            continue
        here, says = (
            False if column is None else column[places]
            for column, places in ((getattr(signals, name), ends), (getattr(there, name), own))
        )
        other |= here != says
    levels = any(getattr(signals, name) != getattr(there, name) for name in _LEVELS)
    if signals.relative != there.relative or levels:
        other |= signals.side[ends] != 0
    return sorted(ends[other].tolist())


def window_answer(function: GetSignals, candles: Candles, row: int, length: int) -> Answer:
    """Return the answer of row `row` where only the last `length` candles are seen, as live."""
    start = max(row + 1 - length, 0)
    return answer(evaluate(function, candles[start : row + 1]), row - start)


def future_answer(
    function: GetSignals, candles: Candles, row: int, length: int, more: int
) -> Answer:
    """Return the same with up to `more` later candles to be seen, scrambled."""
    start = max(row + 1 - length, 0)
    window = scrambled(candles[start : row + 1 + more], row - start)
    return answer(evaluate(function, window), row - start)


def beyond_rounding(one: Answer, other: Answer) -> bool:
    """Say whether two answers differ by more than rounding could explain."""
    if len(one) != len(other) or one[:1] != other[:1]:
        return True
    for a, b in zip(one, other, strict=True):
        if (a is None) != (b is None):
            return True
        if a is not None and b is not None and not abs(a - b) <= ROUNDING * max(abs(a), abs(b)):
            return a != b
    return False


def peeking(name: str, candles: Candles, row: int, seen: Answer, without: Answer) -> PeekingError:
    """Return the error for a row that says `seen` with later candles and `without` otherwise."""
    return PeekingError(
        f"strategy {name!r} looks into the future: at row {row:,} (the candle of "
        f"{iso(int(candles.timestamp[row]))}) it says {describe(seen)} with later candles and "
        f"{describe(without)} without them. Row i may depend on candles up to i only: no shift "
        "back in time, no centred window, no mean, extreme or fit over the whole array"
    )


def describe(said: Answer) -> str:
    """Return an answer as a person reads it."""
    if said == NONE:
        return "nothing"
    side, long, short, *rest = said
    out = " and ".join(name for name, exits in (("long", long), ("short", short)) if exits)
    exits = f"no {out}" if out else ""
    if side == 0:
        return exits
    relative, goal, stop, minutes, entry, *managed = rest
    unit = " %" if relative else ""
    at = "" if entry is None else f" from {entry:.10g}"
    levels = f"to {_number(goal)}{unit}, stop {_number(stop)}{unit}"
    more = f", managed {[*managed]}" if managed else ""
    more += f", {exits}" if exits else ""
    return f"{'long' if side == 1 else 'short'}{at} {levels}, {_number(minutes)} min{more}"


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.10g}"

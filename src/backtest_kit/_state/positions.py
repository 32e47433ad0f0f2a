"""An open position as the document of its run keeps it, and what it must say to be one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from backtest_kit._rules import holding as at
from backtest_kit._rules.account import Terms, exit_of, slipped
from backtest_kit._rules.managed import Holding, PriceLevels, levels_of
from backtest_kit._rules.management import limits_of, management_of
from backtest_kit._state.envelope import DamagedError
from backtest_kit._values.config import Config
from backtest_kit._values.results import CANCELLED, LEG_REASONS, LegReason
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import Instant

#: Of the names in `holding`: those of a position's numbers, in their order, as they are stored.
NUMBERS: Final = (
    *("side", "first", "target", "stop", "kind", "held", "entered", "average", "cost"),
    *("proceeds", "best", "worst", "next_entry", "next_profit", "next_loss", "moves", "fills"),
    *("trailing", "activation", "breakeven_at", "slippage", "fee"),
)
#: The others, which are of an account, and all 0 without one.
OF_ACCOUNT: Final = (
    *("unit", "first_cost", "owned", "basis", "free", "leverage", "maintenance", "step"),
    *("step_scale", "min_quantity", "min_notional"),
    *("short_of_cash", "beyond_liquidation", "too_small"),
)
#: Those that the row says; where they are not used they are stored as `null`.
_OF_ROW: Final = (at.SIDE, at.FIRST, at.TRAILING, at.ACTIVATION, at.BREAKEVEN_AT)
_COUNTS: Final = (at.NEXT_ENTRY, at.NEXT_PROFIT, at.NEXT_LOSS, at.MOVES, at.FILLS)
#: Above 0.
_PRICES: Final = (at.AVERAGE, at.BEST, at.WORST, at.HELD, at.ENTERED, at.COST)


class Fill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry or, with a `quantity` below 0, an exit; `effective_entry` is that after it."""

    timestamp: Instant
    reason: LegReason
    price: Annotated[float, msgspec.Meta(gt=0)]
    quantity: float
    cost: Annotated[float, msgspec.Meta(gt=0)]
    effective_entry: Annotated[float, msgspec.Meta(gt=0)]
    ambiguous: bool


class StoredPosition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A position by its numbers (a target, stop or setting that is not there is `null`) and fills.

    Its levels follow from the row of the signal. `minutes` is its lifetime, as in the row or
    extended; `best_at` and `worst_at` are when its best and its worst price were reached (ms).
    `account` are its numbers of an account, where it is one of one.
    """

    numbers: dict[str, float | None]
    fills: tuple[Fill, ...]
    minutes: int | None
    best_at: Instant
    worst_at: Instant
    account: dict[str, float] | None


def stored_position(holding: Holding) -> StoredPosition:
    """Return a position as it is stored."""
    numbers = {
        name: number if math.isfinite(number) else None
        for name, number in zip(NUMBERS, holding.state[: len(NUMBERS)], strict=True)
    }
    fills = [Fill(when, *leg) for leg, when in zip(holding.rows, holding.times, strict=True)]
    times = holding.minutes, holding.best_at, holding.worst_at
    paid = dict(zip(OF_ACCOUNT, holding.state[len(NUMBERS) :], strict=True))
    return StoredPosition(numbers, tuple(fills), *times, paid if holding.is_paid else None)


def restored(stored: StoredPosition, row: SignalRow) -> Holding:
    """Return the position that was stored for a filled row.

    Raises:
        DamagedError: it can't be the position of this row.
    """
    if tuple(stored.numbers) != NUMBERS:
        raise DamagedError("its position has other numbers than it should have")
    how, levels = management_of(row), levels_of(row)
    absent = _absent(row)
    state = [
        absent.get(i, math.nan) if number is None else number
        for i, number in enumerate(stored.numbers.values())
    ]
    state += _of_account(stored.account)
    said = (float(row.side), row.price_open, how.trailing, how.activation, how.breakeven)
    wrong = [
        NUMBERS[i] for i, number in zip(_OF_ROW, said, strict=True) if not _same(state[i], number)
    ]
    wrong += [NUMBERS[i] for i in _unlikely(state, levels)]
    wrong += [NUMBERS[i] for i in _unlike(state, stored.fills, row)]
    minutes, least = stored.minutes, row.minute_estimated_time
    if (minutes is None) != (least is None) or (minutes or 0) < (least or 0):
        wrong.append("minutes")
    if min(stored.best_at, stored.worst_at) < (row.pending_at or 0):
        wrong.append("best_at, worst_at")
    if state[at.UNIT] > 0:
        wrong += [OF_ACCOUNT[i - len(NUMBERS)] for i in _unpaid(state, stored.fills)]
    if wrong:
        raise DamagedError(f"its position does not fit its signal or its fills: {', '.join(wrong)}")
    legs = [
        number
        for fill in stored.fills
        for number in (
            float(LEG_REASONS.index(fill.reason)),
            fill.price,
            fill.quantity,
            fill.cost,
            fill.effective_entry,
            float(fill.ambiguous),
        )
    ]
    times = tuple(fill.timestamp for fill in stored.fills)
    since = minutes, stored.best_at, stored.worst_at
    return Holding(row, levels, tuple(state), tuple(legs), times, *since)


def held_by(stored: StoredPosition | None, row: SignalRow, config: Config) -> Holding:
    """Return what a filled row holds; documents before version 3 don't say, and it is plain."""
    return _as_opened(row, config) if stored is None else restored(stored, row)


def _as_opened(row: SignalRow, config: Config) -> Holding:
    """Return the position of a plain row just after its fill."""
    state, legs, limits = [0.0] * at.SIZE, [0.0] * at.WIDTH, limits_of(config)
    first, unused = row.price_open, math.nan
    at.open_position(
        state,
        legs,
        float(row.side),
        first,
        row.target,
        row.stop,
        first,
        *(unused, unused, unused),
        limits.slippage,
        limits.fee,
    )
    when = row.pending_at
    assert when is not None
    return Holding(
        row,
        levels_of(row),
        tuple(state),
        tuple(legs),
        (when,),
        row.minute_estimated_time,
        when,
        when,
    )


def _of_account(stored: dict[str, float] | None) -> list[float]:
    """Return a position's numbers of an account."""
    if stored is None:
        return [0.0] * len(OF_ACCOUNT)
    if tuple(stored) != OF_ACCOUNT or not all(map(math.isfinite, stored.values())):
        raise DamagedError("its position has other numbers of its account than it should have")
    if not stored["unit"] > 0:
        raise DamagedError("its position is one of an account, and has no size there")
    return [*stored.values()]


def _unpaid(state: Sequence[float], fills: Sequence[Fill]) -> list[int]:
    """Return which numbers of an account are not what the fills add up to, to the last bit."""
    owned = basis = 0.0
    terms = Terms(state[at.LEVERAGE], state[at.MAINTENANCE], state[at.FEE], state[at.SLIPPAGE])
    if not terms.leverage >= 1 or not state[at.STEP_SCALE] > 0:
        return [at.LEVERAGE, at.STEP_SCALE]
    for fill in fills:
        amount = at.amount_of(state, abs(fill.quantity))
        if fill.quantity > 0:
            owned += amount
            basis += amount * slipped(fill.price, state[at.SIDE], terms.slippage)
        else:
            basis -= exit_of(state[at.SIDE], amount, fill.price, owned, basis, terms).basis
            owned -= amount
    found = [at.OWNED] if state[at.OWNED] != owned else []
    return found + [at.BASIS] * (state[at.BASIS] != basis)


def _absent(row: SignalRow) -> dict[int, float]:
    """Return what stands for numbers that are not there."""
    found = dict.fromkeys((at.TRAILING, at.ACTIVATION, at.BREAKEVEN_AT), math.nan)
    if row.price_take_profit is None:
        found[at.TARGET] = row.target
    if row.price_stop_loss is None:
        found[at.STOP] = row.stop
    return found


def _same(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)


def _unlikely(state: Sequence[float], levels: PriceLevels) -> list[int]:
    """Return which numbers can't be those of an open position."""
    found = [i for i in _PRICES if not 0 < state[i] < math.inf]
    found += [i for i in _COUNTS if not (0 <= state[i] < math.inf and state[i] % 1 == 0)]
    for i, prices in zip((at.NEXT_ENTRY, at.NEXT_PROFIT, at.NEXT_LOSS), levels, strict=True):
        if state[i] > len(prices) // 2:
            found.append(i)
    kind = state[at.KIND]
    if kind not in range(CANCELLED):
        found.append(at.KIND)
    side = state[at.SIDE]
    if not side * state[at.STOP] < side * state[at.TARGET]:
        found += [at.STOP, at.TARGET]
    found += [i for i in (at.SLIPPAGE, at.FEE) if not 0 <= state[i] < 1]
    if not 0 <= state[at.PROCEEDS] < math.inf:
        found.append(at.PROCEEDS)
    return found


def _unlike(state: Sequence[float], fills: Sequence[Fill], row: SignalRow) -> list[int]:
    """Return which numbers are not what the fills add up to, to the last bit."""
    if not fills or len(fills) != state[at.FILLS]:
        return [at.FILLS]
    first, times = fills[0], [fill.timestamp for fill in fills]
    begun = (row.pending_at, row.price_open, 1.0, 1.0)
    if (first.timestamp, first.price, first.quantity, first.cost) != begun:
        return [at.FIRST]
    if any(later < earlier for earlier, later in pairwise(times)):
        return [at.FILLS]
    held = entered = cost = proceeds = 0.0
    for fill in fills:
        held += fill.quantity
        if fill.quantity > 0:
            entered += fill.quantity
            cost += fill.cost
        else:
            proceeds += -fill.quantity * fill.price
    sums = {
        at.HELD: held,
        at.ENTERED: entered,
        at.COST: cost,
        at.PROCEEDS: proceeds,
        at.AVERAGE: fills[-1].effective_entry,
    }
    return [i for i, number in sums.items() if state[i] != number]

"""A step of a managed position with the records of the engine.

It asks `position` about a row and a bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from backtest_kit._rules import holding as at
from backtest_kit._rules.account import Rules, Terms
from backtest_kit._rules.bars import Bar, Bars
from backtest_kit._rules.fast_forward import compared, first_touch, trailing_touch
from backtest_kit._rules.holding import (
    close_rest,
    fix_levels,
    follow_to,
    follows,
    open_account,
    open_position,
    tighten,
    trailing_factor,
)
from backtest_kit._rules.life import UNCHANGED
from backtest_kit._rules.management import flat, limits_of, management_of
from backtest_kit._rules.position import managed_step, opening_step, watched
from backtest_kit._rules.steps import Close
from backtest_kit._values.config import Config
from backtest_kit._values.results import LEG_REASONS, CloseReason, Leg, LegReason
from backtest_kit._values.signal import NEVER, Levels, SignalRow
from backtest_kit._values.time import MINUTE


class LegRow(NamedTuple):
    """A fill: `quantity` below 0 is an exit; `cost` is relative to the first entry's.

    `effective_entry` is that after it.
    """

    reason: LegReason
    price: float
    quantity: float
    cost: float
    effective_entry: float
    ambiguous: bool


class PriceLevels(NamedTuple):
    """The levels of one position as prices, each list flat (see `position`)."""

    entries: list[float]
    profits: list[float]
    losses: list[float]


class Holding(msgspec.Struct, frozen=True):
    """A managed position: its row as filled, `state` and `fills` as `holding` lays them out.

    `times` are the instants of the fills, `best_at` and `worst_at` those of the best and the worst
    price in `state`, all in milliseconds. `minutes` is how long it lives from `pending_at` on, as
    in the row or extended; `None`: without end.
    """

    row: SignalRow
    levels: PriceLevels
    state: tuple[float, ...]
    fills: tuple[float, ...]
    times: tuple[int, ...]
    minutes: int | None
    best_at: int
    worst_at: int

    @property
    def expires_at(self) -> int:
        """When its life ends, in milliseconds; `NEVER` without an end."""
        assert self.row.pending_at is not None
        return NEVER if self.minutes is None else self.row.pending_at + self.minutes * MINUTE

    @property
    def effective_entry(self) -> float:
        """The average cost of what is held."""
        return self.state[at.AVERAGE]

    @property
    def is_held(self) -> bool:
        """Whether anything is held."""
        return self.state[at.HELD] > 0

    @property
    def is_paid(self) -> bool:
        """Whether it is one of an account."""
        return self.state[at.UNIT] > 0

    @property
    def cost(self) -> float:
        """The cost of all entries, relative to the first."""
        return self.state[at.COST]

    @property
    def has_acted(self) -> tuple[float, ...]:
        """How many levels of each kind have acted, and how many fills there are."""
        return (*self.state[at.NEXT_ENTRY : at.NEXT_LOSS + 1], self.state[at.FILLS])

    @property
    def exits_acted(self) -> tuple[float, float]:
        """How many levels have acted that close something."""
        return self.state[at.NEXT_PROFIT], self.state[at.NEXT_LOSS]

    @property
    def stop(self) -> float:
        """The stop as it is now, infinite where there is none."""
        return self.state[at.STOP]

    @property
    def target(self) -> float:
        """The take profit as it is now, infinite where there is none."""
        return self.state[at.TARGET]

    @property
    def stopped_by(self) -> LegReason:
        """The reason with which the stop closes."""
        return LEG_REASONS[int(self.state[at.KIND])]

    @property
    def moves(self) -> int:
        """How often levels have been moved."""
        return int(self.state[at.MOVES])

    @property
    def rows(self) -> list[LegRow]:
        """The legs so far, in order."""
        return leg_rows(self.fills)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs so far, as results tell them."""
        return legs_of(self.rows, self.times)

    @property
    def most_fills(self) -> int:
        """How many fills one step can bring, beside those there are."""
        return sum(len(levels) for levels in self.levels) // 2 + 1


class Opening(NamedTuple):
    """What a position of an account begins with: its first entry's quantity, what is free."""

    quantity: float
    free: float
    terms: Terms
    rules: Rules


class Managed(NamedTuple):
    """A position after a step, and how it closed at it; `None`: it lives on."""

    holding: Holding
    close: Close | None


def levels_of(row: SignalRow) -> PriceLevels:
    """Return the levels of a filled row as prices."""
    return PriceLevels(
        _prices(row.entries, -row.side, row.price_open),
        _prices(row.take_profits, row.side, row.price_open),
        _prices(row.stop_losses, -row.side, row.price_open),
    )


def _prices(levels: Levels, direction: int, first: float) -> list[float]:
    percents = flat(levels)
    prices = [0.0] * len(percents)
    fix_levels(percents, direction, first, prices)
    return prices


def open_managed(
    row: SignalRow, bar: Bar, config: Config, account: Opening | None = None
) -> Managed:
    """Return the position that a row opens with at its fill, at the end of that step.

    It may be closed already, where it waited and the candle that fills it goes on to the stop.
    `account`: it is a position of one.
    """
    wick, limits = config.exit_trigger == "wick", limits_of(config)
    how, levels = management_of(row), levels_of(row)
    state, legs = [0.0] * at.SIZE, [0.0] * at.WIDTH
    open_position(
        state,
        legs,
        float(row.side),
        row.price_open,
        row.target,
        row.stop,
        row.price_open if wick else bar.price,
        how.trailing,
        how.activation,
        how.breakeven,
        limits.slippage,
        limits.fee,
    )
    if account is not None:
        open_account(state, *account)
    when = bar.when
    holding = Holding(
        row, levels, tuple(state), tuple(legs), (when,), row.minute_estimated_time, when, when
    )
    state, legs = room(holding)
    outcome = opening_step(
        state,
        levels.entries,
        levels.losses,
        row.scheduled_at != bar.when,
        bar.fill,
        bar.open,
        bar.high,
        bar.low,
        wick,
        legs,
    )
    return after(holding, state, legs, when, outcome)


def step_managed(holding: Holding, bar: Bar, config: Config) -> Managed:
    """Return the position after a later step."""
    state, legs = room(holding)
    levels = holding.levels
    outcome = managed_step(
        state,
        levels.entries,
        levels.profits,
        levels.losses,
        bar.when >= holding.expires_at,
        bar.price,
        bar.fill,
        bar.open,
        bar.high,
        bar.low,
        config.exit_trigger == "wick",
        config.ambiguous_candle == "stop_loss_first",
        legs,
    )
    return after(holding, state, legs, bar.when, outcome)


def close_managed(holding: Holding, when: int, reason: CloseReason, price: float) -> Holding:
    """Return the position with all that it holds closed at `price`."""
    state, legs = room(holding)
    close_rest(state, legs, float(LEG_REASONS.index(reason)), price, at.CLEAR)
    return after(holding, state, legs, when, UNCHANGED).holding


def search(
    holding: Holding, bars: Bars, since: int, config: Config, until: int = NEVER
) -> tuple[int | None, Holding]:
    """Return the first step later than `since` at which anything can happen, or life ends.

    At `until` at the latest; all in milliseconds. And the position before it: where its stop
    follows the best price, that has gone on. `None` where the bars end first.
    """
    lower, upper = watched(holding.state, *holding.levels)
    low, high = compared(bars, config)
    expiry = min(holding.expires_at, until)
    pulled = is_pulled(holding.state)
    if pulled:
        expiry = since + bars.step
    if pulled or not follows(holding.state):
        return first_touch(bars, since, expiry, low, high, lower, upper), holding
    begin = bars.row(since) + 1
    last = bars.open_row(max(-((bars.first - expiry) // bars.step), begin))
    end = min(last + 1, len(bars.price))
    low, high = low[begin:end], high[begin:end]
    if bars.next_open is not None:
        closed = bars.next_open[begin:end] != np.arange(begin, end)
        low, high = np.where(closed, np.inf, low), np.where(closed, -np.inf, high)
    state = [*holding.state]
    best, factor = state[at.BEST], trailing_factor(state)
    row, best = trailing_touch(
        low, high, -1, last - begin, lower, upper, state[at.SIDE], best, factor
    )
    follow_to(state, best)
    when = None if row < 0 else bars.first + (begin + row) * bars.step
    return when, msgspec.structs.replace(holding, state=tuple(state))


def is_pulled(state: Sequence[float]) -> bool:
    """Say whether the stop moves at the next step, whatever that brings.

    It does where it was moved away by hand, or a further entry has begun the best price anew.
    """
    moved = [*state]
    tighten(moved)
    return bool(moved[at.STOP] != state[at.STOP])


def with_extremes(
    holding: Holding, known: Holding, bars: Bars, since: int, before: int, config: Config
) -> Holding:
    """Return a position whose best and worst price take in the steps in (`since`, `before`).

    A search passes over them: `known` was the position after `since`, `holding` is what was found.
    """
    begin, end = bars.row(since) + 1, min(bars.row(before), len(bars.price))
    low, high = compared(bars, config)
    low, high = low[begin:end], high[begin:end]
    if bars.next_open is not None:
        closed = bars.next_open[begin:end] != np.arange(begin, end)
        low, high = np.where(closed, np.inf, low), np.where(closed, -np.inf, high)
    if not len(low):
        return holding
    upper, lower = int(high.argmax()), int(low.argmin())
    found = (float(high[upper]), upper), (float(low[lower]), lower)
    side = known.state[at.SIDE]
    (best, best_row), (worst, worst_row) = found if side > 0 else found[::-1]
    state, best_at, worst_at = [*holding.state], known.best_at, known.worst_at
    if side * best > side * known.state[at.BEST]:
        state[at.BEST], best_at = best, bars.first + (begin + best_row) * bars.step
    if side * worst < side * known.state[at.WORST]:
        state[at.WORST], worst_at = worst, bars.first + (begin + worst_row) * bars.step
    return msgspec.structs.replace(holding, state=tuple(state), best_at=best_at, worst_at=worst_at)


def room(holding: Holding) -> tuple[list[float], list[float]]:
    """Return state and legs to be written to."""
    return [*holding.state], [*holding.fills, *[0.0] * (at.WIDTH * holding.most_fills)]


def after(
    holding: Holding, state: list[float], legs: list[float], when: int, outcome: int
) -> Managed:
    """Return the position as what was done at `when` has left it, and how it closed (`outcome`)."""
    fills, before = int(state[at.FILLS]), holding.state
    entered = state[at.ENTERED] != before[at.ENTERED]
    stepped = Holding(
        holding.row,
        holding.levels,
        tuple(state),
        tuple(legs[: fills * at.WIDTH]),
        holding.times + (when,) * (fills - len(holding.times)),
        holding.minutes,
        when if entered or state[at.BEST] != before[at.BEST] else holding.best_at,
        when if state[at.WORST] != before[at.WORST] else holding.worst_at,
    )
    if outcome == UNCHANGED:
        return Managed(stepped, None)
    last = stepped.rows[-1]
    reason: CloseReason = LEG_REASONS[outcome]  # type: ignore[assignment]
    return Managed(stepped, Close(reason, last.price, last.ambiguous))


def leg_rows(numbers: Sequence[float]) -> list[LegRow]:
    """Return fills, laid out as `holding` says, by name."""
    width = at.WIDTH
    return [
        LegRow(
            LEG_REASONS[int(row[at.REASON])],
            row[at.PRICE],
            row[at.QUANTITY],
            row[at.LEG_COST],
            row[at.LEG_AVERAGE],
            bool(row[at.AMBIGUOUS]),
        )
        for row in (numbers[i : i + width] for i in range(0, len(numbers), width))
    ]


def legs_of(rows: Sequence[LegRow], times: Sequence[int]) -> tuple[Leg, ...]:
    """Return the legs of a position as results tell them."""
    cost = 0.0
    for row in rows:
        if row.quantity > 0:
            cost += row.cost
    return tuple(
        Leg(
            kind="entry" if row.quantity > 0 else "exit",
            timestamp=when,
            price=row.price,
            quantity=abs(row.quantity),
            share=row.cost / cost * 100,
            reason=row.reason,
            ambiguous=row.ambiguous,
        )
        for row, when in zip(rows, times, strict=True)
    )

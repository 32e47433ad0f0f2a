"""What may be done to an open position by hand: what is seen of it, each action judged and done.

By `manage`, or by a person: the rules are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from backtest_kit._rules import holding as at
from backtest_kit._rules.account import HAIR, is_beyond
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.holding import (
    at_most_held,
    closable,
    close_rest,
    enter,
    leave,
    liquidation_of,
    payable,
)
from backtest_kit._rules.life import LIQUIDATION, UNCHANGED
from backtest_kit._rules.managed import Holding, Managed, after, room
from backtest_kit._rules.management import ROUNDING, limits_of
from backtest_kit._rules.profit import revenue_percent
from backtest_kit._values.actions import (
    ACTIONS,
    Add,
    Close,
    Extend,
    MoveStop,
    MoveTarget,
    Position,
)
from backtest_kit._values.config import Config
from backtest_kit._values.errors import ActionError
from backtest_kit._values.numbers import is_whole
from backtest_kit._values.time import MINUTE

#: Who decided: the strategy, or a person.
By = Literal["manage", "user"]


class Done(NamedTuple):
    """What an action by someone has done: the position `before` it, and `managed` after it."""

    before: Holding
    managed: Managed
    by: By
    note: str


def position_of(holding: Holding, bar: Bar) -> Position:
    """Return what is seen of a position at the end of a step."""
    state, row = holding.state, holding.row
    assert row.pending_at is not None
    entry, held = state[at.AVERAGE], state[at.HELD]
    minutes = (bar.when - row.pending_at) // MINUTE
    return Position(
        signal=row,
        price=bar.price,
        market_price=bar.close,
        first_entry=state[at.FIRST],
        effective_entry=entry,
        quantity=held,
        cost=held * entry / state[at.FIRST],
        share_open=held / state[at.ENTERED] * 100,
        price_stop_loss=_there(holding.stop),
        price_take_profit=_there(holding.target),
        legs=holding.legs,
        revenue_percent=revenue_percent(row.position, entry, bar.price),
        best_percent=revenue_percent(row.position, entry, state[at.BEST]),
        worst_percent=revenue_percent(row.position, entry, state[at.WORST]),
        best_at=holding.best_at,
        worst_at=holding.worst_at,
        minutes_held=minutes,
        minutes_left=None if holding.minutes is None else holding.minutes - minutes,
    )


def act_in_turn(
    holding: Holding, actions: Iterable[object], bar: Bar, config: Config, by: By
) -> tuple[list[Done], list[ActionError]]:
    """Do actions one after the other, each judged by what those before it have left.

    Return what was done, and why the others were not allowed, both in order.
    """
    done: list[Done] = []
    refused: list[ActionError] = []
    for action in actions:
        try:
            managed = act(holding, action, bar, config, by)
        except ActionError as error:
            refused.append(error)
            continue
        note = action.note if isinstance(action, Close) else ""
        done.append(Done(holding, managed, by, note))
        holding = managed.holding
    return done, refused


def act(holding: Holding, action: object, bar: Bar, config: Config, by: By = "manage") -> Managed:
    """Return a position after an action at the end of a step, and how it closed if that closed all.

    Closing and entering are done at the market at once; moved levels act from the next step on.
    What is allowed and the position's account does not let happen is left undone, and counted in
    its state, as of levels.

    Raises:
        ActionError: the action is not allowed, or is none.
    """
    if not isinstance(action, ACTIONS):
        known = ", ".join(f"bk.{kind.__name__}" for kind in ACTIONS)
        raise ActionError(f"{action!r} is no action; use {known}, or a list of them")
    if not holding.is_held:
        raise ActionError(f"{action!r}: the whole position is closed already")
    match action:
        case MoveStop():
            return _move_stop(holding, action, bar, config)
        case MoveTarget():
            return _move_target(holding, action, bar, config)
        case Close():
            return _close(holding, action, bar, by)
        case Add():
            return _add(holding, action, bar, config, by)
        case Extend():
            return _extend(holding, action, config)


def _move_stop(holding: Holding, action: MoveStop, bar: Bar, config: Config) -> Managed:
    price, side, stop = _price(action), holding.state[at.SIDE], holding.stop
    if _is_stop_at(holding, price):
        return Managed(holding, None)
    for name, market in _markets(bar, config):
        if not side * price < side * market:
            raise ActionError(
                f"{action!r}: a stop of a {holding.row.position} must lie {_below(side)} the "
                f"{name}, which is {market!r}; to get out now, return bk.Close()"
            )
    if not side * price < side * holding.target:
        raise ActionError(
            f"{action!r}: the stop must lie before the take profit, which is {holding.target!r}"
        )
    state = [*holding.state]
    if state[at.UNIT] > 0:
        level = liquidation_of(state, state[at.OWNED], state[at.BASIS])
        if is_beyond(side, price, level):
            state[at.BEYOND_LIQUIDATION] += 1
            return Managed(msgspec.structs.replace(holding, state=tuple(state)), None)
    if not side * price > side * stop:
        if not config.allow_wider_stop:
            raise ActionError(
                f"{action!r}: the stop is at {stop!r}, and may only become tighter; "
                "set_config(allow_wider_stop=True) lifts that"
            )
        first, most = holding.state[at.FIRST], config.max_stop_loss_distance_percent
        away = side * (first - price) / first * 100
        if most and away > most * (1 + ROUNDING):
            raise ActionError(
                f"{action!r}: the stop would lie {away:.6g} % from the first entry, {first!r}; at "
                f"most {most} % (max_stop_loss_distance_percent)"
            )
    state[at.STOP], state[at.KIND] = price, at.BY_STOP
    state[at.MOVES] += 1
    return Managed(msgspec.structs.replace(holding, state=tuple(state)), None)


def _is_stop_at(holding: Holding, price: float) -> bool:
    """Say whether the stop is at a price; at the liquidation price up to a hair.

    Each entry computes that anew, and rounds it otherwise.
    """
    liquidates = holding.state[at.KIND] == LIQUIDATION
    return price == holding.stop or (liquidates and abs(price - holding.stop) <= HAIR * price)


def _move_target(holding: Holding, action: MoveTarget, bar: Bar, config: Config) -> Managed:
    price, side = _price(action), holding.state[at.SIDE]
    if price == holding.target:
        return Managed(holding, None)
    for name, market in _markets(bar, config):
        if not side * price > side * market:
            raise ActionError(
                f"{action!r}: a take profit of a {holding.row.position} must lie {_below(-side)} "
                f"the {name}, which is {market!r}; to get out now, return bk.Close()"
            )
    if not side * price > side * holding.stop:
        raise ActionError(
            f"{action!r}: the take profit must lie beyond the stop, which is {holding.stop!r}"
        )
    state = [*holding.state]
    state[at.TARGET] = price
    state[at.MOVES] += 1
    return Managed(msgspec.structs.replace(holding, state=tuple(state)), None)


def _close(holding: Holding, action: Close, bar: Bar, by: By) -> Managed:
    share = _number(action.share)
    if not 0 < share <= 100:
        raise ActionError(
            f"{action!r}: share={action.share!r} must be a percentage of what is held, above 0 and "
            "at most 100"
        )
    if not isinstance(action.note, str):
        raise ActionError(f"{action!r}: note={action.note!r} must be a text")
    state, legs = room(holding)
    quantity, outcome = at_most_held(state, share / 100 * state[at.HELD]), UNCHANGED
    if quantity >= state[at.HELD]:
        outcome = close_rest(state, legs, at.BY_CLOSE, bar.fill, at.CLEAR)
    else:
        quantity = closable(state, quantity)
        if quantity > 0:
            leave(state, legs, _reason(by), bar.fill, quantity, at.CLEAR)
    left = after(holding, state, legs, bar.when, outcome)
    if left.close is None:
        return left
    return Managed(left.holding, msgspec.structs.replace(left.close, note=action.note))


def _add(holding: Holding, action: Add, bar: Bar, config: Config, by: By) -> Managed:
    size, side, first = _number(action.size), holding.state[at.SIDE], holding.state[at.FIRST]
    if not 0 < size * first < math.inf:
        raise ActionError(
            f"{action!r}: size={action.size!r} must be a number above 0: how many times the first "
            "entry's cost"
        )
    for name, market in _markets(bar, config):
        if not side * holding.stop < side * market < side * holding.target:
            raise ActionError(
                f"{action!r}: the {name}, {market!r}, does not lie between the stop and the take "
                f"profit ({_there(holding.stop)!r} and {_there(holding.target)!r}); nothing is "
                "entered there"
            )
    declared = len(holding.levels.entries) // 2
    added = sum(leg.quantity > 0 and leg.reason in ("manage", "user") for leg in holding.rows)
    if declared + added >= config.max_entries:
        raise ActionError(
            f"{action!r}: {declared} averaging levels and {added} additions are there already; at "
            f"most {config.max_entries} together (max_entries)"
        )
    state, legs = room(holding)
    begin = bar.fill if config.exit_trigger == "wick" else bar.price
    size = payable(state, bar.fill, size)
    if size > 0:
        enter(state, legs, _reason(by), bar.fill, size, begin, at.CLEAR)
    return after(holding, state, legs, bar.when, UNCHANGED)


def _extend(holding: Holding, action: Extend, config: Config) -> Managed:
    minutes, limits = holding.minutes, limits_of(config)
    if not is_whole(action.minutes):
        raise ActionError(
            f"{action!r}: minutes={action.minutes!r} must be a whole number, 1 or more"
        )
    if minutes is None:
        raise ActionError(f"{action!r}: the position lives without an end already")
    whole = minutes + int(action.minutes)
    if whole > limits.most_minutes:
        raise ActionError(
            f"{action!r}: the position would live for {whole} minutes; at most "
            f"{limits.most_minutes} (max_signal_lifetime_minutes)"
        )
    state = [*holding.state]
    state[at.MOVES] += 1
    return Managed(msgspec.structs.replace(holding, state=tuple(state), minutes=whole), None)


def _markets(bar: Bar, config: Config) -> list[tuple[str, float]]:
    """Return the prices that a moved level or an entry must lie right of, with their names."""
    fills = "market price" if config.fill_price == "market" else "average price"
    prices = [(fills, bar.fill)]
    if config.exit_trigger == "vwap":
        prices.append(("average price", bar.price))
    return prices


def _price(action: MoveStop | MoveTarget) -> float:
    price = _number(action.price)
    if not 0 < price < math.inf:
        raise ActionError(f"{action!r}: price={action.price!r} must be a finite price above 0")
    return price


def _number(value: object) -> float:
    """Return a value as a float; NaN, which no check lets pass, where it is no number."""
    if isinstance(value, str | bytes | bool):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _reason(by: By) -> float:
    return at.MANAGE if by == "manage" else at.USER


def _below(side: float) -> str:
    return "below" if side > 0 else "above"


def _there(level: float) -> float | None:
    return level if math.isfinite(level) else None

"""How a proposal becomes a row: completion, validation, and all problems in one error.

`problems_of` is the rule over numbers, which the kernel uses too; the rest reads what a strategy
returned, and says in words what is wrong with it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from backtest_kit._rules.life import opens_now
from backtest_kit._rules.management import (
    NO_LIMIT,
    Limits,
    limits_of,
    management_in_words,
    management_problems,
    read_management,
)
from backtest_kit._values.config import Config
from backtest_kit._values.errors import SignalError, did_you_mean
from backtest_kit._values.signal import POSITIONS, Signal, SignalRow, signal_id

#: What may be wrong with the numbers of a proposal, as bits of `problems_of`.
(
    BAD_TAKE_PROFIT,
    BAD_STOP_LOSS,
    BAD_LIMIT,
    BAD_MINUTES,
    LIMIT_BEYOND_TAKE_PROFIT,
    LIMIT_BEYOND_STOP_LOSS,
    FILL_BEYOND_TAKE_PROFIT,
    FILL_BEYOND_STOP_LOSS,
    AVERAGE_BEYOND_TAKE_PROFIT,
    AVERAGE_BEYOND_STOP_LOSS,
    TAKE_PROFIT_TOO_NEAR,
    STOP_LOSS_TOO_NEAR,
    STOP_LOSS_TOO_FAR,
    NO_STOP_LOSS,
) = (1 << bit for bit in range(14))
_BAD_PRICE: Final = BAD_TAKE_PROFIT | BAD_STOP_LOSS | BAD_LIMIT
#: What stands for a price that could not be read, which is a problem that has been told.
_UNREADABLE: Final = -1.0


def problems_of(
    side: float,
    limit: float,
    take_profit: float,
    stop_loss: float,
    minutes: float,
    average: float,
    fill: float,
    wick: bool,
    limits: Limits,
) -> int:
    """Return what is wrong with the numbers of a proposal, as bits; 0: it is valid.

    NaN is what is not there: `limit` where the signal is to enter now, a target, a stop, a
    lifetime. `average` and `fill` are the average price and the price at which a fill can be had;
    the average decides an exit unless `wick`.
    """
    problems = 0
    if not math.isnan(take_profit) and not 0 < take_profit < math.inf:
        problems |= BAD_TAKE_PROFIT
    if math.isnan(stop_loss):
        if limits.needs_stop:
            problems |= NO_STOP_LOSS
    elif not 0 < stop_loss < math.inf:
        problems |= BAD_STOP_LOSS
    if not math.isnan(limit) and not 0 < limit < math.inf:
        problems |= BAD_LIMIT
    if not math.isnan(minutes) and not (
        1 <= minutes <= limits.most_minutes and math.floor(minutes) == minutes
    ):
        problems |= BAD_MINUTES
    if problems & _BAD_PRICE:
        return problems
    if not math.isnan(limit):
        if (take_profit - limit) * side <= 0:
            problems |= LIMIT_BEYOND_TAKE_PROFIT
        if (limit - stop_loss) * side <= 0:
            problems |= LIMIT_BEYOND_STOP_LOSS
    entry = limit
    if opens_now(side, limit, fill):
        entry = fill
        if (take_profit - fill) * side <= 0:
            problems |= FILL_BEYOND_TAKE_PROFIT
        if (fill - stop_loss) * side <= 0:
            problems |= FILL_BEYOND_STOP_LOSS
        if not wick and (take_profit - average) * side <= 0:
            problems |= AVERAGE_BEYOND_TAKE_PROFIT
        if not wick and (average - stop_loss) * side <= 0:
            problems |= AVERAGE_BEYOND_STOP_LOSS
    gain = abs(take_profit - entry) / entry * 100
    loss = abs(stop_loss - entry) / entry * 100
    if limits.least_take_profit > 0 and gain < limits.least_take_profit:
        problems |= TAKE_PROFIT_TOO_NEAR
    if limits.least_stop_loss > 0 and loss < limits.least_stop_loss:
        problems |= STOP_LOSS_TOO_NEAR
    if limits.most_stop_loss > 0 and loss > limits.most_stop_loss:
        problems |= STOP_LOSS_TOO_FAR
    return problems


class Quote(NamedTuple):
    """The market when a strategy is asked: the average price, and that at which a fill can be had.

    Both in the quote asset.
    """

    average: float
    fill: float


def complete(
    answer: object,
    *,
    quote: Quote,
    when: int,
    symbol: str,
    strategy_name: str,
    exchange_name: str,
    config: Config,
) -> SignalRow:
    """Return the row for a strategy's answer at `when` (ms).

    The row is pending where the entry is immediate (no `price_open`, or one that the market has
    already reached), filled at `quote.fill`; else it waits, with `pending_at` `None`.

    Raises:
        SignalError: with every problem found, not only the first.
    """
    fields = _fields(answer)
    problems: list[str] = []
    position = fields.get("position")
    if position not in POSITIONS:
        problems.append(f"position={position!r} must be 'long' or 'short'")
    wants_limit = fields.get("price_open") is not None
    limit = _price(fields, "price_open", problems) if wants_limit else math.nan
    take_profit = _price(fields, "price_take_profit", problems)
    stop_loss = _price(fields, "price_stop_loss", problems)
    minutes = _minutes(fields, problems)
    identity = fields.get("id")
    if identity is not None and not (isinstance(identity, str) and identity):
        problems.append(f"id={identity!r} must be a non-empty string")
    note = fields.get("note") or ""
    if not isinstance(note, str):
        problems.append(f"note={note!r} must be a string")
    asked = read_management(fields, problems)
    side = -1.0 if position == "short" else 1.0
    numbers = limit, take_profit, stop_loss
    limits = limits_of(config)
    lasts = math.nan if minutes is None else minutes
    wick = config.exit_trigger == "wick"
    found = problems_of(side, *numbers, lasts, *quote, wick, limits)
    if position not in POSITIONS or limit == _UNREADABLE:
        found &= BAD_MINUTES | NO_STOP_LOSS
    problems += _in_words(found, side, *numbers, minutes, quote, config)
    immediate = opens_now(side, limit, quote.fill)
    if position in POSITIONS and not found & _BAD_PRICE and limit != _UNREADABLE:
        entry = quote.fill if immediate else limit
        target, stop = never_reached(side, take_profit, stop_loss)
        bits = management_problems(side, entry, target, stop, *asked.numbers, limits)
        problems += management_in_words(bits, side, entry, target, stop, asked, config)
    if problems:
        raise SignalError(problems)
    return SignalRow(
        id=identity or signal_id(exchange_name, strategy_name, symbol, when),
        symbol=symbol,
        strategy_name=strategy_name,
        exchange_name=exchange_name,
        position=position,  # type: ignore[arg-type]
        price_open=quote.fill if immediate else limit,
        price_take_profit=_or_none(take_profit),
        price_stop_loss=_or_none(stop_loss),
        minute_estimated_time=minutes or config.max_signal_lifetime_minutes or None,
        scheduled_at=when,
        pending_at=when if immediate else None,
        note=note,
        price_limit=_or_none(limit),
        **asked._asdict(),
    )


def never_reached(side: float, take_profit: float, stop_loss: float) -> tuple[float, float]:
    """Return target and stop, infinite (never reached) where NaN says that there is none."""
    if math.isnan(take_profit):
        take_profit = side * math.inf
    if math.isnan(stop_loss):
        stop_loss = -side * math.inf
    return take_profit, stop_loss


def _or_none(value: float) -> float | None:
    return None if value != value else value


def _in_words(
    found: int,
    side: float,
    limit: float,
    take_profit: float,
    stop_loss: float,
    minutes: int | None,
    quote: Quote,
    config: Config,
) -> list[str]:
    """Return a sentence for each problem; prices that could not be read have theirs already."""
    above, below = ("above", "below") if side > 0 else ("below", "above")
    entry = quote.fill if opens_now(side, limit, quote.fill) else limit
    gain, loss = (abs(level - entry) / entry * 100 for level in (take_profit, stop_loss))
    sentences = {
        NO_STOP_LOSS: "price_stop_loss is None; give one, or set require_stop_loss=False",
        BAD_MINUTES: f"minute_estimated_time={minutes} must be from 1 to "
        f"{config.max_signal_lifetime_minutes} (max_signal_lifetime_minutes)"
        if config.max_signal_lifetime_minutes
        else f"minute_estimated_time={minutes} must be from 1 to {NO_LIMIT}, a century",
        TAKE_PROFIT_TOO_NEAR: f"price_take_profit is {gain:.4g} % away; at least "
        f"{config.min_take_profit_distance_percent} % is needed to cover costs "
        "(min_take_profit_distance_percent)",
        STOP_LOSS_TOO_NEAR: f"price_stop_loss is {loss:.4g} % away; at least "
        f"{config.min_stop_loss_distance_percent} % (min_stop_loss_distance_percent)",
        STOP_LOSS_TOO_FAR: f"price_stop_loss is {loss:.4g} % away; at most "
        f"{config.max_stop_loss_distance_percent} % (max_stop_loss_distance_percent)",
    }
    places = (
        (LIMIT_BEYOND_TAKE_PROFIT, LIMIT_BEYOND_STOP_LOSS, "price_open", limit),
        (FILL_BEYOND_TAKE_PROFIT, FILL_BEYOND_STOP_LOSS, "the market price", quote.fill),
        (
            AVERAGE_BEYOND_TAKE_PROFIT,
            AVERAGE_BEYOND_STOP_LOSS,
            "the average price",
            quote.average,
        ),
    )
    for profits, stops, name, price in places:
        sentences[profits] = f"price_take_profit={take_profit!r} must be {above} {name} {price!r}"
        sentences[stops] = f"price_stop_loss={stop_loss!r} must be {below} {name} {price!r}"
    if config.fill_price == "average":  # one price, said once
        found &= ~(AVERAGE_BEYOND_TAKE_PROFIT | AVERAGE_BEYOND_STOP_LOSS)
        for bit in (FILL_BEYOND_TAKE_PROFIT, FILL_BEYOND_STOP_LOSS):
            sentences[bit] = sentences[bit].replace("the market price", "the average price")
    return [sentence for bit, sentence in sorted(sentences.items()) if found & bit]


def _fields(answer: object) -> Mapping[str, Any]:
    if isinstance(answer, Signal):
        return msgspec.structs.asdict(answer)
    if not isinstance(answer, Mapping):
        raise SignalError(
            [f"get_signal returned {type(answer).__name__}; return a Signal, a mapping or None"]
        )
    known = Signal.__struct_fields__
    problems = [
        f"unknown key {key!r}{did_you_mean(str(key), known)}" for key in answer if key not in known
    ]
    if problems:
        raise SignalError(problems)
    return answer


def _price(fields: Mapping[str, Any], name: str, problems: list[str]) -> float:
    """Return a price, NaN where it is not there."""
    if name not in fields:
        problems.append(f"{name} is missing")
        return _UNREADABLE
    value = fields[name]
    if value is None:
        return math.nan
    if isinstance(value, str | bytes | bool):
        problems.append(f"{name}={value!r} must be a number")
    else:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            problems.append(f"{name}={value!r} must be a number")
        else:
            if math.isfinite(number) and number > 0:
                return number
            problems.append(f"{name}={number!r} must be finite and above 0")
    return _UNREADABLE


def _minutes(fields: Mapping[str, Any], problems: list[str]) -> int | None:
    if "minute_estimated_time" not in fields:
        problems.append("minute_estimated_time is missing")
        return None
    value = fields["minute_estimated_time"]
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        problems.append(f"minute_estimated_time={value!r} must be a whole number of minutes")
        return None

"""What may be wrong with how a signal wants its position managed: over numbers, and in words.

`management_problems` is the rule, which the kernel uses too; the rest reads what a strategy
returned, and says in words what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from backtest_kit._rules.holding import Levels as Numbers
from backtest_kit._rules.holding import breakeven_price
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.signal import Levels, SignalRow, TrailingStop

#: Of a distance or a sum: what rounding may take from it.
ROUNDING: Final = 1e-12
#: Without `max_signal_lifetime_minutes`: a century.
NO_LIMIT: Final = 100 * 366 * 1440

#: What may be wrong with one list of levels, as bits ...
BAD_PERCENTS, BAD_AMOUNTS, BAD_PRICES, BEYOND, TOO_NEAR = (1 << bit for bit in range(5))
#: ... which are shifted by this much for each list, and what else may be.
PROFITS, LOSSES, ENTRIES = 0, 5, 10
BAD_TRAILING, BAD_ACTIVATION, BAD_BREAKEVEN, WITHIN_COSTS, TOO_MANY = (
    1 << bit for bit in range(15, 20)
)


class Limits(NamedTuple):
    """What a proposal must keep within: distances in percent (0: no check), minutes.

    `lifetime` is that of a signal without one, in minutes; 0: no end. Costs are fractions.
    """

    least_take_profit: float
    least_stop_loss: float
    most_stop_loss: float
    most_minutes: int
    lifetime: int
    needs_stop: bool
    most_entries: int
    slippage: float
    fee: float


def limits_of(config: Config) -> Limits:
    """Return the limits, the distances a hair wider than the settings.

    A stop put at exactly 0.5 % comes out at 0.4999999999999 %.
    """
    return Limits(
        config.min_take_profit_distance_percent * (1 - ROUNDING),
        config.min_stop_loss_distance_percent * (1 - ROUNDING),
        config.max_stop_loss_distance_percent * (1 + ROUNDING),
        config.max_signal_lifetime_minutes or NO_LIMIT,
        config.max_signal_lifetime_minutes,
        config.require_stop_loss,
        config.max_entries,
        config.percent_slippage / 100,
        config.percent_fee / 100,
    )


class Management(NamedTuple):
    """How a position is managed, as numbers: percents (NaN: not used), and flat lists of levels."""

    trailing: float
    activation: float
    breakeven: float
    profits: Numbers
    losses: Numbers
    entries: Numbers


def management_problems(
    side: float,
    entry: float,
    target: float,
    stop: float,
    trailing: float,
    activation: float,
    breakeven: float,
    profits: Numbers,
    losses: Numbers,
    entries: Numbers,
    limits: Limits,
) -> int:
    """Return what is wrong with how a position is to be managed, as bits; 0: it is valid.

    `entry` is the price that distances are measured from, `target` and `stop` are infinite where
    there is none. The others are as in `Management`.
    """
    problems = 0
    if trailing == trailing:
        if not 0 < trailing < 100:
            problems |= BAD_TRAILING
        if not 0 <= activation < 100:
            problems |= BAD_ACTIVATION
    if breakeven == breakeven:
        if not 0 < breakeven < 100:
            problems |= BAD_BREAKEVEN
        zero = breakeven_price(side, 1.0, limits.slippage, limits.fee)
        if not side * (1 + side * breakeven / 100) > side * zero:
            problems |= WITHIN_COSTS
    least, most = limits.least_take_profit, 100 * (1 + ROUNDING)
    problems |= level_problems(profits, side, entry, target, least, most) << PROFITS
    least = limits.least_stop_loss
    problems |= level_problems(losses, -side, entry, stop, least, most) << LOSSES
    problems |= level_problems(entries, -side, entry, stop, 0.0, math.inf) << ENTRIES
    if len(entries) > 2 * limits.most_entries:
        problems |= TOO_MANY
    return problems


def level_problems(
    levels: Numbers, direction: float, entry: float, bound: float, least: float, most: float
) -> int:
    """Return what is wrong with one list of levels, as bits.

    They lie from `entry` in `direction` (1: above), strictly before `bound`, at least `least`
    percent away; their amounts add up to at most `most`.
    """
    problems, before, total = 0, 0.0, 0.0
    for i in range(0, len(levels), 2):
        percent, amount = levels[i], levels[i + 1]
        if not before < percent < math.inf:
            problems |= BAD_PERCENTS
        if not 0 < amount < math.inf:
            problems |= BAD_AMOUNTS
        if least > 0 and percent < least:
            problems |= TOO_NEAR
        price = entry * (1 + direction * percent / 100)
        if not 0 < price < math.inf:
            problems |= BAD_PRICES
        elif not direction * price < direction * bound:
            problems |= BEYOND
        before, total = percent, total + amount
    if total > most:
        problems |= BAD_AMOUNTS
    return problems


def management_of(row: SignalRow) -> Management:
    """Return how the position of a row is managed, as numbers."""
    trailing, breakeven = row.trailing_stop, row.breakeven_percent
    return Management(
        math.nan if trailing is None else trailing.percent,
        math.nan if trailing is None else trailing.activate_percent,
        math.nan if breakeven is None else breakeven,
        flat(row.take_profits),
        flat(row.stop_losses),
        flat(row.entries),
    )


def flat(levels: Levels) -> list[float]:
    """Return pairs as one list of numbers."""
    return [number for pair in levels for number in pair]


class Asked(NamedTuple):
    """How a strategy asked for its position to be managed, read and with the right types."""

    trailing_stop: TrailingStop | None
    breakeven_percent: float | None
    take_profits: Levels
    stop_losses: Levels
    entries: Levels

    @property
    def numbers(self) -> Management:
        """The same as numbers."""
        return management_of(self)  # type: ignore[arg-type]


def read_management(fields: Mapping[str, Any], problems: list[str]) -> Asked:
    """Return what a proposal says about its management; add what can't be read to `problems`."""
    trailing, breakeven = fields.get("trailing_stop"), fields.get("breakeven_percent")
    if trailing is not None:
        given = trailing
        try:
            if isinstance(given, TrailingStop):
                given = msgspec.structs.asdict(given)
            trailing = TrailingStop(**{name: _number(value) for name, value in given.items()})
        except (TypeError, ValueError, OverflowError, AttributeError):
            problems.append(f"trailing_stop={trailing!r} must be a TrailingStop of finite numbers")
            trailing = None
    if breakeven is not None:
        try:
            breakeven = _number(breakeven)
        except (TypeError, ValueError, OverflowError):
            problems.append(f"breakeven_percent={breakeven!r} must be a finite number")
            breakeven = None
    lists = (
        _levels(fields, name, what, problems)
        for name, what in (
            ("take_profits", "share"),
            ("stop_losses", "share"),
            ("entries", "size"),
        )
    )
    return Asked(trailing, breakeven, *lists)


def _number(value: Any) -> float:
    if isinstance(value, str | bytes | bool):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ArgumentError(f"{value!r} is not a finite number")
    return number


def _levels(fields: Mapping[str, Any], name: str, what: str, problems: list[str]) -> Levels:
    given = fields.get(name)
    if given is None:
        return ()
    try:
        return pairs(given)
    except (TypeError, ValueError, OverflowError):
        problems.append(f"{name}={given!r} must be pairs (percent, {what}) of finite numbers")
        return ()


def pairs(given: Iterable[Sequence[float]] | Floats) -> Levels:
    """Return pairs of numbers as tuples of floats.

    Raises:
        TypeError, ValueError, OverflowError: it is something else.
    """
    if isinstance(given, str | bytes | Mapping):
        raise TypeError
    rows = given.tolist() if isinstance(given, np.ndarray) else given
    return tuple((_number(percent), _number(amount)) for percent, amount in rows)


def management_in_words(
    found: int,
    side: float,
    entry: float,
    target: float,
    stop: float,
    asked: Asked,
    config: Config,
) -> list[str]:
    """Return a sentence for each problem."""
    trailing, breakeven = asked.trailing_stop, asked.breakeven_percent
    sentences = []
    if found & BAD_TRAILING and trailing is not None:
        sentences.append(
            f"trailing_stop: percent={trailing.percent!r} must be above 0 and below 100"
        )
    if found & BAD_ACTIVATION and trailing is not None:
        sentences.append(
            f"trailing_stop: activate_percent={trailing.activate_percent!r} must be 0 or more, and "
            "below 100"
        )
    if found & BAD_BREAKEVEN:
        sentences.append(f"breakeven_percent={breakeven!r} must be above 0 and below 100")
    if found & WITHIN_COSTS:
        limits = limits_of(config)
        zero = breakeven_price(side, entry, limits.slippage, limits.fee)
        away = abs(zero - entry) / entry * 100
        sentences.append(
            f"breakeven_percent={breakeven!r} lies within the costs: a close gives 0 at {zero!r}, "
            f"{away:.4g} % from {entry!r}; it must be beyond that"
        )
    lists = (
        (PROFITS, "take_profits", asked.take_profits, "price_take_profit", target),
        (LOSSES, "stop_losses", asked.stop_losses, "price_stop_loss", stop),
        (ENTRIES, "entries", asked.entries, "price_stop_loss", stop),
    )
    for shift, name, levels, limit, price in lists:
        is_entries = shift == ENTRIES
        least = f"min_{limit.removeprefix('price_')}_distance_percent"
        texts = {
            BAD_PERCENTS: "percents must be finite, above 0 and strictly ascending",
            BAD_AMOUNTS: "sizes must be above 0"
            if is_entries
            else "shares must be above 0 and add up to at most 100",
            BAD_PRICES: f"each level must be a price above 0, measured from {entry!r}",
            BEYOND: f"each level must lie before {limit}={price!r}, measured from {entry!r}",
            TOO_NEAR: f"each level must be at least {getattr(config, least)} % away ({least})",
        }
        sentences += [
            f"{name}={levels!r}: {text}" for bit, text in texts.items() if found >> shift & bit
        ]
    if found & TOO_MANY:
        sentences.append(
            f"entries: {len(asked.entries)} levels; at most {config.max_entries} (max_entries)"
        )
    return sentences

"""What a strategy proposes, and how it becomes a row: completion, and all problems in one error."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from backtest_kit._values.config import Config
from backtest_kit._values.errors import SignalError, did_you_mean
from backtest_kit._values.time import MINUTE

Position = Literal["long", "short"]
_POSITIONS: Final = ("long", "short")

#: Of a distance: what rounding may take from it.
_ROUNDING: Final = 1e-12


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A proposal: what `get_signal` returns (a mapping with these keys does as well).

    Prices are in the quote asset, the lifetime in whole minutes. Without `price_open` the signal
    opens at once, at the average price; with it, the signal waits for that price.
    """

    position: Position
    price_take_profit: float
    price_stop_loss: float
    minute_estimated_time: int
    price_open: float | None = None
    note: str = ""
    id: str | None = None


class SignalRow(msgspec.Struct, frozen=True, kw_only=True):
    """A signal that the engine has accepted.

    `scheduled_at` is when it was proposed, `pending_at` when it was filled (`None` while it
    waits), both in milliseconds UTC.
    """

    id: str
    symbol: str
    strategy_name: str
    exchange_name: str
    position: Position
    price_open: float
    price_take_profit: float
    price_stop_loss: float
    minute_estimated_time: Annotated[int, msgspec.Meta(ge=1)]
    scheduled_at: int
    pending_at: int | None = None
    note: str = ""


def complete(
    answer: object,
    *,
    price: float,
    when: int,
    symbol: str,
    strategy_name: str,
    exchange_name: str,
    config: Config,
) -> SignalRow:
    """Return the row for a strategy's answer at `when` (ms), the average price being `price`.

    The row is pending where the entry is immediate (no `price_open`, or one that the market has
    already reached), filled at `price`; else it waits, with `pending_at` `None`.

    Raises:
        SignalError: with every problem found, not only the first.
    """
    fields = _fields(answer)
    problems: list[str] = []
    position = fields.get("position")
    if position not in _POSITIONS:
        problems.append(f"position={position!r} must be 'long' or 'short'")
    take_profit = _price(fields, "price_take_profit", problems)
    stop_loss = _price(fields, "price_stop_loss", problems)
    wanted = None
    if fields.get("price_open") is not None:
        wanted = _price(fields, "price_open", problems)
    minutes = _minutes(fields.get("minute_estimated_time"), config, problems)
    identity = fields.get("id")
    if identity is not None and not (isinstance(identity, str) and identity):
        problems.append(f"id={identity!r} must be a text that is not empty")
    note = fields.get("note") or ""
    if not isinstance(note, str):
        problems.append(f"note={note!r} must be a text")
    immediate = fields.get("price_open") is None or (
        wanted is not None and (price <= wanted if position == "long" else price >= wanted)
    )
    if (
        position in _POSITIONS
        and take_profit is not None
        and stop_loss is not None
        and (immediate or wanted is not None)
    ):
        sign = 1 if position == "long" else -1
        if wanted is not None:
            _check_sides(sign, "price_open", wanted, take_profit, stop_loss, problems)
        if immediate:
            _check_sides(sign, "the average price", price, take_profit, stop_loss, problems)
        entry = price if immediate or wanted is None else wanted
        _check_distances(entry, take_profit, stop_loss, config, problems)
    if problems:
        raise SignalError(problems)
    return SignalRow(
        id=identity or signal_id(exchange_name, strategy_name, symbol, when),
        symbol=symbol,
        strategy_name=strategy_name,
        exchange_name=exchange_name,
        position=position,  # type: ignore[arg-type]
        price_open=price if immediate else wanted,  # type: ignore[arg-type]
        price_take_profit=take_profit,  # type: ignore[arg-type]
        price_stop_loss=stop_loss,  # type: ignore[arg-type]
        minute_estimated_time=minutes,  # type: ignore[arg-type]
        scheduled_at=when,
        pending_at=when if immediate else None,
        note=note,
    )


def signal_id(exchange_name: str, strategy_name: str, symbol: str, when: int) -> str:
    """Return the id of a signal that was proposed at `when` (ms) without one."""
    return f"{exchange_name}:{strategy_name}:{symbol}:{when}"


def expires_at(row: SignalRow) -> int:
    """Return when a pending row's lifetime ends, in milliseconds."""
    assert row.pending_at is not None
    return row.pending_at + row.minute_estimated_time * MINUTE


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


def _price(fields: Mapping[str, Any], name: str, problems: list[str]) -> float | None:
    value = fields.get(name)
    if value is None:
        problems.append(f"{name} is missing")
    elif isinstance(value, str | bytes | bool):
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
    return None


def _minutes(value: object, config: Config, problems: list[str]) -> int | None:
    limit = config.max_signal_lifetime_minutes
    if value is None:
        problems.append("minute_estimated_time is missing")
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        minutes = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        if not (isinstance(value, float) and value.is_integer()):
            problems.append(f"minute_estimated_time={value!r} must be a whole number of minutes")
            return None
        minutes = int(value)
    if not 1 <= minutes <= limit:
        problems.append(
            f"minute_estimated_time={minutes} must be from 1 to {limit} "
            "(max_signal_lifetime_minutes)"
        )
        return None
    return minutes


def _check_sides(
    sign: int, name: str, entry: float, take_profit: float, stop_loss: float, problems: list[str]
) -> None:
    above, below = ("above", "below") if sign > 0 else ("below", "above")
    if (take_profit - entry) * sign <= 0:
        problems.append(f"price_take_profit={take_profit!r} must be {above} {name} {entry!r}")
    if (entry - stop_loss) * sign <= 0:
        problems.append(f"price_stop_loss={stop_loss!r} must be {below} {name} {entry!r}")


def _check_distances(
    entry: float, take_profit: float, stop_loss: float, config: Config, problems: list[str]
) -> None:
    profit = abs(take_profit - entry) / entry * 100
    loss = abs(stop_loss - entry) / entry * 100
    lowest, least, most = distance_limits(config)
    if lowest and profit < lowest:
        problems.append(
            f"price_take_profit is {profit:.4g} % away; at least "
            f"{config.min_take_profit_distance_percent} % is needed to cover costs "
            "(min_take_profit_distance_percent)"
        )
    if least and loss < least:
        problems.append(
            f"price_stop_loss is {loss:.4g} % away; at least "
            f"{config.min_stop_loss_distance_percent} % (min_stop_loss_distance_percent)"
        )
    if most and loss > most:
        problems.append(
            f"price_stop_loss is {loss:.4g} % away; at most "
            f"{config.max_stop_loss_distance_percent} % (max_stop_loss_distance_percent)"
        )


def distance_limits(config: Config) -> tuple[float, float, float]:
    """Return the least distance of the take profit, the least and the most of the stop, percent.

    A hair wider than the settings: a stop put at exactly 0.5 % comes out at 0.4999999999999 %.
    """
    return (
        config.min_take_profit_distance_percent * (1 - _ROUNDING),
        config.min_stop_loss_distance_percent * (1 - _ROUNDING),
        config.max_stop_loss_distance_percent * (1 + _ROUNDING),
    )

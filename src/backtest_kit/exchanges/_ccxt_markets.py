"""Markets as ccxt tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backtest_kit._values.account import Market

#: What a precision of a ccxt client means, its `precisionMode`: a count of decimal places ...
_DECIMAL_PLACES: Final = 2
#: ... or a step. The third one, significant digits, is no step.
_TICK_SIZE: Final = 4


def market_of(found: Mapping[str, Any], precision_mode: int) -> Market:
    """Return the market of one of ccxt's (its "market structure").

    Amounts of contracts are converted to the base asset; of inverse ones, whose amounts are in the
    quote asset, no rules for quantities are known.
    """
    size = 1.0
    if found.get("contract"):
        size = 0.0 if found.get("inverse") else _above_zero(found.get("contractSize")) or 1.0
    precision, limits = found.get("precision") or {}, found.get("limits") or {}
    least = limits.get("amount") or {}, limits.get("cost") or {}
    quantity, cost = (_above_zero(limit.get("min")) for limit in least)
    step = _step(precision.get("amount"), precision_mode)
    return Market(
        base=found["base"],
        quote=found["quote"],
        price_step=_step(precision.get("price"), precision_mode),
        quantity_step=_above_zero(step and step * size),
        min_quantity=_above_zero(quantity and quantity * size),
        min_notional=cost,
        maker_percent=_percent(found.get("maker")),
        taker_percent=_percent(found.get("taker")),
    )


def _step(precision: Any, mode: int) -> float | None:
    if precision is None:
        return None
    if mode == _DECIMAL_PLACES:
        return float(f"1e{-int(precision)}")
    return _above_zero(precision) if mode == _TICK_SIZE else None


def _above_zero(value: Any) -> float | None:
    return float(value) if value and float(value) > 0 else None


def _percent(fraction: Any) -> float | None:
    return None if fraction is None else float(fraction) * 100

"""`bk.PositionSize`: how large a position should be, for whoever asks; nothing acts on it."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.guard import call_user_code
from backtest_kit._engine.task import run_blocking
from backtest_kit._rules.sizing import kelly_share, risked_quantity
from backtest_kit._values.account_schemas import SizingSchema
from backtest_kit._values.errors import ArgumentError


def fixed_percentage_size(
    balance: float, risk_percentage: float, price_open: float, price_stop_loss: float
) -> float:
    """Return the quantity that loses `risk_percentage` of the balance at the stop-loss.

    Fixed-fractional sizing (Vince, 1990).
    """
    return risked_quantity(balance, risk_percentage, abs(price_open - price_stop_loss))


def kelly_size(
    balance: float, win_rate: float, win_loss_ratio: float, multiplier: float, price_open: float
) -> float:
    """Return the quantity that a fraction of the Kelly bet buys (Kelly, 1956).

    `win_rate` is a share from 0 to 1, `win_loss_ratio` average win over average loss.
    """
    return balance * kelly_share(win_rate, win_loss_ratio) * multiplier / price_open


def atr_size(balance: float, risk_percentage: float, atr: float, multiplier: float) -> float:
    """Return the quantity that loses `risk_percentage` of the balance at `multiplier` ATRs.

    `atr` is the average true range (Wilder, 1978), in the units of the price.
    """
    distance = atr * multiplier
    return balance * (risk_percentage / 100) / distance if distance > 0 else math.inf


def bounded(quantity: float, balance: float, price_open: float, sizing: SizingSchema) -> float:
    """Return the quantity raised to the minimum first, then capped: a cap is never exceeded."""
    if sizing.min_position_size is not None:
        quantity = max(quantity, sizing.min_position_size)
    if sizing.max_position_percentage is not None:
        quantity = min(quantity, balance * sizing.max_position_percentage / 100 / price_open)
    if sizing.max_position_size is not None:
        quantity = min(quantity, sizing.max_position_size)
    return quantity


class PositionSize:
    """Position sizes by the sizings registered with `add_sizing`; quantities of the base asset.

    Every method raises `UnknownNameError` for an unknown sizing, and `ValueError` for one of
    another method, a number that is not finite and positive, or a size beyond float64.
    `on_calculate(quantity, parameters)`, sync or async, runs to its end before the size is
    returned; what it raises goes to the caller.
    """

    @staticmethod
    def fixed_percentage(
        symbol: str,
        account_balance: float,
        price_open: float,
        price_stop_loss: float,
        *,
        sizing_name: str,
    ) -> float:
        """Return the size at which the stop-loss costs `risk_percentage` of the balance."""
        sizing = _sizing(sizing_name, "fixed-percentage")
        balance, entry, stop = _positive(
            account_balance=account_balance, price_open=price_open, price_stop_loss=price_stop_loss
        )
        if entry == stop:
            raise ArgumentError(f"price_stop_loss={price_stop_loss!r} must differ from price_open")
        size = fixed_percentage_size(balance, sizing.risk_percentage, entry, stop)
        return _finish(sizing, symbol, size, balance, entry)

    @staticmethod
    def kelly_criterion(
        symbol: str,
        account_balance: float,
        price_open: float,
        win_rate: float,
        win_loss_ratio: float,
        *,
        sizing_name: str,
    ) -> float:
        """Return `kelly_multiplier` of the Kelly bet; `win_rate` is a share from 0 to 1."""
        sizing = _sizing(sizing_name, "kelly-criterion")
        balance, entry, ratio = _positive(
            account_balance=account_balance, price_open=price_open, win_loss_ratio=win_loss_ratio
        )
        share = _number("win_rate", win_rate)
        if not 0 <= share <= 1:
            raise ArgumentError(f"win_rate={win_rate!r} must be a share from 0 to 1, not percent")
        size = kelly_size(balance, share, ratio, sizing.kelly_multiplier, entry)
        return _finish(sizing, symbol, size, balance, entry)

    @staticmethod
    def atr_based(
        symbol: str, account_balance: float, price_open: float, atr: float, *, sizing_name: str
    ) -> float:
        """Return the size at which `atr_multiplier` ATRs cost `risk_percentage` of the balance."""
        sizing = _sizing(sizing_name, "atr-based")
        balance, entry, width = _positive(
            account_balance=account_balance, price_open=price_open, atr=atr
        )
        size = atr_size(balance, sizing.risk_percentage, width, sizing.atr_multiplier)
        return _finish(sizing, symbol, size, balance, entry)


def _sizing(name: str, method: str) -> SizingSchema:
    sizing = current_engine().sizings.get(name)
    if sizing.method != method:
        raise ArgumentError(f"sizing {name!r} has the method {sizing.method!r}, not {method!r}")
    return sizing


def _positive(**numbers: float) -> list[float]:
    values = [_number(name, value) for name, value in numbers.items()]
    for name, value in zip(numbers, values, strict=True):
        if not (math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name}={value!r} must be finite and above 0")
    return values


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{name}={value!r} must be a number")
    try:
        return float(value)
    except OverflowError:
        raise ArgumentError(f"{name} must be finite, and within float64") from None


def _finish(
    sizing: SizingSchema, symbol: str, size: float, balance: float, price_open: float
) -> float:
    quantity = bounded(size, balance, price_open, sizing)
    if not math.isfinite(quantity):
        raise ArgumentError(
            f"sizing {sizing.sizing_name!r} gives a size beyond float64 for {symbol}; check "
            "account_balance and the distance or ATR, or set max_position_size"
        )
    callback = sizing.callback("on_calculate")
    if callback is not None:
        parameters: dict[str, Any] = {
            "symbol": symbol,
            "sizing_name": sizing.sizing_name,
            "method": sizing.method,
            "account_balance": balance,
            "price_open": price_open,
        }
        run_blocking(lambda: call_user_code(callback, quantity, parameters))
    return quantity

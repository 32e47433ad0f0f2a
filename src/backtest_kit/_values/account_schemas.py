"""Accounts and sizings, as they are registered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, get_args

from backtest_kit._values.errors import RegistrationError, did_you_mean
from backtest_kit._values.numbers import is_amount, is_number, is_whole
from backtest_kit._values.schemas import Schema, check_function, check_interval_name, check_writable
from backtest_kit._values.time import Interval

SizingMethod = Literal[
    "fixed-cost",
    "equity-percentage",
    "fixed-percentage",
    "kelly-criterion",
    "atr-based",
    "volatility-target",
    "function",
]
SIZING_METHODS: Final[tuple[SizingMethod, ...]] = get_args(SizingMethod)
CashShortage = Literal["reduce", "refuse"]
#: `size(account, signal)` returns a cost in the account's currency.
SizeFunction = Callable[[Any, Any], float | Awaitable[float]]
#: Fields that a method can't do without; no other method takes them.
_NEEDED: Final[dict[str, SizingMethod]] = {
    "cost": "fixed-cost",
    "equity_percentage": "equity-percentage",
    "target_percentage": "volatility-target",
    "size": "function",
}
_PERCENTS: Final = ("risk_percentage", "max_position_percentage")
#: Numbers that have a value by default.
_GIVEN: Final = ("risk_percentage", "kelly_multiplier", "atr_multiplier")
_AMOUNTS: Final = (
    *_GIVEN,
    "cost",
    "equity_percentage",
    "target_percentage",
    "min_position_size",
    "max_position_size",
    "max_position_percentage",
)
_TOO_MUCH: Final = 1e300


class AccountSchema(Schema, frozen=True, kw_only=True):
    """Money that runs share, all of them on one exchange.

    `balance` is what it begins with, in `currency`. With a `leverage` above 1 a position binds its
    cost over the leverage; it is liquidated where what is left of that is `maintenance_percent` of
    its value. A signal without a size and a sizing costs `default_percent` of equity, or where that
    is `None` an equal part of what equity can pay. `on_cash_shortage`: what can't be paid whole is
    reduced to what can, or refused. A year has `days_per_year` days of trading.
    """

    NAME = "account_name"

    account_name: str
    currency: str
    balance: float
    leverage: float = 1.0
    maintenance_percent: float = 0.5
    default_percent: float | None = None
    on_cash_shortage: CashShortage = "reduce"
    days_per_year: int = 365
    note: str = ""

    def _check(self, me: str) -> None:
        if not isinstance(self.currency, str) or not self.currency.strip():
            raise RegistrationError(f'{me}: currency={self.currency!r} must be one, such as "USDT"')
        check_writable(f"{me}: currency", self.currency)
        if not is_amount(self.balance):
            raise RegistrationError(f"{me}: balance={self.balance!r} must be a number above 0")
        if not is_number(self.leverage) or self.leverage < 1:
            raise RegistrationError(
                f"{me}: leverage={self.leverage!r} must be a number, 1 (none) or more"
            )
        most = 100 / self.leverage
        if not is_number(self.maintenance_percent) or not 0 <= self.maintenance_percent < most:
            raise RegistrationError(
                f"{me}: maintenance_percent={self.maintenance_percent!r} must be 0 or more, and "
                f"below {most:g}, the part of a position that leverage={self.leverage!r} leaves as "
                "collateral"
            )
        if self.default_percent is not None and not is_amount(self.default_percent):
            raise RegistrationError(
                f"{me}: default_percent={self.default_percent!r} must be a number above 0, or None"
            )
        if self.on_cash_shortage not in get_args(CashShortage):
            tail = did_you_mean(str(self.on_cash_shortage), get_args(CashShortage))
            raise RegistrationError(
                f"{me}: unknown on_cash_shortage={self.on_cash_shortage!r}{tail}"
            )
        if not is_whole(self.days_per_year) or self.days_per_year > 366:
            raise RegistrationError(
                f"{me}: days_per_year={self.days_per_year!r} must be a whole number from 1 to 366, "
                "such as 365 or 252"
            )


class SizingSchema(Schema, frozen=True, kw_only=True):
    """How large a position is, by `method`.

    - "fixed-cost": `cost`.
    - "equity-percentage": a cost of `equity_percentage` of equity; above 100 with leverage.
    - "fixed-percentage": the quantity that loses `risk_percentage` of equity at the stop.
    - "kelly-criterion": `kelly_multiplier` of what Kelly bets by the strategy's closed trades; the
      account's default size before there are `min_trades` of them, or a loss.
    - "atr-based": the quantity that loses `risk_percentage` of equity at `atr_multiplier` average
      true ranges of `atr_period` candles of `atr_interval` (`None`: the strategy's interval).
    - "volatility-target": a cost of equity times `target_percentage` over the yearly volatility of
      the last `volatility_days` days.
    - "function": a cost, what `size(account, signal)`, sync or async, returns.

    Costs are notional, in the account's currency. What comes of it is raised to
    `min_position_size`, then capped by `max_position_percentage` (of equity, as a cost) and
    `max_position_size`; these two sizes are quantities.
    """

    NAME = "sizing_name"
    CALLBACKS = ("on_calculate",)

    sizing_name: str
    method: SizingMethod
    cost: float | None = None
    equity_percentage: float | None = None
    risk_percentage: float = 1.0
    kelly_multiplier: float = 0.25
    min_trades: int = 30
    atr_multiplier: float = 2.0
    atr_period: int = 14
    atr_interval: Interval | None = None
    target_percentage: float | None = None
    volatility_days: int = 30
    size: SizeFunction | None = None
    min_position_size: float | None = None
    max_position_size: float | None = None
    max_position_percentage: float | None = None
    callbacks: Any = None
    note: str = ""

    def _check(self, me: str) -> None:
        if self.method not in SIZING_METHODS:
            tail = did_you_mean(str(self.method), SIZING_METHODS)
            raise RegistrationError(f"{me}: unknown method {self.method!r}{tail}")
        for field, method in _NEEDED.items():
            given = getattr(self, field) is not None
            if given != (method == self.method):
                what = f"belongs to the method {method!r}" if given else "is needed"
                raise RegistrationError(f"{me}: {field} {what} (method={self.method!r})")
        if self.size is not None:
            check_function(me, "size", self.size)
        if self.atr_interval is not None:
            check_interval_name(me, self.atr_interval)
        for field, least in (("min_trades", 1), ("atr_period", 1), ("volatility_days", 2)):
            if not is_whole(getattr(self, field), least):
                raise RegistrationError(
                    f"{me}: {field}={getattr(self, field)!r} must be a whole number, "
                    f"{least} or more"
                )
        for field in _AMOUNTS:
            value = getattr(self, field)
            if value is None and field not in _GIVEN:
                continue
            if not is_amount(value) or value >= _TOO_MUCH:
                raise RegistrationError(f"{me}: {field}={value!r} must be a number above 0")
        for field in _PERCENTS:
            if (getattr(self, field) or 0) > 100:
                raise RegistrationError(f"{me}: {field}={getattr(self, field)} is above 100")
        low, high = self.min_position_size, self.max_position_size
        if low is not None and high is not None and low > high:
            raise RegistrationError(
                f"{me}: min_position_size={low} is above max_position_size={high}"
            )

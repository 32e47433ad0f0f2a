"""`add_account` and `add_sizing`, on the current engine; see `register`."""

from __future__ import annotations

from typing import Any, overload

from backtest_kit._engine.engine import current_engine
from backtest_kit._engine.registry import made
from backtest_kit._values.account_schemas import (
    AccountSchema,
    CashShortage,
    SizeFunction,
    SizingMethod,
    SizingSchema,
)
from backtest_kit._values.time import Interval


@overload
def add_account(account: AccountSchema, /, *, replace: bool = False) -> None: ...
@overload
def add_account(
    *,
    account_name: str,
    currency: str,
    balance: float,
    leverage: float = 1.0,
    maintenance_percent: float = 0.5,
    default_percent: float | None = None,
    on_cash_shortage: CashShortage = "reduce",
    days_per_year: int = 365,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_account(
    account: AccountSchema | None = None, /, *, replace: bool = False, **fields: Any
) -> None:
    """Register an account: the fields of `AccountSchema`, or one such; see `add_exchange`."""
    current_engine().accounts.add(made(AccountSchema, account, fields), replace=replace)


@overload
def add_sizing(sizing: SizingSchema, /, *, replace: bool = False) -> None: ...
@overload
def add_sizing(
    *,
    sizing_name: str,
    method: SizingMethod,
    cost: float | None = None,
    equity_percentage: float | None = None,
    risk_percentage: float = 1.0,
    kelly_multiplier: float = 0.25,
    min_trades: int = 30,
    atr_multiplier: float = 2.0,
    atr_period: int = 14,
    atr_interval: Interval | None = None,
    target_percentage: float | None = None,
    volatility_days: int = 30,
    size: SizeFunction | None = None,
    min_position_size: float | None = None,
    max_position_size: float | None = None,
    max_position_percentage: float | None = None,
    callbacks: object = None,
    note: str = "",
    replace: bool = False,
) -> None: ...
def add_sizing(
    sizing: SizingSchema | None = None, /, *, replace: bool = False, **fields: Any
) -> None:
    """Register a sizing: the fields of `SizingSchema`, or one such; see `add_exchange`."""
    current_engine().sizings.add(made(SizingSchema, sizing, fields), replace=replace)


def list_accounts() -> list[AccountSchema]:
    """Return the registered accounts, in order."""
    return current_engine().accounts.list()


def list_sizings() -> list[SizingSchema]:
    """Return the registered sizings, in order."""
    return current_engine().sizings.list()

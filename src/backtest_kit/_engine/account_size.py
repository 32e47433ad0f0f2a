"""What a signal is to cost in an account: by itself, by the strategy's sizing, or by default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from backtest_kit._data.series import Segment
from backtest_kit._engine.ambient import Run, View
from backtest_kit._engine.guard import call_user_code
from backtest_kit._rules.sizing import (
    ATR_PERIODS,
    Wanted,
    average_true_range,
    bounded,
    kelly_of,
    risked_quantity,
    yearly_volatility,
)
from backtest_kit._values.account import AccountView
from backtest_kit._values.account_schemas import AccountSchema, SizingSchema
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import ArgumentError, BeforeDataError
from backtest_kit._values.events import RiskEvent
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.signal import SignalRow


class LoadedView(View, Protocol):
    """The market of a run, also as far as it is loaded."""

    def loaded(self, symbol: str, interval: str) -> Segment | None: ...


class Purse(Protocol):
    """An account, as far as sizes are measured by it."""

    @property
    def schema(self) -> AccountSchema: ...
    @property
    def taken(self) -> float: ...
    @property
    def profits(self) -> Mapping[str, list[float]]: ...
    def view(self, when: int) -> AccountView: ...


class AccountRun(Run, Protocol):
    """A run as its account knows it."""

    @property
    def view(self) -> LoadedView: ...
    @property
    def strategy(self) -> StrategySchema: ...
    def error(self, where: str, error: Exception) -> object: ...
    def rejected(self, event: RiskEvent) -> None: ...
    async def guarded(self, where: str, function: Any, *arguments: object) -> None: ...


async def wanted_by(
    run: AccountRun,
    sizing: SizingSchema | None,
    row: SignalRow,
    when: int,
    paid: float,
    account: Purse,
    default: float,
) -> Wanted:
    """Return what is to be entered at `when` (ms), at the slipped price `paid`.

    `default` is the cost of a signal without a size.
    """
    if row.cost is not None:
        return Wanted(cost=row.cost)
    if row.quantity is not None:
        return Wanted(quantity=row.quantity)
    if sizing is None:
        return Wanted(cost=default)
    wanted = await _asked(run, sizing, row, when, account, default)
    wanted = bounded(
        wanted,
        paid,
        account.taken,
        sizing.min_position_size,
        sizing.max_position_percentage,
        sizing.max_position_size,
    )
    callback = sizing.callback("on_calculate")
    if callback is not None:
        quantity = wanted.quantity if wanted.cost != wanted.cost else wanted.cost / paid
        parameters = {
            "symbol": row.symbol,
            "sizing_name": sizing.name,
            "method": sizing.method,
            "account_balance": account.taken,
            "price_open": row.price_open,
        }
        await run.guarded("callback on_calculate", callback, quantity, parameters)
    return wanted


async def _asked(
    run: AccountRun,
    sizing: SizingSchema,
    row: SignalRow,
    when: int,
    account: Purse,
    default: float,
) -> Wanted:
    """Return what the method gives, before it is bounded; NaN: no size."""
    equity = account.taken
    match sizing.method:
        case "fixed-cost":
            return Wanted(cost=float(sizing.cost or 0.0))
        case "equity-percentage":
            return Wanted(cost=equity * (sizing.equity_percentage or 0.0) / 100)
        case "fixed-percentage":
            stop = math.nan if row.price_stop_loss is None else row.price_stop_loss
            distance = abs(row.price_open - stop)
            return Wanted(quantity=risked_quantity(equity, sizing.risk_percentage, distance))
        case "kelly-criterion":
            share = kelly_of(account.profits.get(row.strategy_name, []), sizing.min_trades)
            cost = default if share is None else equity * share * sizing.kelly_multiplier
            return Wanted(cost=cost)
        case "atr-based":
            interval, period = sizing.atr_interval or run.strategy.interval, sizing.atr_period
            candles = await _last(run, interval, ATR_PERIODS * period + 1, when)
            atr = average_true_range(candles.high, candles.low, candles.close, period)
            if atr is None:
                return Wanted(cost=default)
            distance = atr * sizing.atr_multiplier
            return Wanted(quantity=risked_quantity(equity, sizing.risk_percentage, distance))
        case "volatility-target":
            days = sizing.volatility_days
            close = (await _last(run, "1d", days + 1, when)).close
            volatility = (
                yearly_volatility(close, account.schema.days_per_year)
                if len(close) > days
                else None
            )
            if volatility is None:
                return Wanted(cost=default)
            return Wanted(cost=equity * ((sizing.target_percentage or 0.0) / 100) / volatility)
        case "function":
            assert sizing.size is not None
            try:
                answer = await call_user_code(sizing.size, account.view(when), row)
                return Wanted(cost=_as_cost(answer, sizing, account))
            except Exception as error:  # noqa: BLE001 - user code never ends a run
                run.error("sizing", error)
                return Wanted()


def _as_cost(answer: Any, sizing: SizingSchema, account: Purse) -> float:
    """Return the cost that a sizing function answered."""
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"size of sizing {sizing.name!r} returned {answer!r}; return a cost in "
            f"{account.schema.currency}, as a number"
        ) from None


async def _last(run: AccountRun, interval: str, most: int, when: int) -> Candles:
    """Return the last `most` closed candles, fewer where the data begin later."""
    try:
        return await run.view.window_async(run.symbol, interval, most, when)
    except BeforeDataError:
        segment = run.view.loaded(run.symbol, interval)
        there = 0 if segment is None else when // segment.step - segment.first_index
        if there < 1:
            nothing: list[float] = []
            return Candles(nothing, nothing, nothing, nothing, nothing, nothing)
        return await run.view.window_async(run.symbol, interval, there, when)

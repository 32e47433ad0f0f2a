"""Rows of a table of trades as results: each is made when it is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, overload

from backtest_kit._arrays.trade_table import ManagedTrades, TradeTable
from backtest_kit._rules.managed import legs_of
from backtest_kit._values.results import (
    CANCELLED,
    REASONS,
    ProfitLoss,
    TickCancelled,
    TickClosed,
)
from backtest_kit._values.signal import SignalRow, TrailingStop, signal_id


class RunNames(NamedTuple):
    """The names that the results of one run carry."""

    symbol: str
    strategy_name: str
    exchange_name: str


_COLUMNS = (
    *("side", "scheduled_at", "pending_at", "closed_at", "minutes", "reason", "ambiguous"),
    *("price_open", "price_limit", "price_take_profit", "price_stop_loss", "price_close"),
    *("average_price", "pnl", "order_cost", "order_quantity"),
)


def results_of(
    table: TradeTable, names: RunNames, first: int = 0, stop: int | None = None
) -> Iterator[TickClosed | TickCancelled]:
    """Yield the results of a table from row `first` up to row `stop` (excluded), in order."""
    columns = (getattr(table, name)[first:stop].tolist() for name in _COLUMNS)
    how: Iterable[_Managed | None] = repeat(None)
    if table.managed is not None:
        how = _all_managed(table.managed, first, stop)
    for row, managed in zip(zip(*columns, strict=True), how, strict=False):
        yield _result(row, names, managed)


class _Managed(NamedTuple):
    """What a managed trade has beside the columns of its table."""

    of_signal: dict[str, Any]
    paid: float
    of_close: dict[str, Any]


def _all_managed(table: ManagedTrades, first: int, stop: int | None) -> Iterator[_Managed]:
    names = "trailing", "activation", "breakeven", "levels", "cost", "price_paid"
    columns = (getattr(table, name)[first:stop].tolist() for name in names)
    for row, legs in zip(zip(*columns, strict=True), table.all_legs(first, stop), strict=True):
        trailing, activation, breakeven, (profits, losses, entries), cost, paid = row
        of_signal: dict[str, Any] = {
            "take_profits": profits,
            "stop_losses": losses,
            "entries": entries,
            "breakeven_percent": _or_none(breakeven),
        }
        if trailing == trailing:
            of_signal["trailing_stop"] = TrailingStop(trailing, activation)
        of_close: dict[str, Any] = {}
        if cost != 1.0:
            of_close["cost"] = cost
        if legs.times:
            of_close["fills"] = legs_of(legs.rows, legs.times)
        yield _Managed(of_signal, paid, of_close)


def _or_none(value: float) -> float | None:
    return None if value != value else value


def _result(
    row: tuple[Any, ...], names: RunNames, managed: _Managed | None
) -> TickClosed | TickCancelled:
    side, scheduled, filled, ended, minutes, code, ambiguous, *prices = row
    entry, limit, goal, stop, close, average, pnl, cost, quantity = prices
    symbol, strategy_name, exchange_name = names
    signal = SignalRow(
        id=signal_id(exchange_name, strategy_name, symbol, scheduled),
        symbol=symbol,
        strategy_name=strategy_name,
        exchange_name=exchange_name,
        position="long" if side > 0 else "short",
        price_open=entry,
        price_take_profit=_or_none(goal),
        price_stop_loss=_or_none(stop),
        minute_estimated_time=minutes or None,
        scheduled_at=scheduled,
        pending_at=None if filled < 0 else filled,
        price_limit=_or_none(limit),
        cost=_or_none(cost),
        quantity=_or_none(quantity),
        **({} if managed is None else managed.of_signal),
    )
    place: dict[str, Any] = {
        "symbol": symbol,
        "strategy_name": strategy_name,
        "exchange_name": exchange_name,
        "timestamp": ended,
        "current_price": average,
        "signal": signal,
        "close_timestamp": ended,
    }
    reason: Any = REASONS[code]
    if code >= CANCELLED:
        return TickCancelled(reason=reason, **place)
    if managed is not None:
        entry = managed.paid
        place |= managed.of_close
    profit = ProfitLoss(pnl, entry, close)
    return TickClosed(close_reason=reason, pnl=profit, ambiguous=ambiguous, **place)


class ClosedResults(Sequence[TickClosed]):
    """The closed results of a run in order, made from columns when they are looked at."""

    __slots__ = ("_length", "_made", "_names", "_table")

    def __init__(self, table: TradeTable, names: RunNames) -> None:
        self._table = table
        self._length = int((table.reason < CANCELLED).sum())
        self._names = names
        self._made: list[TickClosed] | None = None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> TickClosed: ...
    @overload
    def __getitem__(self, index: slice) -> list[TickClosed]: ...
    def __getitem__(self, index: int | slice) -> TickClosed | list[TickClosed]:
        return self._all()[index]

    def __iter__(self) -> Iterator[TickClosed]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return [*self] == [*other]

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Any]) -> list[Any]:
        return [*other, *self]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:  # of a task's result, asyncio makes one
        symbol, strategy, _ = self._names
        return f"<{len(self):,} closed results of {strategy} on {symbol}>"

    def _all(self) -> list[TickClosed]:
        if self._made is None:
            results = results_of(self._table, self._names)
            self._made = [tick for tick in results if isinstance(tick, TickClosed)]
        return self._made

"""How the trades of a run were meant to end."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.brackets import Brackets
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._engine.record import RunRecord
from backtest_kit._reports.trades import outcomes_of
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.results import REASONS
from backtest_kit._values.time import MINUTE


def brackets_of(record: RunRecord) -> Brackets:
    """Return how what a run has closed was meant to end, in order.

    What a row or a hand has closed had its lifetime, as far as one can say, until then.
    """
    if record.table is not None:
        return _of_table(record.table.closed())
    closed = record.closed
    rows = [tick.signal for tick in closed]
    trailing = [row.trailing_stop for row in rows]
    entry = _floats(row.price_open for row in rows)
    ladders = np.empty(len(rows), dtype=object)
    ladders[:] = [(row.take_profits, row.stop_losses, row.entries) for row in rows]
    _, opened, ended = outcomes_of(closed)
    numbers = {
        "minutes": _lives(
            _floats(row.minute_estimated_time for row in rows),
            np.array([tick.close_reason == "closed" for tick in closed], dtype=np.bool_),
            ended - opened,
        ),
        "trailing": _floats(None if by is None else by.percent for by in trailing),
        "activation": _floats(None if by is None else by.activate_percent for by in trailing),
        "breakeven": _floats(row.breakeven_percent for row in rows),
    }
    side = np.array([row.side for row in rows], dtype=np.int8)
    goal = _floats(row.price_take_profit for row in rows)
    stop = _floats(row.price_stop_loss for row in rows)
    return Brackets.of(side, numbers | _distances(side, entry, goal, stop), ladders)


def _of_table(table: TradeTable) -> Brackets:
    minutes = np.where(table.minutes > 0, table.minutes, np.nan)
    by_hand = table.reason == REASONS.index("closed")
    held = table.closed_at - table.pending_at
    goal, stop = table.price_take_profit, table.price_stop_loss
    numbers = {"minutes": _lives(minutes, by_hand, held)}
    numbers |= _distances(table.side, table.price_open, goal, stop)
    if table.managed is None:
        return Brackets.of(table.side, numbers)
    managed = table.managed
    activation = np.where(np.isnan(managed.trailing), np.nan, managed.activation)
    numbers |= {"trailing": managed.trailing, "activation": activation}
    numbers["breakeven"] = managed.breakeven
    return Brackets.of(table.side, numbers, managed.levels)


def _distances(
    side: npt.NDArray[np.int8], entry: Floats, goal: Floats, stop: Floats
) -> dict[str, Floats]:
    return {"target": side * (goal / entry - 1) * 100, "stop": -side * (stop / entry - 1) * 100}


def _lives(minutes: Floats, by_hand: npt.NDArray[np.bool_], held: Ints) -> Floats:
    return np.where(by_hand, np.maximum(held // MINUTE, 1), minutes)


def _floats(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

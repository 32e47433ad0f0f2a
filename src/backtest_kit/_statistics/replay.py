"""The proposals of a run, played again over the same candles, as they were or changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, Literal, get_args

import numpy as np

from backtest_kit._arrays.job import SignalRows
from backtest_kit._arrays.signals import Signals
from backtest_kit._arrays.simulation import Simulation
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._rules.bars import Bars
from backtest_kit._values.config import Config
from backtest_kit._values.results import TickCancelled, TickClosed
from backtest_kit._values.signal import Levels, Position, SignalRow

#: The rules of managed positions that a replay can leave out; `exits` are those of exit columns.
Rule = Literal["trailing_stop", "breakeven", "take_profits", "stop_losses", "entries", "exits"]
_LADDERS: Final[tuple[Rule, ...]] = ("take_profits", "stop_losses", "entries")
MANAGES: Final = "the strategy decides while positions are open (manage), which no replay can ask"
#: Profits of the run and of its replay may differ by rounding, percent.
_ROUNDING: Final = 1e-9


def replay_of(
    closed: Sequence[TickClosed],
    cancelled: Sequence[TickCancelled],
    config: Config,
    bars: Bars | None,
) -> Replay | str:
    """Return what plays a run's proposals again, or why nothing does.

    `bars` reach from the candles of the first average price to the end of what the last proposal
    can become, or to the end of the data.
    """
    if bars is None:
        return "there are no candles"
    if len({_levels(tick.signal) for tick in (*closed, *cancelled)}) > 1:
        return "signals have different ladders or further entries"
    replay = Replay(closed, cancelled, config, bars)
    if not replay.is_the_run:
        return "a replay does not give the run again: somebody acted on its positions"
    return replay


class Replay:
    """The proposals of a run, and the market it was made in."""

    def __init__(
        self,
        closed: Sequence[TickClosed],
        cancelled: Sequence[TickCancelled],
        config: Config,
        bars: Bars,
    ) -> None:
        # what a user or a risk profile cancelled would not have ended like that by itself
        ended = [tick for tick in cancelled if tick.reason not in ("user", "risk")]
        rows = [tick.signal for tick in (*closed, *ended)]
        self._place = np.array([bars.row(row.scheduled_at) for row in rows], dtype=np.int64)
        self._side = np.array([1 if row.position == "long" else -1 for row in rows], dtype=np.int8)
        self._columns = np.array(
            [
                (
                    *(row.price_take_profit, row.price_stop_loss, row.minute_estimated_time),
                    *(row.price_limit, *_trailing(row), row.breakeven_percent),
                )
                for row in rows
            ],
            dtype=np.float64,  # of `None`: NaN
        ).reshape(-1, 7)
        self._levels = next((_levels(row) for row in rows), ((), (), ()))
        self._exits = [
            *(_exit(tick, bars) for tick in closed if tick.close_reason == "closed"),
            *(_exit(tick, bars) for tick in ended if tick.reason == "exit"),
        ]
        self._closed = closed
        self.config, self.bars = config, bars

    @property
    def proposals(self) -> int:
        """How many there are."""
        return len(self._place)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of managed positions that the run used."""
        columns = self._columns
        used: dict[Rule, bool] = {
            "trailing_stop": not np.isnan(columns[:, 4]).all(),
            "breakeven": not np.isnan(columns[:, 6]).all(),
            **{name: bool(pairs) for name, pairs in zip(_LADDERS, self._levels, strict=True)},
            "exits": bool(self._exits),
        }
        return tuple(rule for rule in get_args(Rule) if used[rule])

    @cached_property
    def own(self) -> TradeTable:
        """What becomes of the proposals as they were."""
        return self.run()

    @property
    def is_the_run(self) -> bool:
        """Whether the proposals, as they were, become what they became in the run."""
        found = self.own.closed()
        ended = np.array([tick.close_timestamp for tick in self._closed], dtype=np.int64)
        made = np.array([tick.pnl.pnl_percentage for tick in self._closed], dtype=np.float64)
        return np.array_equal(np.sort(ended), found.closed_at) and bool(
            (np.abs(made[np.argsort(ended, kind="stable")] - found.pnl) <= _ROUNDING).all()
        )

    def run(
        self, config: Config | None = None, later: int = 0, without: Rule | None = None
    ) -> TradeTable:
        """Return what becomes of the proposals `later` steps later, or without a rule."""
        bars, config = self.bars, config or self.config
        rows = len(bars.price)
        place = self._place + later
        there = (place >= 0) & (place < rows)
        side = np.zeros(rows, dtype=np.int8)
        side[place[there]] = self._side[there]
        columns = np.ones((7, rows))
        columns[:, place[there]] = self._columns[there].T
        if without == "trailing_stop":
            columns[4:6] = np.nan
        elif without == "breakeven":
            columns[6] = np.nan
        profits, losses, entries = (
            () if without == name else pairs
            for name, pairs in zip(_LADDERS, self._levels, strict=True)
        )
        exits = {side: np.zeros(rows, dtype=np.bool_) for side in ("long", "short")}
        for row, on in () if without == "exits" else self._exits:
            exits[on][row] = True
        simulation = Simulation()
        timeline = range(bars.first, bars.stop, bars.step)
        signals = Signals(
            side,
            *columns[:4],
            trailing_stop=columns[4],
            trailing_activate_percent=columns[5],
            breakeven_percent=columns[6],
            take_profits=profits,
            stop_losses=losses,
            entries=entries,
            exit_long=exits["long"],
            exit_short=exits["short"],
        )
        opens = bars.first - bars.step
        simulation.run(bars, SignalRows(signals, opens, config.base_interval, timeline, config))
        return simulation.table()


def _exit(tick: TickClosed | TickCancelled, bars: Bars) -> tuple[int, Position]:
    return bars.row(tick.close_timestamp), tick.signal.position


def _trailing(row: SignalRow) -> tuple[float | None, float | None]:
    stop = row.trailing_stop
    return (None, None) if stop is None else (stop.percent, stop.activate_percent)


def _levels(row: SignalRow) -> tuple[Levels, Levels, Levels]:
    return row.take_profits, row.stop_losses, row.entries

"""How much of a backtest's profit hangs on costs, on quick fills, on doubtful candles, on luck.

Costs change what a trade made, not when it ended, so those figures are exact (but a stop that moves
to breakeven stays where the run's own costs put it). Delays and the other
rule for ambiguous candles are replays: the proposals of the run, at other instants or with other
settings, over the same candles. They are exact up to where a trade ends at another instant than
in the run. From there on the strategy would have been asked at other instants, and might have
proposed something else; a proposal that falls into a trade that still goes on is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from backtest_kit._arrays.job import SignalRows
from backtest_kit._arrays.signals import Signals
from backtest_kit._arrays.simulation import Simulation
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import profit
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.results import TickCancelled, TickClosed
from backtest_kit._values.signal import Levels, Position, SignalRow
from backtest_kit._values.time import MINUTE

#: Delays of an entry, in base candles, that are tried; the first is the run as it was.
DELAYS: Final = (0, 1, 2, 3, 5, 10)
BEST: Final = 5
_POINTS: Final = 9
_MOST_SLIPPAGE: Final = 50.0


class SlippagePoint(msgspec.Struct, frozen=True):
    """The sum of profits in percent, had each price been worse by `percent_slippage`."""

    percent_slippage: float
    total_pnl: float


class DelayPoint(msgspec.Struct, frozen=True):
    """What is left when each proposal is made `minutes` later, its levels the same.

    `dropped` proposals came to nothing: no longer valid at the later price, or made while an
    earlier trade went on.
    """

    minutes: int
    trades: int
    dropped: int
    total_pnl: float


class Bounds(msgspec.Struct, frozen=True):
    """Total profit in percent with either rule for candles that reach both levels."""

    pessimistic: float
    optimistic: float
    ambiguous: int


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What the profit of a backtest depends on; all in percent.

    `total_pnl` is the sum of profits, `compounded` what an account that puts all it has into each
    trade would have made. `break_even_slippage` (on each price) is where the sum is 0; `None` where
    it is 0 or less without slippage, or 0 is never reached. `best` is what the `best_count` best
    trades made, `without_best` the sum of the others. `buy_and_hold` is from the first open to the
    last close, before costs. Without candles it and `bounds` are `None`, and `delays` is empty; so
    are these where signals have different ladders or further entries.
    """

    percent_fee: float
    percent_slippage: float
    total_pnl: float
    total_before_costs: float
    compounded: float
    compounded_before_costs: float
    buy_and_hold: float | None
    break_even_slippage: float | None
    slippage: tuple[SlippagePoint, ...]
    best_count: int
    best: float
    without_best: float
    delays: tuple[DelayPoint, ...] = ()
    bounds: Bounds | None = None

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return msgspec.json.encode(self).decode()


class _Trades(NamedTuple):
    """Filled trades as columns."""

    long: Floats
    price_open: Floats
    price_close: Floats


def sensitivity(
    closed: Sequence[TickClosed],
    cancelled: Sequence[TickCancelled],
    config: Config,
    bars: Bars | None = None,
    buy_and_hold: float | None = None,
) -> Sensitivity:
    """Return the figures of a run's closed and cancelled signals.

    `config` is the run's own. `bars` reach from the candles of the first average price to the end
    of what the last proposal can become, or to the end of the data.
    """
    trades = _Trades(
        np.array([tick.signal.position == "long" for tick in closed], dtype=np.float64),
        np.array([tick.pnl.price_open for tick in closed], dtype=np.float64),
        np.array([tick.pnl.price_close for tick in closed], dtype=np.float64),
    )
    fee, slippage = config.percent_fee, config.percent_slippage
    made, before = _profits(trades, fee, slippage), _profits(trades, 0.0, 0.0)
    break_even = break_even_slippage(lambda s: float(_profits(trades, fee, s).sum()))
    best = np.sort(made)[::-1][:BEST]
    ladders = {_levels(tick.signal) for tick in (*closed, *cancelled)}
    replay = None
    if bars is not None and len(ladders) <= 1:  # columns say one ladder for all signals
        replay = _Replay(closed, cancelled, config, bars)
    return Sensitivity(
        percent_fee=fee,
        percent_slippage=slippage,
        total_pnl=float(made.sum()),
        total_before_costs=float(before.sum()),
        compounded=_compounded(made),
        compounded_before_costs=_compounded(before),
        buy_and_hold=buy_and_hold,
        break_even_slippage=break_even,
        slippage=tuple(
            SlippagePoint(s, float(_profits(trades, fee, s).sum()))
            for s in _grid(max(break_even or 0.0, slippage, 0.05))
        ),
        best_count=len(best),
        best=float(best.sum()),
        without_best=float(made.sum() - best.sum()),
        delays=() if replay is None else tuple(replay.delayed(count) for count in DELAYS),
        bounds=None if replay is None else replay.bounds(),
    )


def break_even_slippage(total: Callable[[float], float]) -> float | None:
    """Return where `total`, which falls as slippage (percent) grows, is 0; see `Sensitivity`."""
    low, high = 0.0, _MOST_SLIPPAGE
    if total(low) <= 0 or total(high) > 0:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) > 0 else (low, middle)
    return low


class _Replay:
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
        self._config, self._bars = config, bars

    def run(self, config: Config, later: int) -> TradeTable:
        """Return what becomes of the proposals `later` steps later."""
        bars = self._bars
        rows = len(bars.price)
        place = self._place + later
        there = (place >= 0) & (place < rows)
        side = np.zeros(rows, dtype=np.int8)
        side[place[there]] = self._side[there]
        columns = np.ones((7, rows))
        columns[:, place[there]] = self._columns[there].T
        profits, losses, entries = self._levels
        exits = {side: np.zeros(rows, dtype=np.bool_) for side in ("long", "short")}
        for row, on in self._exits:
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

    def delayed(self, later: int) -> DelayPoint:
        """Return what is left when everything is proposed `later` base candles later."""
        found = self.run(self._config, later)
        closed = found.closed()
        return DelayPoint(
            minutes=later * self._bars.step // MINUTE,
            trades=len(closed),
            dropped=len(self._place) - len(found),
            total_pnl=float(closed.pnl.sum()),
        )

    def bounds(self) -> Bounds:
        """Return the profit with either rule for candles that reach both levels."""
        low, high = (
            self.run(msgspec.structs.replace(self._config, ambiguous_candle=rule), 0).closed()
            for rule in ("stop_loss_first", "take_profit_first")
        )
        return Bounds(float(low.pnl.sum()), float(high.pnl.sum()), int(low.ambiguous.sum()))


def _exit(tick: TickClosed | TickCancelled, bars: Bars) -> tuple[int, Position]:
    return bars.row(tick.close_timestamp), tick.signal.position


def _trailing(row: SignalRow) -> tuple[float | None, float | None]:
    stop = row.trailing_stop
    return (None, None) if stop is None else (stop.percent, stop.activate_percent)


def _levels(row: SignalRow) -> tuple[Levels, Levels, Levels]:
    return row.take_profits, row.stop_losses, row.entries


def _profits(trades: _Trades, fee: float, slippage: float) -> Floats:
    long, short = (
        profit(side, trades.price_open, trades.price_close, fee, slippage)
        for side in ("long", "short")
    )
    return np.where(trades.long > 0, long, short)


def _compounded(profits: Floats) -> float:
    """Return what the profits make of an account, percent; the largest float if it is beyond."""
    with np.errstate(over="ignore"):
        grown = float(np.prod(1 + np.maximum(profits, -100) / 100))
    return min((grown - 1) * 100, np.finfo(np.float64).max)


def _grid(known: float) -> list[float]:
    """Return slippages from 0 to about twice `known`, in steps of a round number."""
    least = 2 * known / (_POINTS - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= least), 10 * power)
    return [round(i * step, 12) for i in range(_POINTS)]

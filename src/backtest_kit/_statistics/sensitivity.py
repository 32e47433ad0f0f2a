"""How much of a backtest's profit hangs on costs, on quick fills, on doubtful candles, on luck.

Costs change what a trade made, not when it ended, so those figures are exact (but a stop that moves
to breakeven stays where the run's own costs put it). Delays and the other
rule for ambiguous candles are replays: the proposals of the run, at other instants or with other
settings, over the same candles. They are exact up to where a trade ends at another instant than
in the run. From there on the strategy would have been asked at other instants, and might have
proposed something else; a proposal that falls into a trade that still goes on is left out.

What a rule of managed positions contributed is a replay without it, of the same kind. It knows the
rows that said exit only where one of them ended something in the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from backtest_kit._rules.bars import Bars
from backtest_kit._rules.profit import profit
from backtest_kit._statistics.replay import MANAGES, Replay, Rule, replay_of
from backtest_kit._values.candles import Floats
from backtest_kit._values.config import Config
from backtest_kit._values.results import TickCancelled, TickClosed
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


class RuleContribution(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule of managed positions contributed to the sum of profits, percent.

    `trades`, `total_pnl` and `total_pnl_by_cost` are those of a replay without the rule,
    `contributed` and `contributed_by_cost` what the run has above them. Those by cost are in
    percent of one first entry, as in `Statistics`.
    """

    rule: Rule
    trades: int
    total_pnl: float
    total_pnl_by_cost: float
    contributed: float
    contributed_by_cost: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What the profit of a backtest depends on; all in percent.

    `total_pnl` is the sum of profits, `compounded` what an account that puts all it has into each
    trade would have made. `break_even_slippage` (on each price) is where the sum is 0; `None` where
    it is 0 or less without slippage, or 0 is never reached. `best` is what the `best_count` best
    trades made, `without_best` the sum of the others. `buy_and_hold` is from the first open to the
    last close, before costs. `rules` has a row for each rule of managed positions that the run
    used.

    Without candles `buy_and_hold` and `bounds` are `None`, `delays` and `rules` empty; so are these
    but the first where no replay gives the run itself: signals have different ladders or further
    entries, or somebody acted on positions (`manage`, a person). `not_replayed` says so.
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
    rules: tuple[RuleContribution, ...] = ()
    not_replayed: str = ""

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
    *,
    manages: bool = False,
) -> Sensitivity:
    """Return the figures of a run's closed and cancelled signals.

    `config` is the run's own. `bars` reach from the candles of the first average price to the end
    of what the last proposal can become, or to the end of the data. `manages`: the strategy was
    asked about open positions, which no replay does.
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
    replay: Replay | str = MANAGES if manages else replay_of(closed, cancelled, config, bars)
    played = replay if isinstance(replay, Replay) else None
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
        delays=() if played is None else tuple(_delayed(played, count) for count in DELAYS),
        bounds=None if played is None else _bounds(played),
        rules=() if played is None else contributions(played),
        not_replayed=replay if isinstance(replay, str) else "",
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


def contributions(replay: Replay) -> tuple[RuleContribution, ...]:
    """Return what each rule contributed that the run used."""
    own = replay.own.closed()
    total, by_cost = float(own.pnl.sum()), float((own.pnl * own.cost).sum())
    found = []
    for rule in replay.rules:
        table = replay.run(without=rule).closed()
        pnl, pnl_by_cost = float(table.pnl.sum()), float((table.pnl * table.cost).sum())
        found.append(
            RuleContribution(
                rule=rule,
                trades=len(table),
                total_pnl=pnl,
                total_pnl_by_cost=pnl_by_cost,
                contributed=total - pnl,
                contributed_by_cost=by_cost - pnl_by_cost,
            )
        )
    return tuple(found)


def _delayed(replay: Replay, later: int) -> DelayPoint:
    """Return what is left when everything is proposed `later` base candles later."""
    found = replay.run(later=later) if later else replay.own
    closed = found.closed()
    return DelayPoint(
        minutes=later * replay.bars.step // MINUTE,
        trades=len(closed),
        dropped=replay.proposals - len(found),
        total_pnl=float(closed.pnl.sum()),
    )


def _bounds(replay: Replay) -> Bounds:
    """Return the profit with either rule for candles that reach both levels."""
    low, high = (
        replay.run(msgspec.structs.replace(replay.config, ambiguous_candle=rule)).closed()
        for rule in ("stop_loss_first", "take_profit_first")
    )
    return Bounds(float(low.pnl.sum()), float(high.pnl.sum()), int(low.ambiguous.sum()))


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
    """Return slippages from 0 to about twice `known`, in steps of a round number.

    They are below 100 %, at which nothing is paid for what is sold.
    """
    least = 2 * known / (_POINTS - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next((m * power for m in (1, 2, 2.5, 5) if m * power >= least), 10 * power)
    slippages = (round(i * step, 12) for i in range(_POINTS))
    return [slippage for slippage in slippages if slippage < 100]

"""Which trades are in a window of time, and which strategy is chosen there.

The one definition, of every kind of window:

- A trade is in a *test window* if it opened within it.
- A trade is in a *train window* if it opened within it and had closed when it ended: else its
  outcome was not known then, and its life reaches into what it is judged by. Where a test window
  comes before, neither are trades in that opened while one of its trades was still open. What
  opened in a train window and is not in it is *purged* (Lopez de Prado 2018, section 7.4.1).

A life is from the opening to the close, the close excluded: a trade that closes at the instant at
which a window ends is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.family import family_test
from backtest_kit._statistics.figures import metric_of
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._statistics.verdict import verdict
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.time import iso
from backtest_kit._values.windows import Window

Mask = npt.NDArray[np.bool_]
#: Why nothing is traded in a test window.
Aside = Literal["too few trades", "not worth choosing", "below min_metric"]


class Trades(NamedTuple):
    """Closed trades in the order of closing: profit in percent, times in ms, and the symbol.

    `stop` is what each would have lost at its stop, `worst` what it had lost at the worst price
    that it saw, percent; NaN where that is not known.
    """

    r: Floats
    opened: Ints
    closed: Ints
    symbol: Ints
    stop: Floats
    worst: Floats

    def at(self, rows: Mask | Ints) -> Trades:
        """Return some of them, by a mask or their places."""
        r, opened, closed, symbol, stop, worst = self
        return Trades(r[rows], opened[rows], closed[rows], symbol[rows], stop[rows], worst[rows])


class Choice(NamedTuple):
    """The best strategy of some train windows, its metric and its trades there.

    `aside`: why it is not traded.
    """

    trial: TrialResult
    value: float
    trades: Trades
    purged: int
    aside: Aside | None


#: Of the trades of each strategy in a train window and its length as a span: those worth choosing.
Worth = Callable[[Mapping[str, Trades], tuple[int, int]], frozenset[str]]
#: The trades of a strategy that some windows are looked for in: of its whole run, or their own.
Source = Callable[[TrialResult, Sequence[Window]], Trades]


def of_whole_run(trial: TrialResult, windows: Sequence[Window]) -> Trades:
    """Return all trades of a strategy, whichever the windows."""
    return _trades(trial.trades)


def of_own_runs(trial: TrialResult, windows: Sequence[Window]) -> Trades:
    """Return the trades of the runs over these windows alone, in the order of closing."""
    known = {Window(run.since, run.until): run.trades for run in trial.window_runs}
    parts = [_trades(known[window]) for window in windows]
    return parts[0] if len(parts) == 1 else together(parts)


def together(parts: Sequence[Trades]) -> Trades:
    """Return trades of several sources in the order of closing."""
    none = np.zeros(0, dtype=np.int64)
    joined = Trades(
        np.concatenate([np.zeros(0), *(part.r for part in parts)]),
        np.concatenate([none, *(part.opened for part in parts)]),
        np.concatenate([none, *(part.closed for part in parts)]),
        np.concatenate([none, *(part.symbol for part in parts)]),
        np.concatenate([np.zeros(0), *(part.stop for part in parts)]),
        np.concatenate([np.zeros(0), *(part.worst for part in parts)]),
    )
    return joined.at(np.argsort(joined.closed, kind="stable"))


def in_test(trades: Trades, window: Window) -> Mask:
    """Say which trades are in a test window."""
    return opened_in(trades, window)


def in_train(
    trades: Trades, windows: Sequence[Window], tested: Sequence[Window] = ()
) -> tuple[Mask, int]:
    """Say which trades are in train windows, and how many that opened there are purged.

    `tested` are the test windows that go with them.
    """
    began, inside = np.zeros((2, len(trades.r)), dtype=np.bool_)
    for window in windows:
        opened = opened_in(trades, window)
        began |= opened
        inside |= opened & (trades.closed <= window.until)
    for window in tested:
        lives = trades.closed[opened_in(trades, window)]
        over = int(lives.max(initial=window.until))
        inside &= (trades.opened < window.until) | (trades.opened >= over)
    return inside, int(began.sum() - inside.sum())


def opened_in(trades: Trades, window: Window) -> Mask:
    """Say which trades opened in a window."""
    return (trades.opened >= window.since) & (trades.opened < window.until)


def choose(
    trials: Sequence[TrialResult],
    windows: Sequence[Window],
    tested: Sequence[Window],
    name: str,
    *,
    worth: Worth | None,
    least: float | None,
    source: Source,
) -> Choice | None:
    """Return the best strategy of some train windows by a metric; of equal ones the earlier.

    Of those with `MIN_TRADES` trades there; `None` where there is none. It is traded where it is
    among those that are `worth` it, or where its metric is at least `least`, if that is given; the
    best of those that are comes before a better one that is not. Neither given: always.
    """
    span = _span(windows)
    found: dict[str, Choice] = {}
    for trial in trials:
        trades = source(trial, [*windows, *tested])
        inside, purged = in_train(trades, windows, tested)
        if inside.sum() < MIN_TRADES:
            continue
        known = trades.at(inside)
        value = metric_of(known.r, name, span)
        if value is not None:
            found[trial.strategy_name] = Choice(trial, value, known, purged, None)
    if not found:
        return None
    why: Aside = "not worth choosing"
    good = frozenset(found)
    if least is not None:
        why, good = "below min_metric", frozenset(n for n, c in found.items() if c.value >= least)
    elif worth is not None:
        joined = {n: _joined(choice.trades, windows) for n, choice in found.items()}
        good = worth(joined, span)
    candidates = [choice for n, choice in found.items() if n in good] or [*found.values()]
    best = max(candidates, key=lambda choice: choice.value)
    return best if best.trial.strategy_name in good else best._replace(aside=why)


def failed_runs(trials: Sequence[TrialResult]) -> tuple[str, ...]:
    """Return which runs of single windows failed, and why."""
    return tuple(
        f"{trial.strategy_name} from {iso(run.since)} to {iso(run.until)}: {run.error}"
        for trial in trials
        for run in trial.window_runs
        if run.error is not None
    )


def worth_choosing(
    name: str, trials: int, seed: int, *, interval: int = 0, unknown: int = 0
) -> Worth:
    """Return the rule of a walk's sentence, for choices by a metric of so many trials.

    Worth choosing is what the sentence on the trades of the window would name, tested against 0:
    the winner, or all that tie. `interval` is the longest at which a strategy of the walk is asked,
    in ms; of `unknown` trials only the number counts.
    """

    def worth(trades: Mapping[str, Trades], span: tuple[int, int]) -> frozenset[str]:
        columns = {n: columns_of(of) for n, of in trades.items()}
        family = family_test(columns, span, seed=seed, interval=interval, unknown=unknown)
        found = verdict(columns, family, span, seed=seed, metric=name, trials=trials)
        if found.kind == "tie":
            return frozenset(found.names)
        return frozenset(found.names[:1] if found.kind == "winner" else ())

    return worth


def _span(windows: Sequence[Window]) -> tuple[int, int]:
    """Return where train windows begin, and where they would end without what lies between."""
    return windows[0].since, windows[0].since + sum(window.length for window in windows)


def _joined(trades: Trades, windows: Sequence[Window]) -> Trades:
    """Return trades in train windows as if nothing lay between these."""
    if len(windows) == 1:
        return trades
    starts = np.array([window.since for window in windows])
    lengths = np.cumsum([0, *(window.length for window in windows[:-1])])
    holes = starts - starts[0] - lengths
    moved = holes[np.searchsorted(starts, trades.opened, side="right") - 1]
    return trades._replace(opened=trades.opened - moved, closed=trades.closed - moved)


def columns_of(trades: Trades) -> TradeColumns:
    """Return trades as the columns that a test takes."""
    return TradeColumns.of(
        trades.r,
        trades.opened,
        trades.closed,
        symbol=trades.symbol,
        stop_loss=trades.stop,
        worst_loss=trades.worst,
    )


def _trades(columns: TradeColumns) -> Trades:
    return Trades(
        columns.r,
        columns.opened_at,
        columns.closed_at,
        columns.symbol,
        columns.stop_loss,
        columns.worst_loss,
    )

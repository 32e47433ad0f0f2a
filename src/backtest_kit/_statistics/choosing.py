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

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np

from backtest_kit._arrays.brackets import Brackets, joined_brackets
from backtest_kit._statistics.figures import metric_of
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.trades import (
    Mask,
    Trades,
    all_trades,
    counted,
    greatest,
    metrics,
    together,
)
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.time import iso
from backtest_kit._values.windows import Window

#: Why nothing is traded in a test window.
Aside = Literal["too few trades", "not worth choosing", "below min_metric"]
#: Metrics closer than this, relative to 1 and their size, are computed to the last digit.
_NEAR: Final = 1e-9


class Source(Protocol):
    """Where the trades of trials in windows are taken from.

    Trials are numbered in the order of their names, so that no figure depends on that of the walk.
    """

    @property
    def trials(self) -> Sequence[TrialResult]:
        """The trials."""
        ...

    @property
    def places(self) -> Sequence[int]:
        """The place of each in the walk."""
        ...

    def all(self, windows: Sequence[Window]) -> Trades:
        """Return the trades of all trials, those in the windows among them."""
        ...

    def one(self, number: int, window: Window) -> Trades:
        """Return the trades of one trial, those in the window among them."""
        ...

    def brackets(self, number: int, windows: Sequence[Window]) -> Brackets:
        """Return how a trial's trades were meant to end; `Trades.row` is the place in these."""
        ...


class WholeRuns:
    """The trades of whole runs, whichever the windows."""

    def __init__(self, trials: Sequence[TrialResult]) -> None:
        self.places, self.trials = _by_name(trials)
        self._all = all_trades([trial.trades for trial in self.trials])

    def all(self, windows: Sequence[Window]) -> Trades:
        """Return all trades of all trials."""
        return self._all

    def one(self, number: int, window: Window) -> Trades:
        """Return all trades of one trial."""
        return self._all.one(number)

    def brackets(self, number: int, windows: Sequence[Window]) -> Brackets:
        """Return those of the whole run."""
        return self.trials[number].brackets


class OwnRuns:
    """The trades of runs over single windows, from clean state, of those trials that have them."""

    def __init__(self, trials: Sequence[TrialResult]) -> None:
        self.places, self.trials = _by_name([trial for trial in trials if trial.window_runs])
        self._runs = [
            {Window(run.since, run.until): run for run in trial.window_runs}
            for trial in self.trials
        ]

    def all(self, windows: Sequence[Window]) -> Trades:
        """Return the trades of the runs over these windows alone."""
        parts, begun = [], np.zeros(len(self._runs), dtype=np.int64)
        for window in windows:
            columns = [runs[window].trades for runs in self._runs]
            part = all_trades(columns)
            parts.append(part._replace(row=part.row + begun[part.of]))
            begun = begun + np.array([each.count for each in columns], dtype=np.int64)
        return parts[0] if len(parts) == 1 else together(parts)

    def one(self, number: int, window: Window) -> Trades:
        """Return the trades of a trial's run over this window alone."""
        return all_trades([self._runs[number][window].trades])

    def brackets(self, number: int, windows: Sequence[Window]) -> Brackets:
        """Return those of the runs over these windows, one after another."""
        return joined_brackets([self._runs[number][window].brackets for window in windows])


class Choice(NamedTuple):
    """The best strategy of some train windows, its metric and its trades there.

    `number` is that of the trial; `aside`: why it is not traded.
    """

    number: int
    trial: TrialResult
    value: float
    trades: Trades
    purged: int
    aside: Aside | None


class Candidates(NamedTuple):
    """Strategies that could be chosen in some train windows, and their trades there.

    `numbers` are those of the trials, ascending; `trades` have those numbers.
    """

    source: Source
    windows: Sequence[Window]
    tested: Sequence[Window]
    numbers: Ints
    trades: Trades

    @property
    def span(self) -> tuple[int, int]:
        """Where the windows begin, and where they would end without what lies between."""
        return span_of(self.windows)


#: Of candidates: which are worth choosing, shape (candidates,).
Worth = Callable[[Candidates], Mask]


def in_test(trades: Trades, window: Window) -> Mask:
    """Say which trades are in a test window."""
    return opened_in(trades, window)


def in_train(
    trades: Trades, windows: Sequence[Window], tested: Sequence[Window] = ()
) -> tuple[Mask, Mask]:
    """Say which trades are in train windows, and which opened there and are purged.

    `tested` are the test windows that go with them.
    """
    began, inside = np.zeros((2, len(trades.r)), dtype=np.bool_)
    for window in windows:
        opened = opened_in(trades, window)
        began |= opened
        inside |= opened & (trades.closed <= window.until)
    count = int(trades.of[-1]) + 1 if len(trades.of) else 0
    last = windows[-1].until
    for window in tested:
        if window.until > last:  # nothing that is trained in comes after it
            continue
        rows = opened_in(trades, window)
        over = greatest(trades.closed[rows], trades.of[rows], count, float(window.until))
        inside &= (trades.opened < window.until) | (trades.opened >= over[trades.of])
    return inside, began & ~inside


def opened_in(trades: Trades, window: Window) -> Mask:
    """Say which trades opened in a window."""
    return (trades.opened >= window.since) & (trades.opened < window.until)


def choose(
    source: Source,
    windows: Sequence[Window],
    tested: Sequence[Window],
    name: str,
    *,
    worth: Worth | None,
    least: float | None,
) -> Choice | None:
    """Return the best strategy of some train windows by a metric; of equal ones the earlier.

    Of those with `MIN_TRADES` trades there; `None` where there is none. It is traded where it is
    among those that are `worth` it, or where its metric is at least `least`, if that is given; the
    best of those that are comes before a better one that is not. Neither given: always.
    """
    count, span = len(source.trials), span_of(windows)
    trades = source.all([*windows, *tested])
    inside, purged = in_train(trades, windows, tested)
    known = trades.at(inside)
    values = metrics(known, count, name, span)
    found = np.isfinite(values) & (counted(known, count) >= MIN_TRADES)
    if not found.any():
        return None

    def exact(near: Mask) -> Floats:
        """Return the values, those of some strategies to the last digit."""
        digits = values.copy()
        for i in np.flatnonzero(near).tolist():
            value = metric_of(known.one(i).r, name, span)
            digits[i] = values[i] if value is None else value
        return digits

    why: Aside = "not worth choosing"
    good = found
    if least is not None:
        why = "below min_metric"
        good = found & (exact(found & _near(values, least)) >= least)
    elif worth is not None:
        numbers = np.flatnonzero(found)
        good = found.copy()
        mine = known if found.all() else known.at(found[known.of])
        good[numbers] = worth(Candidates(source, windows, tested, numbers, mine))
    candidates = good if good.any() else found
    top = values[candidates].max()
    digits = exact(candidates & _near(values, top))
    top = digits[candidates].max()
    equal = np.flatnonzero(candidates & (digits == top)).tolist()
    best = min(equal, key=source.places.__getitem__)
    return Choice(
        best,
        source.trials[best],
        float(digits[best]),
        known.one(best),
        int((purged & (trades.of == best)).sum()),
        None if good[best] else why,
    )


def failed_runs(trials: Sequence[TrialResult]) -> tuple[str, ...]:
    """Return which runs of single windows failed, and why."""
    return tuple(
        f"{trial.strategy_name} from {iso(run.since)} to {iso(run.until)}: {run.error}"
        for trial in trials
        for run in trial.window_runs
        if run.error is not None
    )


def span_of(windows: Sequence[Window]) -> tuple[int, int]:
    """Return where windows begin, and where they would end without what lies between."""
    return windows[0].since, windows[0].since + sum(window.length for window in windows)


def joined(trades: Trades, windows: Sequence[Window]) -> Trades:
    """Return trades in windows as if nothing lay between these."""
    if len(windows) == 1:
        return trades
    starts = np.array([window.since for window in windows])
    lengths = np.cumsum([0, *(window.length for window in windows[:-1])])
    holes = starts - starts[0] - lengths
    moved = holes[np.searchsorted(starts, trades.opened, side="right") - 1]
    return trades._replace(opened=trades.opened - moved, closed=trades.closed - moved)


def _by_name(trials: Sequence[TrialResult]) -> tuple[list[int], list[TrialResult]]:
    """Return trials in the order of their names, and the place that each had."""
    places = sorted(range(len(trials)), key=lambda i: trials[i].strategy_name)
    return places, [trials[i] for i in places]


def _near(values: Floats, value: float) -> Mask:
    return np.abs(values - value) <= _NEAR * (1 + abs(value))

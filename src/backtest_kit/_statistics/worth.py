"""Which strategies of train windows are worth choosing: the rule of the walk's own sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest_kit._statistics.against import Against, Entered
from backtest_kit._statistics.bootstrap import check_metric, estimate
from backtest_kit._statistics.choosing import Candidates, Worth, in_train, joined, opened_in
from backtest_kit._statistics.family import beside, beyond_luck, judged, sample_of
from backtest_kit._statistics.inference import DRAWS
from backtest_kit._statistics.trades import Mask, Trades, all_trades, renumbered
from backtest_kit._statistics.trial_result import OtherTrial
from backtest_kit._statistics.verdict import SIGNIFICANCE, standing
from backtest_kit._values.candles import Floats, Ints

#: Trades of strategies that are known, numbered from 0, and the number of those that are not.
_Family = tuple[Trades, int, int]


def worth_choosing(
    name: str,
    seed: int,
    *,
    others: Sequence[OtherTrial] = (),
    unknown: int = 0,
    against: Against | None = None,
) -> Worth:
    """Return the rule of a walk's sentence, for choices by a metric.

    Worth choosing is what the sentence on the trades of the window would name: the winner, or all
    that tie. `against` is what is tested against, if not 0.

    The family are all trials on these data: those of the walk, the trades of `others` that lie in
    the window, and `unknown` ones of which only the number counts. So it does of one of `others`
    whose own period does not cover the window and leaves too few trades in it; one that covers it
    and has too few counts no more than one of the walk.
    """
    theirs = all_trades([each.trades for each in others])
    could, _ = judged(theirs, len(others), 0)
    since = np.array([each.since for each in others], dtype=np.int64)
    until = np.array([each.until for each in others], dtype=np.int64)

    def others_in(given: Candidates, length: int) -> _Family:
        inside, _ = in_train(theirs, given.windows, given.tested)
        part = joined(theirs.at(inside), given.windows)
        known = judged(part, len(others), length)[1]
        first, last = given.windows[0].since, given.windows[-1].until
        interval = max((trial.interval for trial in given.source.trials), default=0)
        part_only = could & ~known & ((since > first) | (until < last - interval))
        number = unknown + int(part_only.sum())
        if against is not None and against.benchmark == "random":  # not known for them
            return theirs.at(slice(0)), 0, number + int(known.sum())
        return renumbered(part, np.flatnonzero(known), len(others)), int(known.sum()), number

    def worth(given: Candidates) -> Mask:
        span, trials = given.span, given.source.trials
        length, found = span[1] - span[0], np.zeros(len(given.numbers), dtype=np.bool_)
        mine = joined(given.trades, given.windows)
        intervals = np.array([trial.interval for trial in trials], dtype=np.int64)
        can = judged(mine, len(trials), length, intervals)[1]
        chosen = np.flatnonzero(can)
        if not len(chosen):
            return found
        rows = renumbered(mine, chosen, len(trials))
        theirs_here, more, number = others_in(given, length)

        def taken(edges: Ints) -> Floats:
            assert against is not None
            return _taken(against, given, chosen, edges, more)

        family = beside(rows, len(chosen), theirs_here)
        sample = sample_of(
            *(family, len(chosen) + more, span, int(intervals[chosen].max())),
            None if against is None else taken,
        )
        beyond = beyond_luck(sample, family, seed, number, SIGNIFICANCE)[: len(chosen)]
        numbers = {trials[chosen[i]].strategy_name: i for i in np.flatnonzero(beyond).tolist()}
        members = {n: rows.one(i).columns() for n, i in numbers.items()}
        scale = check_metric(name, span, DRAWS)
        values = {n: estimate(each.r, name, scale) for n, each in members.items()}
        best = {n: value for n, value in values.items() if value is not None}
        if not best:
            return found
        told = standing(members, best, sample.edges, sample.block, name, scale, seed, DRAWS)
        named = [told.leader] if not told.near else [told.leader, *told.wins, *told.copies]
        found[np.searchsorted(given.numbers, [chosen[numbers[n]] for n in named])] = True
        return found

    return worth


def _taken(against: Against, given: Candidates, chosen: Ints, edges: Ints, others: int) -> Floats:
    """Return what the benchmark takes off each strategy's bins, and off those of others."""
    if against.benchmark == "hold":  # the same for all
        held = against.held(given.windows, edges)
        return np.repeat(held[:, None], len(chosen) + others, axis=1)
    source, windows = given.source, [*given.windows, *given.tested]
    columns = []
    for i in chosen.tolist():
        mine = given.trades.one(i)
        brackets = source.brackets(i, windows)
        parts = []
        for window in given.windows:
            here = mine.at(opened_in(mine, window))
            parts.append(Entered(window, here, brackets.at(here.row)))
        columns.append(against.entered(parts, edges))
    return np.stack(columns, axis=1)

"""Combinatorial purged cross-validation: many histories that nothing in them was chosen by.

Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 12: of N groups of time
every choice of k is tested, by what is chosen in the others, so that each group is tested in
C(N - 1, k - 1) of C(N, k) splits; the p-th test of each group, put together, is path p. With N = 6
and k = 2 there are 15 splits and 5 paths. Which trades are in a window: see `choosing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from backtest_kit._statistics.choosing import (
    Aside,
    Choice,
    OwnRuns,
    Source,
    WholeRuns,
    Worth,
    choose,
    failed_runs,
)
from backtest_kit._statistics.figures import metric_of
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.stitched import Chain
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.windows import Groups, Window


class SplitChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen to be tested in the groups `test` (from 0); the rest as in `ForwardWindow`.

    `purged` trades opened in what was trained in, and reach out of it or began while a trade of the
    group before was open.
    """

    test: tuple[int, ...]
    strategy_name: str | None = None
    in_sample: float | None = None
    in_sample_trades: int = 0
    purged: int = 0
    aside: Aside | None = None


class Path(msgspec.Struct, frozen=True, kw_only=True):
    """One history: each group as tested in one of the splits, whose numbers (from 0) are `splits`.

    `value` is the metric, `None` for fewer than 30 trades or where it is not defined; `total` the
    sum of profits in percent. It `stood_aside` in so many groups.
    """

    splits: tuple[int, ...]
    value: float | None
    trades: int
    total: float
    stood_aside: int


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of the paths.

    Of those with a metric: the median, and the 5th and 95th percentile (interpolated). `lost`
    counts those whose profits sum to less than 0. Paths share their candles: they are no
    independent samples.
    """

    paths: tuple[Path, ...]
    median: float | None
    lower: float | None
    upper: float | None
    lost: int


class CrossValidation(Paths, frozen=True, kw_only=True):
    """The groups, what was chosen in each split, and the paths that these make.

    `always` is the distribution if the best is traded whatever it is worth; `None` where it never
    stood aside. `fresh` is the same from runs of each window alone, where they were asked for;
    `failed` says which of those failed, and why.
    """

    metric: str
    groups: tuple[Window, ...]
    splits: tuple[SplitChoice, ...]
    sentence: str
    always: Paths | None = None
    fresh: CrossValidation | None = None
    failed: tuple[str, ...] = ()


def cross_validate(
    trials: Sequence[TrialResult],
    groups: Groups,
    name: str,
    *,
    worth: Worth | None = None,
    least: float | None = None,
    fresh: bool = False,
) -> CrossValidation:
    """Return the paths of trials over groups; the arguments are those of `walk_forward`."""
    found = _validate(WholeRuns(trials), groups, name, worth, least)
    if not fresh:
        return found
    own = OwnRuns(trials)
    again = _validate(own, groups, name, worth, least)
    again = msgspec.structs.replace(again, failed=failed_runs(own.trials))
    return msgspec.structs.replace(found, fresh=again)


def _validate(
    source: Source,
    groups: Groups,
    name: str,
    worth: Worth | None,
    least: float | None,
) -> CrossValidation:
    choices = [
        choose(
            source,
            split.train,
            [groups.windows[group] for group in split.test],
            name,
            worth=worth,
            least=least,
        )
        for split in groups.splits
    ]
    paths = _paths(choices, groups, name, source)
    always = None
    if any(choice is not None and choice.aside is not None for choice in choices):
        forced = [None if choice is None else choice._replace(aside=None) for choice in choices]
        always = _paths(forced, groups, name, source)
    return CrossValidation(
        **{field: getattr(paths, field) for field in paths.__struct_fields__},
        metric=name,
        groups=groups.windows,
        splits=tuple(
            SplitChoice(test=split.test, aside="too few trades")
            if choice is None
            else SplitChoice(
                test=split.test,
                strategy_name=choice.trial.strategy_name,
                in_sample=choice.value,
                in_sample_trades=len(choice.trades.r),
                purged=choice.purged,
                aside=choice.aside,
            )
            for split, choice in zip(groups.splits, choices, strict=True)
        ),
        sentence=_sentence(paths, choices, name),
        always=always,
    )


def _paths(choices: Sequence[Choice | None], groups: Groups, name: str, source: Source) -> Paths:
    paths = [_path(of, choices, groups, name, source) for of in groups.paths]
    values = [path.value for path in paths if path.value is not None]
    low, middle, high = np.percentile(values, (5, 50, 95)).tolist() if values else [None] * 3
    return Paths(
        paths=tuple(paths),
        median=middle,
        lower=low,
        upper=high,
        lost=sum(path.total < 0 for path in paths),
    )


def _path(
    splits: tuple[int, ...],
    choices: Sequence[Choice | None],
    groups: Groups,
    name: str,
    source: Source,
) -> Path:
    chain, aside = Chain(source), 0
    for window, split in zip(groups.windows, splits, strict=True):
        choice = choices[split]
        if choice is None or choice.aside is not None:
            aside += 1
        else:
            chain.trade(choice, window)
    r = chain.trades().r
    span = (groups.windows[0].since, groups.windows[-1].until)
    return Path(
        splits=splits,
        value=metric_of(r, name, span) if len(r) >= MIN_TRADES else None,
        trades=len(r),
        total=float(r.sum()),
        stood_aside=aside,
    )


def _sentence(paths: Paths, choices: Sequence[Choice | None], name: str) -> str:
    """Return what the paths amount to; without a claim, since they are not independent."""
    aside = sum(choice is None or choice.aside is not None for choice in choices)
    if aside == len(choices):
        return (
            f"Cross-validation never traded: in none of {len(choices)} splits was a strategy worth "
            "choosing."
        )
    count = len(paths.paths)
    tail = f" It stood aside in {aside} of {len(choices)} splits." if aside else ""
    if paths.median is None:
        most = max(path.trades for path in paths.paths)
        return (
            f"Too few trades in each of {count} paths to say anything: at most {most}, and it "
            f"takes {MIN_TRADES}.{tail}"
        )
    lost = paths.lost or "none"
    return (
        f"The median of {count} paths has a {name} of {paths.median:.3f} (5 to 95 % of them: "
        f"{paths.lower:.3f} to {paths.upper:.3f}), and {lost} of them lost.{tail}"
    )

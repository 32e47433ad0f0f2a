"""Walk-forward analysis: what choosing the best strategy of the past would have earned.

It is computed from the trades of whole backtests, so that a strategy is already running when its
test window begins, as it would be live; or from backtests of each window alone, from clean state.
Which trades are in a window: see `choosing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtest_kit._statistics.against import Against
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
from backtest_kit._statistics.stitched import Chain, Judged, Stitched, stitch
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.windows import TrainTestSplit


class ForwardWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window; times in milliseconds UTC, ends excluded.

    `strategy_name` is the best strategy of the train window by the metric, of those with 30 trades
    there; `None` if there is none. `in_sample` and `out_of_sample` are its metric, `None` for fewer
    than 30 trades or if it is not defined. `purged` trades opened in the train window and were not
    closed when it ended; `overlapping` ones opened in the test window while a trade of the test
    window before was open. Neither count. `aside`: why it was not traded, so that its figures out
    of sample are what it would have made.
    """

    train_since: int
    train_until: int
    test_since: int
    test_until: int
    strategy_name: str | None = None
    in_sample: float | None = None
    in_sample_trades: int = 0
    in_sample_total: float = 0.0
    purged: int = 0
    out_of_sample: float | None = None
    out_of_sample_trades: int = 0
    out_of_sample_total: float = 0.0
    overlapping: int = 0
    aside: Aside | None = None


class WalkForward(Stitched, frozen=True, kw_only=True):
    """All windows, and their test windows stitched together.

    `always` is what it comes to if the best is traded whatever it is worth; `None` where it never
    stood aside. `fresh` is the same from runs of each window alone, where they were asked for;
    `failed` says which of those failed, and why.
    """

    metric: str
    windows: tuple[ForwardWindow, ...]
    always: Stitched | None = None
    fresh: WalkForward | None = None
    failed: tuple[str, ...] = ()


def walk_forward(
    trials: Sequence[TrialResult],
    spans: Sequence[TrainTestSplit],
    name: str,
    seed: int,
    *,
    worth: Worth | None = None,
    least: float | None = None,
    fresh: bool = False,
    against: Against | None = None,
) -> WalkForward:
    """Return the walk-forward analysis of trials over windows, at least one, in order of time.

    `name` is the metric; of equal trials the earlier one is chosen. `worth` and `least` say which
    are worth choosing, as `choose` takes them. `fresh`: each trial has runs of these windows alone.
    `against` is what the stitched trades are tested against, if not 0.
    """
    found = _walk(WholeRuns(trials), spans, name, seed, worth, least, against)
    if not fresh:
        return found
    own = OwnRuns(trials)
    again = _walk(own, spans, name, seed, worth, least, against)
    again = msgspec.structs.replace(again, failed=failed_runs(own.trials))
    return msgspec.structs.replace(found, fresh=again)


def _walk(
    source: Source,
    spans: Sequence[TrainTestSplit],
    name: str,
    seed: int,
    worth: Worth | None,
    least: float | None,
    against: Against | None,
) -> WalkForward:
    choices = [choose(source, [s.train], [s.test], name, worth=worth, least=least) for s in spans]
    windows = [(span.train, span.test) for span in spans]
    chain, told = Chain(source), []
    for span, choice in zip(spans, choices, strict=True):
        if choice is None:
            place = msgspec.structs.asdict(span)
            told.append(ForwardWindow(**place, aside="too few trades"))
            continue
        judge = chain.trade if choice.aside is None else chain.look
        told.append(_told(span, choice, judge(choice, span.test), name))
    stitched = stitch(chain, choices, windows, name, seed, against)
    return WalkForward(
        **{field: getattr(stitched, field) for field in stitched.__struct_fields__},
        metric=name,
        windows=tuple(told),
        always=_always(choices, spans, name, seed, source, against),
    )


def _told(span: TrainTestSplit, choice: Choice, judged: Judged, name: str) -> ForwardWindow:
    trades = judged.trades
    enough = len(trades.r) >= MIN_TRADES
    test = (span.test_since, span.test_until)
    return ForwardWindow(
        **msgspec.structs.asdict(span),
        strategy_name=choice.trial.strategy_name,
        in_sample=choice.value,
        in_sample_trades=len(choice.trades.r),
        in_sample_total=float(choice.trades.r.sum()),
        purged=choice.purged,
        out_of_sample=metric_of(trades.r, name, test) if enough else None,
        out_of_sample_trades=len(trades.r),
        out_of_sample_total=float(trades.r.sum()),
        overlapping=judged.overlapping,
        aside=choice.aside,
    )


def _always(
    choices: Sequence[Choice | None],
    spans: Sequence[TrainTestSplit],
    name: str,
    seed: int,
    source: Source,
    against: Against | None,
) -> Stitched | None:
    """Return what trading the best in each window comes to, whatever it is worth."""
    if all(choice is None or choice.aside is None for choice in choices):
        return None
    forced = [None if choice is None else choice._replace(aside=None) for choice in choices]
    chain = Chain(source)
    for span, choice in zip(spans, forced, strict=True):
        if choice is not None:
            chain.trade(choice, span.test)
    windows = [(span.train, span.test) for span in spans]
    return stitch(chain, forced, windows, name, seed, against)

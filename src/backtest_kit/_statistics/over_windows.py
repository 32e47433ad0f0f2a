"""What choosing in the windows of a walk comes to, in whichever way they are laid out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backtest_kit._statistics.against import Against
from backtest_kit._statistics.benchmarks import Market
from backtest_kit._statistics.cross_validation import CrossValidation, cross_validate
from backtest_kit._statistics.trial_result import OtherTrial, TrialResult
from backtest_kit._statistics.walk_forward import WalkForward, walk_forward
from backtest_kit._statistics.worth import worth_choosing
from backtest_kit._values.schemas import METRICS, WalkerSchema
from backtest_kit._values.windows import extent


def not_as_asked(
    schema: WalkerSchema, trials: Sequence[TrialResult], *, given: bool, fresh: bool = False
) -> str | None:
    """Return why trials are tested against 0 and not against the walk's benchmark, if they are.

    `given`: whether there are candles for it. `fresh`: of runs over single windows.
    """
    if schema.benchmark == 0:
        return None
    if not given:
        return f"Tested against 0: no candles for the benchmark {schema.benchmark!r}."
    runs = [run for trial in trials for run in ([trial] if not fresh else trial.window_runs)]
    if schema.benchmark == "random" and any(r.brackets.count != r.trades.count for r in runs):
        return "Tested against 0: how the trades were meant to end is not known."
    return None


def over_windows(
    schema: WalkerSchema,
    trials: Sequence[TrialResult],
    others: Sequence[OtherTrial],
    unknown: int,
    timeline: range | None,
    markets: Sequence[Market],
    seed: int,
) -> tuple[WalkForward | None, CrossValidation | None]:
    """Return what choosing in the walk's windows comes to, in whichever way they are laid out."""
    windows, name = schema.windows, schema.metric
    if windows is None or timeline is None:
        return None, None
    lacking = not_as_asked(schema, trials, given=bool(markets)) or (
        not_as_asked(schema, trials, given=True, fresh=True) if windows.fresh else None
    )
    against = None
    if schema.benchmark != 0 and lacking is None:
        against = Against(schema.benchmark, markets, seed)
    worth = worth_choosing(
        of_trades(name),
        seed,
        others=others,
        unknown=unknown,
        against=against,
    )
    least = windows.min_metric
    groups = windows.groups(*extent(timeline), timeline.step)
    if groups is not None:
        crossed = cross_validate(
            trials, groups, name, worth=worth, least=least, fresh=windows.fresh
        )
        return None, crossed
    spans = windows.spans(*extent(timeline))
    if not spans:
        return None, None
    forward = walk_forward(
        *(trials, spans, name, seed),
        worth=worth,
        least=least,
        fresh=windows.fresh,
        against=against,
    )
    return _saying(forward, lacking), None


def _saying(forward: WalkForward, lacking: str | None) -> WalkForward:
    """Return a walk forward whose sentences say against what they are tested, if not as asked."""
    if lacking is None:
        return forward
    fresh = None if forward.fresh is None else _saying(forward.fresh, lacking)
    said = forward.sentence
    if forward.p_value is not None:
        said = f"{said} {lacking}"
    return msgspec.structs.replace(forward, sentence=said, fresh=fresh)


def of_trades(name: str) -> str:
    """Return the metric by which luck is judged: that of an account is of no sample of trades."""
    return name if name in METRICS else "sharpe_ratio"

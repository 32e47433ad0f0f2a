"""Walk-forward analysis: what choosing the best strategy of the past would have earned.

It is computed from the trades of whole backtests: a strategy is already running when its test
window begins, as it would be live. A trade belongs to a train window if it opened and closed within
it, since otherwise its outcome was not known when the choice was made; to a test window if it
opened within it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from backtest_kit._statistics.figures import Statistics, metric, summarize
from backtest_kit._statistics.inference import ConfidenceInterval, bootstrap_interval
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.windows import TrainTestSplit


class ForwardWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window; times in milliseconds UTC, ends excluded.

    `strategy_name` is the best strategy of the train window by the metric, of those with 30 trades
    there; `None` if there is none. `in_sample` and `out_of_sample` are its metric, `None` for fewer
    than 30 trades or if it is not defined. `purged` trades were open at the end of the train
    window; `overlapping` ones opened while a trade of the previous window was open. Neither count.
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


class WalkForward(msgspec.Struct, frozen=True, kw_only=True):
    """All windows, and their test windows stitched together.

    `in_sample` is the mean of the windows', `out_of_sample` the metric of the stitched trades,
    with its 95 % bootstrap `interval`. `efficiency` is profit a day out of sample over profit a day
    in sample (Pardo, 2008, "The Evaluation and Optimization of Trading Strategies"). They are
    `None` for fewer than 30 trades, and `efficiency` also where the choices lost in sample.
    """

    metric: str
    windows: tuple[ForwardWindow, ...]
    in_sample: float | None
    out_of_sample: float | None
    interval: ConfidenceInterval | None
    efficiency: float | None
    statistics: Statistics


def walk_forward(
    trials: Sequence[TrialResult], spans: Sequence[TrainTestSplit], name: str, seed: int
) -> WalkForward:
    """Return the walk-forward analysis of trials over windows, at least one, in order of time.

    `name` is the metric; of equal trials the earlier one is chosen.
    """
    found, stitched = [], []
    busy: dict[int, int] = {}
    for span in spans:
        window, chosen, rows = _window(trials, span, name, busy)
        found.append(window)
        if chosen is not None:
            r, opened, closed, symbol = _columns(chosen)
            stitched.append((r[rows], opened[rows], closed[rows]))
            for at, end in zip(symbol[rows].tolist(), closed[rows].tolist(), strict=True):
                busy[at] = max(busy.get(at, 0), end)
    none = np.zeros(0, np.int64)
    r = np.concatenate([np.zeros(0), *(part[0] for part in stitched)])
    opened = np.concatenate([none, *(part[1] for part in stitched)])
    closed = np.concatenate([none, *(part[2] for part in stitched)])
    order = np.argsort(closed, kind="stable")
    r, opened, closed = r[order], opened[order], closed[order]
    between = (found[0].test_since, found[-1].test_until)
    statistics = summarize(r, opened, closed, between)
    enough = len(r) >= MIN_TRADES
    chosen_windows = [window for window in found if window.in_sample is not None]
    values = [window.in_sample for window in chosen_windows if window.in_sample is not None]
    return WalkForward(
        metric=name,
        windows=tuple(found),
        in_sample=float(np.mean(values)) if values else None,
        out_of_sample=metric(statistics, name) if enough else None,
        interval=bootstrap_interval(r, name, seed=seed, span=between) if enough else None,
        efficiency=_efficiency(chosen_windows) if enough else None,
        statistics=statistics,
    )


def _window(
    trials: Sequence[TrialResult], span: TrainTestSplit, name: str, busy: dict[int, int]
) -> tuple[ForwardWindow, TrialResult | None, Ints]:
    """Return a window, the trial chosen in it, and the rows of its trades in the test window."""
    place = msgspec.structs.asdict(span)
    best: tuple[float, TrialResult, Ints, int] | None = None
    for trial in trials:
        _, opened, closed, _ = _columns(trial)
        began = (opened >= span.train_since) & (opened < span.train_until)
        known = np.flatnonzero(began & (closed <= span.train_until))
        if len(known) < MIN_TRADES:
            continue
        value = _value(trial, known, name, (span.train_since, span.train_until))
        if value is not None and (best is None or value > best[0]):
            best = value, trial, known, int(began.sum()) - len(known)
    if best is None:
        return ForwardWindow(**place), None, np.zeros(0, np.int64)
    value, chosen, known, purged = best
    r, opened, _, symbol = _columns(chosen)
    began = (opened >= span.test_since) & (opened < span.test_until)
    free = opened >= np.array([busy.get(at, 0) for at in symbol.tolist()], dtype=np.int64)
    rows = np.flatnonzero(began & free)
    enough = len(rows) >= MIN_TRADES
    test = (span.test_since, span.test_until)
    window = ForwardWindow(
        **place,
        strategy_name=chosen.strategy_name,
        in_sample=value,
        in_sample_trades=len(known),
        in_sample_total=float(r[known].sum()),
        purged=purged,
        out_of_sample=_value(chosen, rows, name, test) if enough else None,
        out_of_sample_trades=len(rows),
        out_of_sample_total=float(r[rows].sum()),
        overlapping=int(began.sum()) - len(rows),
    )
    return window, chosen, rows


def _columns(trial: TrialResult) -> tuple[Floats, Ints, Ints, Ints]:
    trades = trial.trades
    return trades.r, trades.opened_at, trades.closed_at, trades.symbol


def _value(trial: TrialResult, rows: Ints, name: str, span: tuple[int, int]) -> float | None:
    r, opened, closed, _ = _columns(trial)
    return metric(summarize(r[rows], opened[rows], closed[rows], span), name)


def _efficiency(windows: Sequence[ForwardWindow]) -> float | None:
    """Return profit a day out of sample over profit a day in sample."""
    inside = sum(w.in_sample_total / (w.train_until - w.train_since) for w in windows)
    outside = sum(w.out_of_sample_total / (w.test_until - w.test_since) for w in windows)
    return outside / inside if inside > 0 else None

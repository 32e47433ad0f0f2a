"""The stationary bootstrap of closed trades, for every metric at once: pure functions of a seed.

Politis and Romano (1994), "The stationary bootstrap", JASA 89: blocks of consecutive items, of
geometric length, drawn with wrap-around. A draw is how many times each item counts; every metric
follows from weighted sums, so a draw costs one row of a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from backtest_kit._statistics.figures import LEAST_DEVIATION, YEAR_MS
from backtest_kit._statistics.overfitting import CELLS, ROUNDING
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import ArgumentError
from backtest_kit._values.schemas import METRICS

Span = tuple[int, int]


def check_metric(metric: str, span: Span | None, draws: int) -> float:
    """Return the number of runs per year, by which a yearly metric is scaled; 1 for the others.

    Raises:
        ArgumentError: no such metric, one without its span, or fewer than one draw.
    """
    if metric not in METRICS:
        raise ArgumentError(f"unknown metric {metric!r}; use one of: {', '.join(METRICS)}")
    if draws < 1:
        raise ArgumentError(f"draws must be at least 1, not {draws}")
    if metric != "expected_yearly_returns":
        return 1.0
    if span is None or span[1] <= span[0]:
        raise ArgumentError(f"{metric} needs the span of the run in milliseconds, not {span}")
    return YEAR_MS / (span[1] - span[0])


def sums(r: Floats) -> Floats:
    """Return the terms whose sums every metric is computed from: shape (N, 7).

    Per trade: count, deviation from the mean, its square, and count and size of wins and of losses.
    """
    d = r - (r.mean() if len(r) else 0.0)
    wins, losses = r > 0, r < 0
    columns = (np.ones(len(r)), d, d * d, wins, r * wins, losses, r * losses)
    return np.stack(columns, axis=1).astype(np.float64)


def evaluate(total: Floats, mean: float | Floats, metric: str, yearly: float) -> Floats:
    """Return the metric of samples from their `sums`, shape (M, 7); NaN where it is not defined.

    `mean` is the one that the deviations are from, of all samples or of each; the definitions are
    those of `figures`.
    """
    n, d, square, wins, gain, losses, loss = total.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        average = mean + d / n
        if metric == "win_rate":
            value = wins / n * 100
        elif metric == "avg_pnl":
            value = average
        elif metric in ("total_pnl", "expected_yearly_returns"):
            value = average * n * yearly
        elif metric == "certainty_ratio":
            won = np.where(wins > 0, gain / wins, 0.0)
            value = won / (-loss / losses)
        else:
            variance = (square - d * d / n) / (n - 1)
            least = np.maximum(LEAST_DEVIATION**2, ROUNDING * (square / n + mean * mean))
            value = average / np.sqrt(np.where(variance > least, variance, np.nan))
            if metric == "annualized_sharpe_ratio":
                value = value * math.sqrt(365)
    return np.where(np.isfinite(value), value, np.nan)


def estimate(r: Floats, metric: str, yearly: float) -> float | None:
    """Return the metric of a sample, `None` where it is not defined."""
    if not len(r):
        return None
    value = float(evaluate(sums(r).sum(axis=0, keepdims=True), float(r.mean()), metric, yearly)[0])
    return value if math.isfinite(value) else None


def draw(n: int, block: float, rng: np.random.Generator, draws: int) -> Iterator[Floats]:
    """Yield how many times each of `n` items counts in each draw, in pieces of shape (M, n)."""
    place = np.arange(n)
    left = draws
    while left:
        m = min(left, max(1, CELLS // n))
        fresh = rng.random((m, n)) < 1 / block
        fresh[:, 0] = True
        begun = np.maximum.accumulate(np.where(fresh, place, 0), axis=1)
        start = np.take_along_axis(rng.integers(0, n, (m, n)), begun, axis=1)
        index = (start + place - begun) % n + place[:1] + np.arange(m)[:, None] * n
        yield np.bincount(index.ravel(), minlength=m * n).reshape(m, n).astype(np.float64)
        left -= m


def drawn(
    r: Floats, block: float, metric: str, yearly: float, rng: np.random.Generator, draws: int
) -> Floats:
    """Return the metric of resamples of trades, shape (draws,); NaN where it is not defined."""
    per_trade, mean = sums(r), float(r.mean())
    pieces = [
        evaluate(weights @ per_trade, mean, metric, yearly)
        for weights in draw(len(r), block, rng, draws)
    ]
    return np.concatenate(pieces)


def drawn_together(
    rows: Sequence[Floats],
    parts: tuple[Sequence[Ints], int],
    metric: str,
    yearly: float,
    rng: np.random.Generator,
    draws: int,
    block: float,
) -> list[Floats]:
    """Return the metric of each strategy, all in the same resamples of periods of time.

    `rows` are the trades of each; `parts` their periods, whole numbers from 0, and how many periods
    there are. `block` is the mean length of blocks.
    """
    of, count = parts
    totals = []
    for r, at in zip(rows, of, strict=True):
        per_trade = sums(r)
        totals.append(
            np.stack([np.bincount(at, column, minlength=count) for column in per_trade.T], axis=1)
        )
    found: list[list[Floats]] = [[] for _ in rows]
    means = [float(r.mean()) for r in rows]
    for weights in draw(count, block, rng, draws):
        for pieces, total, mean in zip(found, totals, means, strict=True):
            pieces.append(evaluate(weights @ total, mean, metric, yearly))
    return [np.concatenate(pieces) for pieces in found]

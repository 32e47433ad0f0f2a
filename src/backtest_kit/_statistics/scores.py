"""Means of series on the scale of the normal distribution: how far each lies above the null.

A mean over its standard error misleads where trades hardly lose: the error is that of the losses
that there were. Owen (1988), "Empirical likelihood ratio confidence intervals for a single
functional", Biometrika 75, asks instead which weights of what was seen make the mean 0, and how
unlikely these are; of forty wins of 1 and one loss of 20 it says what a binomial test would. Its
signed root is normal under the null, so that strategies of different shapes can be compared.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from backtest_kit._statistics.blocks import (
    Blocks,
    Lags,
    autoregression,
    block_variance,
    newey_west,
)
from backtest_kit._values.candles import Floats

#: Of the search for the weights: most steps, and how near it has to come.
_STEPS: Final = 60
_NEAR: Final = 1e-9
#: Scores beyond this are this: nothing depends on how far beyond.
MOST: Final = 1e6


def scores(series: Floats, ratios: Floats, freedom: Floats) -> Floats:
    """Return the score of each column of shape (T, N): normal where its true mean is 0.

    `ratios` are of the variance of the mean to that of independent observations, `freedom` the
    degrees of freedom with which they are known; T - 1 where nothing had to be estimated. The
    lesser of two counts: the signed root of the empirical likelihood ratio, with Bartlett's
    correction (DiCiccio, Hall and Romano, 1991, Ann. Statist. 19), and Student's t. The first is
    right where losses are rare, the second where there are few bins.
    """
    n = len(series)
    student = normal_of_student(t_statistics(series), np.full(series.shape[1], n - 1.0))
    least = np.minimum(student, _likelihood(series)) / np.sqrt(ratios)
    return np.where(freedom < n - 1, normal_of_student(least, freedom), least)


def student_scores(series: Floats, ratios: Floats, freedom: Floats) -> Floats:
    """Return the scores of each column of shape (T, N) by Student's t alone: at least `scores`."""
    n = len(series)
    student = normal_of_student(t_statistics(series), np.full(series.shape[1], n - 1.0))
    found = student / np.sqrt(ratios)
    return np.where(freedom < n - 1, normal_of_student(found, freedom), found)


def t_statistics(series: Floats) -> Floats:
    """Return mean over standard error of each column; 0 where a column never varies."""
    n = len(series)
    error = series.std(axis=0, ddof=1) / math.sqrt(n)
    good = error > 0
    return np.where(good, series.mean(axis=0) / np.where(good, error, 1.0), 0.0)


def normal_of_student(t: Floats, freedom: Floats) -> Floats:
    """Return the normal score that is about as rare as a t of so many degrees of freedom.

    The signed root of the likelihood ratio, `sqrt(v log(1 + t^2 / v))` (Wallace, 1959, Ann. Math.
    Statist. 30).
    """
    bounded = np.clip(t, -MOST, MOST)
    root = np.sqrt(freedom * np.log1p(np.square(bounded) / freedom))
    return np.asarray(np.sign(bounded) * root, dtype=np.float64)


def long_run(lags: Lags, found: Blocks, block: float) -> tuple[Floats, Floats]:
    """Return the variance of each mean over that of independent observations, and its freedom.

    The greatest of the plain variance (1), that of the bootstrap with the joint `block` length,
    Newey and West's over the joint width, and that of an autoregression. An estimate over lags is
    known with fewer degrees of freedom (Priestley, 1981, "Spectral analysis and time series", 6.2):
    so few as the one over lags or the autoregression has, whichever are fewer.
    """
    n = lags.length
    width = int(found.widths.max(initial=0))
    persistent, over_order = autoregression(lags, (width + 1) // 2)
    estimates = (
        np.ones(lags.correlations.shape[1]),
        block_variance(lags, block),
        newey_west(lags, width),
        persistent,
    )
    stay = 1 - 1 / block
    over_lags = (n - 1) / (1 + 2 * stay**2 / (1 - stay**2))
    return np.maximum.reduce(estimates), np.clip(np.minimum(over_lags, over_order), 1.0, n - 1.0)


def _likelihood(series: Floats) -> Floats:
    """Return the signed root of the empirical likelihood ratio for a mean of 0, corrected.

    Only means above 0 are worked out; the others get -1, or 0 for no mean at all.
    """
    n = len(series)
    mean = series.mean(axis=0)
    found = np.where(mean > 0, MOST, np.where(mean < 0, -1.0, 0.0))
    chosen = np.flatnonzero((mean > 0) & (series.min(axis=0, initial=np.inf) < 0))
    x = series[:, chosen]
    x = x / np.sqrt(np.square(x).mean(axis=0)) if len(chosen) else x
    ratio = 2 * np.log1p(_tilt(x) * x).sum(axis=0)
    d = x - x.mean(axis=0)
    square = np.square(d)
    variance = square.mean(axis=0)
    skewness = (square * d).mean(axis=0) / variance**1.5
    kurtosis = np.square(square).mean(axis=0) / np.square(variance)
    correction = 1 + np.maximum(kurtosis / 2 - np.square(skewness) / 3, 0.0) / n
    found[chosen] = np.sqrt(np.maximum(ratio, 0.0) / correction)
    return found


def _tilt(x: Floats) -> Floats:
    """Return the l with sum(x / (1 + l x)) = 0 of each column, whose mean is above 0.

    Newton's method, kept within what a bisection leaves: the sum falls with l.
    """
    low = np.zeros(x.shape[1])
    high = -1 / x.min(axis=0, initial=-MOST if not x.size else np.inf)
    tilt = np.minimum(x.mean(axis=0) / np.square(x).mean(axis=0), high / 2) if x.size else low
    for _ in range(_STEPS):
        share = x / (1 + tilt * x)
        total = share.sum(axis=0)
        low, high = np.where(total > 0, tilt, low), np.where(total > 0, high, tilt)
        step = tilt + total / np.square(share).sum(axis=0)
        new = np.where((step > low) & (step < high), step, (low + high) / 2)
        done = bool((np.abs(new - tilt) <= _NEAR * np.abs(tilt)).all())
        tilt = new
        if done:
            break
    return tilt

"""Counting what walks claim, and what they find."""

import functools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from backtest_kit._statistics.family import family_test
from backtest_kit._statistics.ranking import SEED
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._statistics.verdict import SIGNIFICANCE, verdict
from benchmarks.calibration.markets import YEAR, in_turn

PROMISE = SIGNIFICANCE
#: Of the power table: trades a year, each of which wins or loses one deviation.
TRADES_A_YEAR = 730


class Count(NamedTuple):
    """How many of so many walks."""

    hits: int
    walks: int

    @property
    def share(self):
        return self.hits / self.walks

    @property
    def interval(self):
        """The 95 % interval of Wilson (1927), J. American Statistical Association 22."""
        n, z = self.walks, NormalDist().inv_cdf(0.975)
        middle = (self.share + z * z / (2 * n)) / (1 + z * z / n)
        half = (
            z / (1 + z * z / n) * math.sqrt(self.share * (1 - self.share) / n + (z / (2 * n)) ** 2)
        )
        return max(middle - half, 0.0), min(middle + half, 1.0)


def bound(walks, promise=PROMISE):
    """The promise, and two standard errors of a count of so many walks."""
    return promise + 2 * math.sqrt(promise * (1 - promise) / walks)


def sentence(trades, span=YEAR, **more):
    """The sentence of a walk, and the test that it rests on; `more` is what `family_test` takes."""
    family = family_test(trades, span, seed=SEED, **more)
    return verdict(trades, family, span, seed=SEED), family


def claims(trades, span=YEAR, **more):
    """Whether the sentence names a winner or a tie."""
    return sentence(trades, span, **more)[0].kind in ("winner", "tie")


def names(trades, name, span=YEAR):
    """Whether the sentence names a strategy: as the winner, or among those that tie."""
    found = sentence(trades, span)[0]
    return name in {"winner": found.names[:1], "tie": found.names}.get(found.kind, ())


def count_claims(null, strategies, walks, seed=1):
    rng = np.random.default_rng([seed, strategies])
    return Count(sum(claims(null(rng, strategies)) for _ in range(walks)), walks)


@functools.cache
def exact_limit(strategies, alike=0.0):
    """The 95 % point of the greatest of standard normals.

    Of the share `alike` each two are correlated with 0.99, the others are independent.
    """
    near = round(strategies * alike)
    if not near:
        return NormalDist().inv_cdf((1 - PROMISE) ** (1 / strategies))
    rng = np.random.default_rng(1)
    base = rng.standard_normal((100_000, 1))
    own = np.sqrt(0.01) * rng.standard_normal((100_000, near))
    greatest = (np.sqrt(0.99) * base + own).max(axis=1)
    others = NormalDist().inv_cdf
    apart = rng.random(100_000) ** (1 / max(strategies - near, 1))
    greatest = np.maximum(greatest, [others(p) for p in apart.tolist()])
    return float(np.quantile(greatest, 1 - PROMISE))


class Power(NamedTuple):
    """Of the walks in which an exact test finds the edge, those in which the sentence names it.

    `exact` is how often the exact test finds it; `stepm` counts those of the same walks in which
    Romano and Wolf's StepM, as `arch` has it, has the edge in its set: `None` if not asked for.
    """

    exact: Count
    found: Count
    stepm: Count | None = None


def brackets(rng, trades, mean=0.0, count=None):
    shape = trades if count is None else (count, trades)
    return np.where(rng.random(shape) < 0.5 * (1 + mean), 1.0, -1.0)


def in_stepm(rows, days):
    """Whether the last of some rows of profits, evenly over time, is in the set of arch's StepM."""
    from arch.bootstrap import StepM

    at = (np.arange(rows.shape[1]) * days) // rows.shape[1]
    bins = np.stack([np.bincount(at, each, days) for each in rows], axis=1)
    found = StepM(np.zeros(days), -bins, size=PROMISE, block_size=1, reps=1000, seed=1)
    found.compute()
    return len(rows) - 1 in found.superior_models


def power(sharpe, strategies, years, walks, *, alike=0.0, seed=2, stepm=False):
    """Plant an edge of a yearly Sharpe ratio among strategies that have none.

    The exact test knows each deviation and how the strategies depend on each other. Walks in which
    it does not find the edge are not drawn to their end.
    """
    rng = np.random.default_rng([seed, strategies, years, round(10 * sharpe), round(10 * alike)])
    trades, limit = TRADES_A_YEAR * years, exact_limit(strategies, alike)
    mean = sharpe / math.sqrt(TRADES_A_YEAR)
    span = (0, years * YEAR[1])
    drawn = found = theirs = 0
    for _ in range(walks):
        while True:
            drawn += 1
            edge = brackets(rng, trades, mean)
            if edge.sum() / math.sqrt(trades) > limit:
                break
        others = brackets(rng, trades, count=strategies - 1)
        near = round(strategies * alike)
        if near:  # one trade in 200 is another one: a correlation of 0.99
            differs = rng.random((near, trades)) < 0.01
            others[:near] = np.where(differs, brackets(rng, trades, count=near), others[0])
        columns = {f"s{i:03}": in_turn(r, years=years) for i, r in enumerate(others)}
        columns["edge"] = in_turn(edge, years=years)
        found += names(columns, "edge", span)
        if stepm:
            theirs += in_stepm(np.vstack((others, edge)), 365 * years)
    return Power(Count(walks, drawn), Count(found, walks), Count(theirs, walks) if stepm else None)


def without_stops(walks, strategies=20, sharpe=2.0, trades=250, seed=3):
    """The same with daily trades that have no stop, whose worst one is what one more may lose."""
    rng = np.random.default_rng(seed)
    limit, found = exact_limit(strategies), 0
    for _ in range(walks):
        while True:
            edge = rng.standard_normal(trades) + sharpe / math.sqrt(trades)
            if edge.sum() / math.sqrt(trades) > limit:
                break
        rows = [*rng.standard_normal((strategies - 1, trades)), edge]
        columns = {f"s{i:03}": in_turn(r, stop=np.nan) for i, r in enumerate(rows)}
        found += names(columns, f"s{strategies - 1:03}")
    return Count(found, walks)


def stability(walks, strategies=20, seed=4):
    """Of walks near the threshold, those whose sentence is the same after what changes nothing."""
    rng = np.random.default_rng(seed)
    nothing = TradeColumns.of([], [], [])
    same = dict.fromkeys(
        ("a copy of one", "a copy of the best", "one that never trades", "order"), 0
    )
    done = 0
    while done < walks:
        r = brackets(rng, TRADES_A_YEAR, count=strategies)
        r[0] = brackets(rng, TRADES_A_YEAR, 2.5 / math.sqrt(TRADES_A_YEAR))
        of = {f"s{i:03}": in_turn(each) for i, each in enumerate(r)}
        said, family = sentence(of)
        if not 0.02 <= min(family.p_values.values()) <= 0.1:
            continue
        done += 1
        best = min(family.p_values, key=family.p_values.__getitem__)
        order = [*of]
        rng.shuffle(order)
        for what, other in (
            ("a copy of one", of | {"zz": of[order[0]]}),
            ("a copy of the best", of | {"zz": of[best]}),
            ("one that never trades", of | {"zz": nothing}),
            ("order", {name: of[name] for name in order}),
        ):
            again = sentence(other)[0]
            same[what] += (again.kind, again.names) == (said.kind, said.names)
    return {what: Count(hits, walks) for what, hits in same.items()}

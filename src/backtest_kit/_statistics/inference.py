"""Whether the best of many strategies is luck: intervals, comparisons and a verdict.

Pure functions over closed trades: `r` is profit in percent per trade, float64 of shape (N,), in
the order of closing. Every random choice comes from an explicit integer seed, and the same input
gives the same answer. `None` is "this sample cannot say": fewer than `MIN_TRADES` trades never
give a figure. Memory does not grow with the number of draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from backtest_kit._statistics.bootstrap import (
    Span,
    check_metric,
    dependence,
    drawn,
    drawn_together,
    estimate,
    periods,
)
from backtest_kit._statistics.deflation import deflated_sharpes
from backtest_kit._statistics.overfitting import MIN_TRADES, ROUNDING, checked, seeded
from backtest_kit._values.candles import Floats, Ints

Kind = Literal["too few trades", "noise", "tie", "winner"]

#: Resamples: the ends of a 95 % interval then rest on 25 draws each.
DRAWS: Final = 1000
#: A deflated Sharpe ratio from here on is not noise; a probability from here on is a win.
CONFIDENCE: Final = 0.95
#: A metric that more than this share of resamples leaves undefined has no interval.
MOST_UNDEFINED: Final = 0.05
#: Names that a sentence spells out.
MOST_NAMES: Final = 5


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A metric and its percentile interval from `draws` resamples of that mean `block` length."""

    metric: str
    estimate: float
    lower: float
    upper: float
    level: float
    block: float
    draws: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of strategies amounts to, in one plain English sentence.

    `names` are those the sentence is about, the leader first; in a tie, all that the leader does
    not beat. `probability` is the least one with which the leader beats another, and `None`
    without another or where it is not defined. `deflated_sharpe` is the leader's.
    """

    kind: Kind
    names: tuple[str, ...]
    sentence: str
    trials: int
    probability: float | None = None
    deflated_sharpe: float | None = None


def bootstrap_interval(
    r: npt.ArrayLike,
    metric: str,
    *,
    seed: int,
    level: float = 0.95,
    draws: int = DRAWS,
    span: Span | None = None,
) -> Interval | None:
    """Return the percentile interval of a metric by the stationary bootstrap.

    Blocks of consecutive trades, of geometric length with the mean of `block_length`, are drawn
    with wrap-around until there are N trades again (Politis and Romano, 1994, "The stationary
    bootstrap", JASA 89), so the order in which wins and losses cluster is kept. `metric` is one
    of `METRICS`; `span`, start and end of the run in milliseconds, is what the yearly one needs.
    The number of trades is kept, so `total_pnl` is N times the interval of the mean.

    `None` for fewer than `MIN_TRADES` trades, where the metric is not defined for them or for
    more than `MOST_UNDEFINED` of the resamples (the others then give the interval), and where it
    never varies: thirty wins of thirty do not make the next one certain.

    Raises:
        ValueError: `r` is not of one dimension or not finite; no such metric; a metric without
            its span; `level` is not within 0 and 1; `draws` is below 1; `seed` is negative.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be within 0 and 1, not {level}")
    values, scale = checked(r), check_metric(metric, span, draws)
    rng = seeded(seed)
    value = estimate(values, metric, scale) if len(values) >= MIN_TRADES else None
    if value is None:
        return None
    block = block_length(values)
    resampled = drawn(values, block, metric, scale, rng, draws)
    kept = resampled[np.isfinite(resampled)]
    if len(kept) < (1 - MOST_UNDEFINED) * draws:
        return None
    ends = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    if kept.max() - kept.min() <= ROUNDING * abs(value):
        return None
    return Interval(
        metric=metric,
        estimate=value,
        lower=float(ends[0]),
        upper=float(ends[1]),
        level=level,
        block=block,
        draws=draws,
    )


def probability_best_beats_second(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    metric: str,
    seed: int,
    *,
    span: Span | None = None,
    closed_at: tuple[Ints, Ints] | None = None,
    draws: int = DRAWS,
) -> float | None:
    """Return the share of resamples in which the metric of `a` exceeds that of `b`.

    Equal values count half, so the two ways round add up to 1. Resamples that leave either
    metric undefined do not count.

    Without `closed_at` the two are resampled as in `bootstrap_interval`, independently of each
    other: the i-th trade of one has nothing to do with the i-th of the other. Strategies on one
    market mostly win and lose together, though, and then the difference is surer than that. With
    `closed_at`, the closing times of both in int64 milliseconds, and `span`, time is resampled
    instead: the span is cut into days (between 100 and 2,000 equal parts), and blocks of days are
    drawn for both at once, with whatever trades closed in them. That keeps how the two move
    together, and lets the number of trades vary.

    `None` where either has fewer than `MIN_TRADES` trades or no such metric, or where more than
    `MOST_UNDEFINED` of the resamples do not count.

    It is a share of resamples, not a test: it does not know how many strategies `a` was picked
    from (`deflated_sharpe_ratio` does), and for what never varied in a sample it is too sure.

    Raises:
        ValueError: as `bootstrap_interval`; times without a span, or not one per trade.
    """
    pair = (checked(a, "a"), checked(b, "b"))
    scale = check_metric(metric, span, draws)
    parts = None if closed_at is None else periods(pair, closed_at, span)
    seeded(seed)
    if min(map(len, pair)) < MIN_TRADES:
        return None
    if any(estimate(x, metric, scale) is None for x in pair):
        return None
    first, second = _all_draws(pair, parts, metric, scale, seed, draws)
    return _share(first, second)


def block_length(r: npt.ArrayLike) -> float:
    """Return the mean block length for the stationary bootstrap of a series, at least 1.

    Politis and White (2004), "Automatic block-length selection for the dependent bootstrap",
    Econometric Reviews 23, with the correction of Patton, Politis and White (2009), ibid. 28:
    `(2 G^2 / D)^(1/3) N^(1/3)`, where D is 2 g(0)^2 and G and g come from the autocovariances
    under a flat-top window, up to twice the lag after which 5 in a row are insignificant. At most
    `min(3 sqrt(N), N / 3)`; 1, which is the ordinary bootstrap, for a series that never varies.
    The rule is the best one for the mean; it is used here for every metric.

    Raises:
        ValueError: `r` is not of one dimension, or holds a value that is not finite.
    """
    return dependence(checked(r))[0]


def period_returns(
    trades: Mapping[str, npt.ArrayLike], closed_at: Mapping[str, Ints], span: Span
) -> Floats:
    """Return the profit per period of each strategy: shape (T, N), in percent, in their order.

    The span in milliseconds is cut into days, between 100 and 2,000 equal parts; a trade counts
    where it closed, outside the span in its first or last part. This is the matrix that
    `probability_of_overfitting` takes; leave out strategies with fewer than `MIN_TRADES` trades.

    Raises:
        ValueError: a value that is not finite; not one time per trade; a span without length.
    """
    rows = [checked(r, name) for name, r in trades.items()]
    parts, count = periods(rows, [closed_at[name] for name in trades], span)
    columns = [
        np.bincount(at, weights=r, minlength=count) for r, at in zip(rows, parts, strict=True)
    ]
    return np.stack(columns, axis=1) if columns else np.empty((count, 0))


def verdict(
    trades: Mapping[str, npt.ArrayLike],
    *,
    seed: int,
    metric: str = "sharpe_ratio",
    trials: int | None = None,
    span: Span | None = None,
    closed_at: Mapping[str, Ints] | None = None,
    draws: int = DRAWS,
) -> Verdict:
    """Return whether one of the strategies stands out, and from what.

    `trades` has the trades of each by name; `trials` is how many were tried in all, those that
    failed or were thrown away included (at least, and by default, as many as given).

    - "too few trades": none has `MIN_TRADES`. One that has fewer is never judged; where it has
      the better metric, the sentence says so.
    - "noise": no deflated Sharpe ratio reaches `CONFIDENCE`. Luck is judged by the Sharpe ratio
      of the trades whatever the metric, since that is the one whose luck is known. The threshold
      is strict: among 100 independent strategies without skill, one passes in far fewer than 5 %
      of cases, and a small edge will not pass either.
    - "tie": the leader, the one with the best metric of those that pass, does not beat every
      other that passes with a probability of `CONFIDENCE` (`probability_best_beats_second`, over
      time where `closed_at` and `span` are given).
    - "winner": it does, or no other passes. One that noise would explain can still come close to
      it, and is named then.

    The deflated Sharpe ratios are those of `deflated_sharpes`.

    Raises:
        ValueError: as `probability_best_beats_second`; `trials` is below the number given.
    """
    rows = {name: checked(r, name) for name, r in trades.items()}
    scale = check_metric(metric, span, draws)
    seeded(seed)
    count = len(rows) if trials is None else trials
    if count < len(rows):
        raise ValueError(f"trials must be at least the {len(rows)} strategies given, not {trials}")
    scores = {
        name: value for name, r in rows.items() if (value := estimate(r, metric, scale)) is not None
    }
    if not any(len(r) >= MIN_TRADES for r in rows.values()):
        return _too_few(rows, count)
    deflated = deflated_sharpes(rows, count)
    judged = [name for name in rows if name in deflated and name in scores]
    if not judged:
        sentence = f"Nothing here that noise would not explain: no {metric} that varies."
        return Verdict(kind="noise", names=(), sentence=sentence, trials=count)
    passed = [name for name in judged if deflated[name] >= CONFIDENCE]
    leader = max(passed or judged, key=scores.__getitem__)
    luck = f"deflated Sharpe is {_said(deflated[leader])} over {_times(count, 'trial')}"
    short = [x for x in scores if len(rows[x]) < MIN_TRADES and scores[x] > scores[leader]]
    note = ""
    if short:
        top = max(short, key=scores.__getitem__)
        note = f" {top!r} scores higher, but over {_times(len(rows[top]), 'trade')} only."
    if not passed:
        likeliest = max(judged, key=deflated.__getitem__)
        level = f"{_said(deflated[likeliest])} over {_times(count, 'trial')}"
        return Verdict(
            kind="noise",
            names=(likeliest,),
            sentence="Nothing here that noise would not explain: the highest deflated Sharpe, of "
            f"{likeliest!r}, is {level}, and it takes {CONFIDENCE}.{note}",
            trials=count,
            deflated_sharpe=deflated[likeliest],
        )
    others = [name for name in judged if name != leader]
    if not others:
        sentence = f"{leader!r} has no other to beat, and its {luck}.{note}"
        return Verdict(
            kind="winner",
            names=(leader,),
            sentence=sentence,
            trials=count,
            deflated_sharpe=deflated[leader],
        )
    names = [leader, *others]
    compared = [rows[name] for name in names]
    times = None if closed_at is None else [closed_at[name] for name in names]
    parts = None if times is None else periods(compared, times, span)
    resampled = _all_draws(compared, parts, metric, scale, seed, draws)
    mine = next(resampled)
    shares = {name: _share(mine, theirs) for name, theirs in zip(others, resampled, strict=True)}
    near = [x for x in others if (share := shares[x]) is None or share < CONFIDENCE]
    equals = [x for x in near if x in passed]
    # a comparison that cannot be made is a tie, and the last to be told
    closest = min(others, key=lambda x: (2.0 if (p := shares[x]) is None else p, -scores[x]))
    least = shares[closest]
    odds = "an unknown probability" if least is None else f"probability {_said(least)}"
    if equals:
        equals.sort(key=scores.__getitem__, reverse=True)
        sentence = (
            f"A tie between {_listed([leader, *equals])}: {leader!r} beats {closest!r} with {odds}"
            f" where it takes {CONFIDENCE}, and its {luck}.{note}"
        )
    elif near:
        sentence = (
            f"{leader!r} is the only one here that noise would not explain: its {luck}. It beats "
            f"the closest of the others, {closest!r}, with {odds}.{note}"
        )
    else:
        sentence = f"{leader!r} beats {closest!r} with {odds}, and its {luck}.{note}"
    return Verdict(
        kind="tie" if equals else "winner",
        names=(leader, *equals) if equals else (leader, closest),
        sentence=sentence,
        trials=count,
        probability=least,
        deflated_sharpe=deflated[leader],
    )


def _all_draws(
    rows: Sequence[Floats],
    parts: tuple[Sequence[Ints], int] | None,
    metric: str,
    scale: float,
    seed: int,
    draws: int,
) -> Iterator[Floats]:
    """Yield the resampled metric of each row, in order."""
    if parts is not None:
        yield from drawn_together(rows, parts, metric, scale, seeded(seed), draws)
        return
    for stream, r in enumerate(rows):
        yield drawn(r, dependence(r)[0], metric, scale, seeded(seed, stream), draws)


def _share(first: Floats, second: Floats) -> float | None:
    """Return how often the first is greater, equals counting half."""
    valid = np.isfinite(first) & np.isfinite(second)
    if valid.sum() < (1 - MOST_UNDEFINED) * len(first):
        return None
    a, b = first[valid], second[valid]
    return float((a > b).mean() + (a == b).mean() / 2)


def _too_few(rows: Mapping[str, Floats], trials: int) -> Verdict:
    if not rows:
        sentence = "Too few trades to say anything: no strategy has a result."
        return Verdict(kind="too few trades", names=(), sentence=sentence, trials=trials)
    most = max(rows, key=lambda name: len(rows[name]))
    sentence = (
        f"Too few trades to say anything: {most!r} has the most, {len(rows[most])}, and it takes "
        f"{MIN_TRADES}."
    )
    return Verdict(kind="too few trades", names=(most,), sentence=sentence, trials=trials)


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:MOST_NAMES]]
    left = len(names) - len(shown)
    last = f"{left} more" if left else shown.pop()
    return f"{', '.join(shown)} and {last}"


def _said(probability: float) -> str:
    """Return a probability without claiming certainty."""
    if probability > 0.999:
        return "above 0.999"
    return "below 0.001" if probability < 0.001 else f"{probability:.3f}"


def _times(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

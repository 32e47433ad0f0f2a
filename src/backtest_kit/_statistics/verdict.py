"""The verdict of a comparison: does one strategy stand out, and is that more than luck?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from backtest_kit._statistics.bins import LEAST_BINS, Span, bin_of, longest_holding, rare_loss
from backtest_kit._statistics.bootstrap import check_metric, drawn_together, estimate
from backtest_kit._statistics.family import Family, why_not_judged
from backtest_kit._statistics.inference import DRAWS, share_above
from backtest_kit._statistics.overfitting import MIN_TRADES, seeded
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._values.candles import Ints
from backtest_kit._values.schemas import Benchmark
from backtest_kit._values.time import MINUTE

Kind = Literal["too few trades", "too short", "noise", "tie", "winner"]

#: Luck explains what it would do in more than this share of walks.
SIGNIFICANCE: Final = 0.05
#: A strategy beats another with at least this probability: of two equal ones one seems to beat the
#: other, whichever it is, in 5 of 100 cases.
BEATS: Final = 0.975
#: Digits that a probability is shown to where it is next to its limit.
_MOST_DIGITS: Final = 6
#: How many names a sentence lists before it says "and 3 more".
MOST_NAMES: Final = 5
#: What a claim is beyond, by the benchmark of the test.
BEYOND: Final[dict[Benchmark, str]] = {
    0: "",
    "hold": " beyond buying and holding",
    "random": " beyond random entries with the same exits",
}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of strategies amounts to, in one plain English sentence.

    `names` are the strategies that the sentence is about, the leader first; in a tie, all that luck
    does not explain. `p_value` is the leader's, adjusted for all trials. `probability` is the
    lowest with which the leader beats one of the others that luck does not explain either; `None`
    if there is no other, or if it is not defined. `rare_loss` says that it is the one more losing
    trade which decided: without it, luck would not explain the leader. `deflated_sharpe` is the
    leader's, in a verdict of an earlier release.
    """

    kind: Kind
    names: tuple[str, ...]
    sentence: str
    trials: int
    probability: float | None = None
    deflated_sharpe: float | None = None
    p_value: float | None = None
    rare_loss: bool = False


def verdict(
    trades: Mapping[str, TradeColumns],
    family: Family | None,
    span: Span,
    *,
    seed: int,
    metric: str = "sharpe_ratio",
    trials: int | None = None,
    draws: int = DRAWS,
    intervals: Mapping[str, int] | None = None,
) -> Verdict:
    """Return whether one of the strategies stands out, and from which others.

    `trades` has the trades of each strategy by name, `family` is their test (`family_test`), `span`
    that of the walk in ms, `trials` how many strategies were tried in all (at least, and by
    default, as many as given), `intervals` (ms) are those at which they are asked, by name.

    - "too few trades", "too short": none can be judged, for want of `MIN_TRADES` trades, or of
      `LEAST_BINS` bins as long as its longest trade and its interval. A strategy that can't be
      judged never counts; if its metric is better than the leader's, the sentence says so.
    - "noise": luck explains all of them. No p-value, adjusted for the whole family, is at most
      `SIGNIFICANCE`, so that of walks with nothing in them at most 5 in 100 claim anything.
    - "winner": the leader, the one with the best metric of those that luck does not explain, beats
      each of the others of those with a probability of `BEATS`, in the same resamples of the bins
      of time; or there is no other. One whose trades are the same is no other.
    - "tie": it does not.

    Raises:
        ArgumentError: no such metric, or a metric without its span; `draws` is below 1, `seed`
            negative.
    """
    scale, asked = check_metric(metric, span, draws), intervals or {}
    count = max(len(trades), trials or 0)
    if family is None:
        return _nothing_judged(trades, span, count, asked)
    values = {name: estimate(each.r, metric, scale) for name, each in trades.items()}
    scores = {name: value for name, value in values.items() if value is not None}
    judged = [name for name in trades if name in family.p_values and name in scores]
    if not judged:
        sentence = f"{_nothing(family)}: no {metric} that varies."
        return Verdict(kind="noise", names=(), sentence=sentence, trials=count)
    members = [name for name in judged if family.p_values[name] <= SIGNIFICANCE]
    if not members:
        judged.sort(key=lambda name: -scores[name])
        return _noise(trades, family, judged, count, _note(trades, scores, judged, span, asked))
    told = standing(
        {name: trades[name] for name in members},
        {name: scores[name] for name in members},
        *(family.edges, family.test.block, metric, scale, seed, draws),
    )
    note = _note(trades, scores, [told.leader], span, asked)
    return _found(told, scores, family, count, note)


class Standing(NamedTuple):
    """How the best of strategies that luck does not explain stands to the others of those.

    `wins` are the probabilities with which the leader beats each of the others, best first, `None`
    where one is not defined; `copies` made the same trades.
    """

    leader: str
    copies: list[str]
    wins: dict[str, float | None]

    @property
    def near(self) -> bool:
        """Whether one of the others is too near to say that the leader is better."""
        return any(win is None or win < BEATS for win in self.wins.values())


def standing(
    trades: Mapping[str, TradeColumns],
    scores: Mapping[str, float],
    edges: Ints,
    block: float,
    metric: str,
    scale: float,
    seed: int,
    draws: int,
) -> Standing:
    """Return how the best by its score stands to the others, in the same resamples of bins.

    `edges` are those of the bins, `block` the mean length of the blocks that are drawn.
    """
    members = sorted(scores, key=lambda name: -scores[name])
    leader, rivals = members[0], members[1:]
    copies = [name for name in rivals if trades[name] == trades[leader]]
    rivals = [name for name in rivals if name not in copies]
    if not rivals:
        return Standing(leader, copies, {})
    rows = [trades[name].r for name in (leader, *rivals)]
    parts = [bin_of(trades[name].closed_at, edges) for name in (leader, *rivals)]
    drawn = drawn_together(rows, (parts, len(edges) - 1), metric, scale, seeded(seed), draws, block)
    others = zip(rivals, drawn[1:], strict=True)
    return Standing(leader, copies, {name: share_above(drawn[0], other) for name, other in others})


def _nothing_judged(
    trades: Mapping[str, TradeColumns], span: Span, count: int, asked: Mapping[str, int]
) -> Verdict:
    if not trades:
        sentence = "Too few trades to say anything: no strategy has a result."
        return Verdict(kind="too few trades", names=(), sentence=sentence, trials=count)
    reasons = {n: why_not_judged(each, span, asked.get(n, 0)) for n, each in trades.items()}
    needs = {
        name: max(longest_holding(trades[name]), asked.get(name, 0))
        for name, reason in reasons.items()
        if reason == "too short"
    }
    if needs:
        name = min(needs, key=needs.__getitem__)
        sentence = (
            f"Too short to say anything: {_why_too_short(trades[name], name, asked)}, and it takes "
            f"{LEAST_BINS} times that; the walk is over {_duration(span[1] - span[0])}."
        )
        return Verdict(kind="too short", names=(name,), sentence=sentence, trials=count)
    most = max(trades, key=lambda name: trades[name].count)
    if reasons[most] == "never varies":
        sentence = f"Nothing here that luck would not explain: the trades of {most!r} never vary."
        return Verdict(kind="noise", names=(most,), sentence=sentence, trials=count)
    there = (
        f"{most!r} has the most, {trades[most].count}" if trades[most].count else "there are none"
    )
    sentence = f"Too few trades to say anything: {there}, and it takes {MIN_TRADES}."
    return Verdict(kind="too few trades", names=(most,), sentence=sentence, trials=count)


def _nothing(family: Family) -> str:
    return f"Nothing here{BEYOND[family.test.benchmark]} that luck would not explain"


def _noise(
    trades: Mapping[str, TradeColumns],
    family: Family,
    judged: Sequence[str],
    count: int,
    note: str,
) -> Verdict:
    """Return the verdict where luck explains every strategy."""
    bare = min(judged, key=family.without_loss.__getitem__)
    decided = family.without_loss[bare] <= SIGNIFICANCE
    likeliest = bare if decided else min(judged, key=family.p_values.__getitem__)
    p = family.p_values[likeliest]
    sentence = (
        f"{_nothing(family)}: the likeliest to be more, {likeliest!r}, has "
        f"{p_text(p)}{_out_of(family, count)}, and it takes {SIGNIFICANCE}."
    )
    if decided:
        sentence += (
            f" It has hardly lost: that one more of its trades may lose "
            f"{rare_loss(trades[likeliest]):.3g} % decides; without it, it has "
            f"{p_text(family.without_loss[likeliest])}."
        )
    if family.test.benchmark == 0 and max(float(trades[name].r.sum()) for name in judged) <= 0:
        sentence += f" {'None of them has' if len(judged) > 1 else 'It has not'} made a profit."
    return Verdict(
        kind="noise",
        names=(likeliest,),
        sentence=sentence + note,
        trials=count,
        p_value=p,
        rare_loss=decided,
    )


def _found(
    told: Standing,
    scores: Mapping[str, float],
    family: Family,
    count: int,
    note: str,
) -> Verdict:
    """Return the verdict on strategies that luck does not explain, the leader and its rivals."""
    leader, copies, wins = told
    p = family.p_values[leader]
    same = f" ({_listed(copies)} made the same trades)" if copies else ""
    beyond = BEYOND[family.test.benchmark]
    luck = f"{p_text(p)}{_out_of(family, count)}"
    # a comparison that can't be made counts as a tie, but is named only if there is no other
    closest = min(
        wins,
        key=lambda x: (2.0 if (win := wins[x]) is None else win, -scores[x]),
        default=None,
    )
    least = None if closest is None else wins[closest]
    odds = "an unknown probability" if least is None else f"probability {_rounded(least)}"
    if told.near:
        equals = sorted(wins, key=lambda name: -scores[name])
        sentence = (
            f"A tie between {_listed([leader, *equals])}: luck does not explain their profits"
            f"{beyond}, but {leader!r} beats {closest!r} with {odds} where it takes {BEATS}. "
            f"{leader!r}{same} has {luck}."
        )
        names: tuple[str, ...] = (leader, *equals, *copies)
    else:
        beaten = (
            "it is the only one"
            if closest is None
            else f"it beats {closest!r}, the closest of the others like that, with {odds}"
        )
        sentence = (
            f"{leader!r}{same} wins: luck does not explain its profit{beyond} ({luck}), and "
            f"{beaten}."
        )
        names = (leader,) if closest is None else (leader, closest)
    return Verdict(
        kind="tie" if told.near else "winner",
        names=names,
        sentence=sentence + note,
        trials=count,
        probability=least,
        p_value=p,
    )


def _note(
    trades: Mapping[str, TradeColumns],
    scores: Mapping[str, float],
    judged: Iterable[str],
    span: Span,
    asked: Mapping[str, int],
) -> str:
    """Return a remark on the best strategy that is not judged, if it beats all of `judged`."""
    lead = max(scores[name] for name in judged)
    reasons = {n: why_not_judged(trades[n], span, asked.get(n, 0)) for n in scores}
    better = [
        name
        for name, score in scores.items()
        if score > lead and reasons[name] in ("too few trades", "too short")
    ]
    if not better:
        return ""
    top = max(better, key=scores.__getitem__)
    each = trades[top]
    if each.count < MIN_TRADES:
        return f" {top!r} scores higher, but over {_counted(each.count, 'trade')} only."
    why = "its interval is" if asked.get(top, 0) > longest_holding(each) else "it held for"
    length = _duration(max(longest_holding(each), asked.get(top, 0)))
    return f" {top!r} scores higher, but {why} {length}, too long to judge it by this walk."


def _why_too_short(trades: TradeColumns, name: str, asked: Mapping[str, int]) -> str:
    held, interval = longest_holding(trades), asked.get(name, 0)
    if interval > held:
        return f"{name!r} is asked every {_duration(interval)}"
    return f"{name!r} held a position for {_duration(held)}"


def _out_of(family: Family, count: int) -> str:
    """Return out of how many trials, and of how many of them only the number is known."""
    unknown = family.test.unknown_trials
    of_these = f", of {unknown:,} of which only the number is known" if unknown else ""
    return f" out of {_counted(count, 'trial')}{of_these}"


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:MOST_NAMES]]
    left = len(names) - len(shown)
    if len(names) == 1:
        return shown[0]
    last = f"{left} more" if left else shown.pop()
    return f"{', '.join(shown)} and {last}"


def p_text(p: float) -> str:
    """Return a p-value as a sentence has it."""
    return "p below 0.001" if p < 0.001 else f"p = {_digits(p, SIGNIFICANCE)}"


def _rounded(probability: float) -> str:
    """Return the probability of beating another to three digits, without claiming certainty."""
    if probability > 0.999:
        return "above 0.999"
    return "below 0.001" if probability < 0.001 else _digits(probability, BEATS)


def _digits(value: float, limit: float) -> str:
    """Return three digits, or as many more as show on which side of the limit a value is."""
    digits = 3
    while digits < _MOST_DIGITS and _crosses(round(value, digits), value, limit):
        digits += 1
    return f"{value:.{digits}f}"


def _crosses(shown: float, value: float, limit: float) -> bool:
    return (shown <= limit) != (value <= limit) or (shown < limit) != (value < limit)


def _duration(length: int) -> str:
    minutes = length / MINUTE
    for size, unit in ((1440, "days"), (60, "hours")):
        if minutes >= 2 * size:
            return f"{minutes / size:.3g} {unit}"
    return f"{minutes:.3g} minutes"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

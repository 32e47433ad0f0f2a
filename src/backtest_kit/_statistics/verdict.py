"""The verdict of a comparison: does one strategy stand out, and is that more than luck?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy.typing as npt

from backtest_kit._statistics.bootstrap import check_metric, estimate, periods
from backtest_kit._statistics.deflation import deflated_sharpes
from backtest_kit._statistics.inference import DRAWS, resampled_metrics, share_above
from backtest_kit._statistics.overfitting import MIN_TRADES, checked, seeded
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.errors import ArgumentError

Kind = Literal["too few trades", "noise", "tie", "winner"]

#: A deflated Sharpe ratio of at least this is not noise; a probability of at least this is a win.
CONFIDENCE: Final = 0.95
#: How many names a sentence lists before it says "and 3 more".
MOST_NAMES: Final = 5


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of strategies amounts to, in one plain English sentence.

    `names` are the strategies that the sentence is about, the leader first; in a tie, all that the
    leader does not beat. `probability` is the lowest probability with which the leader beats one of
    the others; `None` if there is no other, or if it is not defined. `deflated_sharpe` is the
    leader's.
    """

    kind: Kind
    names: tuple[str, ...]
    sentence: str
    trials: int
    probability: float | None = None
    deflated_sharpe: float | None = None


class _Candidates(msgspec.Struct, frozen=True):
    """The strategies that are compared: trades, metrics and deflated Sharpe ratios by name."""

    trades: Mapping[str, Floats]
    scores: Mapping[str, float]
    deflated: Mapping[str, float]
    trials: int

    @property
    def judged(self) -> list[str]:
        """Those that have both a metric and a deflated Sharpe ratio."""
        return [name for name in self.trades if name in self.deflated and name in self.scores]

    @property
    def passed(self) -> list[str]:
        """Those whose deflated Sharpe ratio noise would not explain."""
        return [name for name in self.judged if self.deflated[name] >= CONFIDENCE]

    @property
    def leader(self) -> str:
        """The one with the best metric of those that passed, or of all where none did."""
        return max(self.passed or self.judged, key=self.scores.__getitem__)

    def level(self, name: str) -> str:
        """Return a strategy's deflated Sharpe ratio in words."""
        return f"{_rounded(self.deflated[name])} over {_counted(self.trials, 'trial')}"

    def note(self) -> str:
        """Return a remark on the best strategy with too few trades, if it beats the leader."""
        lead = self.scores[self.leader]
        short = [
            name
            for name, score in self.scores.items()
            if len(self.trades[name]) < MIN_TRADES and score > lead
        ]
        if not short:
            return ""
        top = max(short, key=self.scores.__getitem__)
        return f" {top!r} scores higher, but over {_counted(len(self.trades[top]), 'trade')} only."


def verdict(
    trades: Mapping[str, npt.ArrayLike],
    *,
    seed: int,
    metric: str = "sharpe_ratio",
    trials: int | None = None,
    span: tuple[int, int] | None = None,
    closed_at: Mapping[str, Ints] | None = None,
    draws: int = DRAWS,
) -> Verdict:
    """Return whether one of the strategies stands out, and from which others.

    `trades` has the trades of each strategy by name; `trials` is how many strategies were tried in
    all, including those that failed or were discarded (at least, and by default, as many as given).

    - "too few trades": none has `MIN_TRADES`. A strategy that has fewer is never judged; if its
      metric is better than the leader's, the sentence says so.
    - "noise": no deflated Sharpe ratio reaches `CONFIDENCE`. Luck is judged by the Sharpe ratio
      of the trades whatever the metric, because its distribution under luck is known. The threshold
      is strict: among 100 independent strategies without skill, one passes in far fewer than 5 %
      of cases, and a small edge does not pass either.
    - "tie": the leader, the one with the best metric of those that pass, does not beat every
      other that passes with a probability of `CONFIDENCE` (`probability_best_beats_second`, over
      time if `closed_at` and `span` are given).
    - "winner": it does, or no other passes. A strategy that noise would explain can still come
      close to it, and is then named.

    The deflated Sharpe ratios are those of `deflated_sharpes`.

    Raises:
        ArgumentError: as `probability_best_beats_second`; `trials` is below the number given.
    """
    rows = {name: checked(r, name) for name, r in trades.items()}
    scale = check_metric(metric, span, draws)
    seeded(seed)
    count = len(rows) if trials is None else trials
    if count < len(rows):
        raise ArgumentError(f"trials must be at least the {len(rows)} strategies given: {trials}")
    if not any(len(r) >= MIN_TRADES for r in rows.values()):
        return _too_few(rows, count)
    estimates = {name: estimate(r, metric, scale) for name, r in rows.items()}
    scores = {name: value for name, value in estimates.items() if value is not None}
    candidates = _Candidates(rows, scores, deflated_sharpes(rows, count), count)
    if not candidates.judged:
        sentence = f"Nothing here that noise would not explain: no {metric} that varies."
        return Verdict(kind="noise", names=(), sentence=sentence, trials=count)
    if not candidates.passed:
        return _noise(candidates)
    leader = candidates.leader
    names = [leader, *(name for name in candidates.judged if name != leader)]
    if len(names) == 1:
        return _unopposed(candidates)
    compared = [rows[name] for name in names]
    times = None if closed_at is None else [closed_at[name] for name in names]
    parts = None if times is None else periods(compared, times, span)
    resampled = resampled_metrics(compared, parts, metric, scale, seed, draws)
    leading = next(resampled)
    wins = {
        name: share_above(leading, other) for name, other in zip(names[1:], resampled, strict=True)
    }
    return _compared(candidates, wins)


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


def _noise(candidates: _Candidates) -> Verdict:
    """Return the verdict where no strategy passes."""
    likeliest = max(candidates.judged, key=candidates.deflated.__getitem__)
    return Verdict(
        kind="noise",
        names=(likeliest,),
        sentence="Nothing here that noise would not explain: the highest deflated Sharpe, of "
        f"{likeliest!r}, is {candidates.level(likeliest)}, and it takes {CONFIDENCE}."
        f"{candidates.note()}",
        trials=candidates.trials,
        deflated_sharpe=candidates.deflated[likeliest],
    )


def _unopposed(candidates: _Candidates) -> Verdict:
    """Return the verdict where the leader passes and there is no other to compare it with."""
    leader = candidates.leader
    return Verdict(
        kind="winner",
        names=(leader,),
        sentence=f"{leader!r} has no other to beat, and its deflated Sharpe is "
        f"{candidates.level(leader)}.{candidates.note()}",
        trials=candidates.trials,
        deflated_sharpe=candidates.deflated[leader],
    )


def _compared(candidates: _Candidates, wins: Mapping[str, float | None]) -> Verdict:
    """Return the verdict on a leader that passes.

    `wins` has the probability with which it beats each of the others; `None` if not defined.
    """
    leader, passed, scores = candidates.leader, candidates.passed, candidates.scores
    near = [name for name, win in wins.items() if win is None or win < CONFIDENCE]
    equals = sorted((name for name in near if name in passed), key=scores.__getitem__, reverse=True)
    # a comparison that can't be made counts as a tie, but is named only if there is no other
    closest = min(wins, key=lambda x: (2.0 if (win := wins[x]) is None else win, -scores[x]))
    least = wins[closest]
    odds = "an unknown probability" if least is None else f"probability {_rounded(least)}"
    luck, note = f"deflated Sharpe is {candidates.level(leader)}", candidates.note()
    if equals:
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
        trials=candidates.trials,
        probability=least,
        deflated_sharpe=candidates.deflated[leader],
    )


def _listed(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:MOST_NAMES]]
    left = len(names) - len(shown)
    last = f"{left} more" if left else shown.pop()
    return f"{', '.join(shown)} and {last}"


def _rounded(probability: float) -> str:
    """Return a probability to three digits, without claiming certainty."""
    if probability > 0.999:
        return "above 0.999"
    return "below 0.001" if probability < 0.001 else f"{probability:.3f}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

"""Test windows put together, one after another: their figures, and what they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from backtest_kit._statistics.bins import rare_loss
from backtest_kit._statistics.choosing import (
    Choice,
    Source,
    Trades,
    columns_of,
    in_test,
    together,
)
from backtest_kit._statistics.family import family_test
from backtest_kit._statistics.figures import Statistics, metric, summarize
from backtest_kit._statistics.inference import ConfidenceInterval, bootstrap_interval
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.verdict import SIGNIFICANCE, verdict
from backtest_kit._values.windows import Window

#: What test windows amount to.
Outcome = Literal["stood aside", "too few trades", "too short", "noise", "earned"]
_ONE: Final = "walk-forward"


class Judged(NamedTuple):
    """The trades of a choice in its test window.

    `overlapping` ones, which opened while a trade of a test window before was open, are left out.
    """

    trades: Trades
    overlapping: int


class Stitched(msgspec.Struct, frozen=True, kw_only=True):
    """Test windows stitched together.

    `in_sample` is the mean of the chosen strategies' metric in their train windows,
    `out_of_sample` that of the stitched trades, with its 95 % bootstrap `interval`. `efficiency` is
    profit a day out of sample over profit a day in sample (Pardo, 2008, "The Evaluation and
    Optimization of Trading Strategies"): the days of test windows in which it `stood_aside` count,
    with no profit. All are `None` for fewer than 30 trades, and `efficiency` also where the
    choices lost in sample. `p_value` is that of the stitched trades in the test of the walk's own
    sentence, as one trial; "earned" takes 0.05.
    """

    in_sample: float | None
    out_of_sample: float | None
    interval: ConfidenceInterval | None
    efficiency: float | None
    statistics: Statistics
    stood_aside: int = 0
    outcome: Outcome = "too few trades"
    p_value: float | None = None
    sentence: str = ""


class Chain:
    """Test windows one after another, in order of time, in each of which a choice is judged."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._busy: dict[int, int] = {}
        self._parts: list[Trades] = []

    def look(self, choice: Choice, window: Window) -> Judged:
        """Return the trades of a choice in a test window, without trading it."""
        trades = self._source(choice.trial, [window])
        inside = in_test(trades, window)
        busy = np.array([self._busy.get(at, 0) for at in trades.symbol.tolist()], dtype=np.int64)
        free = inside & (trades.opened >= busy)
        return Judged(trades.at(free), int(inside.sum() - free.sum()))

    def trade(self, choice: Choice, window: Window) -> Judged:
        """Return the same, and add them to what is stitched together."""
        judged = self.look(choice, window)
        for at, end in zip(
            judged.trades.symbol.tolist(), judged.trades.closed.tolist(), strict=True
        ):
            self._busy[at] = max(self._busy.get(at, 0), end)
        self._parts.append(judged.trades)
        return judged

    def trades(self) -> Trades:
        """Return all trades so far, in the order of closing."""
        return together(self._parts)


def stitch(
    trades: Trades,
    choices: Sequence[Choice | None],
    windows: Sequence[tuple[Window, Window]],
    name: str,
    seed: int,
) -> Stitched:
    """Return what the stitched trades amount to.

    `choices` were made in the first of each two `windows`, and traded in the second, unless they
    are `None` or stand aside.
    """
    between = (windows[0][1].since, windows[-1][1].until)
    statistics = summarize(trades.r, trades.opened, trades.closed, between)
    traded = [
        (choice, train)
        for choice, (train, _) in zip(choices, windows, strict=True)
        if choice is not None and choice.aside is None
    ]
    aside = len(windows) - len(traded)
    enough = len(trades.r) >= MIN_TRADES
    interval = max((choice.trial.interval for choice in choices if choice is not None), default=0)
    outcome, p_value, sentence = conclude(trades, between, aside, len(windows), seed, interval)
    values = [choice.value for choice, _ in traded]
    inside = [float(choice.trades.r.sum()) / train.length for choice, train in traded]
    outside = float(trades.r.sum()) / sum(test.length for _, test in windows)
    rate = float(np.mean(inside)) if inside else 0.0
    return Stitched(
        in_sample=float(np.mean(values)) if values else None,
        out_of_sample=metric(statistics, name) if enough else None,
        interval=bootstrap_interval(trades.r, name, seed=seed, span=between) if enough else None,
        efficiency=outside / rate if enough and rate > 0 else None,
        statistics=statistics,
        stood_aside=aside,
        outcome=outcome,
        p_value=p_value,
        sentence=sentence,
    )


def conclude(
    trades: Trades,
    span: tuple[int, int],
    aside: int,
    windows: int,
    seed: int,
    interval: int = 0,
) -> tuple[Outcome, float | None, str]:
    """Return what stitched trades amount to, with which p-value, and in a sentence.

    They are one series that nobody has chosen, so they are judged as one trial, against 0.
    `interval` is the longest at which one of the strategies is asked, in ms.
    """
    count = len(trades.r)
    tail = f" It stood aside in {aside} of {windows} test windows." if aside else ""
    if aside == windows:
        text = f"Walking forward never traded: none of {windows} train windows had a strategy"
        return "stood aside", None, f"{text} worth choosing."
    if count < MIN_TRADES:
        text = f"Too few trades out of sample to say anything: {count}, and it takes {MIN_TRADES}."
        return "too few trades", None, text + tail
    one = {_ONE: columns_of(trades)}
    family = family_test(one, span, seed=seed, interval=interval)
    found = verdict(one, family, span, seed=seed)
    mean = f"{float(trades.r.mean()):+.3f} % a trade over {count:,}"
    odds = "nothing can be tested" if found.p_value is None else f"p = {_rounded(found.p_value)}"
    if found.kind == "too short":
        text = f"Too short a time out of sample to say anything: {mean} trades."
        return "too short", found.p_value, text + tail
    if found.kind == "winner":
        text = f"Walking forward earned more than luck would explain: {mean} trades, {odds}."
        return "earned", found.p_value, text + tail
    text = f"Walking forward earned nothing that luck would not explain: {mean} trades, {odds}"
    text = f"{text}, and it takes {SIGNIFICANCE}."
    if found.rare_loss and family is not None:
        text += (
            f" It has hardly lost: that one more of its trades may lose {rare_loss(one[_ONE]):.3g} "
            f"% decides; without it, p = {_rounded(family.without_loss[_ONE])}."
        )
    return "noise", found.p_value, text + tail


def _rounded(probability: float) -> str:
    if probability > 0.999:
        return "above 0.999"
    return "below 0.001" if probability < 0.001 else f"{probability:.3f}"

"""Test windows put together, one after another: their figures, and what they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from backtest_kit._arrays.brackets import Brackets
from backtest_kit._statistics.against import Against, Entered
from backtest_kit._statistics.bins import rare_loss
from backtest_kit._statistics.choosing import Choice, Source, in_test
from backtest_kit._statistics.family import BenchmarkBins, family_test
from backtest_kit._statistics.figures import Statistics, metric, summarize
from backtest_kit._statistics.inference import ConfidenceInterval, bootstrap_interval
from backtest_kit._statistics.overfitting import MIN_TRADES
from backtest_kit._statistics.trades import Trades, all_trades, together
from backtest_kit._statistics.verdict import BEYOND, SIGNIFICANCE, p_text, verdict
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.schemas import Benchmark
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
    sentence, as one trial, against the `benchmark`; "earned" takes 0.05.
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
    benchmark: Benchmark = 0


class Chain:
    """Test windows one after another, in order of time, in each of which a choice is judged."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._busy: dict[int, int] = {}
        #: What was traded, window by window.
        self.entered: list[Entered] = []

    def look(self, choice: Choice, window: Window) -> Judged:
        """Return the trades of a choice in a test window, without trading it."""
        trades = self._source.one(choice.number, window)
        inside = in_test(trades, window)
        busy = np.array([self._busy.get(at, 0) for at in trades.symbol.tolist()], dtype=np.int64)
        free = inside & (trades.opened >= busy)
        return Judged(trades.at(free), int(inside.sum() - free.sum()))

    def trade(self, choice: Choice, window: Window) -> Judged:
        """Return the same, and add them to what is stitched together."""
        judged = self.look(choice, window)
        trades = judged.trades
        for at, end in zip(trades.symbol.tolist(), trades.closed.tolist(), strict=True):
            self._busy[at] = max(self._busy.get(at, 0), end)
        brackets = self._source.brackets(choice.number, [window])
        if brackets.count:  # none in results of an earlier release
            brackets = brackets.at(trades.row)
        self.entered.append(Entered(window, trades, brackets))
        return judged

    def trades(self) -> Trades:
        """Return all trades so far, in the order of closing, as those of one strategy."""
        parts = [part.trades for part in self.entered]
        return together([part._replace(of=np.zeros_like(part.of)) for part in parts])


def stitch(
    chain: Chain,
    choices: Sequence[Choice | None],
    windows: Sequence[tuple[Window, Window]],
    name: str,
    seed: int,
    against: Against | None = None,
) -> Stitched:
    """Return what the trades of a chain amount to.

    `choices` were made in the first of each two `windows`, and traded in the second, unless they
    are `None` or stand aside. `against` what they are tested, if not 0.
    """
    trades = chain.trades()
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
    benchmark: Benchmark = 0 if against is None else against.benchmark

    def taken(name: str, edges: Ints) -> Floats:
        assert against is not None
        if benchmark == "hold":  # all the time, also where nothing was traded
            return against.held([Window(*between)], edges)
        return against.entered(_in_order(chain.entered, windows), edges)

    outcome, p_value, sentence = conclude(
        *(trades, between, aside, len(windows), seed, interval),
        benchmark,
        None if benchmark == 0 else taken,
    )
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
        benchmark=benchmark,
    )


def _in_order(
    entered: Sequence[Entered], windows: Sequence[tuple[Window, Window]]
) -> list[Entered]:
    """Return what was entered in each test window, and nothing where it stood aside."""
    known = {part.window: part for part in entered}
    none = all_trades([])
    return [known.get(test, Entered(test, none, Brackets())) for _, test in windows]


def conclude(
    trades: Trades,
    span: tuple[int, int],
    aside: int,
    windows: int,
    seed: int,
    interval: int = 0,
    benchmark: Benchmark = 0,
    benchmark_bins: BenchmarkBins | None = None,
) -> tuple[Outcome, float | None, str]:
    """Return what stitched trades amount to, with which p-value, and in a sentence.

    They are one series that nobody has chosen, so they are judged as one trial, against the
    benchmark. `interval` is the longest at which one of the strategies is asked, in ms.
    """
    count = len(trades.r)
    tail = f" It stood aside in {aside} of {windows} test windows." if aside else ""
    if aside == windows:
        text = f"Walking forward never traded: none of {windows} train windows had a strategy"
        return "stood aside", None, f"{text} worth choosing."
    if count < MIN_TRADES:
        text = f"Too few trades out of sample to say anything: {count}, and it takes {MIN_TRADES}."
        return "too few trades", None, text + tail
    one, beyond = {_ONE: trades.columns()}, BEYOND[benchmark]
    family = family_test(
        one,
        span,
        seed=seed,
        intervals={_ONE: interval},
        benchmark=benchmark,
        benchmark_bins=benchmark_bins,
    )
    found = verdict(one, family, span, seed=seed, intervals={_ONE: interval})
    mean = f"{float(trades.r.mean()):+.3f} % a trade over {count:,}"
    odds = "nothing can be tested" if found.p_value is None else p_text(found.p_value)
    if found.kind == "too short":
        text = f"Too short a time out of sample to say anything: {mean} trades."
        return "too short", found.p_value, text + tail
    if found.kind == "winner":
        text = (
            f"Walking forward earned more{beyond} than luck would explain: {mean} trades, {odds}."
        )
        return "earned", found.p_value, text + tail
    text = f"Walking forward earned nothing{beyond} that luck would not explain: {mean} trades"
    text = f"{text}, {odds}, and it takes {SIGNIFICANCE}."
    if found.rare_loss and family is not None:
        text += (
            f" It has hardly lost: that one more of its trades may lose {rare_loss(one[_ONE]):.3g} "
            f"% decides; without it, {p_text(family.without_loss[_ONE])}."
        )
    return "noise", found.p_value, text + tail

"""Which strategies of a window are worth choosing: what the walk's own sentence would name."""

import functools
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._arrays.brackets import Brackets
from backtest_kit._rules.bars import Bars
from backtest_kit._statistics.against import Against, Entered
from backtest_kit._statistics.benchmarks import Market, hold_profits, random_profits, random_row
from backtest_kit._statistics.choosing import Candidates, WholeRuns, in_train
from backtest_kit._statistics.family import family_test
from backtest_kit._statistics.figures import METRICS, metric_of
from backtest_kit._statistics.ranking import rank
from backtest_kit._statistics.trades import all_trades, metrics
from backtest_kit._statistics.trial_result import OtherTrial, TradeColumns
from backtest_kit._statistics.verdict import verdict
from backtest_kit._statistics.worth import worth_choosing
from backtest_kit._values.config import Config
from backtest_kit._values.schemas import WalkerSchema
from backtest_kit._values.windows import Window
from effort import examples
from trials import DAY, HOUR, trial

DAYS = 60


def market(days=DAYS, rise=0.5, seed=5):
    """Hourly candles of a market that rises by so many percent a day, more or less."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(rise / 2400, 0.003, days * 24 + 48)
    close = 100 * np.exp(np.cumsum(moves))
    high, low = close * 1.001, close * 0.999
    bars = Bars(0, close, close, close, high, low, step=HOUR)
    costs = {"percent_fee": 0.0, "percent_slippage": 0.0}
    config = Config(base_interval="1h", require_stop_loss=False, **costs)
    return Market(bars, range(HOUR, (days + 1) * DAY, HOUR), config)


def by_the_sentence(trials, windows, tested, seed, others=(), unknown=0, **more):
    """The same from the verdict on the trades of a window, strategy by strategy."""
    moved = {}
    for one in (*trials, *others):
        t = all_trades([one.trades])
        inside, _ = in_train(t, windows, tested)
        begun, opened = windows[0].since, t.opened.copy()
        for window in windows:  # as if nothing lay between
            here = (t.opened >= window.since) & (t.opened < window.until)
            opened[here] = t.opened[here] - window.since + begun
            begun += window.length
        closed = opened + t.closed - t.opened
        kept = np.flatnonzero(inside)
        moved[id(one)] = TradeColumns.of(t.r[kept], opened[kept], closed[kept])
    span = windows[0].since, windows[0].since + sum(w.length for w in windows)
    of = {one.strategy_name: moved[id(one)] for one in trials}
    of = {name: each for name, each in of.items() if each.count >= 30}
    known = [moved[id(one)] for one in others]
    family = family_test(of, span, seed=seed, others=known, unknown=unknown, **more)
    told = verdict(of, family, span, seed=seed, metric="avg_pnl")
    return {"tie": set(told.names), "winner": set(told.names[:1])}.get(told.kind, set())


def chosen(trials, windows, tested, seed, **more):
    source = WholeRuns(trials)
    trades = source.all(windows)
    known = trades.at(in_train(trades, windows, tested)[0])
    numbers = np.flatnonzero(np.bincount(known.of, minlength=len(trials)) >= 30)
    known = known.at(np.isin(known.of, numbers))
    given = Candidates(source, windows, tested, numbers, known)
    worth = worth_choosing("avg_pnl", seed, **more)(given)
    return {source.trials[i].strategy_name for i in numbers[worth].tolist()}


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    edges = rng.choice([0.0, 0.0, 0.2, 0.4], draw(st.integers(1, 6)))
    trials = [
        trial(f"s{rng.integers(10**9)}", int(rng.integers(10**9)), rate=8, edge=edge)
        for edge in edges
    ]
    others = [
        trial("o", int(rng.integers(10**9)), rate=int(rng.integers(2, 9)))
        for _ in range(draw(st.integers(0, 3)))
    ]
    first, middle, last = np.sort(rng.choice(np.arange(0, DAYS + 1, 4), 3, replace=False)) * DAY
    windows = [Window(int(first), int(middle)), Window(int(middle + DAY), int(last))]
    windows = windows if draw(st.booleans()) else windows[:1]
    return trials, others, windows, draw(st.sampled_from([0, 0, 5, 500]))


@examples(40)
@given(cases())
def test_it_is_what_the_sentence_on_the_window_names(case):
    trials, others, windows, unknown = case
    stored = [OtherTrial(one.trades, 0, DAYS * DAY) for one in others]
    enough = [one for one in others if _judged(one, windows)]
    expected = by_the_sentence(trials, windows, [], 3, enough, unknown)
    assert chosen(trials, windows, [], 3, others=stored, unknown=unknown) == expected
    shuffled = trials[::-1]
    assert chosen(shuffled, windows, [], 3, others=stored, unknown=unknown) == expected


def _judged(one, windows):
    t = all_trades([one.trades])
    return in_train(t, windows)[0].sum() >= 30


def test_overlapping_trades_are_worth_less_as_they_are_in_the_sentence():
    """Of strategies whose trades all overlap, too many would seem worth it without that."""
    named = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        of = []
        for i in range(4):
            opened = np.sort(rng.integers(0, 39 * 24, 400)) * HOUR
            r = rng.normal(0.13 + 0.05 * (i == 0), 1, 400)
            columns = TradeColumns.of(r, opened, opened + DAY)
            of.append(msgspec.structs.replace(trial(f"s{i}", i), trades=columns))
        window = [Window(0, 40 * DAY)]
        found = chosen(of, window, [], 1)
        assert found == by_the_sentence(of, window, [], 1)
        named += bool(found)
    assert 0 < named < 12, "near the threshold"


def test_a_stored_trial_counts_by_its_trades_there_and_else_by_its_number():
    """Copies in the ledger cost nothing; as many numbers do."""
    good = trial("good", 11, rate=8, edge=0.24)
    window = [Window(0, 40 * DAY)]
    copies = [OtherTrial(good.trades, 0, DAYS * DAY)] * 300
    assert chosen([good], window, [], 1) == {"good"}
    assert chosen([good], window, [], 1, others=copies) == {"good"}
    assert chosen([good], window, [], 1, unknown=300) == set()
    apart = [trial("o", i, rate=8) for i in range(300)]
    assert chosen([good], window, [], 1, others=_stored(apart, 0)) == set()
    # of what began later too little is known there, and of what did not trade there nothing is
    late = [
        TradeColumns.of(t.r, t.opened_at + 40 * DAY, t.closed_at + 40 * DAY) for t in _of(apart)
    ]
    assert chosen([good], window, [], 1, others=[OtherTrial(t, 0, 90 * DAY) for t in late]) == {
        "good"
    }
    partly = [OtherTrial(t, 40 * DAY, 90 * DAY) for t in late]
    assert chosen([good], window, [], 1, others=partly) == set()


def _of(trials):
    return [one.trades for one in trials]


def _stored(trials, since):
    return [OtherTrial(one.trades, since, DAYS * DAY) for one in trials]


def test_the_walk_s_benchmark_is_that_of_the_window():
    """Holding a market that rises: what only rises with it is not worth choosing."""
    one = market()
    trials, window = [passive(one), passive(one, extra=0.3)], [Window(0, 40 * DAY)]
    against = Against("hold", [one], 1)
    assert chosen(trials[:1], window, [], 1) == {"passive"}
    assert chosen(trials[:1], window, [], 1, against=against) == set()
    found = chosen(trials, window, [], 1, against=against)

    def held(name, edges):
        return hold_profits(one._replace(timeline=range(HOUR, 40 * DAY, HOUR)), edges)

    expected = by_the_sentence(trials, window, [], 1, benchmark="hold", benchmark_bins=held)
    assert found == expected == {"with an edge"}
    # a stored trial that holds as well is no more than holding
    stored = [OtherTrial(trials[0].trades, 0, DAYS * DAY)] * 300
    assert chosen(trials, window, [], 1, against=against, others=stored) == {"with an edge"}


def passive(market, extra=0.0):
    """Long for 6 hours, as often as it goes: what the market makes, and something more."""
    opened = HOUR + np.arange(DAYS * 4) * 6 * HOUR
    price = market.bars.fill
    rows = (opened - market.bars.first) // HOUR
    r = (price[rows + 6] / price[rows] - 1) * 100 + extra
    columns = TradeColumns.of(r, opened, opened + 6 * HOUR)
    brackets = Brackets.of(np.ones(len(r)), {"minutes": np.full(len(r), 360.0)})
    name = "with an edge" if extra else "passive"
    plain = trial(name, 1)
    return msgspec.structs.replace(plain, trades=columns, brackets=brackets)


def test_random_entries_in_a_window_are_those_of_its_trades_there():
    one = market()
    found = passive(one)
    against = Against("random", [one], 1, draws=2)
    assert chosen([found], [Window(0, 40 * DAY)], [], 1, against=against) == set()
    better = passive(one, extra=0.3)
    assert chosen([better], [Window(0, 40 * DAY)], [], 1, against=against) == {"with an edge"}


@examples(8)
@given(st.integers(0, 2**32), st.integers(1, 50))
def test_bins_of_windows_add_up_to_holding_each_window(seed, count):
    one = market()
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(np.arange(DAYS * 24), 4, replace=False)) * HOUR + HOUR
    windows = [Window(*cuts[:2].tolist()), Window(*cuts[2:].tolist())]
    begin, length = windows[0].since, sum(window.length for window in windows)
    edges = begin + np.arange(count + 1) * length // count
    against = Against("hold", [one], 1)
    bins = against.held(windows, edges)
    each = [against.held([window], np.array([window.since, window.until])) for window in windows]
    assert bins.sum() == pytest.approx(float(np.sum(each)))
    price = one.bars.fill
    first = (price[(windows[0].until - HOUR) // HOUR] / price[windows[0].since // HOUR] - 1) * 100
    assert each[0][0] == pytest.approx(first)
    trades = all_trades([passive(one).trades])
    brackets = passive(one).brackets
    parts = []
    for window in windows:
        here = np.flatnonzero((trades.opened >= window.since) & (trades.opened < window.until))
        parts.append(Entered(window, trades.at(here), brackets.at(here)))
    drawn = against._replace(draws=1).entered(parts, edges)
    alone = [
        random_profits(
            [one.within(part.window)],
            part.trades.symbol,
            part.trades.closed - part.trades.opened,
            part.brackets,
            np.array([part.window.since, part.window.until]),
            1,
            1,
        ).sum()
        for part in parts
        if len(part.trades.r)
    ]
    assert drawn.sum() == pytest.approx(float(np.sum(alone)))


def test_the_row_of_random_entries_says_of_how_many_draws_it_is_if_few():
    one, whole = market(), passive(market())
    t = whole.trades
    few = TradeColumns.of(t.r[:5], t.opened_at[:5], t.closed_at[:5])
    best = msgspec.structs.replace(whole, trades=few, brackets=whole.brackets.at(np.arange(5)))
    names = [random_row([one], best, "avg_pnl", 1, draws).name for draws in (20, 200)]
    assert names == ["random entries (20 draws)", "random entries"]


@pytest.mark.parametrize("benchmark", ["hold", "random"])
def test_the_stitched_sentence_names_the_benchmark_or_says_why_not(benchmark, monkeypatch):
    few = functools.partial(Against, draws=1)
    monkeypatch.setattr("backtest_kit._statistics.over_windows.Against", few)
    one = market()
    trials = [passive(one, extra=0.3)]
    windows = bk.Windows(train=timedelta(days=20), test=timedelta(days=10))
    schema = WalkerSchema(
        walker_name="w",
        exchange_name="e",
        frame_name="f",
        strategies=["with an edge"],
        metric="avg_pnl",
        windows=windows,
        benchmark=benchmark,
    )
    line = range(0, DAYS * DAY, HOUR)
    words = {"hold": "buying and holding", "random": "random entries with the same exits"}

    def bins(name, edges):
        return np.zeros(len(edges) - 1)

    found = rank(schema, ("X",), trials, timeline=line, benchmark_bins=bins, markets=[one])
    forward = found.walk_forward
    assert forward.outcome == "earned"
    assert forward.benchmark == benchmark
    assert f"earned more beyond {words[benchmark]} than luck would explain" in forward.sentence
    without = rank(schema, ("X",), trials, timeline=line)
    assert without.walk_forward.benchmark == 0
    said = f"Tested against 0: no candles for the benchmark '{benchmark}'."
    assert without.walk_forward.sentence.endswith(said)
    assert without.verdict.sentence.endswith(said)
    unknown = [msgspec.structs.replace(each, brackets=Brackets()) for each in trials]
    earlier = rank(schema, ("X",), unknown, timeline=line, benchmark_bins=bins, markets=[one])
    for sentence in (earlier.verdict.sentence, earlier.walk_forward.sentence):
        assert ("how the trades were meant to end is not known" in sentence) == (
            benchmark == "random"
        )
    only_holds = rank(
        schema, ("X",), [passive(one)], timeline=line, benchmark_bins=bins, markets=[one]
    )
    assert only_holds.walk_forward.outcome in ("stood aside", "noise")


def test_a_metric_of_all_strategies_at_once_is_that_of_each():
    of = [trial(f"s{i}", i, rate=5).trades for i in range(6)] + [TradeColumns.of([], [], [])]
    of.append(TradeColumns.of(np.full(40, 0.1), np.arange(40), np.arange(1, 41)))
    span = (0, DAYS * DAY)
    for name in METRICS:
        found = metrics(all_trades(of), len(of), name, span)
        for value, each in zip(found.tolist(), of, strict=True):
            exact = metric_of(each.r, name, span)
            assert (exact is None and np.isnan(value)) or exact == pytest.approx(value, rel=1e-9)

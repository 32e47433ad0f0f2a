"""Walk-forward: no choice knows what comes after it, and the sums are those of plain loops."""

import itertools
import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._statistics.choosing import WholeRuns, choose
from backtest_kit._statistics.figures import METRICS, metric, summarize
from backtest_kit._statistics.trial_result import TradeColumns, TrialResult
from backtest_kit._statistics.walk_forward import walk_forward
from backtest_kit._statistics.worth import worth_choosing
from backtest_kit._values.windows import Window, Windows
from effort import examples
from trials import DAY, trial


@st.composite
def cases(draw):
    symbols = draw(st.integers(1, 2))
    trials = [
        trial(f"s{i}", draw(st.integers(0, 10**6)), rate=draw(st.integers(1, 8)), symbols=symbols)
        for i in range(draw(st.integers(1, 4)))
    ]
    windows = bk.Windows(
        train=timedelta(hours=draw(st.integers(24, 480))),
        test=timedelta(hours=draw(st.integers(24, 360))),
        embargo=timedelta(hours=draw(st.integers(0, 48))),
        anchored=draw(st.booleans()),
    )
    return trials, windows, draw(st.sampled_from(METRICS))


def plainly(trials, windows, name):
    """The same by loops over trades, from the words of the documentation."""
    day = timedelta(days=1)
    train, test, embargo = (
        round(length / day * DAY) for length in (windows.train, windows.test, windows.embargo)
    )
    busy, all_rows, told = {}, [], []
    step = 0
    while step * test + train + embargo + test <= 60 * DAY:
        begin = 0 if windows.anchored else step * test
        end = step * test + train
        first = end + embargo
        best = None
        for one in trials:
            t = one.trades
            every = list(zip(t.r, t.opened_at, t.closed_at, t.symbol, strict=True))
            mine = [row for row in every if begin <= row[1] < end and row[2] <= end]
            if len(mine) < 30:
                continue
            value = figure(mine, name, (begin, end))
            if value is not None and (best is None or value > best[0]):
                best = value, one.strategy_name, every, len(mine)
        if best is None:
            told.append((begin, end, first, None, None, 0, None, 0))
        else:
            value, chosen, every, count = best
            rows = [row for row in every if first <= row[1] < first + test]
            rows = [row for row in rows if row[1] >= busy.get(row[3], 0)]
            for row in rows:
                busy[row[3]] = max(busy.get(row[3], 0), row[2])
            outside = figure(rows, name, (first, first + test)) if len(rows) >= 30 else None
            told.append((begin, end, first, chosen, value, count, outside, len(rows)))
            all_rows += rows
        step += 1
    return told, all_rows


def figure(rows, name, span):
    r, opened, closed = (np.array([row[i] for row in rows]) for i in range(3))
    return metric(summarize(r, opened.astype(np.int64), closed.astype(np.int64), span), name)


@given(cases())
def test_it_equals_loops_over_trades(case):
    trials, windows, name = case
    told, rows = plainly(*case)
    spans = windows.spans(0, 60 * DAY)
    assert len(spans) == len(told)
    assume(spans)
    found = walk_forward(trials, spans, name, 1)
    assert [
        (
            *(w.train_since, w.train_until, w.test_since, w.strategy_name),
            *(w.in_sample, w.in_sample_trades, w.out_of_sample, w.out_of_sample_trades),
        )
        for w in found.windows
    ] == told
    assert found.statistics.total_signals == len(rows)
    if len(rows) < 30:
        assert found.out_of_sample is found.interval is found.efficiency is None
    elif found.interval is not None and name != "expected_yearly_returns":
        assert found.interval.lower <= found.out_of_sample <= found.interval.upper
    assert math.isclose(
        sum(w.out_of_sample_total for w in found.windows), sum(row[0] for row in rows), abs_tol=1e-9
    )


@given(cases(), st.integers(0, 10**6))
def test_no_choice_knows_what_comes_after_it(case, seed):
    trials, windows, name = case
    spans = windows.spans(0, 60 * DAY)
    assume(spans)
    cut = spans[len(spans) // 2].train_until
    rng = np.random.default_rng(seed)
    scrambled = []
    for one in trials:
        t = one.trades
        late = t.closed_at > cut
        r = np.where(late, rng.normal(0, 5, t.count), t.r)
        closed = np.where(late, t.closed_at + rng.integers(0, DAY, t.count), t.closed_at)
        order = np.argsort(closed, kind="stable")
        columns = (r[order], t.opened_at[order], closed[order], t.symbol[order])
        changed = TradeColumns(*(column.tobytes() for column in columns))
        scrambled.append(TrialResult(**(_fields(one) | {"trades": changed})))
    for before, after in zip(
        walk_forward(trials, spans, name, 1).windows,
        walk_forward(scrambled, spans, name, 1).windows,
        strict=True,
    ):
        if before.train_until <= cut:
            assert (before.strategy_name, before.in_sample) == (
                after.strategy_name,
                after.in_sample,
            )


def _fields(one):
    return {name: getattr(one, name) for name in one.__struct_fields__}


@given(cases())
def test_windows_follow_each_other(case):
    _, windows, _ = case
    spans = windows.spans(0, 60 * DAY)
    assume(spans)
    for a, b in itertools.pairwise(spans):
        assert a.test_until == b.test_since
    for span in spans:
        assert span.test_since - span.train_until == windows.embargo / timedelta(milliseconds=1)
        assert span.test_until <= 60 * DAY
        length = timedelta(milliseconds=span.train_until - span.train_since)
        assert span.train_since == 0 if windows.anchored else length == windows.train


def test_an_edge_that_lasts_is_found_and_one_that_ends_shows_out_of_sample():
    spans = Windows(train=timedelta(days=20), test=timedelta(days=10)).spans(0, 60 * DAY)
    noise = [trial(f"n{i}", i, rate=8) for i in range(5)]
    lasting = walk_forward([*noise, trial("good", 9, rate=8, edge=1)], spans, "avg_pnl", 1)
    assert {window.strategy_name for window in lasting.windows} == {"good"}
    assert lasting.interval.lower > 0.5
    assert 0.7 < lasting.efficiency < 1.4
    ending = trial("over", 9, rate=8, edge=1, until=20)
    (window, *_) = walk_forward([*noise, ending], spans, "avg_pnl", 1).windows
    assert window.strategy_name == "over"
    assert window.in_sample > 0.5
    assert window.out_of_sample < 0


@pytest.mark.parametrize("wrong", [{"train": 5}, {"test": timedelta(0)}, {"embargo": -DAY}])
def test_windows_that_are_none_are_refused(wrong):
    with pytest.raises(bk.RegistrationError, match=next(iter(wrong))):
        bk.Windows(**({"train": timedelta(days=1), "test": timedelta(days=1)} | wrong))


@examples(15)
@given(cases(), st.lists(st.booleans(), min_size=30, max_size=30), st.floats(-1, 1))
def test_it_stands_aside_where_nothing_is_worth_choosing(case, worthy, least):
    """And takes the best of what is, even where another has the better metric."""
    trials, windows, name = case
    spans = windows.spans(0, 60 * DAY)
    assume(spans)
    names = [one.strategy_name for one in trials]
    good = {
        span.train_since if not windows.anchored else span.train_until: frozenset(
            n for n, yes in zip(names, worthy[3 * i % 27 :], strict=False) if yes
        )
        for i, span in enumerate(spans)
    }

    def worth(given):
        known = good[given.span[1] if windows.anchored else given.span[0]]
        return np.array([given.source.trials[i].strategy_name in known for i in given.numbers])

    always = walk_forward(trials, spans, name, 1)
    found = walk_forward(trials, spans, name, 1, worth=worth)
    for span, window in zip(spans, found.windows, strict=True):
        key = span.train_until if windows.anchored else span.train_since
        alone = [one for one in trials if one.strategy_name in good[key]]
        (best,) = walk_forward(alone, [span], name, 1).windows if alone else (None,)
        if best is not None and best.strategy_name is not None:
            assert (window.aside, window.strategy_name) == (None, best.strategy_name)
        else:
            assert window.aside is not None
    traded = [window for window in found.windows if window.aside is None]
    assert found.stood_aside == len(spans) - len(traded)
    assert found.statistics.total_signals == sum(w.out_of_sample_trades for w in traded)
    if found.efficiency is not None:
        days = sum(w.test_until - w.test_since for w in found.windows)
        outside = sum(w.out_of_sample_total for w in traded) / days
        inside = [w.in_sample_total / (w.train_until - w.train_since) for w in traded]
        assert math.isclose(found.efficiency, outside / (sum(inside) / len(inside)), rel_tol=1e-6)
    above = walk_forward(trials, spans, name, 1, least=least)
    for one, other in zip(above.windows, always.windows, strict=True):
        assert one.strategy_name == other.strategy_name
        low = one.in_sample is not None and one.in_sample < least
        assert one.aside == ("below min_metric" if low else other.aside)
    assert (above.always is None) == all(w.aside != "below min_metric" for w in above.windows)


def test_the_sentence_claims_what_lasts_and_nothing_of_noise():
    spans = Windows(train=timedelta(days=20), test=timedelta(days=10)).spans(0, 60 * DAY)
    noise = [trial(f"n{i}", i, rate=8) for i in range(5)]
    lasting = walk_forward([*noise, trial("good", 9, rate=8, edge=1)], spans, "avg_pnl", 1)
    assert lasting.outcome == "earned"
    assert "earned more than luck would explain" in lasting.sentence
    assert walk_forward(noise, spans, "avg_pnl", 1).outcome == "noise"
    few = walk_forward([trial("few", 1, rate=2)], spans[:1], "avg_pnl", 1)
    assert few.outcome == "too few trades"
    aside = walk_forward(noise, spans, "avg_pnl", 1, least=1e9)
    assert aside.outcome == "stood aside"
    assert f"none of {len(spans)} train windows" in aside.sentence


def of(r, name="s", worst=np.nan, interval=0):
    """Trades one after another over 60 days, without stops."""
    opened = np.arange(len(r)) * (60 * DAY // len(r))
    columns = TradeColumns.of(r, opened, opened + DAY // 24, worst_loss=worst)
    return TrialResult(
        strategy_name=name, symbols=("X",), until=60 * DAY, trades=columns, interval=interval
    )


def test_the_worst_price_a_position_saw_is_not_forgotten_in_a_window():
    spans = Windows(train=timedelta(days=20), test=timedelta(days=10)).spans(0, 60 * DAY)
    r = np.random.default_rng(1).normal(0.5, 0.5, 600)
    assert walk_forward([of(r)], spans, "avg_pnl", 1).outcome == "earned"
    held = walk_forward([of(r, worst=500.0)], spans, "avg_pnl", 1)
    assert held.outcome == "noise"
    assert "one more of its trades may lose 500 % decides; without it, p below" in held.sentence


def test_a_window_is_judged_by_the_interval_and_the_trials_of_the_walk():
    spans = Windows(train=timedelta(days=20), test=timedelta(days=10)).spans(0, 60 * DAY)
    r = np.random.default_rng(1).normal(0.5, 0.5, 600)
    assert walk_forward([of(r, interval=20 * DAY)], spans, "avg_pnl", 1).outcome == "too short"
    for interval, unknown in ((0, 0), (20 * DAY, 0), (0, 10**6)):
        one = [of(r - 0.4, interval=interval)]
        worth = worth_choosing("avg_pnl", 1, unknown=unknown)
        chosen = choose(
            WholeRuns(one), [Window(0, 60 * DAY)], [], "avg_pnl", worth=worth, least=None
        )
        assert (chosen.aside is None) == (interval == unknown == 0)

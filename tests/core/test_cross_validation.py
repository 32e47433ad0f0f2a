"""Cross-validation: what is judged has not been chosen by, and paths are those of plain loops."""

from datetime import timedelta

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._statistics.choosing import in_test, in_train
from backtest_kit._statistics.cross_validation import cross_validate
from backtest_kit._statistics.figures import METRICS, metric, metric_of, summarize
from backtest_kit._statistics.trades import all_trades
from backtest_kit._statistics.trial_result import TradeColumns
from trials import DAY, trial

DAYS = 60


@st.composite
def cases(draw):
    symbols = draw(st.integers(1, 2))
    trials = [
        trial(f"s{i}", draw(st.integers(0, 10**6)), rate=draw(st.integers(2, 6)), symbols=symbols)
        for i in range(draw(st.integers(1, 3)))
    ]
    groups = draw(st.integers(2, 6))
    windows = bk.Windows(
        combinatorial=(groups, draw(st.integers(1, groups - 1))),
        purge=timedelta(hours=draw(st.sampled_from([0, 0, 1, 24]))),
        embargo=timedelta(hours=draw(st.sampled_from([0, 0, 1, 24]))),
    )
    found = windows.groups(0, DAYS * DAY)
    assume(found is not None)
    return trials, found, draw(st.sampled_from(METRICS))


def rows_of(one):
    t = one.trades
    return [*zip(t.r.tolist(), t.opened_at.tolist(), t.closed_at.tolist(), t.symbol, strict=True)]


def figure(rows, name, span):
    r, opened, closed = (np.array([row[i] for row in rows]) for i in range(3))
    return metric(summarize(r, opened.astype(np.int64), closed.astype(np.int64), span), name)


def known_to(split, groups, rows):
    """The trades that a split trains with, from the words of the documentation."""
    tested = [groups.windows[g] for g in split.test]
    lives = [[row[2] for row in rows if w.since <= row[1] < w.until] for w in tested]
    over = [(w.until, max(ends, default=0)) for w, ends in zip(tested, lives, strict=True)]
    return [
        row
        for row in rows
        if any(w.since <= row[1] < w.until and row[2] <= w.until for w in split.train)
        and not any(until <= row[1] < end for until, end in over)
    ]


@given(cases())
def test_paths_equal_loops_over_trades(case):
    trials, groups, name = case
    chosen = []
    for split in groups.splits:
        best, length = None, sum(w.length for w in split.train)
        for one in trials:
            known = known_to(split, groups, rows_of(one))
            value = figure(known, name, (0, length)) if len(known) >= 30 else None
            if value is not None and (best is None or value > best[0]):
                best = value, one, len(known)
        chosen.append(best)
    found = cross_validate(trials, groups, name)
    assert [(s.strategy_name, s.in_sample, s.in_sample_trades) for s in found.splits] == [
        (None, None, 0) if best is None else (best[1].strategy_name, best[0], best[2])
        for best in chosen
    ]
    values = []
    for path, told in zip(groups.paths, found.paths, strict=True):
        rows, busy = [], {}
        for group, split in enumerate(path):
            if chosen[split] is None:
                continue
            window = groups.windows[group]
            mine = [r for r in rows_of(chosen[split][1]) if window.since <= r[1] < window.until]
            mine = [r for r in mine if r[1] >= busy.get(r[3], 0)]
            busy |= {r[3]: max(busy.get(r[3], 0), r[2]) for r in mine}
            rows += mine
        rows.sort(key=lambda row: row[2])
        value = figure(rows, name, (0, DAYS * DAY)) if len(rows) >= 30 else None
        assert (told.trades, told.stood_aside) == (
            len(rows),
            sum(chosen[split] is None for split in path),
        )
        assert told.value is value or np.isclose(told.value, value, rtol=1e-12)
        values += [] if value is None else [value]
    if values:
        assert np.isclose(found.median, np.median(values))
        assert min(values) <= found.lower <= found.upper <= max(values)
    assert found.always is None or any(choice is None for choice in chosen)


@given(cases())
def test_no_trade_to_choose_by_touches_one_that_is_judged(case):
    trials, groups, _ = case
    for one in trials:
        trades = all_trades([one.trades])
        for split in groups.splits:
            tested = [groups.windows[group] for group in split.test]
            inside, purged = in_train(trades, split.train, tested)
            judged = np.any([in_test(trades, window) for window in tested], axis=0)
            assert not (inside & judged).any()
            opened = np.any([in_test(trades, window) for window in split.train], axis=0)
            assert (purged == (opened & ~inside)).all()
            for a, b in zip(trades.opened[inside], trades.closed[inside], strict=True):
                assert not ((trades.opened[judged] < b) & (a < trades.closed[judged])).any()
                assert not any(a < window.until and window.since < b for window in tested)


@given(cases(), st.integers(0, 10**6))
def test_no_choice_knows_the_groups_that_it_is_judged_by(case, seed):
    trials, groups, name = case
    split = groups.splits[seed % len(groups.splits)]
    tested = [groups.windows[group] for group in split.test]
    rng = np.random.default_rng(seed)
    changed = []
    for one in trials:
        t = one.trades
        inside = np.any(
            [(t.opened_at >= w.since) & (t.opened_at < w.until) for w in tested], axis=0
        )
        r = np.where(inside, rng.normal(0, 5, t.count), t.r)
        columns = TradeColumns(r.tobytes(), t.opened, t.closed, t.symbols)
        changed.append(
            type(one)(**({n: getattr(one, n) for n in one.__struct_fields__} | {"trades": columns}))
        )
    number = groups.splits.index(split)
    before = cross_validate(trials, groups, name).splits[number]
    assert before == cross_validate(changed, groups, name).splits[number]


@given(st.lists(st.floats(-50, 50), max_size=60), st.sampled_from(METRICS), st.integers(1, 10**11))
def test_one_metric_is_that_of_all_statistics(values, name, length):
    r = np.array(values)
    at = np.arange(len(r), dtype=np.int64)
    assert metric_of(r, name, (0, length)) == metric(summarize(r, at, at, (0, length)), name)

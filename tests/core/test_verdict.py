"""The sentence of a walk: what it claims of strategies whose truth is known, and what it keeps to.

How often it claims something where nothing is, and finds what is there, is measured in
`benchmarks/calibration`; a part of that runs in `test_calibration`.
"""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backtest_kit._statistics.bins import (
    bin_edges,
    matrix_of,
    overlap_ratios,
    rare_loss,
    rare_losses,
)
from backtest_kit._statistics.deflation import deflate
from backtest_kit._statistics.family import family_test
from backtest_kit._statistics.trades import all_trades
from backtest_kit._statistics.trial_result import TradeColumns
from backtest_kit._statistics.verdict import verdict
from effort import examples

DAY = 86_400_000
SPAN = (0, 365 * DAY)
NOTHING = TradeColumns.of([], [], [])


def trades(r, stop=1.0, held=0.5):
    """Trades one after another over the year, each of which takes a part of its share of it."""
    share = SPAN[1] // max(len(r), 1)
    opened = np.arange(len(r)) * share
    return TradeColumns.of(r, opened, opened + int(share * held), stop_loss=stop)


def brackets(rng, n, edge=0.0):
    """Trades that win or lose 1, whose yearly Sharpe ratio is about `edge`."""
    return np.where(rng.random(n) < 0.5 * (1 + edge / np.sqrt(n)), 1.0, -1.0)


def strategies(rng, count, n=500, **planted):
    found = {f"s{i:03}": trades(brackets(rng, n)) for i in range(count)}
    return found | {name: trades(brackets(rng, n, edge)) for name, edge in planted.items()}


def judge(of, span=SPAN, *, seed=1, trials=None, metric="sharpe_ratio", **more):
    unknown, asked = max((trials or 0) - len(of), 0), more.get("intervals")
    family = family_test(of, span, seed=seed, unknown=unknown, **more)
    found = verdict(of, family, span, seed=seed, metric=metric, trials=trials, intervals=asked)
    return found, family


def test_a_planted_edge_wins_and_noise_does_not():
    of = strategies(np.random.default_rng(1), 40, edge=6.0)
    found, family = judge(of)
    assert (found.kind, found.names[0]) == ("winner", "edge")
    assert found.sentence.startswith("'edge' wins: luck does not explain its profit (p below 0.001")
    assert found.p_value == family.p_values["edge"] < 0.001
    del of["edge"]
    found, _ = judge(of)
    assert found.kind == "noise"
    assert found.sentence.startswith("Nothing here that luck would not explain: the likeliest")


def test_two_edges_alike_are_a_tie():
    found, _ = judge(strategies(np.random.default_rng(5), 20, a=7.0, b=7.0))
    assert found.kind == "tie"
    assert set(found.names) == {"a", "b"}
    assert found.sentence.startswith("A tie between ")
    assert found.probability < 0.975


def test_of_two_that_move_together_the_better_one_wins():
    """What both win and lose together does not count for the difference."""
    rng = np.random.default_rng(4)
    market = rng.normal(0.2, 1.0, 365)
    of = {
        "a": trades(market + 0.05 + rng.normal(0, 0.1, 365)),
        "b": trades(market + rng.normal(0, 0.1, 365)),
    }
    found, _ = judge(of, metric="avg_pnl")
    assert (found.kind, found.names) == ("winner", ("a", "b"))
    shuffled = of | {"b": trades(rng.permutation(of["b"].r))}
    assert judge(shuffled, metric="avg_pnl")[0].kind == "tie"


def test_a_strategy_that_hardly_lost_is_given_a_loss():
    rng = np.random.default_rng(2)
    of = strategies(rng, 5)
    lucky = rng.normal(0.1, 0.01, 365)
    of["lucky"] = trades(lucky, stop=40.0)
    found, family = judge(of)
    assert (found.kind, found.names, found.rare_loss) == ("noise", ("lucky",), True)
    assert family.without_loss["lucky"] < 0.001
    assert "'lucky'" in found.sentence
    assert "may lose 40 % decides; without it, it has p below 0.001" in found.sentence
    # where a loss is no greater than a win, as many wins show something
    of["lucky"] = trades(lucky, stop=0.1)
    assert judge(of)[0].kind == "winner"


def test_what_one_more_trade_loses():
    r = np.array([1.0, 2.0, -3.0])
    times = np.arange(3) * DAY, np.arange(1, 4) * DAY
    known = TradeColumns.of(r, *times, stop_loss=[5.0, 7.0, 6.0], worst_loss=20.0)
    assert rare_loss(known) == 7.0
    some = TradeColumns.of(r, *times, stop_loss=[5.0, np.nan, 6.0], worst_loss=[1.0, 20.0, np.nan])
    assert rare_loss(some) == 20.0
    assert rare_loss(TradeColumns.of(r, *times, stop_loss=[np.nan] * 3)) == 3.0
    stored = TradeColumns(known.profits, known.opened, known.closed, known.symbols)
    assert rare_loss(stored) == 3.0, "of an earlier release"
    assert rare_loss(TradeColumns.of([1.0, 2.0], [0, 1], [1, 2])) == 2.0, "never lost"


def test_more_trials_make_the_same_trades_worth_less():
    of = strategies(np.random.default_rng(6), 20, edge=4.5)
    p = []
    for trials in (21, 1000, 100_000):
        found, family = judge(of, trials=trials)
        p.append(family.p_values["edge"])
        assert family.test.unknown_trials == trials - 21
        assert ("of which only the number is known" in found.sentence) == (trials > 21)
    assert all(a < b for a, b in pairwise(p))
    worth = [deflate(of["edge"].r, n) for n in (1, 21, 1000, 100_000)]
    assert all(a.deflated > b.deflated for a, b in pairwise(worth))
    assert all(a.minimum_trades < b.minimum_trades for a, b in pairwise(worth))
    assert len({each.probabilistic for each in worth}) == 1


def test_the_trades_needed_agree_with_the_deflated_ratio():
    rng = np.random.default_rng(7)
    for edge in (1.0, 3.0, 5.0):
        r = brackets(rng, 400, edge)
        worth = deflate(r, 20)
        if worth.minimum_trades is not None:
            assert (worth.deflated >= 0.95) == (len(r) >= worth.minimum_trades)


def test_known_trials_count_by_their_trades():
    """Trials that are copies of each other count for hardly more than one."""
    rng = np.random.default_rng(18)
    of = {"edge": trades(rng.permutation(np.where(np.arange(500) < 274, 1.0, -1.0)))}
    base = brackets(rng, 500)
    copies = [trades(base + rng.normal(0, 0.01, 500)) for _ in range(50)]
    apart = [trades(brackets(rng, 500)) for _ in range(50)]
    (_, one), (_, alike), (_, many) = judge(of), judge(of, others=copies), judge(of, others=apart)
    assert one.p_values["edge"] < alike.p_values["edge"] < 2.5 * one.p_values["edge"]
    assert many.p_values["edge"] > 10 * one.p_values["edge"]
    assert alike.test.effective_trials == pytest.approx(2.0, abs=0.1)
    assert many.test.effective_trials == pytest.approx(51, abs=3)
    assert alike.test.known_trials == many.test.known_trials == 51


def test_trades_of_known_trials_outside_of_the_walk_do_not_count():
    rng = np.random.default_rng(18)
    of, other = {"edge": trades(brackets(rng, 500, 3.0))}, trades(brackets(rng, 500))
    before, after = -SPAN[1] // 2, SPAN[1] // 2

    def moved(each, by):
        return TradeColumns.of(
            each.r, each.opened_at + by, each.closed_at + by, stop_loss=each.stop_loss
        )

    for by in (before, after):
        late = moved(other, by)
        inside = (late.opened_at >= SPAN[0]) & (late.closed_at <= SPAN[1])
        part = TradeColumns.of(
            late.r[inside], late.opened_at[inside], late.closed_at[inside], stop_loss=1.0
        )
        assert judge(of, others=[late])[1].p_values == judge(of, others=[part])[1].p_values
    found = judge(of, others=[moved(other, 2 * after - 10 * DAY)])[1].test
    assert (found.known_trials, found.unknown_trials) == (1, 1)


def test_too_few_trades_and_too_short_a_walk():
    rng = np.random.default_rng(9)
    few = trades(rng.normal(3.0, 0.1, 29))
    found, family = judge({"few": few, "none": NOTHING})
    assert (found.kind, found.names, family) == ("too few trades", ("few",), None)
    assert "29" in found.sentence
    found, _ = judge({"few": few, "many": trades(brackets(rng, 500, 6.0))})
    assert found.names[0] == "many"
    assert "'few' scores higher, but over 29 trades only." in found.sentence
    assert judge({})[0].kind == "too few trades"
    opened = np.arange(40) * 9 * DAY
    long = TradeColumns.of(brackets(rng, 40) + 5.0, opened, opened + 20 * DAY, stop_loss=1.0)
    found, _ = judge({"long": long, "none": NOTHING})
    assert (found.kind, found.names) == ("too short", ("long",))
    assert "held a position for 20 days, and it takes 20 times that" in found.sentence
    found, family = judge({"long": long, "many": trades(brackets(rng, 500, 6.0))})
    assert (found.kind, family.test.bins) == ("winner", 365), (
        "one that can't be judged is no hurdle"
    )
    assert "'long' scores higher, but it held for 20 days" in found.sentence
    assert judge({"same": trades(np.full(40, 1.5))})[0].kind == "noise"
    of = strategies(rng, 3)
    asked = judge(of, intervals=dict.fromkeys(of, 20 * DAY))[0]
    assert asked.kind == "too short"
    assert "is asked every 20 days, and it takes 20 times that" in asked.sentence


def test_the_interval_of_one_that_cant_be_judged_is_no_hurdle():
    """Neither that of a strategy that never trades, nor one that is too long for the walk."""
    of = {"edge": trades(brackets(np.random.default_rng(9), 500, 6.0))}
    for name, other in (("idle", NOTHING), ("rare", trades(np.arange(40.0) % 7 - 1, held=0.1))):
        for length in (2, 30):
            found, family = judge(of | {name: other}, intervals={name: length * DAY})
            counts = name == "rare" and length == 2
            assert (found.kind, family.test.bins) == ("winner", 182 if counts else 365)
    assert "'rare' scores higher, but its interval is 30 days, too long" in found.sentence


@examples(15)
@given(st.integers(0, 2**32), st.floats(3.0, 5.0))
@example(seed=928331, edge=3.0)  # a copy made the series look dependent
def test_what_changes_nothing_changes_no_sentence(seed, edge):
    """Copies, strategies that never trade, another order: of edges that are near the threshold."""
    rng = np.random.default_rng(seed)
    of = strategies(rng, 12, 300, edge=edge)
    found, family = judge(of)
    for other in (
        dict(reversed(of.items())),
        of | {"idle": NOTHING},
        of | {"zz copy": of["s003"]},
    ):
        again, same = judge(other)
        assert again.names == found.names
        assert again.kind == found.kind
        assert same.p_values.items() >= family.p_values.items()
    again, _ = judge(of | {"edge copy": of["edge"]})
    assert again.kind == found.kind
    if (found.kind, found.names[0]) == ("winner", "edge"):
        assert "'edge' ('edge copy' made the same trades) wins" in again.sentence


@examples(15)
@given(st.integers(0, 2**32), st.floats(0.01, 1.0))
def test_the_better_the_trades_the_smaller_the_p_value(seed, more):
    rng = np.random.default_rng(seed)
    of = strategies(rng, 8, 200, edge=2.0)
    worse = judge(of)[1].p_values
    r = of["edge"].r + np.where(of["edge"].r > 0, more, 0.0)
    better = judge(of | {"edge": trades(r)})[1].p_values
    assert better["edge"] <= worse["edge"] + 0.005, "but for the place of the one more loss"
    assert all(0 < p <= 1 for p in better.values())


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 400))
def test_bins_are_equal_and_hold_every_trade(seed, days, count):
    rng = np.random.default_rng(seed)
    closed = np.sort(rng.integers(1, SPAN[1] + 1, count))
    each = TradeColumns.of(rng.standard_normal(count), closed - 1, closed)
    edges = bin_edges(SPAN, days * DAY)
    assert len(edges) - 1 == 365 // days
    assert np.ptp(np.diff(edges)) <= 1
    assert np.diff(edges).min() >= days * DAY - 1
    profits = matrix_of(all_trades([each]), 1, edges)[0][:, 0]
    assert profits.sum() == pytest.approx(each.r.sum())
    for i in (0, len(profits) - 1):
        inside = (edges[i] < closed) & (closed <= edges[i + 1])
        assert profits[i] == pytest.approx(each.r[inside].sum(), abs=1e-12)


def test_trades_that_overlap_share_the_moves_of_the_market():
    """The ratio of variances is that of simulated prices, and 1 where one follows the other."""
    rng = np.random.default_rng(3)
    hour, held, count = DAY // 24, 30, 300
    edges = bin_edges((0, 400 * hour), 40 * hour)
    assert len(edges) == 11
    opened = np.sort(rng.integers(0, 360, count)) * hour
    each = TradeColumns.of(np.zeros(count), opened, opened + held * hour)
    moves = np.concatenate([np.zeros((4000, 1)), rng.standard_normal((4000, 400))], axis=1)
    prices = moves.cumsum(axis=1)
    profits = prices[:, opened // hour + held] - prices[:, opened // hour]
    at = np.searchsorted(edges[1:-1], each.closed_at)
    bins = np.stack([profits[:, at == i].sum(axis=1) for i in range(10)], axis=1)
    expected = profits.sum(axis=1).var() / bins.var(axis=0).sum()
    assert overlap_ratios(all_trades([each]), 1, edges) == pytest.approx(expected, rel=0.1)
    assert expected > 1.1
    after = TradeColumns.of(np.zeros(10), np.arange(10) * 40 * hour, np.arange(1, 11) * 40 * hour)
    assert overlap_ratios(all_trades([after, each]), 2, edges)[0] == 1.0


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40))
def test_many_strategies_at_once_are_each_of_them_alone(seed, count, days):
    """And overlapping is what counting the open positions minute by minute says."""
    rng = np.random.default_rng(seed)
    of = []
    for n in rng.integers(0, 30, count).tolist():
        opened = rng.integers(0, 360, n) * DAY
        closed = opened + rng.integers(0, 6, n) * DAY
        order = np.argsort(closed, kind="stable")
        r, stop = rng.normal(0, 1, n), np.where(rng.random(n) < 0.5, np.nan, 3.0)
        columns = (r[order], opened[order], closed[order])
        of.append(TradeColumns.of(*columns, stop_loss=stop, worst_loss=rng.normal(0, 4, n)))
    edges = bin_edges(SPAN, days * DAY)
    together = all_trades(of)
    plain, burdened = matrix_of(together, count, edges)
    losses = rare_losses(together, count)
    ratios = overlap_ratios(together, count, edges)
    for i, each in enumerate(of):
        one, with_loss = matrix_of(all_trades([each]), 1, edges)
        assert (plain[:, i] == one[:, 0]).all()
        assert (burdened[:, i] == with_loss[:, 0]).all()
        assert losses[i] == rare_loss(each) == pytest.approx(plain[:, i].sum() - with_loss.sum())
        assert ratios[i] == pytest.approx(open_positions(each, edges))


def open_positions(each, edges):
    """The squares of the numbers of open positions, over the same for each bin alone."""
    at = np.searchsorted(edges[1:-1], each.closed_at)
    open_ = np.zeros((len(edges) - 1, 400))
    for a, b, i in zip(each.opened_at // DAY, each.closed_at // DAY, at, strict=True):
        open_[i, a:b] += 1
    whole, within = np.square(open_.sum(axis=0)).sum(), np.square(open_).sum()
    return whole / within if within else 1.0


def test_a_benchmark_is_taken_off():
    """What every strategy makes with the market is not theirs."""
    rng = np.random.default_rng(10)
    market = np.where(rng.random(365) < 0.6, 1.0, -1.0)
    share = DAY
    closed = np.arange(1, 366) * share
    of = {
        name: TradeColumns.of(market + own, closed - share, closed, stop_loss=1.0)
        for name, own in (("passive", 0.1 * brackets(rng, 365)), ("active", 0.2))
    }
    found, _ = judge(of)
    assert found.kind == "winner"
    asked = []

    def hold(name, edges):
        asked.append(name)
        assert (edges == np.arange(366) * DAY).all()
        return market

    found, family = judge(of, benchmark="hold", benchmark_bins=hold)
    assert asked == ["active", "passive"]
    assert found.sentence.startswith(
        "'active' wins: luck does not explain its profit beyond buying and holding ("
    )
    assert family.p_values["passive"] > 0.05
    assert family.test.benchmark == "hold"
    with pytest.raises(ValueError, match="'active' must be 365 finite profits, one per bin"):
        judge(of, benchmark="hold", benchmark_bins=lambda name, edges: market[1:])


def test_a_tie_names_also_those_that_the_leader_beats():
    rng = np.random.default_rng(1)
    good = brackets(rng, 500, 9.0)
    weak = np.where(rng.random(500) < 0.6, 1.0, -1.0) * 1.0
    of = {"a": trades(good), "b": trades(brackets(rng, 500, 9.0)), "c": trades(weak)}
    found, family = judge(of)
    assert found.kind == "tie"
    assert all(p <= 0.05 for p in family.p_values.values())
    assert sorted(found.names) == ["a", "b", "c"]
    assert all(repr(name) in found.sentence.split(":")[0] for name in of)


def test_a_sentence_about_nothing_names_its_benchmark():
    of = strategies(np.random.default_rng(1), 3)
    found, _ = judge(
        of, benchmark="hold", benchmark_bins=lambda name, edges: np.zeros(len(edges) - 1)
    )
    assert found.sentence.startswith(
        "Nothing here beyond buying and holding that luck would not explain: "
    )


def test_a_figure_next_to_its_limit_shows_on_which_side_it_is():
    of = {"a": trades(brackets(np.random.default_rng(3), 500, 1.0))}
    family = family_test(of, SPAN, seed=1)
    for p, text in ((0.0504, "p = 0.0504"), (0.0512, "p = 0.051"), (1.0, "p = 1.000")):
        near = msgspec.structs.replace(family, p_values={"a": p})
        assert (
            f"has {text} out of 1 trial, and it takes 0.05"
            in verdict(of, near, SPAN, seed=1).sentence
        )
    for p, text in ((0.0496, "p = 0.0496"), (0.05, "p = 0.050"), (0.0004, "p below 0.001")):
        near = msgspec.structs.replace(family, p_values={"a": p})
        assert (
            f"'a' wins: luck does not explain its profit ({text} out"
            in verdict(of, near, SPAN, seed=1).sentence
        )


def test_where_all_lose_the_sentence_says_so():
    rng = np.random.default_rng(3)
    of = {name: trades(brackets(rng, 500) - 0.5) for name in "ab"}
    assert judge(of)[0].sentence.endswith("and it takes 0.05. None of them has made a profit.")
    assert judge({"a": of["a"]})[0].sentence.endswith(" It has not made a profit.")
    of["c"] = trades(brackets(rng, 500, 0.5) + 0.01)
    assert "made a profit" not in judge(of)[0].sentence
    assert "there are none, and it takes 30" in judge({"a": NOTHING})[0].sentence

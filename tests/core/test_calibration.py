"""A part of the published calibration: what walks claim where nothing is, and what they find."""

import numpy as np
import pytest
from benchmarks.calibration import compared
from benchmarks.calibration.compared import COMPARED, count_compared
from benchmarks.calibration.markets import NULLS
from benchmarks.calibration.measure import Count, bound, claims, count_claims, exact_limit, power

from backtest_kit._statistics import against, bins

WALKS = 6


def test_walks_without_anything_in_them_claim_hardly_ever():
    counts = {name: count_claims(null, 5, WALKS, seed=11) for name, null in NULLS.items()}
    together = Count(sum(of.hits for of in counts.values()), WALKS * len(counts))
    assert together.share <= bound(together.walks), counts
    assert max(of.hits for of in counts.values()) <= 3, counts


def test_the_count_would_show_a_rule_that_is_too_bold(monkeypatch):
    """Without the one more loss, strategies that hardly lose look like skill."""
    null = NULLS["win 1 or lose 40, 40 trades"]
    assert count_claims(null, 5, WALKS).hits == 0
    monkeypatch.setattr(bins, "rare_losses", lambda trades, count: np.zeros(count))
    assert count_claims(null, 5, WALKS).share > 2 * bound(WALKS)


def test_walks_claim_hardly_ever_beside_holding_the_ledger_and_in_windows():
    counts = {name: count_compared(walk, 5, WALKS, seed=11) for name, walk in COMPARED.items()}
    together = Count(sum(of.hits for of in counts.values()), WALKS * len(counts))
    assert together.share <= bound(together.walks), counts


def test_the_count_would_show_a_test_against_nothing_where_the_market_rises(monkeypatch):
    monkeypatch.setattr(compared, "RISE", 1.0)
    holding = [name for name in COMPARED if "against holding" in name]
    assert len(holding) == 2
    for name in holding:
        assert count_compared(COMPARED[name], 5, WALKS).hits <= 1
    monkeypatch.setattr(compared, "hold_profits", lambda market, edges: np.zeros(len(edges) - 1))
    monkeypatch.setattr(against, "hold_profits", lambda market, edges: np.zeros(len(edges) - 1))
    for name in holding:
        assert count_compared(COMPARED[name], 5, WALKS).hits == WALKS


def test_the_best_of_many_is_claimed_too_often_where_the_others_are_forgotten(monkeypatch):
    rng = np.random.default_rng(5)
    monkeypatch.setattr(compared, "claims", lambda of, **more: claims(of))
    walk = COMPARED["the best beside 100 of the ledger, with trades"]
    assert sum(walk(rng, 5) for _ in range(4 * WALKS)) > 4 * WALKS * 0.3


def test_most_of_what_an_exact_test_finds_is_found():
    of = power(4.0, 20, 1, 12)
    assert of.exact.share > 0.7
    assert of.found.share >= 0.8


def test_the_exact_limit_is_that_of_independent_or_near_copies():
    assert exact_limit(20) == pytest.approx(2.7988, abs=1e-3)
    # ten independent ones, and ten that are little more than one
    assert exact_limit(11) < exact_limit(20, 0.5) < exact_limit(14)


def test_an_interval_of_a_count():
    """Wilson's example of the textbooks: 10 of 100."""
    low, high = Count(10, 100).interval
    assert (low, high) == (pytest.approx(0.0552, abs=1e-4), pytest.approx(0.1744, abs=1e-4))
    assert Count(0, 20).interval[0] == 0.0
    assert bound(400) == pytest.approx(0.05 + 2 * 0.0109, abs=1e-4)

"""Two runs side by side: every trade is accounted for, and the figures add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._reports.differences import differences_report
from effort import examples
from markets import market, played

SETTINGS = {
    "percent_fee": [0.1, 0.0],
    "exit_trigger": ["vwap", "wick"],
    "fill_price": ["market", "average"],
    "ask_at": ["close", "elapsed"],
}
changes = st.fixed_dictionaries({name: st.sampled_from(v) for name, v in SETTINGS.items()})


@examples(25)
@given(st.integers(0, 1000), changes, st.sampled_from([0, 1, 4]))
def test_the_figures_add_up(seed, config, shift):
    before, after = played(seed), played(seed, shift, **config)
    found = bk.differences(before, after)
    kinds = [trade.change for trade in found.trades]
    assert found.trades_before == len(before.signals)
    assert found.trades_after == len(after.signals)
    both = found.unchanged + kinds.count("changed")
    assert found.trades_before == both + kinds.count("went")
    assert found.trades_after == both + kinds.count("came")
    total = found.total_before + found.came - found.went + found.changed
    assert total == pytest.approx(found.total_after, abs=1e-9)
    assert found.total_after == pytest.approx(after.statistics.total_pnl or 0.0, abs=1e-9)
    named = {value.name for value in found.values}
    default = bk.Config()
    assert {n for n in config if config[n] != getattr(before.settings, n)} <= named
    assert default.percent_fee == before.percent_fee
    turned = bk.differences(after, before)
    assert (turned.came, turned.went) == (found.went, found.came)
    assert all(trade.why for trade in found.trades)


@given(st.integers(0, 1000))
@examples(5)
def test_a_run_does_not_differ_from_itself(seed):
    found = bk.differences(played(seed), played(seed))
    assert not found.trades
    assert not found.values
    assert not found.code
    assert found.unchanged == found.trades_before > 0


def test_a_report_says_why():
    before = played(3)
    after = played(3, percent_fee=0.0, exit_trigger="wick")
    text = differences_report([before, after, played(3, shift=1)])
    assert "percent_fee | 0.1 | 0.0" in text
    assert "was still open" in text or "not proposed" in text
    assert text.count("## s on X against s on X") == 2
    assert (
        bk.differences(before, after).to_pandas()["change"].isin(["came", "went", "changed"]).all()
    )


def test_changed_code_is_shown():
    def one(symbol, when):
        return None

    def other(symbol, when):
        """Does the same."""
        return

    rows = [list(row) for row in market(1, 100)]
    found = bk.differences(*(bk.backtest(rows, f, interval="1m") for f in (one, other)))
    assert '+        """Does the same."""' in found.code

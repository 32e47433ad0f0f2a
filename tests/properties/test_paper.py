"""Live on paper over recorded candles is the portfolio of a backtest, to the last bit."""

from hypothesis import given, settings
from hypothesis import strategies as st

from live.paper import paper
from portfolios import busy, end_of, played, worlds

few = settings(max_examples=20)


def facts(ticks, end):
    """What was told before the end of the frame, where a backtest closes what is open."""
    return sorted(
        (
            tick.timestamp,
            tick.strategy_name,
            tick.symbol,
            tick.action,
            repr(getattr(tick, "money", None)),
            repr(getattr(tick, "pnl", None)),
            getattr(tick, "close_reason", getattr(tick, "reason", None)),
        )
        for tick in ticks
        if tick.timestamp < end
    )


@few
@given(st.one_of(busy, worlds))
def test_paper_is_the_backtest(world):
    end = end_of(world)
    live = paper(world)
    _, told, *_ = played(world)
    assert facts(live.told, end) == facts(told, end)

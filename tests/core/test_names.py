"""Ids, keys and names of files that are joined of names: different names never give the same."""

from hypothesis import example, given
from hypothesis import strategies as st

from backtest_kit._reports.table import file_name
from backtest_kit._state.documents import RunKey, run_key
from backtest_kit._state.journal import page_key
from backtest_kit._values.results import transition_id
from backtest_kit._values.signal import SignalRow, signal_id

NAMES = st.tuples(*[st.text("ab:%/-3A", min_size=1, max_size=6)] * 3)
GRID = ("venue", "grid", "BTC/USDT:USDT")
OTHER = ("venue", "grid:BTC/USDT", "USDT")


def told(names, when=60_000, identity=None):
    exchange_name, strategy_name, symbol = names
    row = SignalRow(
        id=identity or signal_id(*names, when),
        symbol=symbol,
        strategy_name=strategy_name,
        exchange_name=exchange_name,
        position="long",
        price_open=1.0,
        price_take_profit=2.0,
        price_stop_loss=0.5,
        minute_estimated_time=1,
        scheduled_at=when,
    )
    return transition_id(row, "opened")


@given(NAMES, NAMES, st.booleans())
@example(GRID, OTHER, True)
@example(GRID, OTHER, False)
def test_different_names_never_give_the_same(one, other, own_id):
    same = one == other
    identity = "mine" if own_id else None
    assert (told(one, identity=identity) == told(other, identity=identity)) is same
    assert (signal_id(*one, 0) == signal_id(*other, 0)) is same
    assert (str(RunKey(*one)) == str(RunKey(*other))) is same
    assert (page_key(RunKey(*one), 1) == page_key(RunKey(*other), 1)) is same
    assert (file_name(*one) == file_name(*other)) is same


@given(NAMES)
def test_a_key_is_read_back(names):
    assert run_key(str(RunKey(*names))) == RunKey(*names)


def test_ids_without_a_colon_in_a_name_are_as_they_were():
    assert told(("binance", "mine", "BTC/USDT")) == "binance:mine:BTC/USDT:60000:opened"
    assert told(GRID) == "venue:grid:BTC/USDT%3AUSDT:60000:opened"


def test_what_release_0_1_0_has_told_of_is_told_again_under_the_same_id():
    """It quoted nothing; a signal that it opened, and may have told of, keeps its ids."""
    before = "venue:grid:BTC/USDT:USDT:60000"
    assert told(GRID, identity=before) == f"{before}:opened"

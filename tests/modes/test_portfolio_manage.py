"""What `manage` decides in an account: in which turn it is done, paid for, and what is skipped.

Any mixture of it is compared with the reference in tests/properties.
"""

import numpy as np
import pytest

import backtest_kit as bk
from markets import MINUTE, START
from modes.test_portfolio import PLACE, minute_of, register


def points(prices):
    """Candles of a single price each: the market jumps between them."""
    close = np.array(prices)
    time = START + MINUTE * np.arange(len(close))
    return np.column_stack((time, close, close, close, close, np.ones(len(close))))


def play(runs, proposals, decisions, *, market=None, account=(), prices=(100.0,) * 12, **config):
    """A portfolio of such candles; return it, and what callbacks were told.

    Proposals and decisions are by symbol and minute.
    """
    told = []
    names = ("on_open", "on_close", "on_add", "on_partial", "on_manage_error")
    register(
        dict.fromkeys(runs, prices),
        proposals,
        market=lambda symbol: bk.Market(base=symbol, quote="USDT", **(market or {})),
        account={"on_cash_shortage": "refuse"} | dict(account),
        strategy={
            "manage": lambda position, when: decisions.get(
                (position.signal.symbol, minute_of(when))
            ),
            "callbacks": dict.fromkeys(names, told.append),
        },
        candles=points,
        **{"percent_fee": 0.0} | config,
    )
    return bk.Portfolio.run_sync({"s": runs}, **PLACE), told


def long(cost, stop=80.0, **more):
    levels = {"price_take_profit": 200.0, "minute_estimated_time": 600}
    return bk.Signal(position="long", price_stop_loss=stop, cost=cost, **levels | more)


def names_of(told, minute):
    """Who did what at a minute, in order."""
    when = START + minute * MINUTE
    return [(x.symbol, x.action) for x in told if x.timestamp == when]


def skipped(result):
    """What was skipped, when and why."""
    return [(x.symbol, (x.timestamp - START) // MINUTE, x.reason) for x in result.refusals]


TWO = {("A", 2): long(500.0), ("B", 2): long(490.0)}


def test_what_closes_frees_the_cash_of_what_adds():
    _, told = play(["A", "B"], TWO, {("A", 5): bk.Add(0.9), ("B", 5): bk.Close()})
    assert names_of(told, 5) == [("B", "closed"), ("A", "added")]


def test_an_answer_that_closes_anything_is_done_whole_before_the_others():
    result, told = play(
        ["A", "B"],
        TWO,
        {("A", 5): [bk.Close(10), bk.Add(0.9)], ("B", 5): [bk.Add(0.1), bk.Close(50)]},
    )
    assert names_of(told, 5) == [("A", "partial"), ("B", "added"), ("B", "partial")]
    assert skipped(result) == [("A", 5, "cash")]  # 60 were free


def test_what_waits_to_open_is_measured_by_the_equity_after_a_close():
    opens = {("A", 2): long(500.0), ("B", 5): long(None, 95.0)}
    prices = [100.0] * 3 + [110.0] * 9
    account = {"default_percent": 100.0}
    result, told = play(["B", "A"], opens, {("A", 5): bk.Close()}, account=account, prices=prices)
    assert names_of(told, 5) == [("A", "closed"), ("B", "opened")]
    b = result.trades[-1]
    assert b.money.equity_before == pytest.approx(1_050.0)
    assert b.money.cost == pytest.approx(1_050.0)


def test_a_candle_that_enters_is_done_first_and_manage_asked_then():
    # A's own level takes what is free before its manage closes; what B closes, it frees before
    level = long(500.0, entries=((5.0, 0.9),))
    opens = {("A", 2): level, ("B", 2): long(490.0)}
    decisions = {("A", 5): bk.Close(50), ("B", 5): bk.Close(60)}
    prices = [100.0] * 4 + [94.0] * 8
    result, told = play(["A", "B"], opens, decisions, prices=prices)
    assert names_of(told, 5) == [("B", "partial"), ("A", "partial")]
    assert skipped(result) == [("A", 5, "cash")]
    decisions["B", 5] = bk.Close()
    with bk.Engine():
        _, told = play(["A", "B"], opens, decisions, prices=prices)
    assert names_of(told, 5) == [("B", "closed"), ("A", "added"), ("A", "partial")]


BEYOND = {"leverage": 10.0}  # liquidated at 90.4523


@pytest.mark.parametrize(
    ("action", "reason", "more"),
    [
        (bk.Add(1.5), "cash", {}),
        (bk.Add(0.1), "minimum", {"market": {"min_notional": 100.0}}),
        (bk.Add(0.4), "minimum", {"market": {"quantity_step": 2.5}}),
        (bk.Close(40), "minimum", {"market": {"quantity_step": 2.5}}),
        (bk.MoveStop(90.0), "liquidation", {"account": BEYOND}),
        (bk.MoveStop(90.0), "liquidation", {"account": BEYOND, "allow_wider_stop": True}),
        (
            bk.MoveStop(90.0),
            "liquidation",
            {"account": BEYOND, "allow_wider_stop": True, "stop": None, "require_stop_loss": False},
        ),
    ],
)
def test_what_the_account_does_not_let_happen_is_skipped_and_told(action, reason, more):
    stop = more.pop("stop", 95.0)
    quiet, _ = play(["A"], {("A", 2): long(500.0, stop)}, {}, **more)
    with bk.Engine():
        result, told = play(["A"], {("A", 2): long(500.0, stop)}, {("A", 5): action}, **more)
    assert names_of(told, 5) == []
    assert skipped(result) == [("A", 5, reason)]
    assert dict(result.statistics.skips) == {reason: 1}
    assert result.trades == quiet.trades


def test_an_addition_that_would_be_liquidated_before_the_stop_is_skipped():
    # entered at 100 and 120 the position would be liquidated at 99.09, above its stop
    prices = [100.0] * 3 + [120.0] * 9
    result, told = play(
        ["A"], {("A", 2): long(500.0, 95.0)}, {("A", 5): bk.Add(1)}, prices=prices, account=BEYOND
    )
    assert skipped(result) == [("A", 5, "liquidation")]
    assert [x.action for x in told] == ["opened", "closed"]


def test_the_stop_at_the_liquidation_price_gives_way_to_a_tighter_one():
    prices = [100.0] * 7 + [93.0] * 5
    opens = {("A", 2): long(500.0, None)}
    result, told = play(
        ["A"], opens, {("A", 5): bk.MoveStop(94.0)},
        prices=prices, account=BEYOND, require_stop_loss=False,
    )  # fmt: skip
    assert [x.action for x in told] == ["opened", "closed"]
    (tick,) = result.trades
    assert (tick.close_reason, tick.pnl.price_close) == ("stop_loss", 93.0)
    assert not tick.money.liquidated


def test_the_money_of_each_fill():
    prices = [100.0] * 3 + [110.0] * 3 + [120.0] * 6
    market = {"quantity_step": 0.5}
    decisions = {("A", 5): bk.Close(30, note="less"), ("A", 8): [bk.Add(0.5), bk.Close()]}
    result, told = play(["A"], {("A", 2): long(500.0)}, decisions, prices=prices, market=market)
    opened, partial, added, closed = told
    # 30 % of 5 are 1.5; half of the cost buys 2.08 at 120, so 2
    assert [x.money.quantity for x in told] == [5.0, 5.0, 7.0, 7.0]
    assert (partial.share, partial.note) == (pytest.approx(30.0), "less")
    assert added.size == pytest.approx(240 / 500)
    assert [x.money.cost for x in told] == [500.0, 500.0, 740.0, 740.0]
    assert [x.money.profit for x in told] == pytest.approx([0, 15, 15, 15 + 70])
    assert closed == result.trades[0]
    assert closed.pnl.pnl_percentage == pytest.approx(85 / 740 * 100)
    assert opened.money.first_cost == closed.money.first_cost == 500.0

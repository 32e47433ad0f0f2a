"""What may be done to an open position, as tables: a long from 100, the market where a bar says.

Take profit 110, stop 90, lifetime 60 of at most 100 minutes, one averaging level of at most three
entries. Each table is played mirrored for a short as well.
"""

import math
import re

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._rules import holding as at
from backtest_kit._rules import transitions
from backtest_kit._rules.account import Rules, Terms
from backtest_kit._rules.actions import act, act_in_turn, position_of
from backtest_kit._rules.bars import Bar, Bars
from backtest_kit._rules.managed import Opening, open_managed, search, step_managed
from backtest_kit._rules.steps import pending_step
from backtest_kit._values.config import Config
from backtest_kit._values.signal import SignalRow
from positions import MINUTE, candles, config_of, plays, row_of

SIDES = pytest.mark.parametrize("position", ["long", "short"])
CONFIG = Config(
    exit_trigger="vwap",
    max_signal_lifetime_minutes=100,
    max_entries=3,
    percent_fee=0.0,
    percent_slippage=0.0,
)


def turn(position, price):
    return price if position == "long" or price is None else 200 - price


def held(position, config=CONFIG, **fields):
    levels: dict = {
        "price_take_profit": 110.0,
        "price_stop_loss": 90.0,
        "minute_estimated_time": 60,
    }
    levels |= {"entries": ((5.0, 1.0),)}
    levels |= fields
    for name in ("price_take_profit", "price_stop_loss"):
        levels[name] = turn(position, levels[name])
    row = SignalRow(
        id="x",
        symbol="X",
        strategy_name="s",
        exchange_name="e",
        position=position,
        price_open=100.0,
        scheduled_at=0,
        pending_at=0,
        **levels,
    )
    return open_managed(row, Bar(0, *[100.0] * 6), config).holding


def bar(position, market=101.0, average=None, minute=5):
    market, average = turn(position, market), turn(position, average or market)
    return Bar(minute * MINUTE, average, market, market, market, market, market)


def mirrored(position, action):
    moves = isinstance(action, bk.MoveStop | bk.MoveTarget) and isinstance(action.price, float)
    if moves and action.price > 0:
        return type(action)(turn(position, action.price))
    return action


WIDER = msgspec.structs.replace(CONFIG, allow_wider_stop=True)
ALLOWED = [
    (bk.MoveStop(95.0), {}, CONFIG),
    (bk.MoveStop(100.9), {}, CONFIG),
    (bk.MoveStop(90.0), {}, CONFIG),  # where it is already: nothing
    (bk.MoveStop(1.0), {"price_stop_loss": None}, CONFIG),  # tighter than none
    (bk.MoveStop(80.0), {}, WIDER),
    (bk.MoveStop(70.0), {}, msgspec.structs.replace(WIDER, max_stop_loss_distance_percent=0.0)),
    (bk.MoveTarget(101.1), {}, CONFIG),
    (bk.MoveTarget(190.0), {}, CONFIG),
    (bk.MoveTarget(150.0), {"price_take_profit": None}, CONFIG),
    (bk.Close(), {}, CONFIG),
    (bk.Close(1e-3), {}, CONFIG),
    (bk.Add(), {}, CONFIG),
    (bk.Add(1e-3), {"price_stop_loss": None, "price_take_profit": None}, CONFIG),
    (bk.Extend(40), {}, CONFIG),
    (bk.Extend(4000), {}, msgspec.structs.replace(CONFIG, max_signal_lifetime_minutes=0)),
]
REFUSED = [
    (bk.MoveStop(101.0), {}, CONFIG, "the market price, which is "),
    (bk.MoveStop(102.0), {}, CONFIG, "the market price"),
    (bk.MoveStop(100.5), {"average": 100.2}, CONFIG, "the average price"),
    (bk.MoveStop(89.9), {}, CONFIG, "allow_wider_stop"),
    (bk.MoveStop(79.9), {}, WIDER, "max_stop_loss_distance_percent"),
    (bk.MoveStop(math.nan), {}, CONFIG, "price=nan"),
    (bk.MoveStop(-1.0), {}, WIDER, "finite price above 0"),
    (bk.MoveStop("95"), {}, CONFIG, "price='95'"),
    (bk.MoveStop(None), {}, CONFIG, "price=None"),
    (bk.MoveTarget(101.0), {}, CONFIG, "the market price"),
    (bk.MoveTarget(101.5), {"average": 101.7}, CONFIG, "the average price"),
    (bk.MoveTarget(math.inf), {}, CONFIG, "price="),
    (bk.Close(0), {}, CONFIG, "share=0 "),
    (bk.Close(100.1), {}, CONFIG, "share=100.1 "),
    (bk.Close(math.nan), {}, CONFIG, "share=nan"),
    (bk.Close(True), {}, CONFIG, "share=True"),
    (bk.Close(50, note=3), {}, CONFIG, "note=3 "),
    (bk.Add(0.0), {}, CONFIG, "size=0.0 "),
    (bk.Add(math.inf), {}, CONFIG, "size=inf "),
    (bk.Add(1e308), {}, CONFIG, "size=1e"),
    (bk.Add([1]), {}, CONFIG, "size="),
    (bk.Add(), {"market": 110.0}, CONFIG, "does not lie between"),
    (bk.Add(), {"average": 89.0}, CONFIG, "the average price"),
    (bk.Add(), {}, msgspec.structs.replace(CONFIG, max_entries=1), "1 averaging levels and 0"),
    (bk.Extend(41), {}, CONFIG, "101 minutes; at most 100 (max_signal_lifetime_minutes)"),
    (bk.Extend(0), {}, CONFIG, "minutes=0 "),
    (bk.Extend(1.5), {}, CONFIG, "minutes=1.5 "),
    (bk.Extend(5), {"minute_estimated_time": None}, CONFIG, "without an end already"),
    (bk.Extend(10**30), {}, msgspec.structs.replace(CONFIG, max_signal_lifetime_minutes=0), "at m"),
    (bk.Close, {}, CONFIG, "is no action"),
    ("close", {}, CONFIG, "'close' is no action; use bk.MoveStop"),
    (object(), {}, CONFIG, "is no action"),
]


@SIDES
@pytest.mark.parametrize(("action", "how", "config"), ALLOWED)
def test_what_is_allowed(position, action, how, config):
    holding = held(position, config, **how)
    action = mirrored(position, action)
    after, close = act(holding, action, bar(position), config)
    match action:
        case bk.MoveStop(price):
            assert (after.stop, after.stopped_by) == (price, "stop_loss")
            assert after.moves == (price != holding.stop)
        case bk.MoveTarget(price):
            assert (after.target, after.moves) == (price, 1)
        case bk.Close(share):
            assert (close is None) == (share < 100)
        case bk.Add(size):
            assert after.cost == 1 + size
        case bk.Extend(minutes):
            assert after.expires_at == holding.expires_at + minutes * MINUTE


@SIDES
@pytest.mark.parametrize(("action", "how", "config", "why"), REFUSED)
def test_what_is_refused_says_why(position, action, how, config, why):
    how = dict(how)
    at = {name: how.pop(name) for name in ("market", "average") if name in how}
    holding, here = held(position, config, **how), bar(position, **at)
    with pytest.raises(bk.ActionError, match=re.escape(why)):
        act(holding, mirrored(position, action), here, config)


@SIDES
def test_wicks_ask_for_the_right_side_of_the_market_alone(position):
    config = msgspec.structs.replace(CONFIG, exit_trigger="wick")
    here = bar(position, 101.0, 99.0)
    stop = turn(position, 100.5)
    assert act(held(position, config), bk.MoveStop(stop), here, config).holding.stop == stop


@SIDES
def test_each_action_is_judged_by_what_those_before_it_have_left(position):
    wanted = (
        *(bk.Add(), bk.Add(2.0), bk.Add(), bk.MoveStop(95.0), bk.MoveStop(94.0)),
        *(bk.Close(50, note="half"), bk.Close(note="rest"), bk.Extend(1), None),
    )
    actions = [mirrored(position, action) for action in wanted]
    here = bar(position, 100.0)
    done, refused = act_in_turn(held(position), actions, here, CONFIG, "user")
    told = [x for one in done for x in transitions.acted(one, here.when, here.price)]
    assert [(x.action, x.number, x.reason) for x in told] == [
        ("added", 1, "user"),
        ("added", 2, "user"),
        ("moved", 1, "user"),
        ("partial", 1, "user"),
    ]
    assert told[3].note == "half"
    assert told[3].share == 50.0
    end = done[-1].managed
    assert (end.close.reason, end.close.note) == ("closed", "rest")
    assert [leg.reason for leg in end.holding.legs] == ["signal", "user", "user", "user", "closed"]
    whys = ["at most 3 together", "may only become tighter", "closed already", "None is no action"]
    assert all(why in str(error) for why, error in zip(whys, refused, strict=True))


@given(
    st.sampled_from(["long", "short"]),
    st.floats(1, 1000),
    st.floats(0.01, 100),
    st.lists(st.floats(0.01, 10), min_size=1, max_size=3),
)
@example("short", 68.2419, 0.4967474559860051, [0.3])
def test_a_stop_at_the_liquidation_price_stays_whatever_it_is_rounded_to(
    position, price, quantity, sizes
):
    config = msgspec.structs.replace(CONFIG, require_stop_loss=False, max_entries=8)
    row = msgspec.structs.replace(
        held("long").row,
        position=position,
        price_open=price,
        price_take_profit=None,
        price_stop_loss=None,
    )
    now = Bar(MINUTE, price, price, price, price, price, price)
    opening = Opening(quantity, 1e9, Terms(40.0, 0.02, 0.001, 0.0), Rules())
    opened = open_managed(row, now, config, opening).holding
    side = row.side
    # entries at the price of the first one leave the liquidation price where it was
    for factor, skipped, reason in (
        (1.0, 0, "liquidation"),
        (1 - side * 1e-9, 1, "liquidation"),
        (1 + side * 1e-9, 0, "stop_loss"),
    ):
        answer = [*map(bk.Add, sizes), bk.MoveStop(opened.stop * factor)]
        done, refused = act_in_turn(opened, answer, now, config, "manage")
        left = done[-1].managed.holding
        assert not refused
        assert left.state[at.BEYOND_LIQUIDATION] == skipped
        assert left.stopped_by == reason


def test_what_was_moved_and_by_whom_is_told():
    holding, here = held("long"), bar("long")
    actions = [bk.MoveTarget(120.0), bk.MoveStop(99.0), bk.Extend(10), bk.MoveStop(99.0)]
    done, _ = act_in_turn(holding, actions, here, CONFIG, "manage")
    told = [x for one in done for x in transitions.acted(one, here.when, here.price)]
    assert [(x.what, x.before, x.after, x.reason) for x in told] == [
        ("target", 110.0, 120.0, "manage"),
        ("stop", 90.0, 99.0, "manage"),
        ("lifetime", 60, 70, "manage"),
    ]
    assert [x.transition_id.rpartition(":")[2] for x in told] == ["moved 1", "moved 2", "moved 3"]


def test_what_is_seen_of_a_position():
    holding = held("long", price_take_profit=None)
    holding = step_managed(holding, bar("long", 104.0, minute=1), CONFIG).holding
    holding = step_managed(holding, bar("long", 95.0, minute=2), CONFIG).holding
    holding = act(holding, bk.Close(25), bar("long", 95.0, minute=2), CONFIG).holding
    position = position_of(holding, bar("long", 98.0, 99.0, minute=2))
    assert (position.price, position.market_price) == (99.0, 98.0)
    assert position.first_entry == 100.0
    assert position.effective_entry == pytest.approx((100 + 100) / (1 + 100 / 95))
    assert position.quantity == pytest.approx((1 + 100 / 95) * 0.75)
    assert position.cost == pytest.approx(2 * 0.75)
    assert position.share_open == pytest.approx(75.0)
    assert (position.price_stop_loss, position.price_take_profit) == (90.0, None)
    assert [leg.reason for leg in position.legs] == ["signal", "entry_level", "manage"]
    assert position.best_at == position.worst_at == 2 * MINUTE  # an entry begins the best anew
    entry = position.effective_entry
    assert position.best_percent == position.worst_percent == (95 - entry) / entry * 100
    assert (position.minutes_held, position.minutes_left) == (2, 58)


def test_a_stop_moved_away_is_drawn_back_at_the_next_step():
    holding = held("long", WIDER, trailing_stop=bk.TrailingStop(1.0), entries=())
    holding = step_managed(holding, bar("long", 104.0, minute=1), WIDER).holding
    assert (holding.stop, holding.stopped_by) == (104 * 0.99, "trailing_stop")
    holding = act(holding, bk.MoveStop(95.0), bar("long", 104.0, minute=1), WIDER).holding
    flat = np.full(5, 102.0)
    bars = Bars(2 * MINUTE, flat, flat, flat, flat, flat)
    found, ahead = search(holding, bars, MINUTE, WIDER)
    assert (found, ahead.stop) == (2 * MINUTE, 95.0)  # 102 would have reached the trailing stop
    holding, close = step_managed(ahead, bars.bar(found), WIDER)
    assert close is None
    assert (holding.stop, holding.stopped_by) == (104 * 0.99, "trailing_stop")
    assert search(holding, bars, found, WIDER)[0] == 3 * MINUTE


ACTIONS = [
    bk.MoveStop(1.5),
    bk.MoveTarget(2.5),
    bk.Close(),
    bk.Close(50.0, "x"),
    bk.Add(),
    bk.Extend(3),
]


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_json_both_ways(action):
    assert bk.action_from_json(action.to_json()) == action


@pytest.mark.parametrize(
    "text",
    [
        *('{"action":"sell"}', '{"action":"close","shares":50}', '{"action":"add","size":"1"}'),
        *('{"action":"extend"}', '{"action":"extend","minutes":1.5}', "{}", "close"),
    ],
)
def test_json_that_is_no_action_is_refused(text):
    with pytest.raises(ValueError, match=r"object|Object|unknown|Expected|malformed|Invalid"):
        bk.action_from_json(text)


@given(plays)
def test_a_plain_signal_held_as_a_managed_one_gives_the_same_bits(play):
    plain = {"trailing": None, "breakeven": None, "profits": (), "losses": (), "entries": ()}
    play = play | plain | {"waited": False}
    bars, config = candles(play), config_of(play)
    row = row_of(play, bars)
    holding, close = open_managed(row, bars.bar(MINUTE), config)
    assert close is None
    for when in range(2 * MINUTE, bars.stop, MINUTE):
        expected = pending_step(row, bars.bar(when), config)
        holding, close = step_managed(holding, bars.bar(when), config)
        assert close == expected
        if close is not None:
            tick = transitions.closed_managed(holding, when, 0.0, close.reason, config)
            assert tick == transitions.closed(row, when, 0.0, close, config)
            return


@given(st.floats(1e-9, 100))
def test_a_share_is_of_what_is_held_now(share):
    holding, here = held("long"), bar("long")
    holding = act(holding, bk.Close(50), here, CONFIG).holding
    after, close = act(holding, bk.Close(share), here, CONFIG)
    left = 0.5 * (1 - share / 100)
    if close is None:
        assert position_of(after, here).quantity == pytest.approx(left, abs=1e-15)
    else:
        assert left < 1.1e-9

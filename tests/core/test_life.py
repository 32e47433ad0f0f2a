"""The life of a signal as tables a trader can read: open, high, low, average price -> outcome.

Long: entry 100, take-profit 110, stop-loss 90, lifetime 60 minutes; waiting: 30 minutes. Each table
is played mirrored for a short as well.
"""

import pytest

from backtest_kit._rules import life
from backtest_kit._rules.profit import crossed
from backtest_kit._values.config import Config, configure
from backtest_kit._values.signal import SignalRow

MINUTE = 60_000


def row(position, *, pending):
    side = 1 if position == "long" else -1
    return SignalRow(
        id="x",
        symbol="X",
        strategy_name="s",
        exchange_name="e",
        position=position,
        price_open=100.0,
        price_take_profit=100.0 + side * 10,
        price_stop_loss=100.0 - side * 10,
        minute_estimated_time=60,
        scheduled_at=0,
        pending_at=0 if pending else None,
    )


def bar(position, minute, opening, high, low, price):
    if position == "short":
        opening, high, low, price = 200 - opening, 200 - low, 200 - high, 200 - price
    return life.Bar(minute * MINUTE, price, opening, high, low)


def mirrored(position, price):
    return 200 - price if position == "short" else price


WAITING = {
    "vwap": [
        # minute, open, high, low, average -> verdict
        (1, 105, 106, 99, 101, "wait"),  # a wick alone fills nothing
        (1, 105, 106, 99, 100, "activate"),  # the price itself has come down to the entry
        (1, 105, 106, 80, 91, "activate"),
        (1, 105, 106, 80, 90, "price_reject"),  # at the stop already: it doesn't buy
        (1, 105, 106, 80, 85, "price_reject"),
        (29, 105, 106, 104, 105, "wait"),
        (30, 105, 106, 104, 105, "timeout"),
        (30, 105, 106, 90, 95, "timeout"),  # expiry comes first
    ],
    "wick": [
        (1, 105, 106, 101, 99, "wait"),  # the average price is not asked
        (1, 105, 106, 100, 105, "activate"),
        (1, 105, 106, 91, 105, "activate"),
        (1, 105, 106, 90, 105, "activate_and_stop"),  # filled on the way down, and stopped
        (1, 105, 120, 90, 105, "activate_and_stop"),  # the take-profit is not credited
        (1, 90, 120, 85, 105, "price_reject"),  # opens at the stop
        (1, 91, 120, 91, 105, "activate"),
        (30, 105, 106, 100, 105, "activate"),  # the candle lies inside the lifetime
        (30, 105, 106, 101, 105, "timeout"),
    ],
}
FILLED = {
    "vwap": [
        # minute, open, high, low, average -> reason, price (None: lives on)
        (1, 100, 120, 80, 100, None),  # wicks do not count
        (1, 100, 120, 80, 110, ("take_profit", 110)),
        (1, 100, 120, 80, 118, ("take_profit", 110)),  # overshoot is not credited
        (1, 100, 120, 80, 90, ("stop_loss", 90)),
        (1, 100, 120, 80, 84, ("stop_loss", 84)),  # but charged
        (59, 100, 101, 99, 100, None),
        (60, 100, 101, 99, 103, ("time_expired", 103)),
        (60, 100, 101, 99, 115, ("time_expired", 115)),  # expiry comes first
    ],
    "wick": [
        (1, 100, 109, 91, 120, None),
        (1, 100, 110, 91, 100, ("take_profit", 110)),
        (1, 100, 109, 90, 100, ("stop_loss", 90)),
        (1, 90, 120, 85, 100, ("stop_loss", 90)),  # the open decides
        (1, 85, 120, 80, 100, ("stop_loss", 85)),  # a gap through the stop
        (1, 110, 115, 80, 100, ("take_profit", 110)),
        (1, 115, 118, 80, 100, ("take_profit", 110)),  # a gap in favour is not credited
        (60, 100, 110, 91, 100, ("take_profit", 110)),  # expiry comes last
        (60, 100, 109, 91, 104, ("time_expired", 104)),
    ],
}


@pytest.mark.parametrize("position", ["long", "short"])
@pytest.mark.parametrize(("trigger", "case"), [(t, c) for t in WAITING for c in WAITING[t]])
def test_waiting(position, trigger, case):
    config = configure(Config(), {"exit_trigger": trigger, "schedule_await_minutes": 30})
    *market, expected = case
    got = life.scheduled_step(row(position, pending=False), bar(position, *market), config)
    assert got == expected


@pytest.mark.parametrize("position", ["long", "short"])
@pytest.mark.parametrize(("trigger", "case"), [(t, c) for t in FILLED for c in FILLED[t]])
def test_filled(position, trigger, case):
    config = configure(Config(), {"exit_trigger": trigger})
    *market, expected = case
    got = life.pending_step(row(position, pending=True), bar(position, *market), config)
    if expected is None:
        assert got is None
    else:
        assert got == life.Close(expected[0], mirrored(position, expected[1]))


@pytest.mark.parametrize("position", ["long", "short"])
@pytest.mark.parametrize(
    ("rule", "reason", "price"),
    [("stop_loss_first", "stop_loss", 90), ("take_profit_first", "take_profit", 110)],
)
def test_a_candle_that_touches_both_is_ambiguous(position, rule, reason, price):
    config = configure(Config(), {"exit_trigger": "wick", "ambiguous_candle": rule})
    got = life.pending_step(
        row(position, pending=True), bar(position, 1, 100, 110, 90, 100), config
    )
    assert got == life.Close(reason, mirrored(position, price), ambiguous=True)


def test_a_milestone_is_reached_at_exactly_its_level():
    assert crossed(10.0, 0)[0] == [10]
    assert crossed(-20.0, 0)[0] == [-10, -20]
    assert crossed(9.999999, 0)[0] == []

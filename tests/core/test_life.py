"""The life of a signal as tables a trader can read: open, high, low, average price (and close).

Long: entry 100, take-profit 110, stop-loss 90, lifetime 60 minutes; waiting: 30 minutes. Each table
is played mirrored for a short as well.
"""

import pytest

from backtest_kit._rules.bars import Bar
from backtest_kit._rules.profit import crossed
from backtest_kit._rules.steps import Activation, Cancel, Close, pending_step, scheduled_step
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


def bar(position, minute, opening, high, low, price, close=None):
    close = price if close is None else close
    if position == "short":
        opening, high, low = 200 - opening, 200 - low, 200 - high
        price, close = 200 - price, 200 - close
    return Bar(minute * MINUTE, price, close, opening, high, low, close)


def mirrored(position, price):
    return 200 - price if position == "short" else price


WAITING = {
    "vwap": [
        # minute, open, high, low, average (close: the same) -> what becomes of it
        (1, 105, 106, 99, 101, "wait"),  # a wick alone fills nothing
        (1, 105, 106, 99, 100, "activate"),  # the price itself has come down to the entry
        (1, 105, 106, 80, 91, "activate"),
        (1, 105, 106, 80, 90, "price_reject"),  # at the stop already: it doesn't buy
        (1, 105, 106, 80, 85, "price_reject"),
        (29, 105, 106, 104, 105, "wait"),
        (30, 105, 106, 104, 105, "timeout"),
        (30, 105, 106, 90, 95, "timeout"),  # expiry comes first
        (1, 105, 106, 99, 99, 103, ("activate", 103)),  # the market is worse: that is paid
        (1, 105, 106, 99, 99, 95, ("activate", 100)),  # better than the limit is not credited
        (1, 105, 106, 89, 99, 90, "price_reject"),  # the market is at the stop
        (1, 105, 111, 99, 99, 110, "price_reject"),  # or at the target
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
        (60, 100, 101, 99, 115, 102, ("time_expired", 102)),  # at the market
        (1, 100, 120, 80, 111, 108, ("take_profit", 108)),  # the market has fallen back
        (1, 100, 120, 80, 111, 112, ("take_profit", 110)),
        (1, 100, 120, 80, 89, 92, ("stop_loss", 90)),  # the market has recovered: no credit
        (1, 100, 120, 80, 89, 85, ("stop_loss", 85)),
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
    waiting = row(position, pending=False)
    got = scheduled_step(waiting, bar(position, *market), config)
    if expected == "wait":
        assert got is None
    elif expected in ("timeout", "price_reject"):
        assert got == Cancel(expected)
    else:
        what, fill = expected if isinstance(expected, tuple) else (expected, 100)
        assert isinstance(got, Activation)
        assert (got.row.pending_at, got.row.price_open) == (
            market[0] * MINUTE,
            mirrored(position, fill),
        )
        stopped = Close("stop_loss", waiting.price_stop_loss)
        assert got.close == (stopped if what == "activate_and_stop" else None)


@pytest.mark.parametrize("position", ["long", "short"])
@pytest.mark.parametrize(("trigger", "case"), [(t, c) for t in FILLED for c in FILLED[t]])
def test_filled(position, trigger, case):
    config = configure(Config(), {"exit_trigger": trigger})
    *market, expected = case
    got = pending_step(row(position, pending=True), bar(position, *market), config)
    if expected is None:
        assert got is None
    else:
        assert got == Close(expected[0], mirrored(position, expected[1]))


@pytest.mark.parametrize("position", ["long", "short"])
@pytest.mark.parametrize(
    ("rule", "reason", "price"),
    [("stop_loss_first", "stop_loss", 90), ("take_profit_first", "take_profit", 110)],
)
def test_a_candle_that_touches_both_is_ambiguous(position, rule, reason, price):
    config = configure(Config(), {"exit_trigger": "wick", "ambiguous_candle": rule})
    got = pending_step(row(position, pending=True), bar(position, 1, 100, 110, 90, 100), config)
    assert got == Close(reason, mirrored(position, price), ambiguous=True)


def test_a_milestone_is_reached_at_exactly_its_level():
    assert crossed(10.0, 0)[0] == [10]
    assert crossed(-20.0, 0)[0] == [-10, -20]
    assert crossed(9.999999, 0)[0] == []

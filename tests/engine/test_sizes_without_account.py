"""Sizes on signals: checked in every run, used in none without an account."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk
from markets import START, market

BEGIN = datetime.fromtimestamp(START / 1000, UTC) + timedelta(minutes=30)


def run(get_signal=None, get_signals=None, listen=False):
    with bk.Engine() as engine:
        errors = []
        bk.listen_error(lambda event: errors.append(str(event.error)))
        if listen:
            bk.listen_signal(lambda tick: None)
        bk.add_exchange(bk.exchanges.FrameExchange(market(3, 400, gaps=False)))
        end = BEGIN + timedelta(hours=4)
        bk.add_frame(frame_name="f", interval="1m", start_date=BEGIN, end_date=end)
        bk.add_strategy(
            strategy_name="s",
            interval="5m",
            get_signal=get_signal,
            get_signals=get_signals,
            **({"warmup": 5} if get_signals else {}),
        )
        results = bk.Backtest.run_sync(
            "X", strategy_name="s", exchange_name="frame", frame_name="f"
        )
        return [*results], errors, engine.records.all()[0]


def proposing(**size):
    def get_signal(symbol, when):
        price = bk.average_price(symbol)
        return bk.Signal(
            position="long",
            price_take_profit=price * 1.01,
            price_stop_loss=price * 0.99,
            minute_estimated_time=20,
            **size,
        )

    return get_signal


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ({"cost": 0.0}, r"cost=0\.0 must be a finite number above 0"),
        ({"quantity": float("nan")}, "quantity=nan must be a finite number above 0"),
        ({"cost": "5"}, "cost='5' must be"),
        ({"quantity": -1}, "quantity=-1 must be"),
        ({"cost": 5.0, "quantity": 1.0}, "cost and quantity are both given; give one of them"),
    ],
)
def test_a_bad_size_makes_a_signal_invalid(size, text):
    results, errors, _ = run(proposing(**size))
    assert not results
    assert all("invalid signal: " in error for error in errors)
    assert re.search(text, errors[0])


def test_a_size_changes_nothing_and_is_in_the_row():
    plain, _, _ = run(proposing())
    sized, errors, _ = run(proposing(cost=100))
    assert not any("cost=" in error for error in errors)
    assert {tick.signal.cost for tick in sized} == {100.0}
    assert [tick.pnl for tick in plain] == [tick.pnl for tick in sized]
    assert '"cost"' not in plain[0].to_json()
    assert bk.tick_from_json(sized[0].to_json()) == sized[0]


def signals(candles):
    n = len(candles)
    minute = candles.timestamp // 300_000
    cost = np.where(minute % 3 == 0, np.nan, 50.0 + minute % 7)
    side = np.where(minute % 2 == 0, 1, -1)
    return bk.Signals.bracket(
        np.where(minute % 22 == 0, 0, side),  # some of the rows that are bad are no signals
        0.8,
        0.6,
        15,
        cost=np.where(minute % 11 == 0, -1.0, cost),
        quantity=np.where(minute % 13 == 0, 2.0, np.nan) if n else None,
    )


def test_columns_are_checked_row_by_row_in_arrays_as_in_steps():
    fast, errors, table = run(get_signals=signals)
    slow, told, steps = run(get_signals=signals, listen=True)
    assert fast == slow
    assert len(fast) > 10
    assert len({tick.signal.cost for tick in fast}) > 5
    assert any("cost=-1.0" in error for error in errors)
    assert any("both given" in error for error in told)
    assert table.error_count == steps.error_count > 2


def test_a_column_of_another_length_is_told():
    with pytest.raises(bk.SignalError, match="quantity has shape"):
        bk.Signals.bracket([1, 0], quantity=[1.0, 2.0, 3.0])

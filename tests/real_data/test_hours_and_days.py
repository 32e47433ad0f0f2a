"""Real candles of hours and days: a stock in New York, a coin that never sleeps."""

from datetime import timedelta

import pytest

import backtest_kit as bk
import reference
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit.exchanges._parts import read_file

HOUR, DAY = INTERVALS["1h"], INTERVALS["1d"]


def rows_of(candles):
    return [*zip(*(column.tolist() for column in candles.columns()), strict=True)]


def swing(percent, minutes):
    """Buy after a rise, sell after a fall."""

    def answer(window):
        if len(window) < 2 or window[-1][4] == window[-2][4]:
            return None
        price, side = window[-1][4], 1 if window[-1][4] > window[-2][4] else -1
        return {
            "position": "long" if side > 0 else "short",
            "price_take_profit": price * (1 + side * percent / 100),
            "price_stop_loss": price * (1 - side * percent / 100),
            "minute_estimated_time": minutes,
        }

    return answer


def play(rows, interval, answer, calendar=None):
    """Return the trades of a backtest and its record, and what the reference says."""
    step = INTERVALS[interval]
    start, end = rows[0][0] + 2 * step, rows[-1][0] + step
    with bk.Engine() as engine:
        engine.set_config(max_signal_lifetime_minutes=0)
        bk.add_exchange(bk.exchanges.FrameExchange([list(r) for r in rows], calendar=calendar))
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=to_datetime(start),
            end_date=to_datetime(end),
        )

        @bk.strategy("s", interval=interval)
        def get_signal(symbol, when):
            return answer([(0, 0, 0, 0, close) for close in bk.candles(symbol, interval, 2).close])

        found = bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        data = bk.Backtest.get_data("X", strategy_name="s")
        config = engine.records.select(mode="backtest")[0].config
    whole = reference.fill_gaps(rows, step)
    times = {row[0] + step: i for i, row in enumerate(whole)}
    there = {row[0] for row in rows}
    expected = reference.backtest(
        rows,
        start,
        end,
        step,
        step,
        lambda t, price: answer(whole[times[t] - 1 : times[t] + 1]),
        {name: getattr(config, name) for name in config.__struct_fields__},
        step,
        None if calendar is None else lambda t: t not in there,
    )
    closes = [
        ("closed", x.close_timestamp, x.close_reason, x.pnl.price_close, x.pnl.pnl_percentage)
        for x in found
    ]
    return closes, data, [fact[:5] for fact in expected if fact[0] == "closed"]


def test_days_of_a_stock_in_new_york(real_data):
    """Minutes of October 2013 as days: by the calendar, no day is missing."""
    days = rows_of(read_file(real_data / "SPY-1m-2013-10.parquet").candles.resample("1d"))
    assert all(to_datetime(row[0]).weekday() < 5 for row in days)
    closes, data, expected = play(days, "1d", swing(0.6, 3 * 1440), "XNYS")
    assert closes == expected
    assert len(closes) >= 3
    assert data.base_interval == "1d"
    assert data.gaps_filled == 0
    whole = (days[-1][0] - days[0][0]) // DAY + 1
    assert data.closed_candles == whole - len(days)
    for tick in data.signals:
        assert to_datetime(tick.close_timestamp - DAY).weekday() < 5


def test_without_a_calendar_its_weekends_are_gaps(real_data):
    days = rows_of(read_file(real_data / "SPY-1m-2013-10.parquet").candles.resample("1d"))
    closes, data, expected = play(days, "1d", swing(0.6, 3 * 1440))
    assert closes == expected
    assert data.closed_candles == 0
    assert data.gaps_filled > 0


@pytest.mark.parametrize("calendar", [None, "data"])
def test_hours_of_a_coin(real_data, calendar):
    hours = rows_of(read_file(real_data / "BTCUSDT-1h-2026-04.parquet").candles)
    closes, data, expected = play(hours, "1h", swing(0.7, 600), calendar)
    assert closes == expected
    assert len(closes) > 30
    assert (data.base_interval, data.exit_trigger) == ("1h", "wick")
    assert (data.gaps_filled, data.closed_candles) == (0, 0)


def test_a_folder_of_hours_and_minutes_takes_the_base_of_each_symbol(real_data):
    exchange = bk.exchanges.ParquetExchange(real_data / "BTCUSDT-1h-2026-04.parquet")
    assert exchange.intervals("BTCUSDT")[0] == "1h"
    first, end = exchange.data_range("BTCUSDT")
    assert (end - first) % timedelta(hours=1).total_seconds() == 0

"""Daily candles as Yahoo's files have them: downloaded, or written by yfinance of any age."""

import asyncio
from datetime import datetime

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._reports.data_check import inspect
from backtest_kit._values.time import INTERVALS, to_ms

DAY = INTERVALS["1d"]
#: date, open, high, low, close, adjusted close, volume; a weekend and a holiday between them
DAYS = [
    ("2024-03-07", 511.0, 515.9, 510.2, 514.8, 500.1, 58_652_100),
    ("2024-03-08", 515.5, 518.2, 511.1, 511.7, 497.1, 86_532_500),
    ("2024-03-11", 510.5, 511.9, 508.5, 511.3, 496.7, 62_557_200),
    ("2024-03-12", 513.5, 517.3, 510.9, 516.8, 502.0, 73_114_400),
]


def write(path, head, rows):
    path.write_text("\n".join([*head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def classic(folder):
    return write(folder / "classic.csv", ["Date,Open,High,Low,Close,Adj Close,Volume"], DAYS)


def with_empty_rows(folder):
    empty = [("2024-03-09", *["null"] * 6), ("2024-03-10", *[""] * 6)]
    rows = [*DAYS[:2], *empty, *DAYS[2:]]
    return write(folder / "null.csv", ["Date,Open,High,Low,Close,Adj Close,Volume"], rows)


def three_headers(folder):
    rows = [(d, a, c, h, low, o, v) for d, o, h, low, c, a, v in DAYS]
    names = "Adj Close,Close,High,Low,Open,Volume"
    head = [f"Price,{names}", "Ticker,SPY,SPY,SPY,SPY,SPY,SPY", "Date,,,,,,"]
    return write(folder / "headers.csv", head, rows)


def three_headers_adjusted(folder):
    rows = [(d, c, h, low, o, v) for d, o, h, low, c, _, v in DAYS]
    head = ["Price,Close,High,Low,Open,Volume", "Ticker,SPY,SPY,SPY,SPY,SPY", "Date,,,,,"]
    return write(folder / "adjusted.csv", head, rows)


def local_midnights(folder):
    """As `Ticker.history` writes them; summer time begins on the weekend between."""
    offsets = ["-05:00", "-05:00", "-04:00", "-04:00"]
    rows = [
        (f"{d} 00:00:00{offset}", o, h, low, c, v, 0.0, 0.0)
        for (d, o, h, low, c, _, v), offset in zip(DAYS, offsets, strict=True)
    ]
    head = ["Date,Open,High,Low,Close,Volume,Dividends,Stock Splits"]
    return write(folder / "history.csv", head, rows)


LAYOUTS = [classic, with_empty_rows, three_headers, three_headers_adjusted, local_midnights]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_days(layout, tmp_path):
    exchange = bk.exchanges.CsvExchange(layout(tmp_path))
    assert exchange.intervals("SPY")[0] == "1d"
    first, end = exchange.data_range("SPY")
    candles = asyncio.run(exchange.get_candles("SPY", "1d", first, 10))
    dates = [d for d, *_ in DAYS]
    assert [str(t) for t in candles.timestamp.astype("datetime64[ms]").astype("datetime64[D]")] == (
        dates
    )
    assert end == int(candles.timestamp[-1]) + DAY
    for column, place in (("open", 1), ("high", 2), ("low", 3), ("close", 4), ("volume", 6)):
        assert getattr(candles, column).tolist() == [float(row[place]) for row in DAYS], column


@pytest.mark.parametrize("layout", LAYOUTS)
def test_they_are_checked_by_the_calendar_of_their_exchange(layout, tmp_path):
    path = layout(tmp_path)
    plain, known = inspect(path), inspect(path, calendar="XNYS")
    assert plain.interval == known.interval == "1d"
    assert (plain.missing, plain.closed) == (2, 0)
    assert (known.missing, known.gaps, known.closed) == (0, (), 2)
    assert known.usable
    whole = inspect(path, calendar="24/7")
    assert (whole.missing, whole.closed) == (2, 0)


def test_a_gap_that_is_part_holiday_is_told_by_its_open_days(tmp_path):
    rows = [DAYS[0], ("2024-03-19", *DAYS[1][1:]), ("2024-03-20", *DAYS[2][1:])]
    path = write(tmp_path / "gap.csv", ["Date,Open,High,Low,Close,Adj Close,Volume"], rows)
    report = inspect(path, calendar="XNYS")
    day = np.datetime64("2024-03-08", "ms").astype(np.int64)
    assert [(gap.start, gap.count) for gap in report.gaps] == [
        (day, 1),
        (day + 3 * DAY, 5),
        (day + 10 * DAY, 1),
    ]
    assert (report.missing, report.closed) == (7, 4)


def test_several_tickers_are_refused(tmp_path):
    head = [
        "Price,Close,Close,High,Low,Open,Volume",
        "Ticker,AAPL,SPY,SPY,SPY,SPY,SPY",
        "Date,,,,,,",
    ]
    path = write(
        tmp_path / "two.csv", head, [(d, c, c, h, x, o, v) for d, o, h, x, c, _, v in DAYS]
    )
    with pytest.raises(bk.BadCandlesError, match="AAPL, SPY; give each a file of its own"):
        bk.exchanges.CsvExchange(path).series("SPY")


def test_hours_that_begin_at_a_midnight_are_hours(tmp_path):
    rows = [(f"2024-03-08 {i:02}:00:00-05:00", 10, 11, 9, 10, 5) for i in range(4)]
    path = write(tmp_path / "hours.csv", ["Datetime,Open,High,Low,Close,Volume"], rows)
    exchange = bk.exchanges.CsvExchange(path)
    assert exchange.intervals("SPY")[0] == "1h"
    assert exchange.data_range("SPY")[0] == to_ms(
        datetime.fromisoformat("2024-03-08 00:00:00-05:00")
    )


def test_a_row_with_a_price_missing_is_still_an_error(tmp_path):
    rows = [*DAYS, ("2024-03-13", "", 517.3, 510.9, 516.8, 502.0, 1)]
    path = write(tmp_path / "hole.csv", ["Date,Open,High,Low,Close,Adj Close,Volume"], rows)
    with pytest.raises(bk.BadCandlesError, match=r"2024-03-13.* not finite"):
        bk.exchanges.CsvExchange(path).series("SPY")

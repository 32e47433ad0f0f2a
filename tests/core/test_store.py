"""What an exchange does not answer, and gaps of any length, wherever a range begins or ends."""

import asyncio
import threading
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._data.store import LOOK_AROUND
from backtest_kit._reports.data_check import inspect
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START

HOUR = 60 * MINUTE
LONG = 3 * LOOK_AROUND
FIRST = START - 3 * LONG * HOUR


def hourly(hours):
    """Candles of the hours after the start, at a price that tells them apart."""
    t = FIRST + np.array(sorted(hours), dtype=np.int64) * HOUR
    price = 100 + (t - FIRST) // HOUR % 50 / 10
    return bk.Candles(t, price, price, price, price, np.ones(len(t)))


def exchange(candles, *, knows_range, page=1000):
    """An exchange that answers by windows of time, as some do; `asked` are the requests."""
    asked = []

    async def get_candles(symbol, interval, since, limit):
        asked.append((since, limit))
        begin, end = np.searchsorted(candles.timestamp, (since, since + limit * HOUR))
        return candles[int(begin) : int(end)]

    ends = int(candles.timestamp[0]), int(candles.timestamp[-1]) + HOUR
    schema = ExchangeSchema(
        exchange_name="x",
        get_candles=get_candles,
        page_limit=page,
        data_range=(lambda symbol: ends) if knows_range else None,
        intervals=("1h",),
    )
    return schema, asked


def load(schema, since, until):
    """Load a range, in hours after the first, on a new engine."""
    with bk.Engine() as engine:
        span = FIRST + since * HOUR, FIRST + until * HOUR
        return asyncio.run(engine.store.load(schema, "X", "1h", *span, engine.config))


@pytest.mark.parametrize("knows_range", [True, False])
@pytest.mark.parametrize("length", [LOOK_AROUND - 1, LOOK_AROUND + 1, LONG])
def test_a_range_that_begins_or_ends_inside_a_gap_is_filled(knows_range, length):
    """However long it is: neither the beginning nor the end of the data."""
    begin = 2 * LOOK_AROUND
    end, middle = begin + length, begin + length // 2
    candles = hourly([*range(begin), *range(end, end + begin)])
    schema, _ = exchange(candles, knows_range=knows_range)
    after = load(schema, middle, end + 50)
    assert (after.begins, after.first) == (False, FIRST + middle * HOUR)
    assert after.filled.sum() == end - middle
    before = load(schema, begin - 50, middle)
    assert before.stop > FIRST + middle * HOUR
    assert before.filled.sum() == length
    inside = load(schema, middle - 5, middle)
    assert inside.filled.sum() == end - (middle - 5)
    assert (inside.columns[4][inside.filled] == candles.close[begin - 1]).all()


@pytest.mark.parametrize("knows_range", [True, False])
def test_the_beginning_and_the_end_of_the_data_are_told_from_gaps(knows_range):
    schema, asked = exchange(hourly(range(500, 900)), knows_range=knows_range)
    segment = load(schema, 0, 2000)
    assert (segment.begins, segment.first) == (True, FIRST + 500 * HOUR)
    assert (segment.stop, segment.rows) == (FIRST + 900 * HOUR, 400)
    # with a range of its own it is asked for nothing behind it; else for few pages, far away
    assert len(asked) <= (2 if knows_range else 40)


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=12),
    st.integers(0, 400),
    st.integers(1, 400),
    st.booleans(),
    st.integers(1, 50),
)
def test_what_is_loaded_is_what_is_there(lengths, since, more, knows_range, page):
    """Candles and gaps by turns, against a plain dictionary, whatever the pages."""
    hours, at = [], 0
    for i, length in enumerate(lengths):
        hours += range(at, at + length) if i % 2 == 0 else []
        at += length
    until = min(since + more, hours[-1] + 1)
    assume(since < until)
    schema, _ = exchange(hourly(hours), knows_range=knows_range, page=page)
    segment = load(schema, since, until)
    there = set(hours)
    assert segment.first == FIRST + since * HOUR
    rows = range(since, since + segment.rows)
    assert segment.filled.tolist() == [hour not in there for hour in rows]
    last = [max(h for h in hours if h <= hour) for hour in rows]
    assert segment.columns[4].tolist() == [100 + hour % 50 / 10 for hour in last]


def minutes_but(gaps, length):
    """Rows of minutes of a wave without those in `gaps`, (first, count) each."""
    missing = {first + i for first, count in gaps for i in range(count)}
    for i in range(length):
        if i not in missing:
            price = 100 + i // 30 % 40 / 10
            yield START + i * MINUTE, price, price + 0.1, price - 0.1, price, 1.0


@pytest.mark.parametrize("arrays", [True, False])
@pytest.mark.parametrize("chunk", [1000, 131_072])
def test_reports_count_the_gaps_of_a_file_as_data_check_does(tmp_path, arrays, chunk):
    """A long outage in the middle and short ones on both sides, whatever is loaded at once."""
    gaps = ((250, 3), (1_500, 1), (3_000, LOOK_AROUND + 500), (15_000, 40))
    rows = list(minutes_but(gaps, 18_000))
    path = tmp_path / "X.csv"
    lines = (",".join(map(str, row)) for row in rows)
    path.write_text("timestamp,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
    checked = inspect(path)
    with bk.Engine() as engine:
        engine.set_config(candles_per_chunk=chunk)
        bk.add_exchange(bk.exchanges.CsvExchange(path))
        bk.add_frame(
            frame_name="f",
            interval="1h",
            start_date=to_datetime(START + HOUR),
            end_date=to_datetime(START) + timedelta(minutes=18_000),
        )
        answers = {"minute_estimated_time": 45, "position": "long"}
        levels = {"price_take_profit": 110.0, "price_stop_loss": 90.0}
        if arrays:

            def get_signals(candles):
                side = np.ones(len(candles), dtype=np.int8)
                return bk.Signals.bracket(side, 9.0, 9.0, 45)

            bk.add_strategy(strategy_name="s", interval="4h", warmup=1, get_signals=get_signals)
        else:
            bk.add_strategy(
                strategy_name="s", interval="4h", get_signal=lambda *_: answers | levels
            )
        names = {"strategy_name": "s", "exchange_name": "csv", "frame_name": "f"}
        bk.Backtest.run_sync("X", **names)
        data = bk.Backtest.get_data("X", **names)
        report = bk.Backtest.get_report("X", **names)
    assert checked.missing == 3 + 1 + LOOK_AROUND + 500 + 40
    assert data.candles.gaps == checked.gaps
    assert (data.gaps_filled, data.candles.candles) == (checked.missing, 18_000 - 55)
    assert f"{checked.missing} missing candles in 4 gaps" in report
    assert data.error_count == 0
    # trades on what was not there, by hand
    there = {row[0] for row in rows}
    on = [
        (t.signal.pending_at - MINUTE not in there, t.close_timestamp - MINUTE not in there)
        for t in data.signals
    ]
    assert data.on_filled == tuple(i for i, doubts in enumerate(on) if any(doubts))
    assert (data.filled_entries, data.filled_exits) == tuple(map(sum, zip(*on, strict=True)))
    assert data.filled_entries > 5
    assert report.count("(on a missing candle)") == len(data.on_filled)


def test_a_call_that_hangs_holds_one_thread_however_often_it_is_tried(engine):
    engine.set_config(get_candles_timeout_ms=20, get_candles_retry_count=3)
    gate, made = threading.Event(), []

    def get_candles(symbol, interval, since, limit):
        made.append(symbol)
        if symbol == "X":
            gate.wait(30)
        return hourly(range(10))

    schema = ExchangeSchema(exchange_name="x", get_candles=get_candles)

    def ask(symbol):
        span = FIRST, FIRST + 10 * HOUR
        return asyncio.run(engine.store.load(schema, symbol, "1h", *span, engine.config))

    for _ in range(3):
        with pytest.raises(bk.FetchError, match=r"failed 4 times.* s ago still hangs; no other"):
            ask("X")
    assert made == ["X"]
    assert ask("Y").rows == 10, "other symbols are asked for"
    gate.set()
    while any(thread.name == "get_candles" for thread in threading.enumerate()):
        threading.Event().wait(0.001)
    assert ask("X").rows == 10

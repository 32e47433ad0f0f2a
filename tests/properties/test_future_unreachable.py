"""Scrambling everything after an instant changes nothing that was decided before it."""

from datetime import timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START, market, script


def decisions(rows, seed, trigger, count):
    """All that a curious strategy has seen, answered and lived through, with its instants."""
    seen, told = [], []
    proposals = script(seed, 0.3)

    async def get_signal(symbol, when):
        now = int(when.timestamp() * 1000)
        for interval, limit in (("1m", 7), ("5m", 3), ("1h", 1)):
            try:
                window = await bk.get_candles(symbol, interval, limit)
            except bk.DataRangeError:
                continue
            step = {"1m": 1, "5m": 5, "1h": 60}[interval] * MINUTE
            assert int(window.timestamp[-1]) + step <= now
            assert len(window) == limit
            seen.append((now, interval, [c.tobytes() for c in window.columns()]))
        price = await bk.get_average_price(symbol)
        seen.append((now, "price", price))
        return proposals(now, price)

    with bk.Engine() as engine:
        engine.set_config(exit_trigger=trigger)
        bk.add_exchange(bk.exchanges.FrameExchange([list(row) for row in rows]))
        start = to_datetime(START)
        bk.add_frame(
            frame_name="f",
            interval="1m",
            start_date=start + timedelta(minutes=6),
            end_date=start + timedelta(minutes=count),
        )
        bk.add_strategy(strategy_name="s", interval="3m", get_signal=get_signal)
        bk.listen_signal(lambda tick: told.append((tick.timestamp, tick.to_json())))
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
    return seen + told  # when a listener is called, between the strategy's calls, is left open


@given(st.integers(0, 2**32), st.integers(20, 190), st.sampled_from(["vwap", "wick"]))
def test_the_future_decides_nothing(seed, cut, trigger):
    rows = market(seed, 200, gaps=False)
    when = START + cut * MINUTE
    rng = np.random.default_rng(seed)
    other = [
        row if row[0] + MINUTE <= when else (row[0], *(x * f for x in row[1:5]), row[5] + 1)
        for row, f in zip(rows, rng.uniform(0.5, 2.0, len(rows)), strict=True)
    ]
    before = [x for x in decisions(rows, seed, trigger, 190) if x[0] <= when]
    after = [x for x in decisions(other, seed, trigger, 190) if x[0] <= when]
    assert before
    assert before == after

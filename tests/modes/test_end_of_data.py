"""Where the data end inside a frame, a run says so, however it is computed and whoever listens."""

import numpy as np
import pytest

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from markets import MINUTE, START, market


def signals(candles):
    return bk.Signals.bracket(np.where(candles.close > candles.open, 1, -1), 1.0, 1.0, 20)


def ask(symbol, when):
    price = bk.average_price(symbol)
    return bk.Signal(
        position="long",
        price_take_profit=price * 1.01,
        price_stop_loss=price * 0.99,
        minute_estimated_time=20,
    )


LISTENERS = {
    "nobody": lambda: None,
    "ticks": lambda: bk.listen_signal_backtest(lambda tick: None),
    "progress": lambda: bk.listen_backtest_progress(lambda event: None),
}


def played(minutes, end, interval, listen, **strategy):
    with bk.Engine() as engine:
        bk.add_exchange(bk.exchanges.FrameExchange(market(2, minutes, gaps=False)))
        begin = to_datetime(START + 60 * MINUTE)
        until = to_datetime(START + end * MINUTE)
        bk.add_frame(frame_name="f", interval="1m", start_date=begin, end_date=until)
        bk.add_strategy(strategy_name="s", interval=interval, **strategy)
        LISTENERS[listen]()
        bk.Backtest.run_sync("X", strategy_name="s", exchange_name="frame", frame_name="f")
        (record,) = engine.records.all()
        return record.frames, record.complete, (record.until - START) // MINUTE, record.calls


@pytest.mark.parametrize("strategy", [{"get_signals": signals, "warmup": 2}, {"get_signal": ask}])
@pytest.mark.parametrize(
    ("minutes", "end", "interval"),
    # the last frames lie behind the data; the strategy is due there, or at none of them
    [(400, 410, "1h"), (400, 420, "1h"), (400, 430, "1h"), (403, 404, "5m"), (400, 405, "5m")],
)
def test_frames_behind_the_data_were_not_played(minutes, end, interval, strategy):
    found = {name: played(minutes, end, interval, name, **strategy) for name in LISTENERS}
    assert len({*found.values()}) == 1, found
    frames, complete, until, calls = found["nobody"]
    assert (frames, complete, until) == (minutes - 59, False, minutes)
    assert calls > 3


@pytest.mark.parametrize("listen", LISTENERS)
def test_a_frame_that_ends_with_the_data_is_complete(listen):
    frames, complete, until, _ = played(400, 400, "1h", listen, get_signals=signals, warmup=2)
    assert (frames, complete, until) == (341, True, 400)

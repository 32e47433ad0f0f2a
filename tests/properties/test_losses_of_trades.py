"""What a trade could have lost, as the test of a walk needs it: from arrays, and from prices."""

import numpy as np
import pytest

import backtest_kit as bk


def strategy(step, take_profit, stop_loss, side):
    def get_signals(candles):
        entries = np.where(candles.timestamp // 60_000 % step == 0, side, 0).astype(np.int8)
        return bk.Signals.bracket(entries, take_profit, stop_loss, minute_estimated_time=step - 2)

    return {"interval": "1m", "get_signals": get_signals, "warmup": 1}


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("stop", [None, 5.0])
def test_what_trades_could_have_lost(stop, side):
    rng = np.random.default_rng(3)
    path = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, (900, 4)).ravel())).reshape(900, 4)
    times = 1_704_067_200_000 + np.arange(900) * 60_000
    first, last = path[:, 0], path[:, -1]
    candles = bk.Candles(times, first, path.max(1), path.min(1), last, np.ones(900))
    found = bk.compare(
        candles,
        [bk.StrategySchema(strategy_name="s", **strategy(17, 90.0, stop, side))],
        symbol="X",
        percent_fee=0.0,
        percent_slippage=0.0,
        require_stop_loss=False,
    )
    (trial,) = found.trials_kept
    trades = trial.trades
    assert len(trades.r) > 10
    assert np.isnan(trades.stop_loss).all() == (stop is None)
    assert np.isnan(trades.worst_loss).all() == (stop is not None)
    if stop is not None:
        assert trades.stop_loss == pytest.approx(stop, rel=0.05)
        return
    for i, (opened, closed) in enumerate(zip(trades.opened_at, trades.closed_at, strict=True)):
        # a candle is known when it closes, and the fill is at the close of the first
        inside = (candles.timestamp >= opened) & (candles.timestamp < closed)
        entry = candles.close[np.searchsorted(candles.timestamp, opened) - 1]
        if not inside.any():  # opened at the end of the data
            assert np.isnan(trades.worst_loss[i])
            continue
        low, high = candles.low[inside].min(), candles.high[inside].max()
        worst = (entry - low) / entry if side > 0 else (high - entry) / entry
        assert trades.worst_loss[i] == pytest.approx(worst * 100, rel=1e-6, abs=1e-9)
        assert trades.worst_loss[i] >= -trades.r[i] - 1e-9

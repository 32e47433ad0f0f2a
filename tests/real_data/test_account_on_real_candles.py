"""An account over real candles: its curve again from its trades alone, and by pandas."""

from datetime import UTC, datetime

import numpy as np
import pytest

import backtest_kit as bk

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.slow

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
RUNS = {"trend": [*SYMBOLS], "revert": ["BTCUSDT", "SOLUSDT"]}


def crossover(sign):
    def get_signals(candles):
        fast = bk.trailing_mean(candles.close, 10) > bk.trailing_mean(candles.close, 40)
        side = np.zeros(len(candles), dtype=np.int64)
        side[1:] = np.where(fast[1:] == fast[:-1], 0, np.where(fast[1:], sign, -sign))
        return bk.Signals.bracket(side, 2.0, 1.0, 1440)

    return get_signals


@pytest.fixture(scope="module")
def played(real_data, tmp_path_factory):
    """Two strategies on three symbols in March and April 2026, and the closes of each minute."""
    folder = tmp_path_factory.mktemp("candles")
    for symbol in SYMBOLS:
        (folder / f"{symbol}.parquet").symlink_to(
            real_data / f"{symbol}-1m-2026-03_2026-04.parquet"
        )
    start, end = datetime(2026, 3, 25, tzinfo=UTC), datetime(2026, 4, 20, 9, 30, tzinfo=UTC)
    with bk.Engine():
        exchange = bk.exchanges.ParquetExchange(folder)
        bk.add_exchange(exchange)
        bk.add_frame(frame_name="f", interval="1m", start_date=start, end_date=end)
        bk.add_account(account_name="main", currency="USDT", balance=10_000.0, leverage=3.0)
        for name, sign in (("trend", 1), ("revert", -1)):
            bk.add_strategy(
                strategy_name=name, interval="15m", get_signals=crossover(sign), warmup=60
            )
        result = bk.Portfolio.run_sync(
            RUNS, exchange_name="parquet", frame_name="f", account_name="main"
        )
    closes = {
        symbol: pd.read_parquet(folder / f"{symbol}.parquet").set_index("timestamp").close
        for symbol in SYMBOLS
    }
    return result, closes


def test_the_curve_is_that_of_the_trades(played):
    """Each trade enters once and leaves once: its fees, its open profit, then its profit."""
    result, closes = played
    equity = np.full(len(result.curve), 10_000.0)
    assert len(result.trades) > 100
    for tick in result.trades:
        money, side = tick.money, 1 if tick.signal.position == "long" else -1
        opened, closed = tick.signal.pending_at, tick.close_timestamp
        held = (result.curve.timestamp >= opened) & (result.curve.timestamp < closed)
        known = result.curve.timestamp[held] - 60_000  # candles bear the time of their opening
        mark = closes[tick.symbol].reindex(known, method="ffill").to_numpy()
        fee = result.runs[0].percent_fee / 100 * money.cost
        equity[held] += side * (money.quantity * mark - money.cost) - fee
        equity[result.curve.timestamp >= closed] += money.profit
    assert result.curve.equity == pytest.approx(equity, rel=0, abs=1e-9 * 10_000)


def test_days_and_drawdown_agree_with_pandas(played):
    result, _ = played
    s = result.statistics
    at = pd.to_datetime(result.curve.timestamp, unit="ms") - pd.Timedelta(1, "ms")
    at = at[:1] + pd.Timedelta(1, "ms"), at[1:]
    equity = pd.Series(result.curve.equity, index=at[0].append(at[1]))
    days = equity.resample("D").last()
    returns = days.pct_change()
    returns.iloc[0] = days.iloc[0] / 10_000 - 1
    pd.testing.assert_series_equal(
        result.returns(), returns, check_names=False, check_freq=False, check_index_type=False
    )
    assert s.days == len(days) == 28  # the last trade outlives the frame
    fall = 1 - equity / equity.cummax().clip(lower=10_000)
    assert s.max_drawdown_percent == pytest.approx(100 * fall.max())
    trough = int(result.curve.timestamp[int(fall.to_numpy().argmax())])
    assert s.drawdown_trough_at == trough
    assert s.growth_percent == pytest.approx((equity.iloc[-1] / 10_000 - 1) * 100)
    assert s.fees == pytest.approx(sum(tick.money.fees for tick in result.trades))


def test_holding_is_the_mean_of_the_symbols(played):
    result, closes = played
    first, last = (int(result.curve.timestamp[i]) - 60_000 for i in (0, -1))
    grown = [series.loc[:last].iloc[-1] / series.loc[:first].iloc[-1] for series in closes.values()]
    expected = 100 * (np.mean(grown) - 1)
    assert result.statistics.benchmark_growth_percent == pytest.approx(expected)

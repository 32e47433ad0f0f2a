"""Array strategies: the last row over a trailing window is what a function would answer."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import backtest_kit as bk

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = {"exchange_name": "synthetic", "frame_name": "f"}


@pytest.fixture(autouse=True)
def market():
    bk.add_exchange(bk.exchanges.SyntheticExchange(seed=2))
    bk.add_frame(
        frame_name="f", interval="1m", start_date=START, end_date=START + timedelta(days=5)
    )


def sides(closes):
    fast = np.convolve(closes, np.ones(5) / 5, "full")[: len(closes)]
    return np.where(closes > fast * 1.002, 1, np.where(closes < fast * 0.998, -1, 0))


def test_it_trades_as_the_same_strategy_written_as_a_function():
    def get_signals(candles):
        side = sides(candles.close)
        return bk.Signals(
            side,
            candles.close * (1 + side * 0.02),
            candles.close * (1 - side * 0.01),
            120,
            np.where(side > 0, candles.close * 0.999, np.nan),
        )

    async def get_signal(symbol, when):
        closes = (await bk.get_candles(symbol, "5m", 40)).close
        side, close = int(sides(closes)[-1]), float(closes[-1])
        if side == 0:
            return None
        return bk.Signal(
            position="long" if side > 0 else "short",
            price_take_profit=close * (1 + side * 0.02),
            price_stop_loss=close * (1 - side * 0.01),
            minute_estimated_time=120,
            price_open=close * 0.999 if side > 0 else None,
        )

    bk.add_strategy(strategy_name="array", interval="5m", get_signals=get_signals, warmup=40)
    bk.add_strategy(strategy_name="plain", interval="5m", get_signal=get_signal)
    array, plain = (
        bk.Backtest.run_sync("X", strategy_name=name, **NAMES) for name in ("array", "plain")
    )
    assert len(array) > 10
    assert {t.signal.position for t in array} == {"long", "short"}
    for a, b in zip(array, plain, strict=True):
        assert (a.close_timestamp, a.close_reason, a.pnl) == (
            b.close_timestamp,
            b.close_reason,
            b.pnl,
        )


def test_a_bracket_measures_from_the_actual_entry():
    bk.add_strategy(
        strategy_name="b",
        interval="1h",
        warmup=3,
        get_signals=lambda candles: bk.Signals.bracket(np.full(len(candles), -1), 1.5, 0.8, 60),
    )
    closed = bk.Backtest.run_sync("X", strategy_name="b", **NAMES)
    assert len(closed) > 50
    for tick in closed:
        row = tick.signal
        assert row.price_take_profit == pytest.approx(row.price_open * 0.985)
        assert row.price_stop_loss == pytest.approx(row.price_open * 1.008)
        assert row.minute_estimated_time == 60


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bk.Signals([0, 2], 1, 1, 1), "side must be"),
        (lambda: bk.Signals([[1]], 1, 1, 1), "side must be one-dimensional"),
        (lambda: bk.Signals([0, 1], [1, 2, 3], 1, 1), r"price_take_profit has shape \(3,\)"),
    ],
)
def test_bad_columns(make, message):
    with pytest.raises(bk.SignalError, match=message):
        make()


def test_an_answer_of_another_length_is_an_error_event():
    errors = []
    bk.listen_error(errors.append)
    bk.add_strategy(
        strategy_name="s",
        interval="1d",
        warmup=2,
        get_signals=lambda candles: bk.Signals([0], 1, 1, 1),
    )
    bk.Backtest.run_sync("X", strategy_name="s", **NAMES)
    assert len(errors) == 6
    assert "return Signals with 2 rows" in str(errors[0].error)


def test_a_strategy_is_written_in_one_way():
    with pytest.raises(bk.RegistrationError, match="either get_signal or get_signals"):
        bk.add_strategy(strategy_name="s", interval="1m")


def test_registering_by_schema_and_by_decorator():
    bk.add_strategy(
        bk.StrategySchema(strategy_name="a", interval="1m", get_signal=lambda s, w: None)
    )

    @bk.exchange("mem")
    def mem(symbol, interval, since, limit):
        return []

    @bk.strategy("b", interval="1m", note="kept")
    def b(symbol, when):
        return None

    assert [s.strategy_name for s in bk.list_strategies()] == ["a", "b"]
    assert bk.list_strategies()[1].note == "kept"
    assert [e.exchange_name for e in bk.list_exchanges()] == ["synthetic", "mem"]
    with pytest.raises(bk.RegistrationError, match="expected a FrameSchema"):
        bk.add_frame(bk.list_strategies()[0])
    with pytest.raises(bk.RegistrationError, match="or its fields, not both"):
        bk.add_strategy(bk.list_strategies()[0], note="x")
    with pytest.raises(bk.RegistrationError, match="FrameSchema: Missing required argument"):
        bk.add_frame(frame_name="x")


def of_means(candles):
    fast, slow = bk.trailing_mean(candles.close, 5), bk.trailing_mean(candles.close, 20)
    return bk.Signals.bracket(np.nan_to_num(np.sign(fast - slow)), 1.0, 0.8, 30)


def exponential(candles):
    out = np.empty(len(candles))
    last = candles.close[0]
    for i, value in enumerate(candles.close):
        last = out[i] = last + (value - last) * 0.05
    return bk.Signals(np.ones(len(out)), out * 1.03, out * 0.97, 30)


def next_close(candles):
    later = np.concatenate((candles.close[1:], [np.nan]))
    return bk.Signals.bracket(np.where(later > candles.close, 1, 0), 1.0, 0.8, 30)


def counted(function, calls):
    def get_signals(candles):
        calls.append(len(candles))
        return function(candles)

    return get_signals


def test_signals_are_computed_once_for_many_frames_and_compared_with_windows():
    calls = []
    bk.add_strategy(
        strategy_name="s", interval="5m", warmup=25, get_signals=counted(of_means, calls)
    )
    closed = bk.Backtest.run_sync("X", strategy_name="s", **NAMES)
    assert len(closed) > 100
    assert bk.Backtest.get_data("X", strategy_name="s").calls > 200
    assert sum(length > 1_000 for length in calls) == 1
    assert 6 <= len(calls) < 60


def test_a_long_memory_is_asked_step_by_step_and_the_log_says_so_once(caplog):
    calls = []
    bk.add_strategy(
        strategy_name="s", interval="5m", warmup=25, get_signals=counted(exponential, calls)
    )
    with caplog.at_level("INFO", "backtest_kit"):
        closed = bk.Backtest.run_sync("X", strategy_name="s", **NAMES)
    told = [r.getMessage() for r in caplog.records if "remembers more" in r.getMessage()]
    assert len(told) == 1
    assert "'s' remembers more than its last 25 candles, first at that of 2024-01-0" in told[0]
    assert "asked step by step" in told[0]
    asked = bk.Backtest.get_data("X", strategy_name="s").calls
    assert calls.count(25) >= asked
    window = of_last_window(closed[0], 25)
    assert closed[0].signal.price_take_profit == window.price_take_profit[-1]


def of_last_window(tick, warmup):
    source = bk.exchanges.SyntheticExchange(seed=2)
    since = (tick.signal.scheduled_at // 300_000 - warmup) * 300_000

    return exponential(asyncio.run(source.get_candles("X", "5m", since, warmup)))


def test_a_look_into_the_future_ends_the_run():
    bk.add_strategy(strategy_name="s", interval="5m", warmup=25, get_signals=next_close)
    with pytest.raises(bk.PeekingError, match="strategy 's' looks into the future: at row"):
        bk.Backtest.run_sync("X", strategy_name="s", **NAMES)


@pytest.mark.slow
def test_a_walk_leaves_out_a_strategy_that_looks_into_the_future():
    bk.add_strategy(strategy_name="bad", interval="5m", warmup=25, get_signals=next_close)
    bk.add_strategy(strategy_name="good", interval="5m", warmup=25, get_signals=of_means)
    bk.add_walker(walker_name="w", strategies=["bad", "good"], **NAMES)
    bad, good = bk.Walker.run_sync("X", walker_name="w")
    assert bad.error.startswith("PeekingError: strategy 'bad' looks into the future")
    assert good.error is None
    trades = bk.Backtest.run_sync("X", strategy_name="good", **NAMES)
    assert good.statistics.total_pnl == np.array([t.pnl.pnl_percentage for t in trades]).sum()


def test_a_strategy_that_asks_for_now_is_asked_step_by_step():
    def get_signals(candles):
        assert int(bk.get_date().timestamp() * 1000) >= candles.timestamp[-1] + 300_000
        return of_means(candles)

    bk.add_strategy(strategy_name="now", interval="5m", warmup=25, get_signals=get_signals)
    bk.add_strategy(strategy_name="s", interval="5m", warmup=25, get_signals=of_means)
    now, plain = (
        [t.pnl for t in bk.Backtest.run_sync("X", strategy_name=name, **NAMES)]
        for name in ("now", "s")
    )
    assert now == plain
    assert len(now) > 100


def test_a_walk_that_somebody_listens_to_has_the_same_figures():
    def of(count):
        def get_signals(candles):
            mean = bk.trailing_mean(candles.close, count)
            return bk.Signals.bracket(np.nan_to_num(np.sign(candles.close - mean)), 1.0, 0.8, 30)

        return {"get_signals": get_signals, "warmup": 25, "interval": "5m"}

    bk.add_walker(walker_name="w", strategies=bk.grid(of, count=[3, 5, 20]), **NAMES)
    alone = bk.Walker.run_sync(("X", "Y"), walker_name="w")
    heard = []
    bk.listen_signal(heard.append)
    assert bk.Walker.run_sync(("X", "Y"), walker_name="w") == alone
    assert min(contract.statistics.total_signals for contract in alone) > 50
    assert heard


COLD = """
import sys
from datetime import UTC, datetime
import numpy as np
import backtest_kit as bk
from backtest_kit._backtest import array_results as _array_results

_array_results._WORTHWHILE = 12_000
bk.add_exchange(bk.exchanges.SyntheticExchange(seed=1))
bk.add_frame(frame_name="f", interval="1m", start_date=datetime(2024, 1, 2, tzinfo=UTC),
             end_date=datetime(2024, 1, 6, tzinfo=UTC))
bk.add_strategy(strategy_name="s", interval="1m", warmup=20, get_signals=lambda c:
                bk.Signals.bracket(c.close > bk.trailing_mean(c.close, 20), 1.0, 0.8, 60))
found, loaded = [], []
for _ in range(3):
    found.append(bk.Backtest.run_sync("X", strategy_name="s", exchange_name="synthetic",
                                      frame_name="f"))
    loaded.append("numba" in sys.modules)
assert found[0] == found[1] == found[2] and len(found[0]) > 20
print(loaded)
"""


@pytest.mark.slow
def test_numba_is_loaded_once_it_pays():
    pytest.importorskip("numba", reason="needs Numba: pip install 'backtest-kit[numba]'")
    done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True)
    assert done.stdout == "[False, False, True]\n"


BROKEN = """
import sys
sys.path.insert(0, sys.argv[1])
""" + COLD.replace(
    "print(loaded)",
    """
bk.add_walker(walker_name="w", exchange_name="synthetic", frame_name="f", strategies=["s"])
(told,) = bk.Walker.run_sync("X", walker_name="w")
assert told.statistics.total_signals == len(found[0])
""",
)


def test_a_numba_that_cannot_be_imported_costs_time_alone(tmp_path):
    (tmp_path / "numba.py").write_text('raise ImportError("Numba needs NumPy 2.0 or less")')
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

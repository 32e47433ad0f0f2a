"""The engine over real markets: outages, a crash, weekends, nights, no volume."""

from datetime import timedelta

import msgspec
import pytest

import backtest_kit as bk
import reference
from backtest_kit._reports.data_check import inspect
from backtest_kit._values.candle_rules import check_candles
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit.exchanges._parts import read_file

MINUTE = 60_000


@pytest.mark.parametrize("interval", ["5m", "1h"])
def test_resampling_equals_the_exchange_bit_for_bit(real_data, interval):
    fine = read_file(real_data / "BTCUSDT-1m-2026-03_2026-04.parquet").candles
    own = read_file(real_data / f"BTCUSDT-{interval}-2026-04.parquet").candles
    step = INTERVALS[interval]
    made = fine.resample(interval)
    first = max(int(own.timestamp[0]), -(-int(fine.timestamp[0]) // step) * step)
    end = min(int(own.timestamp[-1]) + step, (int(fine.timestamp[-1]) + MINUTE) // step * step)
    a = made[int((made.timestamp < first).sum()) : int((made.timestamp < end).sum())]
    b = own[int((own.timestamp < first).sum()) : int((own.timestamp < end).sum())]
    assert len(a) > 100
    assert a == b


def test_every_file_keeps_the_rules(real_data):
    files = [*real_data.glob("*.parquet"), *(real_data / "binance-vision").glob("*.gz")]
    assert files
    for path in files:
        report = inspect(path)
        assert report.usable, f"{path}: {report.invalid}"
        check_candles(read_file(path).candles, INTERVALS[report.interval])
        kinds = [s.kind for s in report.suspicions]
        assert kinds == (["split"] if path.name.startswith("AAPL") else []), path


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("BTCUSDT-1m-2023", 80),
        ("BTCUSDT-1m-2020-03", 128),
        ("BTCUSDT-1m-2018-01_2018-02", 2185),
        ("EURUSD-fxcm-1m-2014-05", 5743),
        ("SPY-1m-2013-10", 6195),
    ],
)
@pytest.mark.parametrize("trigger", ["vwap", "wick"])
def test_a_crossover_over_real_markets(real_data, name, missing, trigger):
    bk.set_config(exit_trigger=trigger)
    exchange = bk.exchanges.ParquetExchange(real_data / f"{name}.parquet")
    bk.add_exchange(exchange)
    first, end = exchange.data_range("X")
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=to_datetime(first + 5 * MINUTE),
        end_date=to_datetime(end),
    )

    @bk.strategy("s", interval="5m")
    async def s(symbol, when):
        closes = (await bk.get_candles(symbol, "1m", 101)).close
        p = closes[-1]  # where it is filled
        if not closes[-20:].mean() > closes[:-1].mean() >= closes[-21:-1].mean():
            return None
        return bk.Signal(
            position="long",
            price_take_profit=p * 1.01,
            price_stop_loss=p * 0.99,
            minute_estimated_time=240,
        )

    closed = bk.Backtest.run_sync("X", strategy_name="s", exchange_name="parquet", frame_name="f")
    data = bk.Backtest.get_data("X", strategy_name="s")
    assert data.complete
    assert data.gaps_filled == missing
    assert closed
    warming = sum(error.count for error in data.errors if "the data begin" in error.message)
    crashed = sum(e.count for e in data.errors if "the average price" in e.message)
    assert warming + crashed == data.error_count
    assert crashed <= 1
    if name == "BTCUSDT-1m-2023":
        report = bk.Backtest.get_report("X", strategy_name="s")
        assert "80 missing candles in 1 gap: 2023-03-24T12:40Z (80)" in report


def test_a_real_week_equals_the_reference(real_data):
    candles = read_file(real_data / "BTCUSDT-1m-2020-03.parquet").candles[13_000:20_000]
    rows = list(zip(*(c.tolist() for c in candles.columns()), strict=True))
    first = -(-int(candles.timestamp[0]) // (15 * MINUTE)) * 15 * MINUTE - 10 * MINUTE

    def script(t, price):
        side = 1 if (t // MINUTE) % 3 else -1
        base = price * (1 - side * 0.004) if (t // MINUTE) % 2 else price
        return {
            "position": "long" if side > 0 else "short",
            "price_open": base,
            "price_take_profit": base * (1 + side * 0.02),
            "price_stop_loss": base * (1 - side * 0.015),
            "minute_estimated_time": 300,
        }

    for trigger in ("vwap", "wick"):
        bk.set_config(exit_trigger=trigger)
        with bk.Engine() as engine:
            engine.set_config(exit_trigger=trigger)
            bk.add_exchange(bk.exchanges.FrameExchange(candles))
            start = to_datetime(first) + timedelta(minutes=10)
            end = start + timedelta(minutes=6500)
            bk.add_frame(frame_name="f", interval="5m", start_date=start, end_date=end)
            bk.add_strategy(
                strategy_name="s",
                interval="15m",
                get_signal=lambda s, when: script(
                    int(when.timestamp()) * 1000, bk.average_price(s)
                ),
            )
            closed = bk.Backtest.run_sync(
                "X", strategy_name="s", exchange_name="frame", frame_name="f"
            )
            config = msgspec.structs.asdict(engine.records.select(mode="backtest")[0].config)
        expected = reference.backtest(
            rows,
            first + 10 * MINUTE,
            first + 6510 * MINUTE,
            5 * MINUTE,
            15 * MINUTE,
            script,
            config,
        )
        assert len(closed) > 20
        assert [(c.close_timestamp, c.close_reason, c.pnl.pnl_percentage) for c in closed] == [
            (e[1], e[2], e[4]) for e in expected if e[0] == "closed"
        ]

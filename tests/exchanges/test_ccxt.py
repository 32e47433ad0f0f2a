"""A real ccxt client against a local server that speaks Binance's public REST interface."""

import subprocess
import sys
from datetime import timedelta

import pytest

import backtest_kit as bk
from backtest_kit._values.time import to_datetime
from exchanges.ccxt_server import BinanceServer, status
from markets import START, market

ROWS = market(21, 500, gaps=False)


@pytest.fixture
def binance():
    with BinanceServer(ROWS) as server:
        bk.add_exchange(server.exchange())
        yield server


def frame():
    bk.add_frame(
        frame_name="f",
        interval="1m",
        start_date=to_datetime(START) + timedelta(hours=1),
        end_date=to_datetime(START) + timedelta(hours=7),
    )


def test_a_backtest_over_http_equals_one_over_memory(binance):
    frame()
    bk.add_exchange(bk.exchanges.FrameExchange(ROWS))

    @bk.strategy("s", interval="15m")
    async def s(symbol, when):
        price = (await bk.get_candles(symbol, "1m", 30)).close[-1]
        text = (
            await bk.format_price(symbol, 1234.5678)
            if bk.get_context().exchange_name == "binance"
            else ""
        )
        return bk.Signal(
            position="short",
            price_take_profit=price * 0.98,
            price_stop_loss=price * 1.03,
            minute_estimated_time=60,
            note=text,
        )

    found = {
        name: bk.Backtest.run_sync(
            "BTC/USDT", strategy_name="s", exchange_name=name, frame_name="f"
        )
        for name in ("binance", "frame")
    }
    assert len(found["binance"]) > 3
    assert [t.pnl for t in found["binance"]] == [t.pnl for t in found["frame"]]
    assert {t.signal.note for t in found["binance"]} == {"1234.57"}
    assert {query["interval"] for _, query in binance.asked} == {"1m"}


def test_an_exchange_that_answers_with_fewer_than_asked_for_is_asked_on(binance):
    binance.most = 70
    frame()
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    bk.Backtest.run_sync("BTC/USDT", strategy_name="s", exchange_name="binance", frame_name="f")
    data = bk.Backtest.get_data("BTC/USDT", strategy_name="s")
    assert data.complete
    assert data.gaps_filled == 0
    assert len(binance.asked) > 4


def test_a_passing_failure_is_retried(binance):
    frame()
    binance.fault(status(503), times=2)
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    bk.Backtest.run_sync("BTC/USDT", strategy_name="s", exchange_name="binance", frame_name="f")
    assert bk.Backtest.get_data("BTC/USDT", strategy_name="s").complete


def test_an_unknown_symbol_is_not_asked_twice(binance):
    frame()
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    with pytest.raises(bk.ExchangeRefusedError, match="NOPE/USDT"):
        bk.Backtest.run_sync(
            "NOPE/USDT", strategy_name="s", exchange_name="binance", frame_name="f"
        )
    assert binance.asked == []


def test_an_exchange_that_ccxt_does_not_know():
    with pytest.raises(bk.BacktestKitError, match="did you mean 'binance'"):
        bk.exchanges.CcxtExchange("binanse")


@pytest.mark.parametrize(("name", "limit"), [("binance", None), ("coinbase", 300)])
def test_a_page_is_no_larger_than_one_answer_of_the_exchange(name, limit):
    assert bk.exchanges.CcxtExchange(name).page_limit == limit


def test_without_ccxt_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['ccxt'] = None\n"
        "import backtest_kit as bk\n"
        "try: bk.exchanges.CcxtExchange('binance')\n"
        "except bk.BacktestKitError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "CcxtExchange needs ccxt: pip install 'backtest-kit[ccxt]'\n"

"""A real ccxt client against a local server that speaks Binance's public REST interface."""

import json
import subprocess
import sys
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlparse

import ccxt
import pytest

import backtest_kit as bk
from backtest_kit._time import to_datetime
from markets import MINUTE, START, market

ROWS = market(21, 500, gaps=False)
SYMBOL = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "baseAssetPrecision": 8,
    "quoteAssetPrecision": 8,
    "isSpotTradingAllowed": True,
    "permissions": ["SPOT"],
    "orderTypes": ["LIMIT"],
    "filters": [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": "0.01",
            "maxPrice": "1000000",
            "tickSize": "0.01",
        },
        {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "9000", "stepSize": "0.001"},
    ],
}


class Binance(BaseHTTPRequestHandler):
    faults: ClassVar[list] = []
    asked: ClassVar[list] = []
    most = 1000

    def do_GET(self):
        url = urlparse(self.path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        if url.path.endswith("/exchangeInfo"):
            return self.answer({"timezone": "UTC", "serverTime": START, "symbols": [SYMBOL]})
        if url.path.endswith("/klines"):
            self.asked.append(query)
            if self.faults:
                return self.answer({"code": -1, "msg": "down"}, self.faults.pop(0))
            since, limit = int(query["startTime"]), int(query["limit"])
            rows = [row for row in ROWS if row[0] >= since][: min(limit, self.most)]
            return self.answer(
                [
                    [row[0], *map(str, row[1:]), row[0] + MINUTE - 1, "0", 1, "0", "0", "0"]
                    for row in rows
                ]
            )
        return self.answer([])

    def answer(self, data, status=200):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Be quiet."""


@pytest.fixture
def binance():
    Binance.faults, Binance.asked = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Binance)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}/api/v3"
    bk.add_exchange(
        bk.exchanges.CcxtExchange(
            "binance",
            urls={"api": dict.fromkeys(ccxt.binance().urls["api"], base)},
            options={
                "defaultType": "spot",
                "fetchMarkets": {"types": ["spot"]},
                "fetchCurrencies": False,
            },
        )
    )
    yield server
    server.shutdown()
    server.server_close()


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
    assert {query["interval"] for query in Binance.asked} == {"1m"}


def test_an_exchange_that_answers_with_fewer_than_asked_for_is_asked_on(binance, monkeypatch):
    monkeypatch.setattr(Binance, "most", 70)
    frame()
    bk.add_strategy(strategy_name="s", interval="1m", get_signal=lambda symbol, when: None)
    bk.Backtest.run_sync("BTC/USDT", strategy_name="s", exchange_name="binance", frame_name="f")
    data = bk.Backtest.get_data("BTC/USDT", strategy_name="s")
    assert data.complete
    assert data.gaps_filled == 0
    assert len(Binance.asked) > 4


def test_a_passing_failure_is_retried(binance):
    frame()
    Binance.faults += [503, 503]
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
    assert Binance.asked == []


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

"""A local server that speaks Binance's public REST interface, and misbehaves on command."""

import json
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

import backtest_kit as bk
from backtest_kit._values.time import INTERVALS
from markets import START

ccxt = pytest.importorskip("ccxt")
FOREVER = 10**15


def _symbol(base):
    price = {"minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"}
    lot = {"minQty": "0.001", "maxQty": "9000", "stepSize": "0.001"}
    return {
        "symbol": f"{base}USDT",
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "baseAssetPrecision": 8,
        "quoteAssetPrecision": 8,
        "isSpotTradingAllowed": True,
        "permissions": ["SPOT"],
        "orderTypes": ["LIMIT"],
        "filters": [
            {"filterType": "PRICE_FILTER", **price},
            {"filterType": "LOT_SIZE", **lot},
        ],
    }


SYMBOLS = [_symbol("BTC"), _symbol("ETH")]


class Fault:
    """What goes wrong, with which requests: `times` of them, in (since, until), as selected."""

    def __init__(self, kind, times=FOREVER, since=0, until=FOREVER, symbol=None, path="/klines"):
        self.kind, self.left, self.symbol, self.path = kind, times, symbol, path
        self.since, self.until = since, until

    def strikes(self, now, path, query):
        hit = (
            self.left > 0
            and self.since <= now < self.until
            and path.endswith(self.path)
            and self.symbol in (None, query.get("symbol"))
        )
        self.left -= hit
        return hit


class BinanceServer:
    """Serves `rows` of one minute as they were at `now()`: the forming candle included.

    A fault's `kind` is a function of the handler and its query, such as `status(503)`; the first
    fault that strikes a request replaces the answer.
    """

    def __init__(self, rows, now=lambda: FOREVER, most=1000):
        self.rows, self.now, self.most = rows, now, most
        self.faults, self.asked = [], []
        self.heard = []  # of each request, address and headers as one text
        self.released = threading.Event()  # of the requests that hang
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # an answer is one packet

            def do_GET(self):
                outer.serve(self)

            def log_message(self, *_):
                """Be quiet."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                """A client that went away is no news."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def exchange(self, exchange_name=None, **options):
        """Return a `CcxtExchange` all of whose requests come here."""
        base = f"http://127.0.0.1:{self.http.server_port}/api/v3"
        return bk.exchanges.CcxtExchange(
            "binance",
            exchange_name,
            urls={"api": dict.fromkeys(ccxt.binance().urls["api"], base)},
            **{
                "rateLimit": 1,
                "options": {
                    "defaultType": "spot",
                    "fetchMarkets": {"types": ["spot"]},
                    "fetchCurrencies": False,
                },
                **options,
            },
        )

    def fault(self, kind, **selection):
        self.faults.append(Fault(kind, **selection))

    def times_asked(self, symbol=None):
        """The true times of the requests for candles."""
        return [now for now, query in self.asked if symbol in (None, query["symbol"])]

    def serve(self, handler):
        url = urlparse(handler.path)
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        now = self.now()
        self.heard.append(f"{handler.path}\n{handler.headers}")
        if url.path.endswith("/klines"):
            self.asked.append((now, query))
        for fault in self.faults:
            if fault.strikes(now, url.path, query):
                return fault.kind(self, handler, query)
        if url.path.endswith("/exchangeInfo"):
            return self.answer(
                handler, {"timezone": "UTC", "serverTime": START, "symbols": SYMBOLS}
            )
        if url.path.endswith("/klines"):
            return self.answer(handler, self.klines(query))
        return self.answer(handler, [])

    def klines(self, query, now=None, shift=0):
        """Rows from `startTime` on that have begun by `now`; the last of them still changes."""
        now = self.now() if now is None else now
        step = INTERVALS[query["interval"]]
        whole = self.rows if step == 60_000 else resampled(self.rows, step)
        since, limit = int(query["startTime"]) + shift, min(int(query["limit"]), self.most)
        rows = [list(row) for row in whole if since <= row[0] <= now][:limit]
        if rows and rows[-1][0] + step > now:
            # up to now all trades were at the open
            rows[-1][2:6] = [rows[-1][1], rows[-1][1], rows[-1][1], 0.5]
        return [
            [row[0], *map(str, row[1:]), row[0] + step - 1, "0", 1, "0", "0", "0"] for row in rows
        ]

    def answer(self, handler, data, status=200, headers=(), date=True):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        now = self.now()
        handler.send_response_only(status)
        for name, text in headers:
            handler.send_header(name, text)
        if date and now < FOREVER:
            handler.send_header("Date", http_date(now))
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def resampled(rows, step):
    """Rows of a longer interval, made of those of one minute."""
    buckets = {}
    for t, o, h, low, c, v in rows:
        begin = t // step * step
        bucket = buckets.setdefault(begin, [begin, o, h, low, c, 0.0])
        bucket[2:] = [max(bucket[2], h), min(bucket[3], low), c, bucket[5] + v]
    return [*buckets.values()]


def http_date(ms):
    return formatdate(ms // 1000, usegmt=True)


def status(code, message="down", number=None, **headers):
    """Answer with an error, in Binance's form where it has a number."""
    data = message.encode() if number is None else {"code": number, "msg": message}
    pairs = [(name.replace("_", "-"), text) for name, text in headers.items()]

    def fail(server, handler, query):
        server.answer(handler, data, code, pairs)

    return fail


def hang(server, handler, query):
    server.released.wait(30)
    handler.close_connection = True


def drop(server, handler, query):
    handler.close_connection = True


def page(server, handler, query):
    server.answer(handler, b"<html><body>We'll be back soon</body></html>", 200)


def rubbish(data):
    """Answer HTTP 200 with something else than candles."""

    def answer(server, handler, query):
        server.answer(handler, data)

    return answer


def cut_off(server, handler, query):
    server.answer(handler, json.dumps(server.klines(query)).encode()[:-9], 200)


def empty(server, handler, query):
    server.answer(handler, [])


def late(server, handler, query):
    """The newest closed candle is not there yet."""
    newest = server.now() // 60_000 * 60_000 - 60_000
    server.answer(handler, [row for row in server.klines(query) if row[0] < newest])


def stale(server, handler, query):
    """Candles from before those asked for."""
    server.answer(handler, server.klines(query, shift=-1_000 * 60_000))


def backwards(server, handler, query):
    server.answer(handler, server.klines(query)[::-1])


def doubled(server, handler, query):
    server.answer(handler, [row for row in server.klines(query) for _ in range(2)])


def undated(server, handler, query):
    server.answer(handler, server.klines(query), date=False)


def cached(seconds):
    """An answer that a cache has kept for so long, and gives the date of now."""

    def answer(server, handler, query):
        rows = server.klines(query, server.now() - 1000 * seconds)
        server.answer(handler, rows, headers=[("Age", str(seconds))])

    return answer

"""A local server with the layout of Binance's archive, which misbehaves on command."""

import hashlib
import io
import threading
import zipfile
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from backtest_kit._values.time import to_ms


class ArchiveServer:
    """Serves `rows` of BTCUSDT in files of whole months, and of days before `until`."""

    def __init__(self, rows, monthly_until, daily_until, *, micro=False, head=False):
        self.rows, self.micro, self.head = rows, micro, head
        self.monthly_until, self.daily_until = monthly_until, daily_until
        self.asked = []
        #: By path: answers given before the right one, as (status, headers, change of the bytes).
        self.faults = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.serve(self)

            def log_message(self, *_):
                """Be quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def serve(self, handler):
        path = handler.path
        self.asked.append(path)
        content = self.content(path.removesuffix(".CHECKSUM"))
        if content is not None and path.endswith(".CHECKSUM"):
            name = path.rpartition("/")[2].removesuffix(".CHECKSUM")
            content = f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()
        status, headers = (404, {}) if content is None else (200, {})
        for end, faults in self.faults.items():
            if path.endswith(end) and faults:
                status, headers, change = faults.pop(0)
                content = change(content or b"")
                break
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content or b"")))
        handler.end_headers()
        handler.wfile.write(content or b"")

    def content(self, path):
        parts = path.strip("/").split("/")
        if parts[:2] != ["data", "spot"] or parts[3:6] != ["klines", "BTCUSDT", "1m"]:
            return None
        stamp = parts[6].removeprefix("BTCUSDT-1m-").removesuffix(".zip")
        numbers = [int(part) for part in stamp.split("-")]
        if parts[2] == "monthly":
            year, month = numbers
            since = datetime(year, month, 1, tzinfo=UTC)
            until = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            limit = self.monthly_until
        else:
            since = datetime(*numbers, tzinfo=UTC)
            until, limit = None, self.daily_until
        begin = to_ms(since)
        end = begin + 86_400_000 if until is None else to_ms(until)
        rows = [row for row in self.rows if begin <= row[0] < end]
        if end > limit or not rows:
            return None
        lines = ["open_time,open,high,low,close,volume,close_time"] if self.head else []
        for t, *values in rows:
            time = t * 1000 if self.micro else t
            lines.append(",".join([str(time), *map(repr, values), str(time + 59_999)]))
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(parts[6].replace(".zip", ".csv"), "\n".join(lines) + "\n")
        return packed.getvalue()

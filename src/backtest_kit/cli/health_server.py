"""`--health HOST:PORT`: metrics for Prometheus at /metrics, and at /healthz whether all is well."""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import click
import msgspec

from backtest_kit._values.events import HealthEvent

#: Seconds for which a request is waited for: each that has begun holds a thread.
_PATIENCE: Final = 30
_LABELS: Final = ("symbol", "strategy", "exchange")
#: Field of `RunHealth`, name and meaning of the metric.
_GAUGES: Final = (
    ("step_age_seconds", "step_age_seconds", "Seconds since the newest step."),
    ("feed_lag_seconds", "feed_lag_seconds", "Seconds for which the next step has been due."),
    ("late", "run_late", "1 where the newest step is too old."),
    ("outbox", "outbox_transitions", "Transitions that are not in the journal yet."),
    ("unheard", "unheard_transitions", "Transitions that callbacks or consumer have not heard."),
)
_COUNTERS: Final = (
    ("steps", "steps", "Steps done on time since the process began."),
    ("missed", "missed_steps", "Steps missed since the run began."),
    ("errors", "errors", "Errors since the process began."),
)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port; raises `click.UsageError` where they can't be read."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.UsageError(f"--health {text!r} must be HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


@contextmanager
def serve_health(address: tuple[str, int], ask: Callable[[], HealthEvent]) -> Iterator[int]:
    """Serve what `ask` answers from threads inside of the block; yields the port.

    Raises:
        click.UsageError: prometheus-client is missing, or the address can't be used.
    """
    try:
        import prometheus_client
    except ImportError:
        raise click.UsageError(
            "--health needs prometheus-client: pip install 'backtest-kit[health]'"
        ) from None

    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collector(ask))

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE

        def do_GET(self) -> None:
            """Answer a request."""
            path = self.path.partition("?")[0]
            if path == "/metrics":
                kind = prometheus_client.CONTENT_TYPE_LATEST
                self._answer(200, kind, prometheus_client.generate_latest(registry))
            elif path == "/healthz":
                found = ask()
                code = 200 if found.healthy else 503
                self._answer(code, "application/json", msgspec.json.encode(found))
            else:
                self._answer(404, "text/plain", b"there are /metrics and /healthz\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base names it
            """Log nothing: each look would be a line."""

    try:
        server = _Server(address, Handler)
    except OSError as error:
        host, port = address
        raise click.UsageError(f"--health {host}:{port} can't be used: {error}") from None
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="health")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong with a request, but not that the other side has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Collector:
    """What Prometheus is told, made anew at each look."""

    def __init__(self, ask: Callable[[], HealthEvent]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        found = self._ask()
        yield GaugeMetricFamily(
            "backtest_kit_healthy", "1 where runs go on and none is late.", value=found.healthy
        )
        yield GaugeMetricFamily(
            "backtest_kit_live_runs", "Live runs that go on.", value=len(found.runs)
        )
        for kind, table in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for field, name, meaning in table:
                family = kind(f"backtest_kit_{name}", meaning, labels=_LABELS)
                for run in found.runs:
                    names = (run.symbol, run.strategy_name, run.exchange_name)
                    family.add_metric(names, float(getattr(run, field)))
                yield family
        behind, dropped = Counter[str](), Counter[str]()
        for listener in found.listeners:  # several may have one name
            behind[listener.name] += listener.behind
            dropped[listener.name] += listener.dropped
        lag = GaugeMetricFamily(
            "backtest_kit_listener_behind", "Events a listener has not heard.", labels=["listener"]
        )
        lost = CounterMetricFamily(
            "backtest_kit_listener_dropped", "Events dropped for a listener.", labels=["listener"]
        )
        for name in behind:
            lag.add_metric([name], behind[name])
            lost.add_metric([name], dropped[name])
        yield lag
        yield lost

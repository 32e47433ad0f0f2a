"""The server of `live --health`, and whoever asks it and goes."""

import http.client
import socket
import struct

import pytest

from backtest_kit._values.events import HealthEvent
from backtest_kit.cli.health_server import parse_address, serve_health


def test_a_client_that_goes_before_the_answer_leaves_no_traceback(capfd):
    pytest.importorskip("prometheus_client")
    found = HealthEvent(timestamp=0, healthy=True, runs=(), listeners=())
    with serve_health(("127.0.0.1", 0), lambda: found) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                # closing resets the connection
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200
        client.close()
    assert capfd.readouterr().err == ""


def test_an_address_of_ip_version_6():
    pytest.importorskip("prometheus_client")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve_health(parse_address("[::1]:0"), lambda: None) as port:
        socket.create_connection(("::1", port)).close()

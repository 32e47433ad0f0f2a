"""What systemd is told where it has started the process (`Type=notify`, `WatchdogSec=`).

See sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send a state, such as `READY=1`; say whether anybody was there to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return False
    if address.startswith("@"):  # not in the file system
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError:  # it does not listen: a process does not end for that
        return False
    return True


def watchdog_seconds() -> float | None:
    """Return how often systemd wants a sign of life, `None` where it wants none of this process."""
    text, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not text.isdecimal() or int(text) == 0 or process not in (None, str(os.getpid())):
        return None
    return int(text) / 1e6

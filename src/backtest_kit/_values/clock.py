"""The only place that asks what time it is."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """Return the wall clock, milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def stopwatch() -> float:
    """Return a monotonic reading in milliseconds; only differences mean something."""
    return time.perf_counter_ns() / 1e6

"""How live runs are: told once a minute, and to whoever asks, from any thread."""

from __future__ import annotations

import asyncio
from typing import Final

from backtest_kit._engine.engine import Engine
from backtest_kit._engine.record import RunRecord
from backtest_kit._values.events import HealthEvent, RunHealth
from backtest_kit._values.time import INTERVALS, MINUTE

#: Seconds between two health events.
EVERY: Final = 60.0
#: A run is late when its newest step is older than two base intervals and this many ms.
LATE_AFTER: Final = MINUTE


def health(engine: Engine) -> HealthEvent:
    """Return how the live runs of an engine are now; healthy: there are some, and none is late."""
    now = engine.clock.wall_ms()
    runs = [*engine.live_runs.values()]
    found = tuple(run.health(now) for run in runs)
    listeners = [
        *engine.bus.lags(),
        *(listener.lag for listener in [*engine.named_listeners.values()]),
        *(lag for run in runs if (lag := run.callbacks_lag) is not None),
    ]
    return HealthEvent(
        timestamp=now,
        healthy=bool(found) and not any(run.late for run in found),
        runs=found,
        listeners=tuple(listeners),
    )


def run_health(
    record: RunRecord,
    began: int,
    now: int,
    *,
    delay: int,
    outbox: int,
    unheard: int,
    recorded: bool,
) -> RunHealth:
    """Return how one run is, which began at `began` (ms) and steps `delay` ms after the minute.

    On a virtual clock (`recorded`) no run is late.
    """
    base = INTERVALS[record.config.base_interval]
    step = record.until or None
    age = max(0, now - max(step or 0, began))
    signal = record.signal
    return RunHealth(
        symbol=record.symbol,
        strategy_name=record.strategy_name,
        exchange_name=record.exchange_name,
        base_interval=record.config.base_interval,
        status="starting"
        if step is None
        else "idle"
        if signal is None
        else "waiting"
        if signal.pending_at is None
        else "active",
        step=step,
        step_age_seconds=age / 1000,
        feed_lag_seconds=0.0
        if recorded or step is None
        else max(0, now - delay - step - base) / 1000,
        late=not recorded and age > 2 * base + LATE_AFTER,
        steps=record.frames,
        missed=record.missed,
        errors=record.error_count,
        outbox=outbox,
        unheard=unheard,
    )


async def tell_health(engine: Engine) -> None:
    """Emit a health event each minute, for as long as there are live runs."""
    while True:
        await engine.clock.sleep(EVERY)
        if not engine.live_runs:
            return
        if engine.bus.wanted("health"):
            engine.bus.emit(health(engine), "health", waited=False)


def begin_telling(engine: Engine) -> None:
    """Start `tell_health` on this event loop, if it does not run there."""
    task = engine.health_task
    if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
        engine.health_task = asyncio.get_running_loop().create_task(tell_health(engine))


def end_telling(engine: Engine) -> None:
    """End it once there are no live runs."""
    task = engine.health_task
    if not engine.live_runs and task is not None:
        engine.health_task = None
        if not task.get_loop().is_closed():
            task.cancel()

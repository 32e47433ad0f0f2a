"""Payloads of events that are not results of a step."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from backtest_kit._values.commands import CommandName
from backtest_kit._values.places import Place, place_of
from backtest_kit._values.results import Tick, transition_id
from backtest_kit._values.signal import SignalRow, quoted
from backtest_kit._values.time import Instant

Mode = Literal["backtest", "live"]
MetricType = Literal["backtest_total", "backtest_timeframe", "backtest_signal", "live_tick"]


class ProgressEvent(msgspec.Struct, frozen=True, kw_only=True):
    """How far a backtest has come; `progress` runs from 0 to 1."""

    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    total_frames: int
    processed_frames: int
    progress: float


class DoneEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A run has ended, for whatever reason, and its other events have been delivered."""

    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str | None
    mode: Mode


class PerformanceEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A duration in milliseconds; `timestamp` and `previous_timestamp` are wall-clock ms UTC."""

    symbol: str
    strategy_name: str
    exchange_name: str
    mode: Mode
    metric_type: MetricType
    duration: float
    timestamp: int
    previous_timestamp: int | None


class RiskEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A risk profile's answer; `reason` is `None` where it allowed the signal.

    Or what an account refused or skipped: `risk_name` is the account's, `reason` "cash",
    "liquidation", "minimum" or "size", and `detail` has the figures.
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    mode: Mode
    risk_name: str
    signal: SignalRow
    price: float
    timestamp: int
    active_count: int
    reason: str | None
    detail: str = ""


class PartialEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An open signal's profit has reached a milestone; `level` is +-10, 20 ... 100 percent."""

    symbol: str
    strategy_name: str
    exchange_name: str
    mode: Mode
    signal: SignalRow
    level: int
    revenue_percent: float
    current_price: float
    timestamp: Instant

    @property
    def transition_id(self) -> str:
        """A stable id: a milestone that is reported again after a crash has the same."""
        return transition_id(self.signal, f"milestone {self.level:+d}")


class CommandEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a command that was sent to a live run: done, or refused for a `reason`.

    `command` is the id of the command, `timestamp` the step (ms UTC) at which it was done.
    """

    action: ClassVar[Literal["command"]] = "command"
    symbol: str
    strategy_name: str
    exchange_name: str
    timestamp: Instant
    command: str
    what: CommandName
    outcome: Literal["done", "refused"]
    reason: str = ""

    @property
    def transition_id(self) -> str:
        """A stable id: an answer that is reported again after a crash has the same."""
        names = (self.exchange_name, self.strategy_name, self.symbol)
        return ":".join((*(quoted(name) for name in names), "command", quoted(self.command)))


#: What a run tells of: results, milestones, and what came of commands.
RunEvent = Tick | PartialEvent | CommandEvent


class ErrorEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something raised; `where` says which part: a step, a callback, a listener, a whole run.

    `when` is the instant of the step in milliseconds UTC, and `None` outside one. `place` is the
    user's line at which it arose (`file`, `line`, `code`), `None` where none of theirs was running.
    """

    where: str
    error: BaseException
    symbol: str | None = None
    strategy_name: str | None = None
    exchange_name: str | None = None
    mode: Mode | None = None
    when: int | None = None

    @property
    def place(self) -> Place | None:
        """Where in the user's files it arose."""
        return place_of(self.error)


class ListenerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How far behind a listener of live runs is.

    `behind` counts the events that it has not heard, also those that were `dropped` or replaced by
    a newer state; `busy_seconds` is how long its present call has lasted. The callbacks of a run
    count as one listener.
    """

    name: str
    behind: int
    dropped: int
    busy_seconds: float


class RunHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How one live run is.

    `step` is its newest step (ms), `None` before the first; `step_age_seconds` the time since then,
    or since the run began; `late` whether that is more than two base intervals and a minute.
    `feed_lag_seconds`: for how long the next step has been due. `outbox`: transitions that are not
    in the journal yet; `unheard`: those that the callbacks or the consumer of `Live.run` have not
    been told of.
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    base_interval: str
    status: Literal["starting", "idle", "waiting", "active"]
    step: int | None
    step_age_seconds: float
    feed_lag_seconds: float
    late: bool
    steps: int
    missed: int
    errors: int
    outbox: int
    unheard: int


class HealthEvent(msgspec.Struct, frozen=True, kw_only=True):
    """How the live runs of an engine and their listeners are, at `timestamp` (ms by its clock)."""

    timestamp: int
    healthy: bool
    runs: tuple[RunHealth, ...]
    listeners: tuple[ListenerHealth, ...]

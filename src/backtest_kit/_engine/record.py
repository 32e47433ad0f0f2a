"""What a run leaves behind: the facts that every report is made of."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest_kit._arrays.trade_results import ClosedResults, RunNames, results_of
from backtest_kit._arrays.trade_table import TradeTable
from backtest_kit._data.market import CandleCount, SeriesGaps
from backtest_kit._values.candles import Floats, Ints
from backtest_kit._values.config import Config
from backtest_kit._values.errors import SignalError, UnknownNameError
from backtest_kit._values.events import ErrorEvent, Mode, PartialEvent, RiskEvent, RunEvent
from backtest_kit._values.results import TickCancelled, TickClosed, TickOpened
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._values.signal import NEVER, SignalRow
from backtest_kit._values.time import INTERVALS, MINUTE

Mask = npt.NDArray[np.bool_]
#: Kinds of error kept with their text; all errors are counted.
KEPT_KINDS = 100
#: Where errors of a strategy's calls are counted.
ASKING = "get_signal"
#: Characters of a message that tell its kind.
_WORDS: Final = 300
#: Refusals, and different reasons for them, that are kept; all are counted.
KEPT_REJECTIONS = 1000
OTHER_REASONS = "(other reasons)"
#: Samples of a duration kept; from there on every second is dropped, then every fourth ...
MOST_SAMPLES = 20_000


#: Place, type, and the words of the message: what may differ within a kind is times and numbers.
KindKey = tuple[str, str, str]
_NUMBERS: Final = re.compile(r"[+-]?\d[\dT:Z.,_+-]*")


def kind_of(event: ErrorEvent) -> KindKey:
    """Return what errors of one kind have in common."""
    return event.where, type(event.error).__name__, _NUMBERS.sub("#", str(event.error)[:_WORDS])


class ErrorKind:
    """Errors that share place, type and words: how many, and the first one's text and line."""

    __slots__ = ("count", "message", "place", "when", "where")

    def __init__(self, event: ErrorEvent) -> None:
        self.where = event.where
        self.message = f"{type(event.error).__name__}: {event.error}"
        self.place = event.place
        self.when = event.when
        self.count = 0

    @property
    def text(self) -> str:
        """The message and the line of user code at which it arose."""
        return self.message if self.place is None else f"{self.message} ({self.place})"


class Waited(NamedTuple):
    """A scheduled signal: activated at `ended_at` (`cancelled` is `None`) or cancelled then."""

    signal: SignalRow
    ended_at: int
    cancelled: TickCancelled | None


class Timings:
    """Durations of one metric type in milliseconds; `samples` may hold fewer than `count`."""

    __slots__ = ("_every", "_skipped", "count", "samples", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.samples: list[float] = []
        self._every = 1
        self._skipped = 0

    def add(self, duration: float, count: int = 1) -> None:
        """Count `count` durations that took `duration` together; their mean may become a sample."""
        self.count += count
        self.total += duration
        self._skipped += 1
        if self._skipped >= self._every:
            self._skipped = 0
            self.samples.append(duration / count)
            if len(self.samples) >= MOST_SAMPLES:
                self.samples = self.samples[1::2]
                self._every *= 2


class RunRecord:
    """The facts of one run, written by its driver and read by reports.

    Times are milliseconds UTC; `since` and `until` bound the range the run has covered so far.
    If there is a `table`, results are created from its rows when they are read.
    """

    def __init__(
        self,
        *,
        symbol: str,
        strategy_name: str,
        exchange_name: str,
        frame_name: str | None,
        mode: Mode,
        config: Config,
        since: int,
        until: int,
        total_frames: int = 0,
    ) -> None:
        self.symbol = symbol
        self.strategy_name = strategy_name
        self.exchange_name = exchange_name
        self.frame_name = frame_name
        self.mode = mode
        self.config = config
        self.since = since
        self.until = until
        self.total_frames = total_frames
        #: The strategy as it was registered.
        self.strategy: StrategySchema | None = None
        #: Whether it is asked about open positions.
        self.manages = False
        self.frames = 0
        self.calls = 0
        self.missed = 0
        #: Steps at which the strategy could not be asked yet, and the first at which it could.
        self.warming = 0
        self.warm_at: int | None = None
        self.complete = False
        self.data_ended_at: int | None = None
        #: The last step of a backtest's data where they end with its frame; else later than any.
        self.data_end = NEVER
        #: What the run failed with, where it did.
        self.ended_by: str | None = None
        #: The scheduled or open signal of a live run.
        self.signal: SignalRow | None = None
        self._closed: list[TickClosed] = []
        self._waited: list[Waited] = []
        self._table: TradeTable | None = None
        #: With a table: the worst price that each trade without a stop saw, NaN for the others.
        self.worst_prices: Floats = np.empty(0)
        self._of_table: ClosedResults | None = None
        self.partials: list[PartialEvent] = []
        #: The newest refusals of the risk profiles, and how often each gave which reason.
        self.rejections: deque[RiskEvent] = deque(maxlen=KEPT_REJECTIONS)
        self.refused: Counter[tuple[str, str]] = Counter()
        self.risk_allowed = 0
        self.error_kinds: dict[KindKey, ErrorKind] = {}
        self.error_count = 0
        #: How many of the strategy's calls raised.
        self.raised = 0
        #: State of the strategy that earlier runs changed, and that this one began with.
        self.left_behind: tuple[str, ...] = ()
        #: What of it runs of other strategies changed, each with the name of one.
        self.left_by_others: tuple[tuple[str, str], ...] = ()
        #: State that a module holds, and that changed while the run lasted.
        self.changed_for_others: tuple[str, ...] = ()
        #: Where in its code the strategy has state that changed while the run lasted.
        self.changed: tuple[str, ...] = ()
        #: What was filled of each series that was read, also before the first step.
        self.gaps: Sequence[SeriesGaps] = ()
        #: The base candles of the steps alone: what of them was missing, what is suspicious.
        self.candles = CandleCount()
        self.timings: dict[str, Timings] = {}

    @property
    def names(self) -> RunNames:
        """The names that the results of the run carry."""
        return RunNames(self.symbol, self.strategy_name, self.exchange_name)

    @property
    def table(self) -> TradeTable | None:
        """The results as columns, for a run over arrays without listeners."""
        return self._table

    @table.setter
    def table(self, table: TradeTable) -> None:
        self._table, self._of_table = table, ClosedResults(table, self.names)

    @property
    def closed(self) -> Sequence[TickClosed]:
        """The closed results, in order."""
        return self._closed if self._of_table is None else self._of_table

    @property
    def waited(self) -> Sequence[Waited]:
        """The signals that were scheduled, in the order in which they were filled or cancelled."""
        if self._table is not None and not self._waited:
            for tick in results_of(self._table, self.names):
                row = tick.signal
                if isinstance(tick, TickCancelled):
                    self._waited.append(Waited(row, tick.close_timestamp, tick))
                elif row.pending_at is not None and row.pending_at != row.scheduled_at:
                    self._waited.append(Waited(row, row.pending_at, None))
        return self._waited

    @property
    def on_filled(self) -> tuple[Mask, Mask]:
        """Which of `closed` were filled, and which closed, on a candle that was missing."""
        if self._table is not None:
            table = self._table.closed()
            opened, ended = table.pending_at, table.closed_at
        else:
            ticks = self._closed
            opened = np.array([tick.signal.pending_at or 0 for tick in ticks], dtype=np.int64)
            ended = np.array([tick.close_timestamp for tick in ticks], dtype=np.int64)
        return self._on_filled(opened), self._on_filled(ended)

    def _on_filled(self, when: Ints) -> Mask:
        step = INTERVALS.get(self.config.base_interval, MINUTE)
        starts = np.array([gap.start for gap in self.candles.gaps], dtype=np.int64)
        ends = starts + step * np.array([gap.count for gap in self.candles.gaps], dtype=np.int64)
        candle = when - step
        begun = np.searchsorted(starts, candle, side="right")
        over: Mask = begun > np.searchsorted(ends, candle, side="right")
        return over

    def add(self, event: RunEvent | None) -> None:
        """Keep what reports are made of: closes, the ends of waiting signals, milestones."""
        match event:
            case TickClosed():
                self._closed.append(event)
            case TickCancelled():
                self._waited.append(Waited(event.signal, event.close_timestamp, event))
            case TickOpened(signal=row) if row.pending_at != row.scheduled_at:
                self._waited.append(Waited(row, event.timestamp, None))
            case PartialEvent():
                self.partials.append(event)

    def error(self, event: ErrorEvent, count: int = 1) -> KindKey:
        """Count errors of one kind, and keep the first; return the kind."""
        self.error_count += count
        if event.where == ASKING and not isinstance(event.error, SignalError):
            self.raised += count
        kind = kind_of(event)
        if kind in self.error_kinds or len(self.error_kinds) < KEPT_KINDS:
            self.error_kinds.setdefault(kind, ErrorKind(event)).count += count
        return kind

    @property
    def always_raised(self) -> bool:
        """Whether the strategy was called, and raised each time."""
        return 0 < self.calls <= self.raised

    def reject(self, event: RiskEvent) -> None:
        """Count a refusal of a risk profile, and keep it for some time."""
        self.rejections.append(event)
        key = event.risk_name, event.reason or ""
        if key not in self.refused and len(self.refused) >= KEPT_REJECTIONS:
            key = event.risk_name, OTHER_REASONS
        self.refused[key] += 1

    def timing(self, metric_type: str) -> Timings:
        """Return the durations of one metric type."""
        return self.timings.setdefault(metric_type, Timings())


class Records:
    """The newest record of each (mode, symbol, strategy, exchange, frame) of an engine."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str, str, str, str | None], RunRecord] = {}

    def add(self, record: RunRecord) -> None:
        """Add a record; it replaces that of an earlier run under the same names."""
        key = (
            record.mode,
            record.symbol,
            record.strategy_name,
            record.exchange_name,
            record.frame_name,
        )
        self._records.pop(key, None)
        self._records[key] = record

    def all(self) -> list[RunRecord]:
        """Return every record, oldest first."""
        return [*self._records.values()]

    def select(
        self,
        *,
        mode: Mode,
        symbol: str | None = None,
        strategy_name: str | None = None,
        exchange_name: str | None = None,
        frame_name: str | None = None,
    ) -> list[RunRecord]:
        """Return the records that match, oldest first; `None` matches anything.

        Raises:
            UnknownNameError: none matches; the message names the runs there are.
        """
        wanted = (mode, symbol, strategy_name, exchange_name, frame_name)
        found = [
            record
            for key, record in self._records.items()
            if all(w is None or w == have for w, have in zip(wanted, key, strict=True))
        ]
        if found:
            return found
        asked = " ".join(str(part) for part in wanted if part is not None)
        there = "; ".join(" ".join(map(str, key)) for key in self._records) or "none"
        raise UnknownNameError(f"no run of {asked} yet (runs there are: {there})")

    def one(
        self,
        *,
        mode: Mode,
        symbol: str,
        strategy_name: str,
        exchange_name: str | None = None,
        frame_name: str | None = None,
    ) -> RunRecord:
        """Return the only record that matches.

        Raises:
            UnknownNameError: none matches, or several do; the message names them.
        """
        found = self.select(
            mode=mode,
            symbol=symbol,
            strategy_name=strategy_name,
            exchange_name=exchange_name,
            frame_name=frame_name,
        )
        if len(found) > 1:
            there = "; ".join(f"{r.exchange_name} {r.frame_name}" for r in found)
            raise UnknownNameError(
                f"{symbol} {strategy_name} has run on several exchanges or frames ({there}); "
                "give exchange_name and frame_name"
            )
        return found[0]

"""The documents of the live state: their fields, their keys and their versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

import msgspec

from backtest_kit._values.errors import StateError
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.results import Tick
from backtest_kit._values.signal import SignalRow

#: The version of the documents that this release writes.
VERSION: Final = 1

T = TypeVar("T")


class RunKey(msgspec.Struct, frozen=True, order=True):
    """Which run a document belongs to."""

    exchange_name: str
    strategy_name: str
    symbol: str

    def __str__(self) -> str:
        return "/".join(quote(part, safe="") for part in msgspec.structs.astuple(self))


def run_key(text: str) -> RunKey:
    """Return the key that `str` wrote."""
    return RunKey(*(unquote(part) for part in text.split("/")))


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A transition as the journal keeps it: a result or a milestone.

    `sequence` counts the transitions of a run from 0; `id` stays the same when a transition is
    told again.
    """

    sequence: int
    id: str
    tick: Tick | None = None
    milestone: PartialEvent | None = None


def transition(event: Any, sequence: int) -> Transition:
    """Return a result or milestone as an entry of the journal."""
    if isinstance(event, PartialEvent):
        return Transition(sequence=sequence, id=event.transition_id, milestone=event)
    return Transition(sequence=sequence, id=event.transition_id, tick=event)


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a live run must not forget; instants in milliseconds UTC.

    `at` is the newest step whose outcome is stored here, `asked_at` the step of the last call of
    the strategy, `signal` the open signal (waiting while its `pending_at` is `None`), `fired` the
    bit mask of the milestones it has passed, `price` the average price when this was written.
    `outbox` holds the transitions that are not in the journal yet; callbacks have been told of
    those before the sequence `told`, and the consumer of those before `heard` (`None`, in documents
    of 0.1.0: of all that are not in the outbox). The costs are those of the process that wrote the
    document. `own` is what the strategy's `save` returned, in which it knows of the transitions
    before `own_sequence`.
    """

    exchange_name: str
    strategy_name: str
    symbol: str
    risk_names: tuple[str, ...] = ()
    began_at: int | None = None
    at: int | None = None
    asked_at: int | None = None
    price: float | None = None
    signal: SignalRow | None = None
    fired: int = 0
    sequence: int = 0
    missed: int = 0
    percent_fee: float | None = None
    percent_slippage: float | None = None
    outbox: tuple[Transition, ...] = ()
    own: Any = None
    own_sequence: int = 0
    told: int | None = None
    heard: int | None = None

    @property
    def places(self) -> tuple[int, int]:
        """The sequences of the first transition to tell callbacks, and the consumer."""
        first = self.outbox[0].sequence if self.outbox else self.sequence
        return (
            first if self.told is None else self.told,
            first if self.heard is None else self.heard,
        )

    @property
    def key(self) -> RunKey:
        """Which run this is the state of."""
        return RunKey(self.exchange_name, self.strategy_name, self.symbol)


class Page(msgspec.Struct, frozen=True):
    """Some transitions of one run, in order."""

    transitions: tuple[Transition, ...]


class Heartbeat(msgspec.Struct, frozen=True):
    """The newest step (ms) of each run by its key, also of steps that changed nothing.

    `document_step` is the step of the stored document each heartbeat belongs to; a heartbeat for
    another document is ignored.
    """

    at: dict[str, int]
    document_step: dict[str, int] = msgspec.field(default_factory=dict, name="of")

    def last_step(self, state: LiveState) -> int:
        """Return the newest step (ms) of a run, 0 if there is none for this document."""
        key = str(state.key)
        # somebody may have put an older copy of the document back: then its own time counts
        return self.at.get(key, 0) if self.document_step.get(key, state.at) == state.at else 0


class _Envelope(msgspec.Struct):
    version: int
    data: msgspec.Raw


#: What makes a document of an older version one of the next, by (kind, older version).
UPGRADES: Mapping[tuple[str, int], Callable[[Any], Any]] = {}


def encode(document: object) -> bytes:
    """Return a document as bytes, with its version."""
    return msgspec.json.encode({"version": VERSION, "data": document})


def decode(kind: str, content: bytes, type_: type[T]) -> T:
    """Return what `encode` wrote, also where an older release did.

    Raises:
        StateError: a newer release wrote it.
        ValueError: it is damaged.
    """
    envelope = msgspec.json.decode(content, type=_Envelope)
    if envelope.version > VERSION:
        raise StateError(
            f"the state was written by a newer release (version {envelope.version} of the "
            f"documents; this one reads up to {VERSION}): install that release, or choose another "
            "state_dir"
        )
    if envelope.version == VERSION:
        return msgspec.json.decode(envelope.data, type=type_)
    data = msgspec.json.decode(envelope.data)
    for version in range(envelope.version, VERSION):
        if (kind, version) not in UPGRADES:
            raise ValueError(f"version {version} is no version of a document")
        data = UPGRADES[kind, version](data)
    return msgspec.convert(data, type_)

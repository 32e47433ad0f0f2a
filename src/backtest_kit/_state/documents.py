"""The documents of the live state: their fields, their keys and their versions."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote

import msgspec

from backtest_kit._state.account_part import AccountPart
from backtest_kit._state.envelope import FIRST_SEALED, VERSION, DamagedError, seal, unseal
from backtest_kit._state.lock import Owner
from backtest_kit._state.positions import StoredPosition, restored
from backtest_kit._state.upgrades import UPGRADES
from backtest_kit._values.events import CommandEvent, PartialEvent, RunEvent
from backtest_kit._values.results import Tick
from backtest_kit._values.signal import SignalRow
from backtest_kit._values.time import Instant

T = TypeVar("T")
#: How many of something there are in a run: 0 to 10^8.
Count = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


class RunKey(msgspec.Struct, frozen=True, order=True):
    """Which run a document belongs to."""

    exchange_name: str
    strategy_name: str
    symbol: str

    def __str__(self) -> str:
        return "/".join(quote(part, safe="") for part in msgspec.structs.astuple(self))


def run_key(text: str) -> RunKey:
    """Return the key that `str` wrote.

    Raises:
        ValueError: it did not write this.
    """
    parts = [unquote(part) for part in text.split("/")]
    key = RunKey(*parts) if len(parts) == 3 else None
    if key is None or str(key) != text:
        raise ValueError(f"{text!r} is not the key of a run (exchange/strategy/symbol)")
    return key


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is stored under a kind and a key; every field is there, none that is not known."""

    def check(self, key: str) -> None:
        """Compare what it says with its key; raises DamagedError."""


class Transition(Document, frozen=True, kw_only=True):
    """A transition as the journal keeps it: a result, a milestone, or what came of a command.

    `sequence` counts the transitions of a run from 0; `id` stays the same when a transition is
    told again.
    """

    sequence: Count
    id: str
    tick: Tick | None
    milestone: PartialEvent | None
    command: CommandEvent | None

    @property
    def event(self) -> RunEvent:
        """The one of the three that it is."""
        (event,) = self._events
        return event

    @property
    def _events(self) -> list[RunEvent]:
        return [each for each in (self.tick, self.milestone, self.command) if each is not None]

    def check_names(self, run: RunKey) -> None:
        """Compare the names of the event and of its signal with those of a run."""
        if len(self._events) != 1:
            raise DamagedError(f"transition {self.sequence} is not one event")
        _same_run(run, self.event)
        _same_run(run, getattr(self.event, "signal", None))


def transition(event: Any, sequence: int) -> Transition:
    """Return a result, a milestone or what came of a command as an entry of the journal."""
    kinds = dict.fromkeys(("tick", "milestone", "command"))
    match event:
        case PartialEvent():
            kinds["milestone"] = event
        case CommandEvent():
            kinds["command"] = event
        case _:
            kinds["tick"] = event
    return Transition(sequence=sequence, id=event.transition_id, **kinds)


class Session(Document, frozen=True):
    """The process that runs a run: who it is, when the run began in it, and how it steps.

    Milliseconds: `since` by the wall clock, `every` from one step to the next. `recorded`: it
    steps over recorded candles, as fast as it can.
    """

    owner: Owner
    since: Instant
    every: int
    recorded: bool


class LiveState(Document, frozen=True, kw_only=True):
    """All that a live run must not forget; instants in milliseconds UTC.

    `at` is the newest step whose outcome is stored here, `asked_at` the step of the last call of
    the strategy, `signal` the open signal as proposed and filled (waiting while its `pending_at` is
    `None`), `fired` the bit mask of the milestones it has passed, `price` the average price when
    this was written. `position` is what a filled signal holds, with its levels as they have moved
    (`None` in documents before version 3: as it was opened). `followed` is a step whose candle has
    been taken in while the rest of it is still to do, `managed_at` that of the last call of
    `manage` for this position. `account` is its part in an account, `None` where it is in none.
    `paused`: a person wants no new signals. `done` are the newest commands that were done or
    refused, oldest first; `session` says which process runs it, `None` once it has ended.
    `outbox` holds the transitions that are not in the journal yet; callbacks have been told of
    those before the sequence `told`, and the consumer of those before `heard` (`None`, in documents
    of 0.1.0: of all that are not in the outbox). The costs are those of the process that wrote the
    document. `own` is what the strategy's `save` returned, in which it knows of the transitions
    before `own_sequence`. `revision` counts how often the document was written.
    """

    exchange_name: str
    strategy_name: str
    symbol: str
    risk_names: tuple[str, ...]
    began_at: Instant | None
    at: Instant | None
    asked_at: Instant | None
    price: float | None
    signal: SignalRow | None
    position: StoredPosition | None
    account: AccountPart | None
    fired: int
    followed: Instant | None
    managed_at: Instant | None
    paused: bool
    done: tuple[CommandEvent, ...]
    session: Session | None
    sequence: Count
    missed: int
    percent_fee: float | None
    percent_slippage: float | None
    outbox: tuple[Transition, ...]
    own: Any
    own_sequence: Count
    told: Count | None
    heard: Count | None
    revision: Count

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

    def check(self, key: str) -> None:
        """Compare the names in it with its key."""
        run = run_key(key)
        _same_run(run, self)
        _same_run(run, self.signal)
        for event in self.done:
            _same_run(run, event)
        for entry in self.outbox:
            entry.check_names(run)
        row = self.signal
        is_filled = row is not None and row.pending_at is not None
        if self.position is not None:
            if row is None or not is_filled:
                raise DamagedError("it has a position, and no signal that is filled")
            held = restored(self.position, row)
            if held.is_paid != (self.account is not None and self.account.money is not None):
                raise DamagedError("its position and its part in an account do not fit")
        elif row is not None and is_filled and row.is_managed:
            raise DamagedError("the position of its signal is missing")


def nothing_stored(key: RunKey) -> LiveState:
    """Return the state of a run that has never been stored."""
    return LiveState(
        exchange_name=key.exchange_name,
        strategy_name=key.strategy_name,
        symbol=key.symbol,
        risk_names=(),
        began_at=None,
        at=None,
        asked_at=None,
        price=None,
        signal=None,
        position=None,
        account=None,
        fired=0,
        followed=None,
        managed_at=None,
        paused=False,
        done=(),
        session=None,
        sequence=0,
        missed=0,
        percent_fee=None,
        percent_slippage=None,
        outbox=(),
        own=None,
        own_sequence=0,
        told=None,
        heard=None,
        revision=0,
    )


class Page(Document, frozen=True):
    """Some transitions of one run, in order.

    `revision` is that of the run's document when the page was written: an earlier one is an older
    copy.
    """

    transitions: tuple[Transition, ...]
    revision: Count

    def check(self, key: str) -> None:
        """Compare the names in it with its key, which ends with the number of the page."""
        run = run_key(key.rpartition("/")[0])
        for entry in self.transitions:
            entry.check_names(run)


class Heartbeat(Document, frozen=True):
    """The newest step (ms) of each run by its key, also of steps that changed nothing.

    `document_step` and `revision` are the step and the revision of the stored document each
    heartbeat belongs to; a heartbeat for another document is ignored, and one for a later document
    shows that an older copy was put back. `told` is the revision up to which the loss of a run's
    documents was told of: what is put back after that is taken.
    """

    at: dict[str, Instant]
    document_step: dict[str, Instant] = msgspec.field(name="of")
    revision: dict[str, Count]
    told: dict[str, Count]

    def last_step(self, state: LiveState) -> int:
        """Return the newest step (ms) of a run, 0 if there is none for this document."""
        key = str(state.key)
        # somebody may have put an older copy of the document back: then its own time counts
        return self.at.get(key, 0) if self.document_step.get(key, state.at) == state.at else 0


def encode(kind: str, key: str, document: object) -> bytes:
    """Return a document as bytes, with its version, its key and a digest."""
    return seal(kind, key, msgspec.json.encode(document))


def decode(kind: str, key: str, content: bytes, type_: type[T]) -> T:
    """Return what `encode` wrote, also where an older release did.

    Raises:
        StateError: a newer release wrote it.
        DamagedError: it is damaged, or not the document of this kind and key.
    """
    version, payload = unseal(kind, key, content)
    try:
        if version == VERSION:
            document = msgspec.json.decode(payload, type=type_)
        else:
            document = _upgraded(kind, version, payload, type_)
        if isinstance(document, Document):
            document.check(key)
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error
    return document


def _upgraded(kind: str, version: int, payload: bytes, type_: type[T]) -> T:
    """Return a document of an older version; one without a digest is made sure of by its form."""
    data = msgspec.json.decode(payload)
    for older in range(version, VERSION):
        if (kind, older) not in UPGRADES:
            raise DamagedError(f"version {version} is no version of a document")
        try:
            data = UPGRADES[kind, older](data)
        except (AttributeError, KeyError, TypeError) as error:
            raise DamagedError(f"it is no document of version {older}: {error!r}") from error
    document = msgspec.convert(data, type_)
    if version < FIRST_SEALED and msgspec.json.decode(msgspec.json.encode(document)) != data:
        raise DamagedError("a field is missing, or is one too many")
    return document


def _same_run(run: RunKey, named: Any) -> None:
    """Raise DamagedError unless what has the names of a run has those of `run`."""
    if named is None:
        return
    if (named.symbol, named.strategy_name, named.exchange_name) != (
        run.symbol,
        run.strategy_name,
        run.exchange_name,
    ):
        whose = str(RunKey(named.exchange_name, named.strategy_name, named.symbol))
        raise DamagedError(f"it belongs to {whose}, not to {run}", whose)

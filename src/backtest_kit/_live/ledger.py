"""The durable state of one live run: stored first, then told, then entered into the journal.

The order of writes, and why a crash between any two of them loses and doubles nothing:

1. The run's document is replaced, all of a step's outcome at once: the open signal, the throttle,
   the milestones, and the transitions themselves (the outbox). After a crash before this, the step
   is done again; after it, the step is over and is never done again.
2. Listeners, callbacks and the consumer are told.
3. The transitions are entered into the journal by their sequence number, so that doing it twice
   changes nothing.
4. The document is replaced once more, with them removed from the outbox. After a crash before this,
   they are told again at the next start, with the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from backtest_kit._engine.ambient import current_moment
from backtest_kit._engine.engine import describe
from backtest_kit._engine.run import Run
from backtest_kit._state.documents import RunKey, Transition, nothing_stored, transition
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.errors import CorruptStateError, StateError
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.positions import position_of
from backtest_kit._values.results import Tick, TickCancelled, TickClosed, TickOpened
from backtest_kit._values.signal import SignalRow

LiveTick = TickOpened | TickClosed | TickCancelled
Event = Tick | PartialEvent


class Ledger:
    """The state, the outbox and the journal of one live run."""

    def __init__(self, run: Run, owner: StateOwner) -> None:
        self._run = run
        self._owner = owner
        self.key = RunKey(run.exchange_name, run.strategy_name, run.symbol)
        self.state = nothing_stored(self.key)
        #: Results for the consumer of the run, with their sequence, that it has not received yet.
        self.batch: list[tuple[int, LiveTick]] = []
        #: The consumer has received all transitions before this sequence.
        self.heard = 0
        #: The strategy's own state, and the sequence before which it knows of all transitions.
        self._own: tuple[Any, int] = (None, 0)
        self._writing = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None

    @property
    def signal(self) -> SignalRow | None:
        """The open signal: waiting for its entry price, or filled."""
        return self.state.signal

    @property
    def filled(self) -> SignalRow | None:
        """The open signal, if it is filled."""
        row = self.state.signal
        return row if row is not None and row.pending_at is not None else None

    async def enter(self, stop: Callable[[], None]) -> None:
        """Make the state this run's own; raises as `StateOwner.enter`."""
        self.state = await self._owner.enter(self.key, stop)

    async def resume(self) -> int | None:
        """Continue from the stored state; tell the transitions of the outbox again.

        Returns the newest step that is done (ms), `None` before the first. Call `enter` first.

        Raises:
            StateError: the state can't be read or written.
        """
        run, state = self._run, self.state
        for entry in await self._owner.journal.history(state):
            run.record.add(entry.event)
        oldest_step = self._owner.runs.oldest_step()
        run.risk_gate.restore(
            self._owner.positions_elsewhere(self.key),
            self.filled,
            [
                (position_of(tick.signal), tick.close_timestamp)
                for tick in run.record.closed
                if tick.close_timestamp > oldest_step
            ],
        )
        run.record.signal, run.record.missed = state.signal, state.missed
        self._own = (state.own, state.own_sequence)
        self._load_own()
        self._own = (self._saved_own(), state.own_sequence)
        # written at once, so that a state that can't be written is found before trading starts
        await self._write(
            risk_names=run.strategy.risk_names,
            percent_fee=run.config.percent_fee,
            percent_slippage=run.config.percent_slippage,
            own=self._own[0],
        )
        for entry in state.outbox:
            run.own_knows = run.own is not None and entry.sequence < state.own_sequence
            await self._publish(entry)
        run.own_knows = False
        self._know_own()
        current_moment.set(None)
        if state.at is None or state.began_at is None:
            return None
        run.record.since = state.began_at
        run.record.until = max(state.at, self._owner.heartbeats.last_step(state))
        return run.record.until

    def begin(self, when: int) -> None:
        """Note the first step of a new run."""
        self.state = msgspec.structs.replace(self.state, began_at=when)
        self._run.record.since = when

    async def commit(
        self,
        when: int,
        price: float,
        events: Sequence[Event] = (),
        *,
        first: Tick | None = None,
        **changes: Any,
    ) -> None:
        """Store outcomes, all at once, with the newest step that is over; release slots, then tell.

        `first` is told before the events, and is not stored.

        Raises:
            StateError: it can't be written; then nothing has changed, and nothing was told.
        """
        async with self._writing:
            number = self.state.sequence
            new = [transition(event, number + i) for i, event in enumerate(events)]
            own = self._saved_own()
            await self._write(
                at=when,
                price=price,
                missed=self._run.record.missed,
                sequence=number + len(new),
                outbox=(*self.state.outbox, *new),
                own=own,
                own_sequence=number,
                **changes,
            )
            self._own = (own, number)
        for event in events:
            if isinstance(event, TickClosed):
                self._run.risk_gate.close_position(event.close_timestamp)
        if first is not None:
            await self._run.publish(first)
        for entry in new:
            self._run.record.add(entry.event)
            await self._publish(entry)
        self._know_own()

    async def confirm(self) -> None:
        """Make sure that what is stored is what is known here, after a write that failed.

        Raises:
            StateError: it still can't be written.
        """
        async with self._writing:
            await self._owner.runs.confirm(self.key)

    def undo(self) -> None:
        """Let the strategy forget what it did in a step that could not be written."""
        self._load_own()

    async def note(self, at: int | None) -> None:
        """Store the newest step, and how many steps were missed.

        Raises:
            StateError: it can't be written.
        """
        async with self._writing:
            await self._write(at=at, missed=self._run.record.missed)

    def heartbeat(self, at: int) -> None:
        """Note that the step `at` is done; written soon, for all runs together."""
        self._owner.heartbeats.note(self.key, at, self._owner.runs.stored(self.key))

    def settle_soon(self) -> None:
        """Start a task that moves transitions which everybody has received to the journal."""
        self.heard = self.state.sequence
        if self.state.outbox and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self._settle_quietly())

    async def leave(self, at: int | None, *, cancelled: bool) -> None:
        """Finish the writes under way, store the newest step, release the state and risk slots."""
        run = self._run
        if self.filled is None:
            run.risk_gate.cancel_reservation()
        run.risk_gate.leave()
        try:
            if self._settling is not None and not cancelled:
                await self._settling
            if not cancelled:
                await self._settle()
            # a run that was cancelled within a step may know less than what is stored
            if at is not None and (self.state.at is None or at > self.state.at):
                await self.note(at)
        except StateError as error:
            run.error("state", error)
        finally:
            if self._settling is not None:
                self._settling.cancel()
            await self._owner.leave(self.key)

    async def _settle_quietly(self) -> None:
        try:
            await self._settle()
        except StateError as error:  # the outbox keeps them: the next minute tries again
            self._run.error("state", error)

    async def _settle(self) -> None:
        """Move the transitions that everybody has received from the outbox to the journal."""
        heard = self.heard
        entries = [entry for entry in self.state.outbox if entry.sequence < heard]
        if not entries:
            return
        try:
            await self._owner.journal.add(self.key, entries, self.state.revision)
        except CorruptStateError as error:  # set aside; the page begins anew
            self._run.error("journal", error)
            await self._owner.journal.add(self.key, entries, self.state.revision)
        await self._run.engine.bus.drain()
        async with self._writing:
            left = tuple(entry for entry in self.state.outbox if entry.sequence >= heard)
            own, sequence = self._own
            await self._write(outbox=left, own=own, own_sequence=sequence)

    def _know_own(self) -> None:
        """Note the strategy's own state when it has been told of all transitions.

        What is written is never the state within a callback, and says what the strategy knows of:
        a transition that is told again after a crash does not change that state a second time.
        """
        self._own = (self._saved_own(), self.state.sequence)

    def _saved_own(self) -> Any:
        """Return the strategy's own state as it will be read back; the last one if that fails."""
        own, known = self._run.own, self._own[0]
        if own is None:
            return known
        try:
            return msgspec.json.decode(msgspec.json.encode(own.save()))
        except Exception as error:  # noqa: BLE001 - user code
            self._run.error("save", error)
            return known

    def _load_own(self) -> None:
        own, value = self._run.own, self._own[0]
        if own is None or value is None:
            return
        try:
            own.load(value)
        except Exception as error:
            raise StateError(
                f"strategy {self.key.strategy_name!r} can't load its own state: "
                f"{describe(error)}; mend its load, or delete the run's state"
            ) from error

    async def _write(self, **changes: Any) -> None:
        revision = self.state.revision + 1
        state = msgspec.structs.replace(self.state, revision=revision, **changes)
        try:
            await self._owner.runs.write(state)
        except asyncio.CancelledError:
            if self._owner.runs.stored(self.key) is state:  # it was written all the same
                self.state = state
            raise
        self.state = state
        self._run.record.signal = state.signal
        callback = self._run.strategy.callback("on_write")
        if callback is not None:
            await self._run.guarded("callback on_write", callback, state)

    async def _publish(self, entry: Transition) -> None:
        if entry.milestone is not None:
            await self._run.publish_milestone(entry.milestone)
        if entry.tick is not None:
            await self._run.publish(entry.tick)
            if isinstance(entry.tick, LiveTick):
                self.batch.append((entry.sequence, entry.tick))

"""The durable state of one live run: stored first, then told, then entered into the journal.

The order of writes, and why a crash between any two of them loses and doubles nothing:

1. The run's document is replaced, all of a step's outcome at once: the open signal, the throttle,
   the milestones, and the transitions themselves (the outbox). After a crash before this, the step
   is done again; after it, the step is over and is never done again.
2. Listeners, callbacks and the consumer are told, by the wall clock without waiting for them.
3. The transitions are entered into the journal by their sequence number, so that doing it twice
   changes nothing.
4. The document is replaced once more, with them removed from the outbox, and with the places which
   callbacks and consumer have come to. After a crash before this, they are told again at the next
   start, with the same ids. Steps 3 and 4 wait for listeners that are slow, but only `PATIENCE`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from backtest_kit._engine.ambient import current_moment
from backtest_kit._engine.run import Run
from backtest_kit._live.account_gate import live_gate
from backtest_kit._live.callbacks import Callbacks
from backtest_kit._live.entering import enter_account
from backtest_kit._live.own_state import OwnState
from backtest_kit._live.telling import tell
from backtest_kit._live.transitions import STATES, LiveTick, Transitions, first_of, stored_after
from backtest_kit._rules.managed import Holding
from backtest_kit._state.adapter import finish
from backtest_kit._state.documents import (
    LiveState,
    RunKey,
    Transition,
    nothing_stored,
    transition,
)
from backtest_kit._state.owner import StateOwner
from backtest_kit._state.positions import held_by, stored_position
from backtest_kit._values.errors import CorruptStateError, StateError
from backtest_kit._values.events import RunEvent
from backtest_kit._values.positions import position_of
from backtest_kit._values.results import TickClosed
from backtest_kit._values.signal import SignalRow

#: Seconds for which the journal, and the end of a run, wait for those who are to be told.
PATIENCE: Final = 5.0
#: Results kept in memory for a consumer that has not taken them when its run ends.
_MOST_UNHEARD: Final = 1_000


class Ledger:
    """The state, the outbox and the journal of one live run."""

    def __init__(self, run: Run, owner: StateOwner, *, recorded: bool) -> None:
        self._run = run
        self._owner = owner
        self.key = RunKey(run.exchange_name, run.strategy_name, run.symbol)
        self.state = nothing_stored(self.key)
        #: What the open signal holds, once it is filled.
        self.holding: Holding | None = None
        #: What the consumer of the run has not received yet.
        self._results = Transitions(self, 0, self.notify)
        #: What callbacks have not been told of yet, and who tells them; `None`: told in the step.
        self._untold = Transitions(self, 0, self.notify)
        self.callbacks = None if run.waits else Callbacks(run, self._untold)
        #: Set, and replaced, whenever a transition was stored or somebody has been told of one.
        self.changed = asyncio.Event()
        #: Where the state was given back: what the consumer had not received by then.
        self._kept: list[Transition] | None = None
        self._own = OwnState(run)
        self._account = live_gate(run)
        self._recorded = recorded
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

    @property
    def sequence(self) -> int:
        """The sequence that the next transition will have."""
        return self.state.sequence

    @property
    def unheard(self) -> int:
        """Number of transitions that the callbacks or the consumer have not been told of."""
        return max(self._results.left, self._untold.left)

    async def enter(self, stop: Callable[[], None]) -> None:
        """Make the state this run's own; raises as `StateOwner.enter`."""
        self.state = state = await self._owner.enter(self.key, stop)
        self._untold.sequence, self._results.sequence = state.places
        if (row := self.filled) is not None:
            self.holding = held_by(state.position, row, self._run.config)

    async def resume(self) -> int | None:
        """Continue from the stored state; tell again what may not have been told.

        Returns the newest step that is done (ms), `None` before the first. Call `enter` first.

        Raises:
            StateError: the state can't be read or written.
        """
        run, state = self._run, self.state
        history = await self._owner.journal.history(state)
        for entry in history:
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
        if self.holding is not None:
            run.risk_gate.extend(self.holding.expires_at)
        run.record.signal, run.record.missed = state.signal, state.missed
        await enter_account(run, self._owner, state, self.holding)
        told, _ = state.places
        self._own.begin(state.own, state.own_sequence)
        if self.callbacks is not None:
            run.call_later = self.callbacks.call_later
        # written at once, so that a state that can't be written is found before trading starts
        await self.attach_listeners()
        await self._write(
            risk_names=run.strategy.risk_names,
            percent_fee=run.config.percent_fee,
            percent_slippage=run.config.percent_slippage,
            at=state.at,
            own=self._own.value,
            session=self._owner.session(run.config, recorded=self._recorded),
            **self._places(),
        )
        if self._account is not None:
            await self._account.keep_place(self.key)
        knows = told if run.own is None else state.own_sequence
        for entry in history:
            own, others = entry.sequence >= knows, entry.sequence >= told
            if own or others:
                await self._tell(entry, own=own, others=others)
        self._own.know(self.state.sequence)
        self.notify()  # the consumer may have to be told of what callbacks have been told of
        current_moment.set(None)
        if state.at is None or state.began_at is None:
            return None
        at = max(state.at, self._owner.heartbeats.last_step(state))
        run.record.since, run.record.until = state.began_at, at
        return at

    def begin(self, when: int) -> None:
        """Note the first step of a new run."""
        self.state = msgspec.structs.replace(self.state, began_at=when)
        self._run.record.since = when

    async def commit(
        self, when: int, price: float, events: Sequence[RunEvent] = (), **changes: Any
    ) -> None:
        """Store outcomes, all at once, with the newest step that is over; release slots, then tell.

        Of the events active and waiting results are told in their turn, and not stored. `holding`
        among the `changes` is what the open signal holds; a closed or cancelled one holds nothing.

        Raises:
            StateError: it can't be written; then nothing has changed, and nothing was told.
        """
        if events:
            await self.attach_listeners()  # those that were added since
        holding = changes.pop("holding", self.holding)
        if holding is not self.holding:
            changes["position"] = None if holding is None else stored_position(holding)
        async with self._writing:
            number = self.state.sequence
            lasting = [event for event in events if not isinstance(event, STATES)]
            new = [transition(event, number + i) for i, event in enumerate(lasting)]
            own = self._own.saved()
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
            self._own.keep(own, number)
            self.holding = holding
        for event in events:
            if isinstance(event, TickClosed):
                self._run.risk_gate.close_position(event.close_timestamp)
        entries = iter(new)
        for event in events:
            if isinstance(event, STATES):
                await self._run.publish(event)
            else:
                self._run.record.add(event)
                await self._tell(next(entries))
        self._own.know(self.state.sequence)

    async def attach_listeners(self) -> None:
        """Let named listeners go on in this run; raises StateError."""
        for listener in [*self._run.engine.named_listeners.values()]:
            await listener.attach(self._run, self.key, self, self._owner.cursors)

    async def confirm(self) -> None:
        """Make sure that what is stored is what is known here, after a write that failed.

        Raises:
            StateError: it still can't be written.
        """
        async with self._writing:
            await self._owner.runs.confirm(self.key)

    def undo(self) -> None:
        """Take back what a step did that could not be written, and let the strategy forget it."""
        if self._account is not None:
            self._account.undo()
        self._own.load()

    async def note(self, at: int | None, **changes: Any) -> None:
        """Store the newest step, how many steps were missed, and other changes.

        Raises:
            StateError: it can't be written.
        """
        async with self._writing:
            await self._write(at=at, missed=self._run.record.missed, **changes)

    def heartbeat(self, at: int) -> None:
        """Note that the step `at` is done; written soon, for all runs together."""
        self._owner.heartbeats.note(self.key, at, self._owner.runs.stored(self.key))

    async def after(self, sequence: int) -> Sequence[Transition]:
        """Return some of the transitions from `sequence` on, oldest first.

        Those that are not in the outbox any more are read from the journal, a page at a time.

        Raises:
            StateError: a page can't be read.
        """
        kept = self.state.outbox if self._kept is None else self._kept
        journal = None if self._kept is not None else self._owner.journal
        return await stored_after(journal, self.key, sequence, self.state.sequence, kept)

    async def next_result(self) -> tuple[Transition, LiveTick] | None:
        """Return what the consumer is to receive next, `None` if there is nothing now."""
        while (entry := await self._results.next()) is not None:
            if isinstance(entry.tick, LiveTick):
                return entry, entry.tick
            self._results.done(entry)
        return None

    def received(self, entry: Transition) -> None:
        """Note that the consumer has received a result."""
        self._results.done(entry)

    async def caught_up(self, patience: float) -> bool:
        """Wait until consumer and callbacks have been told, for so many seconds at most."""
        try:
            async with asyncio.timeout(patience):
                # where callbacks are called in the step, nobody else will call them
                while self._results.left or (self.callbacks is not None and self._untold.left):
                    await self.changed.wait()
                for listener in [*self._run.engine.named_listeners.values()]:
                    await listener.told(self.key)
                if self.callbacks is not None:
                    await self.callbacks.finished()
        except TimeoutError:
            return False
        return True

    def settle_soon(self) -> None:
        """Start a task that moves transitions which have been told to the journal."""
        if (self._settling is None or self._settling.done()) and self._is_unsettled():
            self._settling = asyncio.get_running_loop().create_task(self._settle_quietly())

    def _is_unsettled(self) -> bool:
        stored = {"told": self.state.told, "heard": self.state.heard}
        return bool(self.state.outbox) or self._places() != stored

    async def leave(self, at: int | None, *, cancelled: bool) -> None:
        """Finish the writes under way, store the newest step, release the state and risk slots.

        Those to be told are waited for `PATIENCE` seconds, in a replay until it is stopped.
        """
        run = self._run
        run.risk_gate.cancel_reservation(held=self.filled is not None)
        run.risk_gate.leave()
        if self._account is not None:
            self._account.undo()
        self.notify()
        try:
            if not cancelled:
                while run.waits and not run.stopping and not await self.caught_up(0.2):
                    pass
                if self._settling is not None:
                    self._settling.cancel()
                    await asyncio.wait([self._settling])
                await self._settle()
                self._kept = await first_of(
                    Transitions(self, self._results.sequence), _MOST_UNHEARD
                )
            # a run that was cancelled within a step may know less than what is stored
            if at is not None and (self.state.at is None or at > self.state.at):
                await self.note(at, session=None)
            elif self.state.session is not None:
                await self.note(self.state.at, session=None)
        except StateError as error:
            run.error("state", error)
        finally:
            if self._kept is None:
                self._kept = [*self.state.outbox]
            for listener in [*run.engine.named_listeners.values()]:
                listener.detach(self.key)
            if self.callbacks is not None:
                self.callbacks.close()
            try:
                if self._settling is not None:  # it may still have to undo a write that failed
                    self._settling.cancel()
                    await finish(asyncio.ensure_future(asyncio.wait([self._settling])))
            finally:
                await self._owner.leave(self.key)

    async def _settle_quietly(self) -> None:
        try:
            while self._is_unsettled():  # something may have come meanwhile
                await self._settle()
        except StateError as error:  # the outbox keeps them: the next minute tries again
            self._run.error("state", error)

    async def _settle(self) -> None:
        """Move transitions from the outbox to the journal, and note who has been told of which."""
        if await self.caught_up(PATIENCE):
            await self._run.engine.bus.settle(PATIENCE)
        # both as they are now: what comes while this is written is told again after a crash
        end, places = self.state.sequence, self._places()
        entries = [entry for entry in self.state.outbox if entry.sequence < end]
        if entries:
            try:
                await self._owner.journal.add(self.key, entries, self.state.revision)
            except CorruptStateError as error:  # set aside; the page begins anew
                self._run.error("journal", error)
                await self._owner.journal.add(self.key, entries, self.state.revision)
        async with self._writing:
            left = tuple(entry for entry in self.state.outbox if entry.sequence >= end)
            own = {"own": self._own.value, "own_sequence": self._own.sequence}
            changes = {"outbox": left, **own, **places}
            if any(getattr(self.state, name) != value for name, value in changes.items()):
                await self._write(**changes)

    def _places(self) -> dict[str, int]:
        return {"told": self._untold.sequence, "heard": self._results.sequence}

    def notify(self) -> None:
        """Wake those who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def _write(self, **changes: Any) -> None:
        revision, account = self.state.revision + 1, self._account
        if account is not None and account.has_entered and "at" in changes:
            changes["account"] = account.part()
        state = msgspec.structs.replace(self.state, revision=revision, **changes)
        try:
            await self._owner.runs.write(state)
        except asyncio.CancelledError:
            if self._owner.runs.stored(self.key) is state:  # it was written all the same
                self._is_written(state)
            raise
        self._is_written(state)
        self.notify()
        self._run.record.signal = state.signal
        callback = self._run.strategy.callback("on_write")
        if callback is not None:
            await self._run.call_back("callback on_write", callback, state)

    def _is_written(self, state: LiveState) -> None:
        self.state = state
        if self._account is not None and state.account is not None:
            self._account.stored(state.account)

    async def _tell(self, entry: Transition, *, own: bool = True, others: bool = True) -> None:
        await tell(self._run, entry, self.callbacks, self._untold, own=own, others=others)
        self.notify()

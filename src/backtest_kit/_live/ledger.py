"""One live run's durable side: written first, then told, then entered into the journal.

The order of writes, and why a crash between any two of them loses and doubles nothing:

1. The run's document is replaced, all of a step's outcome at once: what lives, the throttle, the
   milestones, and the transitions themselves (the outbox). Before it, the step has not happened and
   is done again; after it, the step is over and is never done again.
2. Listeners, callbacks and the consumer are told.
3. The transitions are entered into the journal, by their sequence: doing it twice changes nothing.
4. The document is replaced once more, without them in the outbox. A crash before this tells them
   again at the next start, with the same ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from backtest_kit._engine.ambient import moment
from backtest_kit._engine.engine import describe
from backtest_kit._engine.run import Run
from backtest_kit._state.documents import LiveState, RunKey, Transition, transition
from backtest_kit._state.states import LiveStates
from backtest_kit._values.errors import CorruptStateError, StateError
from backtest_kit._values.events import PartialEvent
from backtest_kit._values.positions import position_of
from backtest_kit._values.results import Tick, TickCancelled, TickClosed, TickOpened
from backtest_kit._values.signal import SignalRow, expires_at

LiveTick = TickOpened | TickClosed | TickCancelled
Event = Tick | PartialEvent


class Ledger:
    """The state, the outbox and the journal of one live run."""

    def __init__(self, run: Run, states: LiveStates) -> None:
        self._run = run
        self._states = states
        self.key = RunKey(run.exchange_name, run.strategy_name, run.symbol)
        self.state = LiveState(
            exchange_name=run.exchange_name, strategy_name=run.strategy_name, symbol=run.symbol
        )
        #: Told results that the consumer has not been given yet, with their sequence.
        self.batch: list[tuple[int, LiveTick]] = []
        #: Transitions before this sequence have reached the consumer.
        self.heard = 0
        #: The strategy's own state, and the sequence before which it knows of all transitions.
        self._own: tuple[Any, int] = (None, 0)
        self._writing = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None

    @property
    def signal(self) -> SignalRow | None:
        """What lives."""
        return self.state.signal

    @property
    def filled(self) -> SignalRow | None:
        """What lives, if it is filled."""
        row = self.state.signal
        return row if row is not None and row.pending_at is not None else None

    async def resume(self) -> int | None:
        """Go on from the stored state, and tell again what may not have been told.

        Returns the newest step that is done (ms), `None` if there was none. `LiveStates.enter` must
        have returned the state.
        """
        run, state = self._run, self.state
        for entry in await self._states.history(state):
            run.record.add(entry.tick or entry.milestone)
        slowest = self._states.slowest()
        run.desk.restore(
            self._states.others(self.key),
            (run.symbol, run.strategy_name, run.exchange_name),
            self.filled,
            [
                (position_of(tick.signal), tick.close_timestamp)
                for tick in run.record.closed
                if tick.close_timestamp > slowest
            ],
        )
        run.record.living, run.record.missed = state.signal, state.missed
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
            await self._tell(entry)
        run.own_knows = False
        self._know_own()
        moment.set(None)
        if state.at is None or state.began_at is None:
            return None
        run.record.since = state.began_at
        run.record.until = max(state.at, self._states.last_beat(state))
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
        """Make the outcome of the step `when` durable, all at once; then act on it and tell.

        `first` is told before the events, and not kept.

        Raises:
            StateError: it can't be written; then nothing has changed, and nobody was told.
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
        if any(isinstance(event, TickClosed) for event in events):
            self._run.desk.release(when)
        if first is not None:
            await self._run.tell(first)
        for entry in new:
            self._run.record.add(entry.tick or entry.milestone)
            await self._tell(entry)
        self._know_own()

    def undo(self) -> None:
        """Let the strategy forget what it did in a step that could not be written."""
        self._load_own()

    async def note(self, at: int | None) -> None:
        """Make durable how far the run has come, and how many steps it has missed.

        Raises:
            StateError: it can't be written.
        """
        async with self._writing:
            await self._write(at=at, missed=self._run.record.missed)

    def settle_soon(self) -> None:
        """Begin to enter into the journal what everybody has been told of."""
        self.heard = self.state.sequence
        if self.state.outbox and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self._settle_quietly())

    async def leave(self, at: int | None, *, cancelled: bool) -> None:
        """Finish what is under way, write the newest step, and give state and slots back."""
        run = self._run
        if (row := self.filled) is None:
            run.desk.give_back()
            run.desk.leave()
        else:
            run.desk.leave(expires_at(row))
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
            await self._states.leave(self.key)

    async def _settle_quietly(self) -> None:
        try:
            await self._settle()
        except StateError as error:  # the outbox keeps them: the next minute tries again
            self._run.error("state", error)

    async def _settle(self) -> None:
        """Enter into the journal what was told, then forget that it might not have been."""
        heard = self.heard
        entries = [entry for entry in self.state.outbox if entry.sequence < heard]
        if not entries:
            return
        try:
            await self._states.journal(self.key, entries)
        except CorruptStateError as error:  # set aside; the page begins anew
            self._run.error("journal", error)
            await self._states.journal(self.key, entries)
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
        state = msgspec.structs.replace(self.state, **changes)
        try:
            await self._states.write(state)
        except asyncio.CancelledError:
            if self._states.stored(self.key) is state:  # it was written all the same
                self.state = state
            raise
        self.state = state
        self._run.record.living = state.signal
        callback = self._run.strategy.callback("on_write")
        if callback is not None:
            await self._run.guarded("callback on_write", callback, state)

    async def _tell(self, entry: Transition) -> None:
        if entry.milestone is not None:
            await self._run.tell_milestone(entry.milestone)
        if entry.tick is not None:
            await self._run.tell(entry.tick)
            if isinstance(entry.tick, LiveTick):
                self.batch.append((entry.sequence, entry.tick))

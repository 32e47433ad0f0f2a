"""What persons order a live run to do: read at a step, done once, answered in the same write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from backtest_kit._engine.run import Run
from backtest_kit._live.asking import Asking
from backtest_kit._live.ledger import Ledger
from backtest_kit._rules import transitions as told
from backtest_kit._rules.actions import act_in_turn
from backtest_kit._rules.bars import Bar
from backtest_kit._rules.managed import Holding, Managed, open_managed
from backtest_kit._state.commands import Command
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.commands import Cancel, Open, Pause, Resume, name_of
from backtest_kit._values.errors import ActionError, SignalError, StateError
from backtest_kit._values.events import CommandEvent, RunEvent
from backtest_kit._values.signal import SignalRow

#: Answers that a run's document keeps, beside those of commands that are still to be deleted.
_KEPT: Final = 100
#: Milliseconds between two looks for commands where steps follow each other without a pause.
_LOOK: Final = 250


class Orders:
    """The commands to one live run. `recorded`: it steps as fast as it can."""

    def __init__(
        self, run: Run, ledger: Ledger, owner: StateOwner, asking: Asking, *, recorded: bool
    ) -> None:
        self._run = run
        self._ledger = ledger
        self._owner = owner
        self._asking = asking
        self._recorded = recorded
        self._looked: float | None = None

    async def waiting(self) -> list[Command]:
        """Return the commands that wait, in the order in which they were sent."""
        key, now = self._ledger.key, stopwatch()
        sent_here = key in self._owner.sent_to
        recently = self._looked is not None and now - self._looked < _LOOK
        if self._recorded and recently and not sent_here:
            return []
        self._looked = now
        self._owner.sent_to.discard(key)
        try:
            return await self._owner.commands.waiting(key)
        except StateError as error:  # they wait for the next step
            self._run.error("command", error)
            return []

    async def obey(self, commands: Sequence[Command], bar: Bar, *, if_asked: int) -> bool:
        """Do commands, store at once what came of them, and tell it; say if one ended a signal.

        `if_asked` is the newest step that is over then, if the strategy is still asked at this one.

        Raises:
            StateError: it can't be stored; nothing has been done then.
        """
        ledger, state = self._ledger, self._ledger.state
        answered = {event.command for event in state.done}
        turn = _Turn(self._run, self._asking, ledger, bar)
        answers: list[CommandEvent] = []
        for command in commands:
            if command.id in answered:
                continue  # the process ended before it was deleted, or it was sent once more
            answered.add(command.id)
            answers.append(await turn.do(command))
        if answers:
            waits = {command.id for command in commands}
            kept = [event for event in state.done[:-_KEPT] if event.command in waits]
            known = (*kept, *state.done[-_KEPT:], *answers)
            asked = not (turn.ended or turn.paused or turn.signal is not None)
            when = if_asked if asked else bar.when
            await ledger.commit(when, bar.price, turn.events, done=known, **turn.changes)
        for command in commands:
            try:
                await self._owner.commands.forget(command)
            except StateError as error:  # the next look finds it answered
                self._run.error("command", error)
        return turn.ended


class _Turn:
    """The commands of one step, each judged by what those before it have left."""

    def __init__(self, run: Run, asking: Asking, ledger: Ledger, bar: Bar) -> None:
        self._run = run
        self._asking = asking
        self._bar = bar
        self.signal: SignalRow | None = ledger.signal
        self.paused = ledger.state.paused
        self.events: list[RunEvent] = []
        self.changes: dict[str, Any] = {}
        #: Whether a person has ended what was open.
        self.ended = False
        self._holding: Holding | None = ledger.holding
        self._began = False

    async def do(self, command: Command) -> CommandEvent:
        """Do one command, and return what came of it."""
        outcome: Literal["done", "refused"] = "done"
        reason = ""
        try:
            await self._do(command)
        except (ActionError, SignalError) as error:
            outcome, reason = "refused", str(error)
        answer = CommandEvent(
            symbol=command.symbol,
            strategy_name=command.strategy_name,
            exchange_name=command.exchange_name,
            timestamp=self._bar.when,
            command=command.id,
            what=name_of(command.order),
            outcome=outcome,
            reason=reason,
        )
        self.events.append(answer)
        return answer

    async def _do(self, command: Command) -> None:
        order, row = command.order, self.signal
        match order:
            case Pause() | Resume():
                self.paused = isinstance(order, Pause)
                self.changes["paused"] = self.paused
            case Cancel():
                self._cancel()
            case Open():
                await self._open(order)
            case _:
                if row is None:
                    raise ActionError("nothing is open")
                if self._holding is None:
                    raise ActionError("the signal still waits for its entry price; cancel it")
                self._act(self._holding, order)

    def _cancel(self) -> None:
        if self.signal is None:
            raise ActionError("no signal waits")
        if self._holding is not None:
            raise ActionError("the signal is filled; close it")
        bar = self._bar
        self.events.append(told.cancelled(self.signal, bar.when, bar.price, "user"))
        self._nothing_lives()

    def _act(self, holding: Holding, order: object) -> None:
        bar, config = self._bar, self._run.config
        done, refused = act_in_turn(holding, [order], bar, config, "user")
        if refused:
            raise refused[0]
        ((_, (left, close), _, note),) = done
        self.events += told.acted(done[0], bar.when, bar.price)
        if close is None:
            self._lives(left)
            return
        when, price = bar.when, bar.price
        self.events.append(told.closed_managed(left, when, price, close.reason, config, note))
        self._nothing_lives()

    async def _open(self, order: Open) -> None:
        run, bar = self._run, self._bar
        if self.signal is not None:
            raise ActionError(f"a signal lives already: {self.signal.id}")
        if self.paused:
            raise ActionError("the run is paused: resume it first")
        if run.stopping:
            raise ActionError("the run is to stop")
        if self._began:
            raise ActionError("a signal was opened at this step; send it again")
        refusals = len(run.record.rejections)
        row = run.accept(order.signal, bar.quote, bar.when)
        if not await self._asking.allowed(row, bar):
            news = [*run.record.rejections][refusals:]
            why = "; ".join(f"{x.risk_name}: {x.reason}" for x in news)
            raise ActionError(f"refused by a risk profile ({why or 'see the errors of the run'})")
        events, changes = begun(row, bar, run)
        self._began, self.signal = True, row
        self._holding = changes["holding"]
        self.events += events
        self.changes |= changes

    def _lives(self, holding: Holding) -> None:
        self._holding = holding
        self.changes["holding"] = holding

    def _nothing_lives(self) -> None:
        self.signal = self._holding = None
        self.ended = True
        self.changes |= NOTHING


#: What a step leaves behind where nothing is open any more.
NOTHING: Final[dict[str, Any]] = {
    "signal": None,
    "holding": None,
    "fired": 0,
    "managed_at": None,
}


def begun(row: SignalRow, bar: Bar, run: Run) -> tuple[list[RunEvent], dict[str, Any]]:
    """Return what a signal that waits or opens at its own step brings: to tell, to store."""
    if row.pending_at is None:
        return [told.scheduled(row, bar.when, bar.price)], NOTHING | {"signal": row}
    opened = open_managed(row, bar, run.config)
    return opening(opened, bar), NOTHING | {"signal": row, "holding": opened.holding}


def opening(opened: Managed, bar: Bar) -> list[RunEvent]:
    """Return what the step of a signal's fill brings, but for its close."""
    holding, when, price = opened.holding, bar.when, bar.price
    closes = opened.close is not None
    events: list[RunEvent] = [told.opened(holding.row, when, price)]
    events += told.happened(None, holding, when, price, closes=closes)
    moved = None if closes else told.moved(None, holding, when, price)
    return events if moved is None else [*events, moved]

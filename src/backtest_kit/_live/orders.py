"""What persons order a live run to do: read at a step, done once, answered in the same write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from backtest_kit._engine.run import Run
from backtest_kit._live.asking import Asking
from backtest_kit._live.ledger import Ledger
from backtest_kit._live.turn import Turn
from backtest_kit._state.commands import Command
from backtest_kit._state.owner import StateOwner
from backtest_kit._values.clock import stopwatch
from backtest_kit._values.commands import Cancel, Open, Pause, Resume, name_of
from backtest_kit._values.errors import ActionError, SignalError, StateError
from backtest_kit._values.events import CommandEvent

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
        #: Commands sent before (ms) were for a session that has ended in order; `None`: it did not.
        self.ended_before: int | None = None

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
            found = await self._owner.commands.waiting(key)
        except StateError as error:  # they wait for the next step
            self._run.error("command", error)
            return []
        if found:
            self._looked = None  # a step that can't be stored is done again, with them
        return found

    async def obey(self, commands: Sequence[Command], turn: Turn) -> None:
        """Do commands in their order, each judged by what those before it have left."""
        known = self._ledger.state.done
        answered = {event.command for event in known}
        answers: list[CommandEvent] = []
        for command in commands:
            if command.id in answered:
                continue  # the process ended before it was deleted, or it was sent once more
            answered.add(command.id)
            answers.append(await self._answer(command, turn))
        if answers:
            waits = {command.id for command in commands}
            kept = [event for event in known[:-_KEPT] if event.command in waits]
            turn.changes["done"] = (*kept, *known[-_KEPT:], *answers)

    async def tidy(self) -> None:
        """Delete commands that an earlier process answered, and could not delete."""
        answered = {event.command for event in self._ledger.state.done}
        await self.forget([each for each in await self.waiting() if each.id in answered])
        self._looked = None

    async def forget(self, commands: Sequence[Command]) -> None:
        """Delete commands whose answers are stored."""
        for command in commands:
            try:
                await self._owner.commands.forget(command)
            except StateError as error:  # the next look finds it answered
                self._run.error("command", error)

    async def _answer(self, command: Command, turn: Turn) -> CommandEvent:
        outcome: Literal["done", "refused"] = "done"
        reason = ""
        try:
            await self._do(command, turn)
        except (ActionError, SignalError) as error:
            outcome, reason = "refused", str(error)
        answer = CommandEvent(
            symbol=command.symbol,
            strategy_name=command.strategy_name,
            exchange_name=command.exchange_name,
            timestamp=turn.bar.when,
            command=command.id,
            what=name_of(command.order),
            outcome=outcome,
            reason=reason,
        )
        turn.events.append(answer)
        return answer

    async def _do(self, command: Command, turn: Turn) -> None:
        order, since = command.order, self.ended_before
        if since is not None and command.sent_at < since and not command.keep:
            raise ActionError("the run had ended before it read this: send it again")
        match order:
            case Pause() | Resume():
                turn.paused = turn.changes["paused"] = isinstance(order, Pause)
            case Open():
                await self._open(order, turn)
            case Cancel():
                if turn.signal is None:
                    raise ActionError("no signal waits")
                if turn.holding is not None:
                    raise ActionError("the signal is filled; close it")
                turn.cancel("user")
                turn.ended_by_hand = True
            case _:
                await self._act(order, turn)

    async def _act(self, order: object, turn: Turn) -> None:
        if turn.signal is None:
            raise ActionError("nothing is open")
        if turn.holding is None:
            raise ActionError("the signal still waits for its entry price; cancel it")
        done, refused = await turn.do([order], "user")
        if refused:
            raise refused[0]
        close = done[0].managed.close
        if close is not None:
            turn.close(close)
            turn.ended_by_hand = True

    async def _open(self, order: Open, turn: Turn) -> None:
        run, bar = self._run, turn.bar
        if turn.signal is not None:
            raise ActionError(f"a signal lives already: {turn.signal.id}")
        if turn.paused:
            raise ActionError("the run is paused: resume it first")
        if run.stopping:
            raise ActionError("the run is to stop")
        if turn.began:
            raise ActionError("a signal was opened at this step; send it again")
        refusals = run.record.refused.total()
        row = run.accept(order.signal, bar.quote, bar.when)
        refused = await self._asking.admitted(row, bar)
        if refused is not None:
            news = run.record.refused.total() - refusals
            why = [
                f"{x.risk_name}: {x.reason}{x.detail and f', {x.detail}'}"
                for x in [*run.record.rejections][-news:]
                if news
            ]
            by = "a risk profile" if refused == "risk" else "the account"
            raise ActionError(f"refused by {by} ({'; '.join(why) or 'too late'})")
        turn.begin(row)

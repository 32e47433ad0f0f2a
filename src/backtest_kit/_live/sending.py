"""Send commands to live runs, of this process or of another that can reach the state."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from backtest_kit._state.adapter import PersistAdapter, call
from backtest_kit._state.commands import COMMAND, Command, command_key, why_not_running
from backtest_kit._state.documents import (
    Heartbeat,
    LiveState,
    RunKey,
    decode,
    encode,
    run_key,
)
from backtest_kit._state.envelope import DamagedError
from backtest_kit._state.heartbeats import HEARTBEAT
from backtest_kit._state.lock import Owner
from backtest_kit._values.clock import Clock
from backtest_kit._values.commands import Order, name_of
from backtest_kit._values.errors import (
    ArgumentError,
    CorruptStateError,
    NotRunningError,
    StateError,
    UnknownNameError,
)
from backtest_kit._values.events import CommandEvent

#: Seconds between two looks for an answer.
_LOOK: Final = 0.2
#: A process that takes the state may remove what another is about to write: it writes again.
_TRIES: Final = 3
_numbers: Final = count()


def new_command(key: RunKey, order: Order, name: str | None, now: int, *, keep: bool) -> Command:
    """Return a command that is sent at `now` (ms); `name` is its id, by default a new one.

    `keep`: it is for a later start too, if the run ends before it has read it.

    Raises:
        ArgumentError: the id is empty.
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise ArgumentError(f"command_id={name!r} must be a non-empty text")
    # in order also within a millisecond, and another process's is another
    made = f"{now}-{next(_numbers):06d}-{secrets.token_hex(4)}"
    return Command(
        id=made if name is None else name,
        exchange_name=key.exchange_name,
        strategy_name=key.strategy_name,
        symbol=key.symbol,
        sent_at=now,
        order=order,
        keep=keep,
    )


async def find_run(
    adapter: PersistAdapter, symbol: str, strategy_name: str, exchange_name: str | None
) -> RunKey:
    """Return the key of a run; without an exchange, of the only stored one with these names.

    Raises:
        UnknownNameError: there is none, or there are several.
        StateError: the state can't be read.
    """
    if exchange_name is not None:
        return RunKey(exchange_name, strategy_name, symbol)
    keys = [run_key(text) for text in await _read(adapter.list, "run")]
    found = [key for key in keys if (key.strategy_name, key.symbol) == (strategy_name, symbol)]
    if len(found) == 1:
        return found[0]
    there = "; ".join(f"{key.strategy_name} {key.symbol} {key.exchange_name}" for key in keys)
    what = "no such live run" if not found else "several live runs"
    raise UnknownNameError(
        f"{what} of {strategy_name} on {symbol} in the state: give exchange_name (there are: "
        f"{there or 'none'})"
    )


async def send(
    adapter: PersistAdapter, command: Command, now: int, *, runs_here: bool, when_running: bool
) -> None:
    """Store a command for a run. `runs_here`: it runs in this process.

    Raises:
        ArgumentError: another order waits under the same id.
        NotRunningError: it does not run, and the command is not to be kept (`when_running`).
        StateError: the state can't be read or written.
    """
    if not runs_here and not when_running:
        _, why = await look(adapter, command.run, now)
        if why:
            raise NotRunningError(
                f"{_who(command)} does not run: {why}; nothing was sent. With when_running=True "
                "(--when-running) a command is kept until it does"
            )
    key = command_key(command.run, command.id)
    there = await _document(adapter, COMMAND, key, Command)
    if there is not None and there.order != command.order:
        raise ArgumentError(
            f"command_id={command.id!r} is that of another command, which waits: "
            f"{name_of(there.order)}; nothing was sent. Give each command an id of its own"
        )
    content = encode(COMMAND, key, command)
    for left in reversed(range(_TRIES)):
        try:
            await call(adapter.write, COMMAND, key, content)
            return
        except Exception as error:
            if not left:
                raise StateError(f"the command can't be stored: {error}") from error


async def answer(
    adapter: PersistAdapter, command: Command, clock: Clock, runs_here: Callable[[], bool]
) -> CommandEvent:
    """Wait for what comes of a command.

    Raises:
        ArgumentError: another command with this id was answered; this one is not done.
        NotRunningError: the run does not run; the command is kept.
        StateError: the state can't be read.
    """
    while True:
        here = runs_here()
        state, why = await look(adapter, command.run, clock.wall_ms())
        for event in reversed(() if state is None else state.done):
            if event.command == command.id:
                if event.what != name_of(command.order):
                    raise ArgumentError(
                        f"command_id={command.id!r} was that of another command, {event.what}: "
                        f"{name_of(command.order)} is not done. Send it again with a new id"
                    )
                return event
        if why and not here:
            raise NotRunningError(
                f"{_who(command)} does not run: {why}; the command {command.id} waits for it"
            )
        await clock.sleep(_LOOK)


async def look(adapter: PersistAdapter, key: RunKey, now: int) -> tuple[LiveState | None, str]:
    """Return the document of a run, and why it does not seem to run at `now` (ms); "" if it does.

    Raises:
        StateError: the state can't be read.
    """
    state = await _document(adapter, "run", str(key), LiveState)
    beats = await _document(adapter, "heartbeat", HEARTBEAT, Heartbeat)
    owner = None
    tells_owner = getattr(adapter, "owner", None)
    if tells_owner is not None:
        owner = await _read(tells_owner)
        if owner is None and state is not None and state.session is not None:
            return state, "no process has the state"
    step = 0 if state is None or beats is None else max(beats.last_step(state), state.at or 0)
    return state, why_not_running(state, owner if isinstance(owner, Owner) else None, step, now)


async def _document(adapter: PersistAdapter, kind: str, key: str, type_: type[Any]) -> Any:
    content = await _read(adapter.read, kind, key)
    try:
        return None if content is None else decode(kind, key, bytes(content), type_)
    except DamagedError as error:
        raise CorruptStateError(f"{kind} {key} is damaged: {error}") from error


async def _read(function: Callable[..., Any], *arguments: str) -> Any:
    try:
        return await call(function, *arguments)
    except StateError:
        raise
    except Exception as error:  # of an adapter of any kind
        raise StateError(f"the state can't be read: {error}") from error


def _who(command: Command) -> str:
    return f"{command.strategy_name} on {command.symbol} ({command.exchange_name})"

"""`backtest-kit state`: what live runs have stored, without touching it."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
from rich.table import Table
from rich.text import Text

from backtest_kit._engine.engine import Engine
from backtest_kit._live.stored import StoredRun, read_stored
from backtest_kit._reports.table import price
from backtest_kit._rules.managed import Holding
from backtest_kit._state.adapter import call
from backtest_kit._state.documents import LiveState
from backtest_kit._state.files import FileAdapter
from backtest_kit._state.lock import Owner
from backtest_kit._state.positions import restored
from backtest_kit._state.sqlite import SqliteAdapter
from backtest_kit._values.config import from_environment
from backtest_kit._values.events import CommandEvent, PartialEvent, RunEvent
from backtest_kit._values.results import TickClosed
from backtest_kit._values.signal import NEVER, SignalRow, expires_at
from backtest_kit._values.time import iso
from backtest_kit.cli.live_table import transition_line
from backtest_kit.cli.strategy_file import load
from backtest_kit.cli.terminal import Console

_SHOWN: Final = 20


state_option = click.option(
    "--state",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder, or SQLite file, of the live state.  [default: ./state]",
)
state_of_option = click.option(
    "--state-of",
    "file",
    type=click.Path(path_type=Path),
    help="The state that this strategy file chooses: its adapter, or its state_dir.",
)


@click.command()
@state_option
@state_of_option
@click.option("--symbol", help="Show the runs on this symbol in full.")
@click.option("--strategy", "strategy_name", help="Show the runs of this strategy in full.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is stored as JSON.")
def state(
    folder: Path | None,
    file: Path | None,
    symbol: str | None,
    strategy_name: str | None,
    as_json: bool,
) -> int:
    """List the live runs in a state, or show some of them; nothing is changed.

    \b
        backtest-kit state
        backtest-kit state --symbol BTC/USDT --state ./state/paper
        backtest-kit state --state state.db
        backtest-kit state --state-of my_strategy.py
    """
    found, problems, place, owner = read_state(folder, file, symbol, strategy_name)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        console.print(Text(f"{place}: {owner}"))
        if found:
            console.print(_table(found))
        for run in found if symbol is not None or strategy_name is not None else ():
            _show(run, console)
        for part in parts_of(place):
            console.print(Text(f"there is more in {part}"))
    damage = [f"{_name(run)}: {problem}" for run in found for problem in run.damage]
    damage += problems
    for line in damage:
        click.echo(f"backtest-kit: {line}", err=True)
    return 1 if damage else 0


class Shown(NamedTuple):
    """What of a state is asked for, where it is, and who has it."""

    runs: list[StoredRun]
    problems: tuple[str, ...]
    place: str
    owner: str


def read_state(
    folder: Path | None, file: Path | None, symbol: str | None, strategy_name: str | None
) -> Shown:
    """Return the runs in a state that match; `None` matches anything."""
    adapter, place = choose_adapter(folder, file)
    with asyncio.Runner() as runner:
        blocking = Blocking(adapter, runner)
        stored = read_stored(blocking)
        owner = _owner(blocking)
    found = [
        run
        for run in stored.runs
        if symbol in (None, run.key.symbol) and strategy_name in (None, run.key.strategy_name)
    ]
    if stored.runs and not found:
        there = "; ".join(_name(run) for run in stored.runs)
        raise click.UsageError(f"no such run in {place} (there are: {there})")
    return Shown(found, stored.problems, place, owner)


def parts_of(place: str) -> list[Path]:
    """Return the folders of a state in which runs on paper and of replays are kept apart."""
    parts = (Path(place) / part for part in ("paper", "replay"))
    return [part for part in parts if part.is_dir()]


def choose_adapter(folder: Path | None, file: Path | None) -> tuple[Any, str]:
    """Return the adapter of a state, and what to call the place of the state."""
    if file is not None:
        if folder is not None:
            raise click.UsageError("give --state or --state-of, not both")
        with Engine() as engine:
            load(file)
        if engine.adapter is not None:
            return engine.adapter, f"the state of {file}"
        folder = Path(engine.config.state_dir)
    folder = folder or Path(from_environment().state_dir)
    if folder.is_file():
        return SqliteAdapter(folder), str(folder)
    if not folder.is_dir():
        raise click.UsageError(f"there is no state folder {folder}; give --state")
    return FileAdapter(folder), str(folder)


class Blocking:
    """An adapter whose methods may be async, as one whose methods are sync."""

    def __init__(self, adapter: Any, runner: asyncio.Runner) -> None:
        self._adapter = adapter
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._adapter, name)
        return lambda *arguments: self._runner.run(call(method, *arguments))


def _owner(adapter: Any) -> str:
    owner = getattr(adapter, "owner", lambda: None)()
    if owner is None:
        return "no process runs on it"
    alive = owner.alive() if isinstance(owner, Owner) else None
    if alive is None:
        return f"in use by {owner}, as far as can be seen from here"
    return f"in use by {owner}" if alive else f"left by {owner}, which runs no more"


def _table(runs: list[StoredRun]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("Symbol", "Strategy", "Exchange", "State", "Newest step"):
        table.add_column(name)
    for name in ("Closed", "Missed"):
        table.add_column(name, justify="right")
    for run in runs:
        closed = sum(isinstance(entry.tick, TickClosed) for entry in run.transitions)
        table.add_row(
            Text(run.key.symbol),
            Text(run.key.strategy_name),
            Text(run.key.exchange_name),
            "damaged" if run.state is None else _state_text(run.state),
            "" if run.at is None else iso(run.at),
            str(closed),
            "" if run.state is None else str(run.state.missed),
        )
    return table


def _state_text(state: LiveState) -> str:
    paused = ", paused" if state.paused else ""
    return f"{_signal_text(state.signal)}{paused}"


def _signal_text(row: SignalRow | None) -> str:
    if row is None:
        return "idle"
    if row.pending_at is None:
        return f"waiting, {row.position} at {price(row.price_open)}"
    end = expires_at(row)
    until = "without end" if end == NEVER else f"until {iso(end)}"
    return f"active, {row.position} at {price(row.price_open)}, {until}"


def _show(run: StoredRun, console: Console) -> None:
    console.print(Text(f"\n{_name(run)}", style="bold"))
    if run.state is None:
        return
    row = run.state.signal
    if row is not None:
        console.print(
            Text(
                f"{_signal_text(row)}; take-profit {price(row.price_take_profit)}, stop-loss "
                f"{price(row.price_stop_loss)}; signal {row.id}"
            )
        )
    if run.state.position is not None and row is not None:
        console.print(Text(_held_text(restored(run.state.position, row))))
    if run.state.paused:
        console.print("paused: no new signals until a resume is sent")
    if run.state.outbox:
        console.print(f"{len(run.state.outbox)} transitions may be reported again")
    for entry in run.transitions[-_SHOWN:]:
        console.print(Text(_line(entry.event)), soft_wrap=True)
    left = len(run.transitions) - _SHOWN
    if left > 0:
        console.print(f"the newest {_SHOWN} transitions; {left} earlier ones are stored")


def _held_text(held: Holding) -> str:
    """Return what is held, and the levels as they have moved."""
    entered = sum(leg.quantity for leg in held.rows if leg.quantity > 0)
    left = sum(leg.quantity for leg in held.rows) / entered * 100
    levels = [
        f"{name} {price(level)}" if math.isfinite(level) else f"no {name}"
        for name, level in (("take-profit", held.target), ("stop-loss", held.stop))
    ]
    end = "without end" if held.expires_at == NEVER else f"until {iso(held.expires_at)}"
    fills = len(held.times)
    return (
        f"now: {left:.4g} % of what was entered, at {price(held.effective_entry)}; "
        f"{', '.join(levels)}; {end}; {fills} fill{'s' * (fills != 1)}"
    )


def _line(event: RunEvent) -> str:
    if isinstance(event, PartialEvent | CommandEvent):
        who = f"{iso(event.timestamp)} {event.symbol} {event.strategy_name}"
        if isinstance(event, PartialEvent):
            return f"{who} milestone {event.level:+d} % at {price(event.current_price)}"
        return f"{who} {answer_text(event)}"
    return transition_line(event)


def answer_text(event: CommandEvent) -> str:
    """Return what came of a command as a text."""
    why = f": {event.reason}" if event.reason else ""
    return f"command {event.what} ({event.command}) {event.outcome}{why}"


def _name(run: StoredRun) -> str:
    return f"{run.key.strategy_name} on {run.key.symbol} ({run.key.exchange_name})"

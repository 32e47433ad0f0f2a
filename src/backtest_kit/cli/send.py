"""`backtest-kit send`: order a live run to do something."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from backtest_kit._live.sending import answer, find_run, look, new_command
from backtest_kit._live.sending import send as send_command
from backtest_kit._state.adapter import call
from backtest_kit._state.commands import Command
from backtest_kit._values.clock import Clock
from backtest_kit._values.commands import ORDERS, Order, order_of
from backtest_kit._values.events import CommandEvent
from backtest_kit.cli.exit_codes import FAILED
from backtest_kit.cli.state import answer_text, choose_adapter, state_of_option, state_option


@click.command()
@click.argument("action", type=click.Choice(ORDERS))
@click.option("--symbol", required=True)
@click.option("--strategy", "strategy_name", required=True)
@click.option("--exchange", "exchange_name", help="Needed where several have such a run.")
@state_option
@state_of_option
@click.option("--share", type=float, help="Of a close: percent of what is held.  [default: 100]")
@click.option("--note", help="Of a close: why.")
@click.option("--price", type=float, help="Of move-stop and move-target.")
@click.option("--size", type=float, help="Of an add: times the first entry's cost.  [default: 1]")
@click.option("--signal", "signal_text", help="Of an open: a signal as JSON, or @file.")
@click.option("--id", "name", help="Sent twice under one id, a command is done once.")
@click.option("--when-running", is_flag=True, help="Keep it for a run that does not run now.")
@click.option("--no-wait", is_flag=True, help="Don't wait for what comes of it.")
@click.option("--json", "as_json", is_flag=True, help="Print what comes of it as JSON.")
def send(
    action: str,
    symbol: str,
    strategy_name: str,
    exchange_name: str | None,
    folder: Path | None,
    file: Path | None,
    share: float | None,
    note: str | None,
    price: float | None,
    size: float | None,
    signal_text: str | None,
    name: str | None,
    when_running: bool,
    no_wait: bool,
    as_json: bool,
) -> int:
    """Order a live run to do something, at its next step, and say what came of it.

    pause takes no new signals, until resume; what lives goes on, also after a restart. Exit code 1:
    the run has refused, or does not run.

    \b
        backtest-kit send close --symbol BTC/USDT --strategy mine
        backtest-kit send close --share 50 --symbol BTC/USDT --strategy mine --note "half off"
        backtest-kit send move-stop --price 61200 --symbol BTC/USDT --strategy mine
        backtest-kit send open --signal @signal.json --symbol BTC/USDT --strategy mine
        backtest-kit send pause --symbol BTC/USDT --strategy mine --state ./state/paper
    """
    fields = {"share": share, "note": note, "price": price, "size": size}
    order = order_of(action, fields | {"signal": _signal(signal_text)})
    adapter, _ = choose_adapter(folder, file)
    names = (symbol, strategy_name, exchange_name)
    work = _send(adapter, order, names, name, when_running=when_running, waits=not no_wait)
    command, event = asyncio.run(work)
    if as_json:
        click.echo(msgspec.json.encode(command if event is None else event))
    elif event is None:
        click.echo(f"sent: {action} ({command.id})")
    else:
        click.echo(answer_text(event))
    return FAILED if event is not None and event.outcome == "refused" else 0


def _signal(text: str | None) -> Any:
    if text is None:
        return None
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        return msgspec.json.decode(text)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--signal: {error}") from None


async def _send(
    adapter: Any,
    order: Order,
    names: tuple[str, str, str | None],
    name: str | None,
    *,
    when_running: bool,
    waits: bool,
) -> tuple[Command, CommandEvent | None]:
    clock = Clock()
    try:
        key = await find_run(adapter, *names)
        now = clock.wall_ms()
        command = new_command(key, order, name, now, keep=when_running)
        await send_command(adapter, command, now, runs_here=False, when_running=when_running)
        if not waits:
            return command, None
        _, why = await look(adapter, key, now)
        if why and when_running:
            click.echo(f"backtest-kit: {why}; the command is kept until it runs", err=True)
            return command, None
        click.echo(f"backtest-kit: sent {command.id}; waiting for the next step", err=True)
        return command, await answer(adapter, command, clock, lambda: False)
    finally:
        release = getattr(adapter, "release", None)
        if release is not None:  # it closes a database
            await call(release)

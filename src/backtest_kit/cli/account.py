"""`backtest-kit account`: the accounts of live runs, and changes of their balances by hand."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from backtest_kit._live.stored_accounts import (
    StoredAccount,
    accept_account,
    account_names,
    add_to_account,
    stored_account,
)
from backtest_kit._reports.portfolio_data import money
from backtest_kit._state.accounts import ACCOUNT
from backtest_kit._values.clock import Clock
from backtest_kit._values.errors import StateError
from backtest_kit._values.time import iso
from backtest_kit.cli.exit_codes import FAILED
from backtest_kit.cli.state import Blocking, choose_adapter, parts_of, state_of_option, state_option
from backtest_kit.cli.terminal import Console

#: Ends of days that are shown.
_SHOWN = 14


@click.command()
@click.argument("name", required=False)
@state_option
@state_of_option
@click.option("--add", "amount", type=float, help="Add to the balance; below 0: take out.")
@click.option("--note", default="", help="Why, with --add.")
@click.option(
    "--accept",
    is_flag=True,
    help="Go on with what is there, where documents are damaged, gone or older copies.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what is stored as JSON.")
def account(
    name: str | None,
    folder: Path | None,
    file: Path | None,
    amount: float | None,
    note: str,
    accept: bool,
    as_json: bool,
) -> int:
    """Show the accounts of live runs in a state, or add to the one called NAME.

    --add and --accept are for times at which no run uses the state: stop them first.

    Where the document of a run is damaged or gone, it is not known what its account has, and
    nothing is entered. Put a good copy back; or --accept that what the run has gained and holds
    counts no more.

    \b
        backtest-kit account
        backtest-kit account main --state ./state/paper
        backtest-kit account main --add 500 --note "saved"
        backtest-kit account main --add -250
    """
    if name is None and (amount is not None or accept):
        option = "--accept" if amount is None else "--add"
        raise click.UsageError(f"{option} needs the name of an account")
    if note and amount is None:
        raise click.UsageError("--note is for --add")
    adapter, place = choose_adapter(folder, file)
    with asyncio.Runner() as runner:
        blocking = Blocking(adapter, runner)
        if accept:
            accept_account(blocking, name or "")
        if amount is not None:
            add_to_account(blocking, name or "", amount, note, Clock().wall_ms())
        found, damage = _read(blocking, name)
    if not found and not damage:
        what = "no account of live runs" if name is None else f"no account {name!r}"
        more = "".join(f"; there is more in {part} (--state)" for part in parts_of(place))
        begin = "they begin with live --balance"
        raise click.UsageError(f"there is {what} in {place}{more}; {begin}")
    if as_json:
        sys.stdout.write(msgspec.json.encode([_facts(each) for each in found]).decode() + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        for each in found:
            _show(each, console)
    for each in found:
        damage += [f"account {each.document.name}: {text}" for text in each.problems]
    for line in damage:
        click.echo(f"backtest-kit: {line}", err=True)
    return FAILED if damage else 0


def _read(adapter: Any, name: str | None) -> tuple[list[StoredAccount], list[str]]:
    """Return the accounts in a state, or the one called `name`, and which can't be read."""
    found, damage = list[StoredAccount](), list[str]()
    for each in account_names(adapter):
        if name in (None, each):
            try:
                found.append(stored_account(adapter, each))
            except StateError as error:
                damage.append(str(error))
    unreadable = getattr(adapter, "unreadable", lambda kind: ())(ACCOUNT)
    return found, damage + [text for key, text in unreadable if name in (None, key)]


def _facts(stored: StoredAccount) -> dict[str, object]:
    """Return what is known of an account without its candles."""
    return {
        **msgspec.structs.asdict(stored.document),
        "paid_in": stored.document.paid_in,
        "balance_now": stored.balance,
        "free": stored.free,
        "problems": stored.problems,
        "runs": [
            {"strategy_name": run.key.strategy_name, "symbol": run.key.symbol, **_part(part)}
            for run, part in zip(stored.runs, stored.parts, strict=True)
        ],
    }


def _part(part: object) -> dict[str, object]:
    return dict(msgspec.structs.asdict(part))  # type: ignore[arg-type]


def _show(stored: StoredAccount, console: Console) -> None:
    document = stored.document
    currency = document.currency
    console.print(Text(f"{document.name} on {document.exchange_name}", style="bold"))
    console.print(
        Text(
            f"balance {money(stored.balance)} {currency}, "
            f"{money(stored.free)} free; began with "
            f"{money(document.balance)} at {iso(document.since // 60_000 * 60_000)}, leverage "
            f"{document.leverage:g}"
        )
    )
    for change in document.changes:
        why = f", {change.note}" if change.note else ""
        console.print(Text(f"{iso(change.when // 60_000 * 60_000)} {change.amount:+,.2f}{why}"))
    table = Table(box=None, pad_edge=False)
    for heading in ("Strategy", "Symbol"):
        table.add_column(heading)
    for heading in ("Trades", "Profit", "Fees", "Refused"):
        table.add_column(heading, justify="right")
    for run, part in zip(stored.runs, stored.parts, strict=True):
        table.add_row(
            Text(run.key.strategy_name),
            Text(run.key.symbol),
            f"{part.trades:,}",
            money(part.gain),
            money(part.fees + (0.0 if part.money is None else part.money.fees)),
            f"{sum(part.refusals.values()):,}",
        )
    console.print(table)
    days = sorted(document.closes.items())[-_SHOWN:]
    for date, equity in days:
        console.print(Text(f"{date}  {money(equity)}"), highlight=False)

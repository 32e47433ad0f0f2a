"""`backtest-kit account`: the accounts of live runs, and changes of their balances by hand."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec
from rich.table import Table
from rich.text import Text

from backtest_kit._live.stored_accounts import StoredAccount, add_to_account, stored_accounts
from backtest_kit._reports.portfolio_data import money
from backtest_kit._values.clock import Clock
from backtest_kit._values.time import iso
from backtest_kit.cli.state import Blocking, choose_adapter, state_of_option, state_option
from backtest_kit.cli.terminal import Console

#: Ends of days that are shown.
_SHOWN = 14


@click.command()
@click.argument("name", required=False)
@state_option
@state_of_option
@click.option("--add", "amount", type=float, help="Add to the balance; below 0: take out.")
@click.option("--note", default="", help="Why, with --add.")
@click.option("--json", "as_json", is_flag=True, help="Print what is stored as JSON.")
def account(
    name: str | None,
    folder: Path | None,
    file: Path | None,
    amount: float | None,
    note: str,
    as_json: bool,
) -> int:
    """Show the accounts of live runs in a state, or add to the one called NAME.

    --add is for times at which no run uses the state: stop them first.

    \b
        backtest-kit account
        backtest-kit account main --state ./state/paper
        backtest-kit account main --add 500 --note "saved"
        backtest-kit account main --add -250
    """
    if amount is not None and name is None:
        raise click.UsageError("--add needs the name of an account")
    if note and amount is None:
        raise click.UsageError("--note is for --add")
    adapter, place = choose_adapter(folder, file)
    with asyncio.Runner() as runner:
        blocking = Blocking(adapter, runner)
        if amount is not None:
            add_to_account(blocking, name or "", amount, note, Clock().wall_ms())
        found = [x for x in stored_accounts(blocking) if name in (None, x.document.name)]
    if not found:
        what = "no account of live runs" if name is None else f"no account {name!r}"
        raise click.UsageError(f"there is {what} in {place}; they begin with live --balance")
    if as_json:
        sys.stdout.write(msgspec.json.encode([_facts(each) for each in found]).decode() + "\n")
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    for each in found:
        _show(each, console)
    return 0


def _facts(stored: StoredAccount) -> dict[str, object]:
    """Return what is known of an account without its candles."""
    return {
        **msgspec.structs.asdict(stored.document),
        "paid_in": stored.document.paid_in,
        "balance_now": stored.balance,
        "free": stored.balance - stored.collateral,
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
            f"{money(stored.balance - stored.collateral)} free; began with "
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

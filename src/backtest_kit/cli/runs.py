"""`backtest-kit runs`: list, compare and prune the runs that were kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.markdown import Markdown
from rich.table import Table

from backtest_kit._reports.differences import (
    differences,
    differences_report,
    portfolios_report,
)
from backtest_kit._reports.run_folder import (
    RunInfo,
    find_run,
    kept_runs,
    prune_runs,
    read_portfolio,
    read_run,
    read_settings,
)
from backtest_kit._reports.table import number
from backtest_kit.cli.terminal import Console, wide_console

#: Where commands keep runs.
RUNS = Path("dump/runs")
root_option = click.option(
    "--runs",
    "root",
    type=click.Path(path_type=Path),
    default=RUNS,
    show_default=True,
    help="The folder of the runs.",
)


@click.group(invoke_without_command=True)
@root_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def runs(context: click.Context, root: Path, as_json: bool) -> None:
    """List the backtests, walks and accounts that were kept, newest first; compare or remove some.

    \b
        backtest-kit runs
        backtest-kit runs compare previous last
        backtest-kit runs prune --keep 20
    """
    if context.invoked_subcommand is not None:
        return
    found = kept_runs(root)
    if as_json:
        listed = [
            {"folder": str(run.folder), "damage": run.damage}
            | (msgspec.to_builtins(run.info) if run.info else {})
            for run in found
        ]
        sys.stdout.write(msgspec.json.encode(listed).decode() + "\n")
        return
    if not found:
        click.echo(f"no runs in {root}; backtest-kit backtest makes one")
        return
    table = Table(show_edge=False)
    for name in ("Run", "Strategy", "Symbol", "Trades", "Total", "Sharpe"):
        numeric = name in ("Trades", "Total", "Sharpe")
        table.add_column(
            name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric
        )
    for run, name in zip(found, _short([run.folder.name for run in found]), strict=True):
        if (info := run.info) is None:
            table.add_row(name, f"can't be read: {run.damage}")
            continue
        table.add_row(
            name,
            _what(info),
            info.symbol,
            f"{info.trades:,}",
            number(info.total_pnl, 2, " %"),
            number(info.sharpe_ratio, 3),
        )
    wide_console().print(table)
    click.echo(f"in {root}; backtest-kit report last --open shows one, also by the name of its run")


def _what(info: RunInfo) -> str:
    match info.kind:
        case "walk":
            return f"walk, best: {info.best or 'none'}"
        case "portfolio":
            return f"account: {info.strategy_name}"
        case _:
            return info.strategy_name


def _short(names: Sequence[str]) -> list[str]:
    """Return the beginning of each name by which it is told from the others; at least its time."""
    ordered = ["", *sorted(names), ""]
    told = {}
    for before, name, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
        alike = max(_alike(name, before), _alike(name, after))
        told[name] = name[: max(name.find("_"), alike + 1)]
    return [told[name] for name in names]


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


@runs.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...")
@root_option
@click.option("--account", "accounts", is_flag=True, help="Compare the money of accounts.")
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def compare(names: tuple[str, ...], root: Path, accounts: bool, as_json: bool) -> None:
    """Show what changed between runs: settings, code, and which trades came, went or changed.

    RUN is a folder, the beginning of its name or digest, "last" or "previous". Each is compared
    with the first. With --account: the figures of accounts side by side.

    \b
        backtest-kit runs compare previous last
        backtest-kit runs compare previous last --account
    """
    if len(names) < 2:
        raise click.UsageError("give two runs or more; backtest-kit runs lists them")
    if accounts:
        folders = [find_run(root, name, "portfolio") for name in names]
        kept = [(f.name, read_portfolio(f), read_settings(f)) for f in folders]
        if as_json:
            sys.stdout.write(msgspec.json.encode([run for _, run, _ in kept]).decode() + "\n")
        else:
            _show(portfolios_report(kept))
        return
    found = [read_run(find_run(root, name, "backtest")) for name in names]
    if as_json:
        data = [differences(found[0], other) for other in found[1:]]
        sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
    else:
        _show(differences_report(found))


def _show(text: str) -> None:
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        sys.stdout.write(text)


@runs.command()
@root_option
@click.option(
    "--keep", type=click.IntRange(min=0), required=True, help="How many of the newest to keep."
)
def prune(root: Path, keep: int) -> None:
    """Remove all but the newest runs.

    \b
        backtest-kit runs prune --keep 20
    """
    gone = prune_runs(root, keep)
    click.echo(f"{len(gone)} removed, {len(kept_runs(root))} left in {root}")

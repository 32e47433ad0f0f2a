"""`backtest-kit data`: check and import files of candles."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.table import Table

from backtest_kit._reports.data_check import DataReport, convert, inspect
from backtest_kit._values.time import iso
from backtest_kit.cli.options import calendar_option
from backtest_kit.cli.terminal import Console

_SHOWN = 5


@click.group()
def data() -> None:
    """Check and import files of candles."""


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@calendar_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(file: Path, calendar: str | None, as_json: bool) -> int:
    """Report rows, range, gaps, duplicates and prices that are hard to believe.

    Exit code 1 where something is wrong or suspicious; gaps alone are not.

    \b
        backtest-kit data check BTCUSDT-1m-2023.parquet
        backtest-kit data check SPY.csv --calendar XNYS
    """
    report = inspect(file, calendar=calendar)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _show(report)
    return 0 if report.usable and not report.suspicions else 1


def _show(report: DataReport) -> None:
    table = Table(title=report.path, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Rows", f"{report.rows:,}")
    table.add_row("Interval", report.interval or "unknown")
    if report.first is not None and report.last is not None:
        table.add_row("Range", f"{iso(report.first)} to {iso(report.last)} (open times)")
    largest = sorted(report.gaps, key=lambda gap: -gap.count)[:_SHOWN]
    shown = "".join(f"\n  {iso(gap.start)}: {gap.count:,}" for gap in largest)
    more = f"\n  and {len(report.gaps) - _SHOWN} more" if len(report.gaps) > _SHOWN else ""
    table.add_row("Gaps", f"{len(report.gaps)}, {report.missing:,} candles missing{shown}{more}")
    if report.closed:
        table.add_row("Market closed", f"{report.closed:,} candles, which are no gaps")
    table.add_row("Zero volumes", f"{report.zero_volumes:,}")
    table.add_row("Duplicates", f"{report.duplicates:,}")
    table.add_row("Out of order", f"{report.out_of_order:,}")
    found = "".join(
        f"\n  {iso(s.timestamp)}: {s.kind}, {s.ratio:.4g} times the prices around it"
        if s.kind == "bad print"
        else f"\n  {iso(s.timestamp)}: {s.kind}? the price stays at {s.ratio:.4g} times what it was"
        for s in report.suspicions
    )
    table.add_row("Suspicious prices", f"{len(report.suspicions)}{found}")
    table.add_row("Rules", report.invalid or "all kept")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


@data.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
def import_(source: Path, target: Path, force: bool) -> None:
    """Convert SOURCE (CSV, Binance Vision, Parquet) to the Parquet file TARGET.

    \b
        backtest-kit data import BTCUSDT-1m-2025-01.zip BTCUSDT.parquet
    """
    if target.suffix not in (".parquet", ".pq"):
        raise click.UsageError(f"{target} must end in .parquet")
    rows = convert(source, target, force=force)
    click.echo(f"{rows:,} candles written to {target}")

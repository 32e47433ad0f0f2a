"""`backtest-kit data`: candles in a catalog and in files."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.table import Table
from rich.text import Text

from backtest_kit._reports.data_check import DataReport, convert, inspect, inspect_catalog
from backtest_kit._reports.data_repair import repair, time_text
from backtest_kit._reports.table import number
from backtest_kit._values.time import INTERVALS, iso
from backtest_kit.cli.catalog import download, export_, list_, update
from backtest_kit.cli.options import calendar_option, reading_options
from backtest_kit.cli.terminal import wide_console
from backtest_kit.exchanges._catalog import is_catalog
from backtest_kit.exchanges._layout import Layout

_SHOWN = 5
_SHOWN_CHANGES = 20


@click.group()
def data() -> None:
    """Download candles into a catalog; check, repair and import files of them."""


for command in (download, update, list_, export_):
    data.add_command(command)


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@calendar_option
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(file: Path, calendar: str | None, given: Layout, as_json: bool) -> int:
    """Report rows, range, gaps, duplicates and prices that are hard to believe.

    FILE may be a catalog, each series of which is checked. Exit code 1 where something is wrong or
    suspicious; gaps alone are not.

    \b
        backtest-kit data check BTCUSDT-1m-2023.parquet
        backtest-kit data check SPY.csv --calendar XNYS
    """
    several = is_catalog(file)
    if several and given:
        raise click.UsageError(f"{file} is a catalog, which is read as it is")
    reports = (
        inspect_catalog(str(file), calendar)
        if several
        else [inspect(file, calendar=calendar, given=given)]
    )
    if as_json:
        found = msgspec.json.encode(reports if several else reports[0])
        sys.stdout.write(found.decode() + "\n")
    else:
        for report in reports:
            _show(report)
    return 0 if all(report.usable and not report.suspicions for report in reports) else 1


def _show(report: DataReport) -> None:
    table = Table(title=Text(report.path), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Rows", f"{report.rows:,}")
    table.add_row("Interval", report.interval or "unknown")
    if report.first is not None and report.last is not None:
        table.add_row("Range", f"{iso(report.first)} to {iso(report.last)} (open times)")
    largest = sorted(report.gaps, key=lambda gap: -gap.count)[:_SHOWN]
    shown = "".join(f"\n  {iso(gap.start)}: {gap.count:,}" for gap in largest)
    more = f"\n  and {len(report.gaps) - _SHOWN} more" if len(report.gaps) > _SHOWN else ""
    share = number(report.missing_percent, 3, " %")
    missing = f"{report.missing:,} candles missing ({share})" if report.missing else "none missing"
    table.add_row("Gaps", f"{len(report.gaps)}, {missing}{shown}{more}")
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
    table.add_row("Rules", Text(report.invalid or "all kept"))
    for note in report.notes:
        table.add_row("Read as", Text(note))
    wide_console().print(table)


@data.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@reading_options
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
def import_(source: Path, target: Path, given: Layout, force: bool) -> None:
    """Convert SOURCE (CSV, Parquet, Feather) to the Parquet file TARGET.

    \b
        backtest-kit data import BTCUSDT-1m-2025-01.zip BTCUSDT.parquet
    """
    if target.suffix not in (".parquet", ".pq"):
        raise click.UsageError(f"{target} must end in .parquet")
    rows = convert(source, target, given, force=force)
    click.echo(f"{rows:,} candles written to {target}")


@data.command(name="repair")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--drop-bad", is_flag=True, help="Leave out rows that break a rule.")
@click.option("--dedupe", is_flag=True, help="Keep the last of several rows with one time.")
@click.option("--sort", is_flag=True, help="Put rows in the order of time.")
@click.option(
    "--interval",
    type=click.Choice([*INTERVALS]),
    help="Of the candles.  [default: what most are apart]",
)
@reading_options
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print what was changed as JSON.")
def repair_(
    source: Path,
    target: Path,
    drop_bad: bool,
    dedupe: bool,
    sort: bool,
    interval: str | None,
    given: Layout,
    force: bool,
    as_json: bool,
) -> None:
    """Write the good candles of IN to OUT, and a list of what was changed beside it.

    IN is never overwritten. OUT ends in .parquet or .csv, the list in .changes.csv. What is wrong
    and not asked to be mended is an error, and nothing is written.

    \b
        backtest-kit data repair bad.csv good.parquet --drop-bad --dedupe --sort
    """
    if target.suffix.lower() not in (".parquet", ".pq", ".csv"):
        raise click.UsageError(f"{target} must end in .parquet or .csv")
    done = repair(
        source,
        target,
        given,
        drop_bad=drop_bad,
        dedupe=dedupe,
        sort=sort,
        interval=interval,
        force=force,
    )
    if as_json:
        sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
        return
    for change in done.changes[:_SHOWN_CHANGES]:
        text = f": {change.text}" if change.text else ""
        click.echo(f"{change.kind}: row {change.row} {time_text(change)} {change.reason}{text}")
    left = len(done.changes) - _SHOWN_CHANGES
    if left > 0:
        click.echo(f"{left:,} more in {done.changes_path}")
    for note in done.notes:
        click.echo(f"note: {note}")
    click.echo(
        f"{done.written:,} of {done.rows:,} candles of {done.interval} written to {done.target}: "
        f"{done.dropped:,} dropped, {done.duplicates:,} duplicates left out, {done.moved:,} moved; "
        f"listed in {done.changes_path}"
    )

"""`backtest-kit data download`, `update`, `list` and `export`: a catalog of candles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import click
import msgspec
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from backtest_kit import data as candles
from backtest_kit import exchanges
from backtest_kit._catalog.layout import SeriesKey
from backtest_kit._reports.data_export import export
from backtest_kit._values.text import for_terminal
from backtest_kit._values.time import INTERVALS, Interval, iso, to_ms
from backtest_kit.cli.choose import moment
from backtest_kit.cli.exit_codes import FAILED, INTERRUPTED
from backtest_kit.cli.options import from_option, to_option
from backtest_kit.cli.terminal import Console, wide_console
from backtest_kit.data._archive import ARCHIVE
from backtest_kit.data._fill import Sources
from backtest_kit.data._outcome import Download, SeriesSummary

F = TypeVar("F", bound=Callable[..., Any])
_SHOWN: Final = 5

catalog_option = click.option(
    "--catalog",
    default="data",
    show_default=True,
    help="A folder, or an address such as s3://bucket/candles.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _source_options(function: F) -> F:
    source = click.option(
        "--source",
        default="auto",
        show_default=True,
        type=click.Choice(get_args(Sources)),
        help="The venue's own interface, Binance's archive, or what suits.",
    )
    archive = click.option(
        "--archive", default=ARCHIVE, show_default=True, help="Address of the archive."
    )
    return source(archive(function))


@click.command()
@click.option("--exchange", "exchange_name", required=True, help="One that ccxt knows.")
@click.option("--symbol", "symbols", required=True, multiple=True, help="Whose candles.")
@click.option(
    "--interval",
    default="1m",
    show_default=True,
    type=click.Choice([*INTERVALS]),
    help="Longer ones are made of shorter ones where they are needed.",
)
@from_option
@click.option("--to", "end", help="End here (ISO 8601).  [default: now]")
@catalog_option
@_source_options
@json_option
def download(
    exchange_name: str,
    symbols: tuple[str, ...],
    interval: Interval,
    start: str | None,
    end: str | None,
    catalog: str,
    source: Sources,
    archive: str,
    as_json: bool,
) -> int:
    """Bring candles of an exchange into a catalog, which every command's --data reads.

    Only what the catalog lacks is asked for. Ctrl-C leaves it whole, and the same command goes on
    where it was. Exit code 1 where something could not be had.

    \b
        backtest-kit data download --exchange binance --symbol BTC/USDT --from 2020-01-01
        backtest-kit backtest my_strategy.py --symbol BTC/USDT --data data
    """
    if start is None:
        raise click.UsageError("from when? give --from, such as --from 2020-01-01")
    since, until = moment("--from", start), moment("--to", end) if end else None

    def work(progress: candles.Progress | None) -> Download:
        return candles.download(
            exchange_name,
            [*dict.fromkeys(symbols)],
            start=since,
            end=until,
            interval=interval,
            catalog=catalog,
            source=source,
            archive=archive,
            progress=progress,
        )

    return _run(work, catalog, as_json=as_json)


@click.command()
@catalog_option
@_source_options
@json_option
def update(catalog: str, source: Sources, archive: str, as_json: bool) -> int:
    """Bring every series of a catalog up to now.

    \b
        backtest-kit data update
        backtest-kit data update --catalog s3://bucket/candles
    """

    def work(progress: candles.Progress | None) -> Download:
        return candles.update(catalog, source=source, archive=archive, progress=progress)

    return _run(work, catalog, as_json=as_json)


def _run(
    work: Callable[[candles.Progress | None], Download], catalog: str, *, as_json: bool
) -> int:
    try:
        with _bars() as progress:
            found = work(progress)
    except KeyboardInterrupt:
        click.echo(
            f"backtest-kit: interrupted; the catalog {for_terminal(catalog)} is whole, and the "
            "same command goes on where it was",
            err=True,
        )
        return INTERRUPTED
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _show(found)
    return 0 if found.whole else FAILED


class _Rate(ProgressColumn):
    """Candles per second."""

    def render(self, task: Task) -> Text:
        """Return the rate of the last seconds."""
        return Text(f"{task.speed:,.0f} candles/s" if task.speed else "")


@contextmanager
def _bars() -> Iterator[candles.Progress | None]:
    """Show a bar for each series on a terminal's standard error; in a pipe, nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[SeriesKey, Any] = {}

    def tell(key: SeriesKey, there: int, wanted: int) -> None:
        if key not in tasks:
            tasks[key] = bars.add_task(str(key), total=wanted, completed=there)
        bars.update(tasks[key], completed=there)

    with bars:
        yield tell


def _show(found: Download) -> None:
    console = wide_console()
    for series in found.series:
        key = SeriesKey(series.exchange, series.symbol, series.interval)
        text = f"{key}: {series.rows:,} candles came"
        if series.missing:
            text += f"; {series.missing:,} in {series.gaps:,} gaps are missing at the source"
        if series.revisions:
            text += f"; {len(series.revisions):,} revised (what was there is kept)"
        console.print(Text(text), soft_wrap=True)
        for problem in series.problems[:_SHOWN]:
            text = f"  not had: {iso(problem.since)} to {iso(problem.until)}: {problem.message}"
            console.print(Text(text, style="red"), soft_wrap=True)
        if len(series.problems) > _SHOWN:
            console.print(f"  and {len(series.problems) - _SHOWN} more")
    if not found.series:
        console.print(Text(f"{found.catalog} has no candles yet: backtest-kit data download"))
    if not found.whole:
        console.print("the same command asks for the rest again")


@click.command(name="list")
@catalog_option
@json_option
def list_(catalog: str, as_json: bool) -> None:
    """Show the series of a catalog: rows, range, gaps, size and source.

    \b
        backtest-kit data list
    """
    found = candles.describe(catalog)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    table = Table(title=Text(catalog), title_justify="left")
    for name in ("Exchange", "Symbol", "Interval", "From", "To"):
        table.add_column(name, no_wrap=name != "Symbol")
    for name in ("Rows", "Gaps", "Missing", "Revised", "Size"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("Source", "Checked"):
        table.add_column(name, overflow="fold")
    for series in found:
        table.add_row(*(Text(cell) for cell in _cells(series)))
    wide_console().print(table)


def _cells(series: SeriesSummary) -> tuple[str, ...]:
    return (
        series.exchange,
        series.symbol,
        series.interval,
        "" if series.first is None else iso(series.first),
        "" if series.end is None else iso(series.end),
        f"{series.rows:,}",
        f"{series.gaps:,}",
        f"{series.missing:,}",
        f"{series.revisions:,}",
        f"{series.size / 1e6:,.1f} MB",
        series.source,
        iso(series.checked_at // 1000 * 1000),
    )


@click.command(name="export")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="Whose candles.")
@click.option("--exchange", "venue", help="The venue, where the catalog has several.")
@click.option("--interval", type=click.Choice([*INTERVALS]), help="[default: that of the catalog]")
@from_option
@to_option
@catalog_option
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
def export_(
    target: Path,
    symbol: str,
    venue: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    catalog: str,
    force: bool,
) -> None:
    """Write candles of a catalog to the file TARGET, .csv or .parquet.

    \b
        backtest-kit data export BTCUSDT.csv --symbol BTC/USDT --from 2024-01-01 --interval 1h
    """
    if target.suffix.lower() not in (".parquet", ".pq", ".csv"):
        raise click.UsageError(f"{target} must end in .parquet or .csv")
    rows = export(
        exchanges.CatalogExchange(catalog, venue),
        symbol,
        target,
        interval=interval,
        since=to_ms(moment("--from", start)) if start else None,
        until=to_ms(moment("--to", end)) if end else None,
        force=force,
    )
    click.echo(f"{rows:,} candles written to {target}")

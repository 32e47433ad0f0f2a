"""`backtest-kit report`: show a result that was written earlier."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import msgspec
from rich.console import Console
from rich.markdown import Markdown

from backtest_kit._live.stored import stored_record
from backtest_kit._pages.live_page import live_page
from backtest_kit._reports.backtest import BacktestData, backtest_report
from backtest_kit._reports.live import LiveData, live_data, live_report
from backtest_kit._reports.walker import walker_report
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.config import from_environment
from backtest_kit._values.errors import BacktestKitError
from backtest_kit.cli.pages import page_of, write_page
from backtest_kit.cli.state import read_state

D = TypeVar("D", BacktestData, LiveData, WalkerData)


@click.command()
@click.argument("what", metavar="FILE|live")
@click.option(
    "--state",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the live state, with live.  [default: ./state]",
)
@click.option("--symbol", help="Of the live runs, those on this symbol.")
@click.option("--strategy", "strategy_name", help="Of the live runs, those of this strategy.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    help="Write an HTML page here (extra report).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def report(
    what: str,
    folder: Path | None,
    symbol: str | None,
    strategy_name: str | None,
    page: Path | None,
    as_json: bool,
) -> None:
    """Show the result of a backtest or a walk from its JSON file, or of live runs.

    With live, of all transitions that the state folder holds, also while the runs go on. Markdown
    in a pipe, formatted on a terminal.

    \b
        backtest-kit report dump/backtest/BTCUSDT-crossover-synthetic-january.json
        backtest-kit report live --symbol BTC/USDT
        backtest-kit report live --html session.html
    """
    if what == "live":
        config = from_environment()
        runs = read_state(folder or Path(config.state_dir), symbol, strategy_name)
        if not runs:
            raise click.UsageError(f"no live run is stored in {folder or config.state_dir}")
        found = [_stored(live_data(stored_record(run, config))) for run in runs]
        if page is not None:
            write_page(live_page(found), page)
        for run in runs:
            for problem in run.damage:
                click.echo(f"backtest-kit: {problem}", err=True)
        _print(msgspec.json.encode(found), "\n".join(map(live_report, found)), as_json=as_json)
        return
    file = Path(what)
    if folder is not None or symbol is not None or strategy_name is not None:
        raise click.UsageError("--state, --symbol and --strategy are for: report live")
    if not file.is_file():
        raise click.UsageError(f"{file} is not a file")
    data, text = _read(file)
    if page is not None:
        write_page(page_of(data), page)
    _print(msgspec.json.encode(data), text, as_json=as_json)


def _read(file: Path) -> tuple[BacktestData | LiveData | WalkerData, str]:
    content = file.read_bytes()
    readers: tuple[Callable[[bytes], tuple[BacktestData | LiveData | WalkerData, str]], ...] = (
        partial(_decoded, BacktestData, backtest_report),
        partial(_decoded, LiveData, live_report),
        partial(_decoded, WalkerData, walker_report),
    )
    problems = []
    for read in readers:
        try:
            return read(content)
        except msgspec.MsgspecError as error:
            problems.append(str(error))
    raise BacktestKitError(
        f"{file} is not the JSON file of a backtest, a live run or a walk: {problems[0]}"
    )


def _decoded(kind: type[D], text: Callable[[D], str], content: bytes) -> tuple[D, str]:
    data = msgspec.json.decode(content, type=kind)
    return data, text(data)


def _stored(data: LiveData) -> LiveData:
    """Leave out what only the process of the run knows."""
    return msgspec.structs.replace(
        data, steps=None, calls=None, gaps_filled=None, closed_candles=None
    )


def _print(content: bytes, text: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(content.decode() + "\n")
    elif sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        sys.stdout.write(text)

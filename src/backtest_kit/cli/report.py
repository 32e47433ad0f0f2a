"""`backtest-kit report`: show a result that was written earlier."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import msgspec
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
from backtest_kit.cli.state import Shown, read_state, state_of_option, state_option
from backtest_kit.cli.terminal import Console

D = TypeVar("D", BacktestData, LiveData, WalkerData)


@click.command()
@click.argument("what", metavar="FILE|live")
@state_option
@state_of_option
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
    file: Path | None,
    symbol: str | None,
    strategy_name: str | None,
    page: Path | None,
    as_json: bool,
) -> int:
    """Show the result of a backtest or a walk from its JSON file, or of live runs.

    With live, of all transitions that the state holds, also while the runs go on. Markdown in a
    pipe, formatted on a terminal.

    \b
        backtest-kit report dump/backtest/BTCUSDT-crossover-synthetic-january.json
        backtest-kit report live --symbol BTC/USDT
        backtest-kit report live --html session.html
    """
    if what == "live":
        return _live(read_state(folder, file, symbol, strategy_name), page, as_json=as_json)
    path = Path(what)
    if (folder, file, symbol, strategy_name) != (None, None, None, None):
        raise click.UsageError("--state, --state-of, --symbol and --strategy are for: report live")
    if not path.is_file():
        raise click.UsageError(f"{path} is not a file")
    data, text = _read(path)
    if page is not None:
        write_page(page_of(data), page)
    _print(msgspec.json.encode(data), text, as_json=as_json)
    return 0


def _live(shown: Shown, page: Path | None, *, as_json: bool) -> int:
    """Print the reports of live runs, and what is wrong with any; return the exit code."""
    damage = [*shown.problems, *(problem for run in shown.runs for problem in run.damage)]
    for problem in damage:
        click.echo(f"backtest-kit: {problem}", err=True)
    config = from_environment()
    found = [
        _stored(live_data(stored_record(run, config)))
        for run in shown.runs
        if run.state is not None
    ]
    if not shown.runs and not damage:
        raise click.UsageError(f"no live run is stored in {shown.place}")
    if page is not None:
        write_page(live_page(found), page)
    _print(msgspec.json.encode(found), "\n".join(map(live_report, found)), as_json=as_json)
    return 1 if damage else 0


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

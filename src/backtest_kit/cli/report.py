"""`backtest-kit report`: show a result that was written earlier."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
import msgspec
from rich.markdown import Markdown

from backtest_kit._engine.engine import Engine
from backtest_kit._live.stored import stored_record
from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.live_page import live_page
from backtest_kit._pages.market import load_market, sensitivity_of, stop_paths_of
from backtest_kit._pages.page import write_page
from backtest_kit._pages.walk_page import walk_page
from backtest_kit._reports.backtest import BacktestData, backtest_report
from backtest_kit._reports.live import LiveData, live_data, live_report
from backtest_kit._reports.run_folder import (
    DATA,
    REPORT,
    find_run,
    read_info,
    read_sensitivity,
    read_walk,
)
from backtest_kit._reports.walker import walker_report
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.config import from_environment
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.time import iso
from backtest_kit.cli.choose import choose_exchange
from backtest_kit.cli.options import calendar_option, data_option, reading_options
from backtest_kit.cli.pages import PAGE, page_of
from backtest_kit.cli.runs import root_option
from backtest_kit.cli.state import Shown, read_state, state_of_option, state_option
from backtest_kit.cli.terminal import Console
from backtest_kit.exchanges._layout import Layout

D = TypeVar("D", BacktestData, LiveData, WalkerData)


@click.command()
@click.argument("what", metavar="RUN|FILE|live")
@root_option
@data_option
@calendar_option
@reading_options
@state_option
@state_of_option
@click.option("--symbol", help="Of the live runs, those on this symbol.")
@click.option("--strategy", "strategy_name", help="Of the live runs, those of this strategy.")
@click.option(
    "--html",
    "page",
    is_flag=False,
    flag_value="",
    metavar="[PATH]",
    help="Make the HTML page again, here; by default into the folder of the run (extra report).",
)
@click.option("--open", "shown", is_flag=True, help="Open the page in a browser.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def report(
    what: str,
    root: Path,
    source: Path | None,
    calendar: str | None,
    given: Layout,
    folder: Path | None,
    file: Path | None,
    symbol: str | None,
    strategy_name: str | None,
    page: str | None,
    shown: bool,
    as_json: bool,
) -> int:
    """Show a run that was kept: a path, the beginning of its name or digest, last or previous.

    Or the JSON file of one; or, with live, live runs of all transitions that the state holds, also
    while they go on. Markdown in a pipe, formatted on a terminal. With --data the page that --html
    makes shows the candles in that file.

    \b
        backtest-kit report last --open
        backtest-kit report 2024-05-01 --html --data BTCUSDT-1m-2023.parquet
        backtest-kit report live --html session.html
    """
    if what == "live":
        read = read_state(folder, file, symbol, strategy_name)
        return _live(read, page, as_json=as_json, shown=shown)
    if (folder, file, symbol, strategy_name) != (None, None, None, None):
        raise click.UsageError("--state, --state-of, --symbol and --strategy are for: report live")
    path = Path(what)
    kept = None if path.is_file() else find_run(root, what)
    if kept is not None and read_info(kept).kind == "portfolio":
        return _account(kept, again=page is not None, as_json=as_json, shown=shown)
    data, text = _read(path) if kept is None else _read(kept / DATA)
    if kept is not None and isinstance(data, BacktestData):
        text = backtest_report(data, read_sensitivity(kept))
    target = Path(page) if page else None
    if page == "" and kept is None:
        raise click.UsageError("--html needs a PATH for the page of a file")
    if page is not None or shown:
        target = target or (kept or path.parent) / PAGE
        if page is not None or not target.exists():
            write_page(_page(data, kept, source, calendar, given), target)
    elif source is not None:
        raise click.UsageError("--data is for --html, which makes the page again")
    _print(msgspec.json.encode(data), text, as_json=as_json)
    _tell(target, as_json=as_json, shown=shown)
    return 0


def _account(kept: Path, *, again: bool, as_json: bool, shown: bool) -> int:
    """Print the report of an account as it was kept."""
    page = kept / PAGE
    if again or (shown and not page.exists()):
        raise click.UsageError("the page of an account is made with its run: backtest --html")
    _print((kept / DATA).read_bytes(), (kept / REPORT).read_text(), as_json=as_json)
    _tell(page if shown else None, as_json=as_json, shown=shown)
    return 0


def _page(
    data: BacktestData | LiveData | WalkerData,
    kept: Path | None,
    source: Path | None,
    calendar: str | None,
    given: Layout,
) -> str:
    """Return the page of a run; with the candles of `source`, and the curves that were kept."""
    if isinstance(data, WalkerData) and kept is not None:
        return walk_page(*read_walk(kept))
    if not isinstance(data, BacktestData):
        return page_of(data)
    if source is None:
        return backtest_page(data, None, None if kept is None else read_sensitivity(kept))
    with Engine() as engine:
        exchange = choose_exchange(engine, None, source, calendar, given)
        market = load_market(engine, exchange, data)
    if market is None or not len(market.candles):
        span = f"{iso(data.since)} to {iso(data.until)}"
        raise BacktestKitError(f"{source} has no candles of {data.symbol} from {span}")
    depends, stops = sensitivity_of(data, market), stop_paths_of(data, market)
    return backtest_page(data, market.candles, depends, stops)


def _tell(page: Path | None, *, as_json: bool, shown: bool) -> None:
    """Name the page that was made, and open it if asked to."""
    if page is None:
        return
    click.echo(f"page: {page}", err=as_json)
    if shown and not webbrowser.open(page.resolve().as_uri()):
        click.echo("backtest-kit: no browser could be started", err=True)


def _live(stored: Shown, page: str | None, *, as_json: bool, shown: bool) -> int:
    """Print the reports of live runs, and what is wrong with any; return the exit code."""
    damage = [
        *stored.problems,
        *(problem for run in stored.runs for problem in run.damage),
    ]
    for problem in damage:
        click.echo(f"backtest-kit: {problem}", err=True)
    config = from_environment()
    found = [
        _as_stored(live_data(stored_record(run, config)))
        for run in stored.runs
        if run.state is not None
    ]
    if not stored.runs and not damage:
        raise click.UsageError(f"no live run is stored in {stored.place}")
    target = Path(page or "live.html") if page is not None or shown else None
    if target is not None:
        write_page(live_page(found), target)
    _print(msgspec.json.encode(found), "\n".join(map(live_report, found)), as_json=as_json)
    _tell(target, as_json=as_json, shown=shown)
    return 1 if damage else 0


def _read(file: Path) -> tuple[BacktestData | LiveData | WalkerData, str]:
    content = file.read_bytes()
    readers: tuple[Callable[[bytes], tuple[BacktestData | LiveData | WalkerData, str]], ...] = (
        partial(_decoded, BacktestData, backtest_report),
        partial(_decoded, LiveData, live_report),
        partial(_decoded, WalkerData, partial(walker_report, folded=not sys.stdout.isatty())),
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


def _as_stored(data: LiveData) -> LiveData:
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

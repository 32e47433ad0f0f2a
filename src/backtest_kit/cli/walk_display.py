"""What a terminal shows of a walk, while it goes on and at its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live as LiveDisplay
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from backtest_kit._engine.walk_events import WalkerContract
from backtest_kit._reports.benchmarks import beside
from backtest_kit._reports.table import number
from backtest_kit._reports.walk_accounts import FIRST_COLUMNS, first_cells
from backtest_kit._reports.walker import rank_cells, window_cells
from backtest_kit._statistics.ranking import FIRST_ROWS, WalkerData
from backtest_kit._statistics.walk_forward import WalkForward
from backtest_kit._values.schemas import METRICS, WalkerSchema
from backtest_kit.cli.terminal import Console

#: Rows of the best so far, while a walk goes on.
_SHOWN = 15


def ranking_table(data: WalkerData) -> Table:
    """Return the ranking as a table for a terminal, at most the first `FIRST_ROWS` rows."""
    table = Table(title=f"{data.walker_name} on {', '.join(data.symbols)}", title_justify="left")
    table.add_column("Rank", justify="right")
    table.add_column("Strategy", overflow="fold", min_width=20)
    titles = ["Rank", "Strategy", data.metric, "95 % interval", "Adjusted p", "Deflated Sharpe"]
    titles += ["Trades", *(FIRST_COLUMNS if data.account is not None else ())]
    # a metric of an account has no interval
    shown = [title for title in titles if title != "95 % interval" or data.metric in METRICS]
    for title in shown[2:]:
        table.add_column(title, justify="right", overflow="fold")
    first = []
    for row in data.ranking[:FIRST_ROWS]:
        more = first_cells(row) if data.account is not None else ()
        cells = zip(titles, (*rank_cells(row)[:-1], *more), strict=True)
        first.append([cell for title, cell in cells if title in shown])
    for line in beside(data, shown, first):
        table.add_row(*(Text(cell) for cell in line))
    return _counted(table, len(data.ranking))


def windows_table(data: WalkForward) -> Table:
    """Return the windows of a walk-forward as a table for a terminal, at most `FIRST_ROWS`."""
    table = Table(title="Walk-forward", title_justify="left")
    for title in ("Train", "Test", "Chosen"):
        table.add_column(title)
    for title in ("In sample", "Out of sample", "Trades", "Total %"):
        table.add_column(title, justify="right")
    for window in data.windows[:FIRST_ROWS]:
        train, test, chosen, inside, _, _, outside, trades, total, _ = window_cells(window)
        cells = (train, test, chosen, inside, outside, trades, total)
        table.add_row(*(Text(cell) for cell in cells))
    return _counted(table, len(data.windows))


def _counted(table: Table, rows: int) -> Table:
    """Say how many more rows there are."""
    if rows > FIRST_ROWS:
        table.caption = f"{rows - FIRST_ROWS:,} more are in the report"
    return table


@contextmanager
def display(schema: WalkerSchema, *, quiet: bool) -> Iterator[Callable[[WalkerContract], None]]:
    """Show a progress bar and the best so far on standard error, if that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda contract: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("strategies"),
        TimeRemainingColumn(),
    )
    task = bar.add_task(schema.name, total=len(schema.strategies))
    contracts: list[WalkerContract] = []
    with LiveDisplay(Group(bar), console=Console(stderr=True), refresh_per_second=4) as display:

        def show(contract: WalkerContract) -> None:
            contracts.append(contract)
            bar.update(task, completed=contract.strategies_tested)
            best = _best_so_far(contracts, schema.metric)
            display.update(Group(bar, best) if best.row_count else Group(bar))

        yield show


def _best_so_far(contracts: Sequence[WalkerContract], metric: str) -> Table:
    """Return the best strategies so far as a table; it has no rows if none has the metric."""
    table = Table(box=None, pad_edge=False)
    for title in ("Strategy", metric, "Trades"):
        table.add_column(title, justify="left" if title == "Strategy" else "right")
    best = sorted(
        (c for c in contracts if c.metric_value is not None), key=lambda c: -(c.metric_value or 0)
    )
    for c in best[:_SHOWN]:
        trades = c.statistics.total_signals if c.statistics is not None else 0
        table.add_row(Text(c.strategy_name), number(c.metric_value, 3), str(trades))
    return table


@contextmanager
def interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in the event loop at the first SIGINT; a second one interrupts as usual."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        loop.call_soon_threadsafe(stop)

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

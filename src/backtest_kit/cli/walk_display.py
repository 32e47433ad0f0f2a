"""What a terminal shows of a walk while it goes on."""

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
from backtest_kit._reports.table import number
from backtest_kit._values.schemas import WalkerSchema
from backtest_kit.cli.terminal import Console

#: Rows of the best so far, while a walk goes on.
_SHOWN = 15


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

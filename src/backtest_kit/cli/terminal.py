"""What a person sees on a terminal: progress, tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import console as rich_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table

from backtest_kit._engine.engine import Engine
from backtest_kit._reports.backtest import BacktestData, statistics_rows, trade_row
from backtest_kit._values.events import ProgressEvent
from backtest_kit._values.text import for_terminal

_SHOWN_TRADES = 20


class Console(rich_console.Console):
    """A console on which nothing that was written by others has an effect.

    No markup, no link, no character that is not seen (see `for_terminal`).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render(
        self,
        renderable: rich_console.RenderableType,
        options: rich_console.ConsoleOptions | None = None,
    ) -> Iterator[Segment]:
        """Yield what is to be written, each piece fit for a terminal."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            style = segment.style
            if style is not None and style.link is not None:
                style = style.update_link(None)
            yield Segment(for_terminal(segment.text), style)


@contextmanager
def progress_bars(engine: Engine, *, quiet: bool) -> Iterator[None]:
    """Show a bar per backtest on a terminal's standard error; in a pipe, nothing."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[tuple[str, str], int] = {}

    def update(event: ProgressEvent) -> None:
        key = (event.strategy_name, event.symbol)
        if key not in tasks:
            name = f"{event.strategy_name} {event.symbol}"
            tasks[key] = bars.add_task(name, total=event.total_frames)
        bars.update(tasks[key], completed=event.processed_frames)  # type: ignore[arg-type]

    unsubscribe = engine.bus.listen("backtest_progress", update)
    try:
        with bars:
            yield
    finally:
        unsubscribe()


def show(data: BacktestData, console: Console) -> None:
    """Print a backtest's statistics and its last trades as tables."""
    statistics = Table(title=f"{data.strategy_name} on {data.symbol}", title_justify="left")
    statistics.add_column("Statistic")
    statistics.add_column("Value", justify="right")
    statistics.add_column("Meaning", style="dim")
    for row in statistics_rows(data.statistics):
        statistics.add_row(*row)
    trades = Table(title="Trades", title_justify="left")
    for name in ("Opened", "Closed", "Side", "Open", "Close", "Profit", "Reason"):
        trades.add_column(name, justify="right" if name in ("Open", "Close", "Profit") else "left")
    for tick in data.signals[-_SHOWN_TRADES:]:
        cells = trade_row(tick)
        trades.add_row(*(str(cells[i]) for i in (0, 1, 2, 3, 4, 7, 8)))
    if data.signals:
        console.print(trades)
    left = len(data.signals) - _SHOWN_TRADES
    if left > 0:
        console.print(f"the last {_SHOWN_TRADES} trades; {left} earlier ones are in the report")
    console.print(statistics)

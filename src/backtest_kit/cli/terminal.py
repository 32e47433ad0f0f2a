"""What a person sees on a terminal: progress, tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
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
from rich.text import Text

from backtest_kit._engine.engine import Engine
from backtest_kit._reports.backtest import (
    BacktestData,
    failures,
    statistics_rows,
)
from backtest_kit._reports.heat import HeatData
from backtest_kit._reports.managed import contribution_columns, contribution_rows, first_doubts
from backtest_kit._reports.notebook import sparkline
from backtest_kit._reports.table import number
from backtest_kit._reports.trade_rows import leg_rows, trade_row
from backtest_kit._statistics.figures import Statistics
from backtest_kit._statistics.sensitivity import Sensitivity
from backtest_kit._values.events import ProgressEvent
from backtest_kit._values.text import for_terminal

_SHOWN_TRADES = 20
#: The least width of a terminal that has room for further columns.
WIDE = 100
#: Columns of a table of trades, as places in `trade_row`; those of prices need a wide terminal.
_TRADE_COLUMNS = (
    ("Opened", 0),
    ("Closed", 1),
    ("Side", 2),
    ("Open", 3),
    ("Close", 4),
    ("Profit", 7),
    ("Reason", 8),
)
_PRICES = ("Open", "Close")


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


def wide_console() -> Console:
    """Return a console as wide as the terminal; in a pipe, of 120 columns."""
    return Console(width=None if sys.stdout.isatty() else 120)


def only_json(as_json: bool) -> AbstractContextManager[object]:
    """Send what user code prints to standard error, where standard output is to be JSON."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


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
    """Print why a backtest failed if it did, its last trades and its statistics."""
    title = f"{data.strategy_name} on {data.symbol}"
    why = failures(data)
    for line in why:
        console.print(Text(f"{title}: {line}", style="bold red"), soft_wrap=True)
    for line in first_doubts(data):
        console.print(Text(f"{title}: {line}", style="bold yellow"), soft_wrap=True)
    if data.signals:
        console.print(_trades(data, wide=console.width >= WIDE))
    elif why:
        return
    left = len(data.signals) - _SHOWN_TRADES
    if left > 0:
        console.print(f"the last {_SHOWN_TRADES} trades; {left} earlier ones are in the report")
    statistics = Table(title=Text(title), title_justify="left")
    statistics.add_column("Statistic", no_wrap=True)
    statistics.add_column("Value", justify="right", no_wrap=True)
    statistics.add_column("Meaning", style="dim")
    for row in statistics_rows(data.statistics):
        statistics.add_row(*row)
    console.print(statistics)


def show_summary(data: BacktestData, depends: Sensitivity, console: Console) -> None:
    """Print what a run comes to: its curve, compounded, beside buying and holding."""
    if not data.signals:
        return
    percent = " %"
    held = number(depends.buy_and_hold, 2, percent)
    if depends.break_even_slippage is None:
        bears = "none: it loses without slippage already" if depends.total_pnl <= 0 else "n/a"
    else:
        bears = number(depends.break_even_slippage, 3, percent) + " on each price"
    after = number(depends.compounded, 2, percent)
    before = number(depends.compounded_before_costs, 2, percent)
    curve = data.equity
    lines = (
        ("Equity", sparkline(curve["timestamp"], curve["equity"])),
        ("Compounded", f"{after} after costs, {before} before"),
        ("Buy and hold", f"{held} before costs"),
        ("Break-even slippage", f"{bears}; assumed {number(depends.percent_slippage, 3, percent)}"),
    )
    for name, value in lines:
        console.print(Text(f"{name:<20} ", "dim") + Text(value), soft_wrap=True, highlight=False)
    if depends.rules:
        heads = contribution_columns(data.statistics)
        table = Table(title="What each rule contributed", title_justify="left")
        for i, name in enumerate(heads):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for row in contribution_rows(depends, data.statistics):
            table.add_row(*row)
        console.print(table)


def _trades(data: BacktestData, *, wide: bool) -> Table:
    table = Table(title=Text(f"Trades of {data.strategy_name} on {data.symbol}"))
    table.title_justify = "left"
    shown = [(name, i) for name, i in _TRADE_COLUMNS if wide or name not in _PRICES]
    for name, _ in shown:
        right = name in (*_PRICES, "Profit")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "Reason")
    first = max(len(data.signals) - _SHOWN_TRADES, 0)
    for place, tick in enumerate(data.signals[first:], first):
        cells = trade_row(tick, on_filled=place in data.on_filled)
        table.add_row(*(Text(str(cells[i])) for _, i in shown))
        for fill in leg_rows(tick):
            table.add_row(*(Text(fill[i], "dim") for _, i in shown))
    return table


def show_together(heats: Sequence[HeatData], console: Console) -> None:
    """Print one line for each of several runs, and their sum, for each strategy."""
    for heat in heats:
        table = Table(title=Text(f"{heat.strategy_name}, all symbols"), title_justify="left")
        table.add_column("Symbol")
        by_cost = heat.portfolio.total_pnl_by_cost is not None
        names = ("Trades", "Win rate", "Average", "Total", "Drawdown", "By cost")
        for name in names[: 5 + by_cost]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in heat.rows:
            table.add_row(Text(row.symbol), *_figures(row.statistics)[: 5 + by_cost])
        table.add_section()
        table.add_row("Together", *_figures(heat.portfolio)[: 5 + by_cost])
        console.print(table)


def _figures(s: Statistics) -> tuple[str, ...]:
    return (
        str(s.total_signals),
        number(s.win_rate, 1, " %"),
        number(s.avg_pnl, 3, " %"),
        number(s.total_pnl, 2, " %"),
        number(s.max_drawdown_percent, 2, " %"),
        number(s.total_pnl if s.total_pnl_by_cost is None else s.total_pnl_by_cost, 2, " %"),
    )

"""The tables of a walk for a terminal."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from backtest_kit._reports.benchmarks import beside
from backtest_kit._reports.walk_accounts import FIRST_COLUMNS, first_cells
from backtest_kit._reports.walker import rank_cells, window_cells
from backtest_kit._statistics.ranking import FIRST_ROWS, WalkerData
from backtest_kit._statistics.walk_forward import WalkForward
from backtest_kit._values.schemas import METRICS

#: What the titles of a ranking stand for.
ABBREVIATED: Final = (
    "Adj. p: p-value, adjusted for all trials. DSR, PSR: deflated and probabilistic Sharpe ratio. "
    "Needed: trades for a DSR of 0.95."
)
#: The least width of a strategy's name, so that many columns leave something of it.
_NAME_WIDTH: Final = 20


def ranking_table(data: WalkerData) -> Table:
    """Return the ranking as a table for a terminal, at most the first `FIRST_ROWS` rows."""
    title = f"{data.walker_name} on {', '.join(data.symbols)}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    titles = ["#", "Strategy", data.metric, "95 % interval", "Adj. p", "DSR", "PSR", "Trades"]
    titles += ["Needed", *(FIRST_COLUMNS if data.account is not None else ())]
    # a metric of an account has no interval
    shown = [title for title in titles if title != "95 % interval" or data.metric in METRICS]
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("Strategy", overflow="fold", min_width=_NAME_WIDTH)
    for title in shown[2:]:
        table.add_column(title, justify="right", overflow="fold")
    first = []
    for row in data.ranking[:FIRST_ROWS]:
        more = first_cells(row) if data.account is not None else ()
        cells = zip(titles, (*rank_cells(row), *more), strict=True)
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

"""The tables of a walk for a terminal."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from backtest_kit._reports.benchmarks import beside, cells_of
from backtest_kit._reports.walk_accounts import COLUMNS, account_rows
from backtest_kit._reports.walker import rank_cells, window_cells
from backtest_kit._statistics.ranking import FIRST_ROWS, WalkerData
from backtest_kit._statistics.walk_forward import WalkForward
from backtest_kit._values.schemas import METRICS

#: What the titles of a ranking stand for.
_ABBREVIATED: Final = (
    "Adj. p: p-value, adjusted for all trials. DSR, PSR: deflated and probabilistic Sharpe ratio. "
    "Needed: trades for a DSR of 0.95."
)
_INTERVAL: Final = "95 % interval"
_NOT_CORRECTED: Final = "95 % interval: as if nothing had been chosen. "
#: The columns of a ranking that only a wide terminal has room for.
_WIDE: Final = (_INTERVAL, "PSR", "Needed")
#: The columns of what the money came to; the report has all.
_MONEY: Final = ("Strategy", "Final equity", "Growth %", "Sharpe", "Calmar", "Max drawdown %")
#: The width at which the title of a metric is continued on a further line.
_TITLE_WIDTH: Final = 12


def ranking_table(data: WalkerData, *, wide: bool = True) -> Table:
    """Return the ranking as a table for a terminal, at most the first `FIRST_ROWS` rows.

    It fits into 100 columns, and into 80 if it isn't to be `wide`.
    """
    titles = ("#", "Strategy", data.metric, _INTERVAL, "Adj. p", "DSR", "PSR", "Trades", "Needed")
    hidden = set() if wide else {*_WIDE}
    if data.metric not in METRICS:  # that of an account has no interval
        hidden.add(_INTERVAL)
    shown = [place for place, title in enumerate(titles) if title not in hidden]
    table = _table(f"{data.walker_name} on {', '.join(data.symbols)}, by {data.metric}")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("Strategy", overflow="fold")
    words = data.metric.replace("_", " ")  # which may be continued on a further line
    table.add_column(words, justify="right", max_width=_TITLE_WIDTH)
    for place in shown[3:]:
        table.add_column(titles[place], justify="right", no_wrap=True)
    first = [rank_cells(row) for row in data.ranking[:FIRST_ROWS]]
    for cells in beside(data, first, lambda row: cells_of(data, titles, row)):
        table.add_row(*(Text(cells[place]) for place in shown))
    return _counted(table, len(data.ranking))


def abbreviations(data: WalkerData, *, wide: bool) -> str:
    """Return what the titles of a ranking stand for, those that it shows."""
    return _NOT_CORRECTED * (wide and data.metric in METRICS) + _ABBREVIATED


def money_table(data: WalkerData) -> Table:
    """Return what each strategy made of the money of an account, at most `FIRST_ROWS` rows."""
    table = _table("Account")
    table.add_column("Strategy", overflow="fold")
    for title in _MONEY[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    rows = account_rows(data)
    places = [COLUMNS.index(title) for title in _MONEY]
    for cells in rows[:FIRST_ROWS]:
        table.add_row(*(Text(cells[place]) for place in places))
    return _counted(table, len(rows))


def windows_table(data: WalkForward, *, wide: bool = True) -> Table:
    """Return the windows of a walk-forward as a table for a terminal, at most `FIRST_ROWS`.

    It fits into 100 columns, and into 80 if it isn't to be `wide`.
    """
    table = _table("Walk-forward")
    for title in ("Train", "Test"):
        table.add_column(title, no_wrap=True)
    table.add_column("Chosen", overflow="fold")
    figures = ("In\nsample", "Out of\nsample", "Trades", "Total %")
    for title in figures if wide else figures[1::2]:
        table.add_column(title, justify="right")
    for window in data.windows[:FIRST_ROWS]:
        train, test, chosen, inside, _, _, outside, trades, total, _ = window_cells(window)
        times = (cell.replace(" to ", " to\n") for cell in (train, test))
        cells = (inside, outside, trades, total) if wide else (outside, total)
        table.add_row(*(Text(cell) for cell in (*times, chosen, *cells)))
    return _counted(table, len(data.windows))


def _table(title: str) -> Table:
    """Return a table with two columns between its columns, whose title is taken as it is."""
    return Table(
        title=Text(title),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _counted(table: Table, rows: int) -> Table:
    """Say how many more rows there are."""
    if rows > FIRST_ROWS:
        table.caption = f"{rows - FIRST_ROWS:,} more are in the report"
    return table

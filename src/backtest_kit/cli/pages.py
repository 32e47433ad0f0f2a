"""HTML pages that commands write beside their reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backtest_kit._engine.engine import Engine
from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.live_page import live_page
from backtest_kit._pages.market import market_of, run_sensitivity
from backtest_kit._pages.page import require_bokeh
from backtest_kit._pages.walk_page import walk_page
from backtest_kit._reports.backtest import BacktestData, backtest_data
from backtest_kit._reports.live import LiveData
from backtest_kit._reports.table import write_bytes
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.errors import BacktestKitError


async def write_backtest_pages(engine: Engine, folder: Path) -> list[str]:
    """Write a page for each backtest of the engine, and return what to print of it.

    Raises:
        OSError: a file can't be written.
    """
    try:
        require_bokeh()
    except BacktestKitError as error:
        return [f"page: none; {error}"]
    lines = []
    for record in engine.records.all():
        market = await market_of(engine, record)
        candles = None if market is None else market.candles
        text = backtest_page(backtest_data(record), candles, run_sensitivity(record, market))
        names = (record.symbol, record.strategy_name, record.exchange_name, record.frame_name or "")
        path = write_bytes(text.encode(), folder, "-".join(names), ".html")
        lines.append(f"page: {path}")
    return lines


def write_walk_page(data: WalkerData, trials: Sequence[TrialResult], folder: Path) -> str:
    """Write the page of a walk, and return what to print of it; raises as above."""
    try:
        text = walk_page(data, trials)
    except BacktestKitError as error:
        return f"page: none; {error}"
    name = "-".join((*data.symbols, data.walker_name))
    return f"page: {write_bytes(text.encode(), folder, name, '.html')}"


def page_of(data: BacktestData | LiveData | WalkerData) -> str:
    """Return the page of data that were read from a file: without candles and curves.

    Raises:
        BacktestKitError: Bokeh is missing.
    """
    if isinstance(data, BacktestData):
        return backtest_page(data)
    return walk_page(data) if isinstance(data, WalkerData) else live_page([data])


def write_page(text: str, path: Path) -> None:
    """Write a page under a path that the user gave; raises as above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")

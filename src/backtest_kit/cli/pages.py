"""HTML pages that commands write beside their reports."""

from __future__ import annotations

from pathlib import Path

from backtest_kit._engine.engine import Engine
from backtest_kit._pages.backtest_page import backtest_page
from backtest_kit._pages.market import market_of, run_sensitivity
from backtest_kit._pages.page import require_bokeh
from backtest_kit._reports.backtest import backtest_data
from backtest_kit._reports.table import write_bytes
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

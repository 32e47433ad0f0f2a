"""`backtest-kit demo`: a seeded month, a moving-average strategy, a report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from backtest_kit._engine.ambient import get_average_price, get_candles
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_exchange, add_frame, add_strategy
from backtest_kit._values.signal import Signal
from backtest_kit.cli.backtest import run_jobs
from backtest_kit.cli.options import html_option, output_option
from backtest_kit.exchanges import SyntheticExchange


async def crossover(symbol: str, when: datetime) -> Signal | None:
    """Buy when the average of the last 10 closes rises above that of the last 50."""
    closes = (await get_candles(symbol, "5m", 51)).close
    was_below = closes[-11:-1].mean() <= closes[:-1].mean()
    if not (was_below and closes[-10:].mean() > closes[1:].mean()):
        return None
    price = await get_average_price(symbol)
    return Signal(
        position="long",
        price_take_profit=price * 1.015,
        price_stop_loss=price * 0.99,
        minute_estimated_time=360,
    )


@click.command()
@click.option("--seed", default=7, show_default=True, help="Of the random market.")
@output_option("report")
@html_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def demo(seed: int, output: Path, html: bool, as_json: bool) -> int:
    """Backtest a moving-average crossover over a month of a random market.

    \b
        backtest-kit demo
    """
    with Engine() as engine:
        add_exchange(SyntheticExchange(seed=seed))
        add_frame(
            frame_name="january",
            interval="1m",
            start_date=datetime(2024, 1, 1, tzinfo=UTC),
            end_date=datetime(2024, 1, 31, 23, 59, tzinfo=UTC),
        )
        add_strategy(strategy_name="crossover", interval="5m", get_signal=crossover)
        job = ("BTCUSDT", engine.strategies.get("crossover"), engine.frames.get("january"))
        exchange = engine.exchanges.get("synthetic")
        return run_jobs(engine, exchange, [job], output, as_json=as_json, html=html)

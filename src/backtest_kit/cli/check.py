"""`backtest-kit check`: do the array strategies of a file look into the future?"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec
from rich.progress import Progress
from rich.table import Table

from backtest_kit._arrays.check import ArrayCheck, Found, check_cuts, check_rows
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.fresh import begin
from backtest_kit._engine.task import close_exchange
from backtest_kit._values.candles import Candles
from backtest_kit._values.errors import DataRangeError, PeekingError
from backtest_kit._values.schemas import ExchangeSchema, StrategySchema
from backtest_kit._values.time import INTERVALS, iso, to_ms
from backtest_kit.cli.choose import choose_exchange, choose_range, choose_settings
from backtest_kit.cli.exit_codes import FAILED
from backtest_kit.cli.options import (
    calendar_option,
    data_option,
    exchange_option,
    from_option,
    reading_options,
    settings_option,
    to_option,
    traceback_option,
)
from backtest_kit.cli.strategy_file import load
from backtest_kit.cli.terminal import Console
from backtest_kit.exchanges._layout import Layout


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="Whose candles.")
@data_option
@calendar_option
@reading_options
@exchange_option
@click.option("--strategy", "names", multiple=True, help="Default: all array strategies in FILE.")
@from_option
@to_option
@settings_option()
@traceback_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(
    file: Path,
    symbol: str,
    source: Path | None,
    calendar: str | None,
    given: Layout,
    exchange_name: str | None,
    names: tuple[str, ...],
    start: str | None,
    end: str | None,
    settings: tuple[str, ...],
    tracebacks: bool,
    as_json: bool,
) -> int:
    """Check every row of FILE's array strategies over the candles chosen.

    Does it depend on later candles (exit code 1), and how many rows change with the number of
    earlier candles that are seen?

    \b
        backtest-kit check my_strategy.py --symbol BTCUSDT --data BTCUSDT-1m-2025-01.parquet
    """
    with Engine() as engine:
        load(file, tracebacks=tracebacks)
        engine.set_config(**choose_settings(settings))
        exchange = choose_exchange(engine, exchange_name, source, calendar, given)
        chosen = [engine.strategies.get(name) for name in dict.fromkeys(names)]
        begun = [begin(strategy).strategy for strategy in chosen or engine.strategies.list()]
        strategies = [strategy for strategy in begun if strategy.get_signals is not None]
        if not strategies:
            raise click.UsageError(f"{file} registers no array strategy, one with get_signals")
        span = [to_ms(moment) for moment in choose_range(engine, exchange, symbol, start, end)]
        found = [_check(engine, exchange, s, symbol, (span[0], span[1])) for s in strategies]
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else 120)
        for one in found:
            _show(one, console)
    return FAILED if any(one.peeking for one in found) else 0


def _check(
    engine: Engine,
    exchange: ExchangeSchema,
    strategy: StrategySchema,
    symbol: str,
    span: tuple[int, int],
) -> ArrayCheck:
    function, warmup, name = strategy.get_signals, strategy.warmup, strategy.name
    assert function is not None
    step = INTERVALS[strategy.interval]
    candles = asyncio.run(_candles(engine, exchange, strategy, symbol, span))
    first = max((span[0] - int(candles.timestamp[0])) // step, warmup - 1)
    if first >= len(candles):
        raise DataRangeError(
            f"strategy {name!r} needs {warmup} candles of {strategy.interval} before its first "
            f"row; there are {len(candles)} up to {iso(span[1])}"
        )
    peeks, found = None, Found(0, (), 0)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=len(candles) - first)
        try:
            for found in check_rows(function, candles, first, warmup, name):
                bar.update(task, completed=found.rows)
            check_cuts(function, candles, name)
        except PeekingError as error:
            peeks = str(error)
    return ArrayCheck(
        strategy_name=name,
        symbol=symbol,
        interval=strategy.interval,
        warmup=warmup,
        since=int(candles.timestamp[first]),
        until=int(candles.timestamp[-1]),
        rows=found.rows,
        signals=found.signals,
        peeking=peeks,
        memory=found.memory,
    )


async def _candles(
    engine: Engine,
    exchange: ExchangeSchema,
    strategy: StrategySchema,
    symbol: str,
    span: tuple[int, int],
) -> Candles:
    """Return the candles that close up to the end, and those seen before the first row."""
    interval = strategy.interval
    since = max(span[0] - 4 * strategy.warmup * INTERVALS[interval], 0)
    try:
        segment = await engine.store.load(exchange, symbol, interval, since, span[1], engine.config)
    finally:
        await close_exchange(exchange)
    begin = max((since - segment.first) // segment.step, 0)
    end = min((span[1] - segment.first) // segment.step, segment.rows)
    return Candles.view(segment.columns, begin, end)


def _show(found: ArrayCheck, console: Console) -> None:
    table = Table(
        title=f"{found.strategy_name} on {found.symbol} {found.interval}", title_justify="left"
    )
    table.add_column("Window of candles", justify="right")
    table.add_column("Rows that differ", justify="right")
    table.add_column("of them with another side", justify="right")
    table.add_column("First at the candle of")
    for one in found.memory:
        name = " (warmup)" if one.length == found.warmup else ""
        first = "" if one.first is None else iso(one.first)
        table.add_row(f"{one.length:,}{name}", f"{one.rows:,}", f"{one.with_other_side:,}", first)
    console.print(
        f"{found.rows:,} rows from {iso(found.since)} to {iso(found.until)}, "
        f"{found.signals:,} with a side"
    )
    if found.memory:
        console.print(table)
    console.print(found.peeking or "no row depends on later candles")

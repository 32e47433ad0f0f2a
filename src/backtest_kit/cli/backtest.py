"""`backtest-kit backtest`: run the strategies of a file over recorded or exchange candles."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from backtest_kit._backtest.backtest import Backtest
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_frame
from backtest_kit._engine.task import close_exchange, exhaust
from backtest_kit._reports.backtest import BacktestData, backtest_data, backtest_report
from backtest_kit._reports.facade import Heat, Partial, Risk, Schedule
from backtest_kit._reports.table import write, write_bytes
from backtest_kit._values.errors import DataError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._values.time import Interval, iso
from backtest_kit.cli.choose import choose_exchange, choose_range, choose_settings
from backtest_kit.cli.exit_codes import FAILED, INTERRUPTED
from backtest_kit.cli.options import (
    calendar_option,
    data_option,
    exchange_option,
    frame_options,
    html_option,
    output_option,
    settings_option,
    strategies_option,
)
from backtest_kit.cli.pages import write_backtest_pages
from backtest_kit.cli.strategy_file import load
from backtest_kit.cli.terminal import progress_bars, show


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", "symbols", multiple=True, required=True, help="Repeat for several.")
@data_option
@calendar_option
@exchange_option
@strategies_option
@frame_options
@settings_option("percent_fee=0.05")
@output_option("reports")
@html_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and no tables.")
def backtest(
    file: Path,
    symbols: tuple[str, ...],
    source: Path | None,
    calendar: str | None,
    exchange_name: str | None,
    strategy_names: tuple[str, ...],
    frame_name: str | None,
    start: str | None,
    end: str | None,
    interval: Interval,
    settings: tuple[str, ...],
    output: Path,
    html: bool,
    as_json: bool,
) -> int:
    """Backtest the strategies that FILE registers, and write a report.

    Without --frame, --from and --to, the whole range of the data is used.

    \b
        backtest-kit backtest my_strategy.py --symbol BTCUSDT --data BTCUSDT-1m-2023.parquet
        backtest-kit backtest my_strategy.py --symbol BTC/USDT --exchange binance \\
            --from 2024-01-01 --to 2024-02-01
    """
    with Engine() as engine:
        load(file)
        engine.set_config(**choose_settings(settings))
        exchange = choose_exchange(engine, exchange_name, source, calendar)
        strategies = [engine.strategies.get(name) for name in dict.fromkeys(strategy_names)]
        jobs: list[tuple[str, StrategySchema, FrameSchema]] = []
        for symbol in dict.fromkeys(symbols):
            frame = choose_frame(engine, exchange, symbol, frame_name, start, end, interval)
            jobs += [(symbol, s, frame) for s in strategies or engine.strategies.list()]
        return run_jobs(engine, exchange, jobs, output, as_json=as_json, html=html)


def run_jobs(
    engine: Engine,
    exchange: ExchangeSchema,
    jobs: list[tuple[str, StrategySchema, FrameSchema]],
    output: Path,
    *,
    as_json: bool,
    html: bool,
) -> int:
    """Run backtests side by side, write their reports, print them; return the exit code."""
    failures: list[str] = []
    pages: list[str] = []

    async def one(symbol: str, strategy: StrategySchema, frame: FrameSchema) -> None:
        names = {"exchange_name": exchange.name, "frame_name": frame.name}
        try:
            await exhaust(Backtest.run(symbol, strategy_name=strategy.name, **names))
        except DataError as error:
            failures.append(f"{strategy.name} {symbol}: {error}")

    async def work() -> None:
        try:
            await asyncio.gather(*(one(*job) for job in jobs))
            if html:
                pages.extend(await write_backtest_pages(engine, output / "backtest"))
        finally:
            await close_exchange(exchange)

    interrupted = False
    try:
        with progress_bars(engine, quiet=as_json):
            asyncio.run(work())
    except KeyboardInterrupt:
        interrupted = True
    found = [backtest_data(record) for record in engine.records.select(mode="backtest")]
    paths = [_write(data, output / "backtest") for data in found]
    more = _look_back(engine, output)
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else 120)
        for data, path in zip(found, paths, strict=True):
            show(data, console)
            _remarks(data, console)
            console.print(f"report: {path}", soft_wrap=True, highlight=False)
        for path in more:
            console.print(f"report: {path}", soft_wrap=True, highlight=False)
        for line in pages:
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    for failure in failures:
        click.echo(f"backtest-kit: {failure}", err=True)
    if interrupted:
        click.echo("backtest-kit: interrupted; the report holds what was found so far", err=True)
        return INTERRUPTED
    return FAILED if failures else 0


def _write(data: BacktestData, output: Path) -> Path:
    name = "-".join((data.symbol, data.strategy_name, data.exchange_name, data.frame_name or ""))
    write_bytes(msgspec.json.encode(data), output, name, ".json")
    return write(backtest_report(data), output, name)


def _look_back(engine: Engine, output: Path) -> list[Path]:
    """Write the other reports that are not empty, and return their paths."""
    records = engine.records.select(mode="backtest")
    paths = []
    for name in dict.fromkeys(record.strategy_name for record in records):
        own = [record for record in records if record.strategy_name == name]
        for kind, report, has_content in (
            ("heat", Heat, len(own) > 1),
            ("schedule", Schedule, any(record.waited for record in own)),
            ("partial", Partial, any(record.partials for record in own)),
            ("risk", Risk, any(record.rejections for record in own)),
        ):
            if has_content:
                paths.append(report.dump(strategy_name=name, path=output / kind))
    return paths


def _remarks(data: BacktestData, console: Console) -> None:
    """Print what a reader must know even without opening the report."""
    lines = []
    if data.gaps_filled:
        lines.append(f"{data.gaps_filled} missing candles were filled")
    if data.base_interval != "1m":
        lines.append(f"the base interval is {data.base_interval}, that of the candles there are")
    if data.ambiguous_closes:
        lines.append(f"{data.ambiguous_closes} closes were ambiguous")
    if data.end_of_data_closes:
        lines.append(f"{data.end_of_data_closes} signals were closed because the data ended")
    if data.data_ended_at is not None:
        lines.append(f"the data ended at {iso(data.data_ended_at)}, before the frame did")
    elif not data.complete:
        lines.append("the run did not reach its end")
    if data.error_count:
        lines.append(f"{data.error_count} errors, the first: {data.errors[0].message}")
    for line in lines:
        console.print(f"[yellow]note:[/] {line}", soft_wrap=True, highlight=False)


def choose_frame(
    engine: Engine,
    exchange: ExchangeSchema,
    symbol: str,
    name: str | None,
    start: str | None,
    end: str | None,
    interval: Interval,
) -> FrameSchema:
    """Return the frame to use: a registered one, or one made of a range of time."""
    if name is not None:
        return engine.frames.get(name)
    frames = engine.frames.list()
    registered = [frame for frame in frames if not frame.name.startswith("data ")]
    if start is None and end is None and len(registered) == 1:
        return registered[0]
    if start is None and end is None and len(registered) > 1:
        there = ", ".join(frame.name for frame in registered)
        raise click.UsageError(f"which frame? give --frame ({there}) or --from and --to")
    begin, until = choose_range(engine, exchange, symbol, start, end)
    title = f"data {symbol}"
    add_frame(frame_name=title, interval=interval, start_date=begin, end_date=until)
    return engine.frames.get(title)

"""`backtest-kit backtest`: run the strategies of a file over recorded or exchange candles."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec
from rich.text import Text

from backtest_kit._backtest.account_session import AccountSession
from backtest_kit._backtest.backtest import Backtest
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_frame
from backtest_kit._engine.task import close_exchange, exhaust
from backtest_kit._reports.backtest import BacktestData
from backtest_kit._reports.errors import error_text
from backtest_kit._reports.heat import heat_data
from backtest_kit._reports.run_folder import REPORT
from backtest_kit._reports.table import number
from backtest_kit._values.errors import DataError, PeekingError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._values.time import Interval, iso, to_ms
from backtest_kit.cli.account_run import Money, account_options, account_session, print_account
from backtest_kit.cli.choose import choose_exchange, choose_range, choose_settings, source_notes
from backtest_kit.cli.exit_codes import FAILED, INTERRUPTED
from backtest_kit.cli.options import (
    calendar_option,
    data_option,
    exchange_option,
    frame_options,
    html_option,
    output_option,
    reading_options,
    settings_option,
    strategies_option,
    traceback_option,
)
from backtest_kit.cli.pages import can_make_pages, keep_backtests, page_lines
from backtest_kit.cli.strategy_file import load
from backtest_kit.cli.terminal import (
    Console,
    only_json,
    progress_bars,
    show,
    show_summary,
    show_together,
    wide_console,
)
from backtest_kit.exchanges._layout import Layout


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", "symbols", multiple=True, required=True, help="Repeat for several.")
@data_option
@calendar_option
@reading_options
@exchange_option
@strategies_option
@frame_options
@settings_option("percent_fee=0.05")
@account_options("Play with this much money: all strategies and symbols on one account.")
@output_option("runs")
@traceback_option
@html_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and no tables.")
def backtest(
    file: Path,
    symbols: tuple[str, ...],
    source: Path | None,
    calendar: str | None,
    given: Layout,
    exchange_name: str | None,
    strategy_names: tuple[str, ...],
    frame_name: str | None,
    start: str | None,
    end: str | None,
    interval: Interval,
    settings: tuple[str, ...],
    balance: float | None,
    currency: str,
    leverage: float,
    sizing: str | None,
    output: Path,
    tracebacks: bool,
    html: bool,
    as_json: bool,
) -> int:
    """Backtest the strategies that FILE registers, and keep each run in a folder of its own.

    Without --frame, --from and --to, the whole range of the data is used, also where FILE registers
    a frame. Exit code 1 where a run failed, or a strategy raised at every call.

    With --balance all strategies and symbols share one account, in the order of FILE and of the
    options, from the earliest start of their data to the latest end.

    \b
        backtest-kit backtest my_strategy.py --symbol BTCUSDT --data BTCUSDT-1m-2023.parquet
        backtest-kit backtest my_strategy.py --symbol BTC/USDT --exchange binance \\
            --from 2024-01-01 --to 2024-02-01
        backtest-kit backtest my_strategy.py --symbol BTCUSDT --symbol ETHUSDT \\
            --data data --balance 10000 --sizing risk-1
    """
    with Engine() as engine:
        load(file, tracebacks=tracebacks)
        engine.set_config(**choose_settings(settings))
        exchange = choose_exchange(engine, exchange_name, source, calendar, given)
        strategies = [engine.strategies.get(name) for name in dict.fromkeys(strategy_names)]
        jobs: list[tuple[str, StrategySchema, FrameSchema]] = []
        for symbol in dict.fromkeys(symbols):
            frame = choose_frame(engine, exchange, symbol, frame_name, start, end, interval)
            if not as_json:
                click.echo(range_line(symbol, frame))
                for note in source_notes(exchange, symbol):
                    click.echo(f"{symbol}: {note}")
            jobs += [(symbol, s, frame) for s in strategies or engine.strategies.list()]
        code = file.read_text("utf-8", "replace")
        money = Money(balance, currency, leverage, sizing)
        session = account_session(engine, exchange, jobs, money)
        return run_jobs(engine, exchange, jobs, output, code, session, as_json=as_json, html=html)


def run_jobs(
    engine: Engine,
    exchange: ExchangeSchema,
    jobs: list[tuple[str, StrategySchema, FrameSchema]],
    output: Path,
    source: str = "",
    session: AccountSession | None = None,
    *,
    as_json: bool,
    html: bool,
) -> int:
    """Run backtests side by side, keep and print them; return the exit code.

    `source` is the text of the strategies' file; with a `session` they are played on its account.
    """
    failures: list[str] = []

    async def one(symbol: str, strategy: StrategySchema, frame: FrameSchema) -> None:
        names = {"exchange_name": exchange.name, "frame_name": frame.name}
        try:
            await exhaust(Backtest.run(symbol, strategy_name=strategy.name, **names))
        except (DataError, PeekingError) as error:
            failures.append(f"{strategy.name} {symbol}: {error}")

    async def on_account(session: AccountSession) -> None:
        try:
            await session.play()
        except (DataError, PeekingError) as error:
            failures.append(str(error))

    async def work() -> None:
        try:
            if session is None:
                await asyncio.gather(*(one(*job) for job in jobs))
            else:
                await on_account(session)
        finally:
            await close_exchange(exchange)

    started_at = engine.clock.wall_ms()
    interrupted = False
    without_page = can_make_pages() if html else ""
    with only_json(as_json):
        try:
            with progress_bars(engine, quiet=as_json):
                asyncio.run(work())
        except KeyboardInterrupt:
            interrupted = True
        pages = html and not without_page
        kept = keep_backtests(engine, output / "runs", started_at, source, html=pages)
    records = engine.records.all()
    if as_json:
        runs = msgspec.json.encode([run.data for run in kept]).decode()
        account = None if session is None else session.data
        sys.stdout.write((runs if account is None else account.to_json()) + "\n")
    else:
        console = wide_console()
        for run in kept:
            show(run.data, console)
            show_summary(run.data, run.depends, console)
            _remarks(run.data, console)
        strategies = dict.fromkeys(record.strategy_name for record in records)
        by_strategy = [[r for r in records if r.strategy_name == name] for name in strategies]
        show_together([heat_data(own) for own in by_strategy if len(own) > 1], console)
        if session is not None:
            print_account(session, output, console)
        lines = [f"report: {run.folder / name}" for run in kept for name in (REPORT, *run.files)]
        lines += page_lines(run.folder for run in kept) or [without_page][: bool(without_page)]
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)
    for failure in failures:
        click.echo(f"backtest-kit: {failure}", err=True)
    if pages and len(page_lines(run.folder for run in kept)) < len(kept):
        click.echo(
            "backtest-kit: interrupted before there was a page; "
            "backtest-kit report RUN --html --data FILE makes it",
            err=True,
        )
        return INTERRUPTED
    if interrupted:
        click.echo("backtest-kit: interrupted; the report holds what was found so far", err=True)
        return INTERRUPTED
    return FAILED if failures or any(record.always_raised for record in records) else 0


def _remarks(data: BacktestData, console: Console) -> None:
    """Print what a reader must know even without opening the report."""
    lines = []
    if data.gaps_filled:
        share = number(data.candles.missing_percent, 3, " %")
        lines.append(f"{data.gaps_filled:,} missing candles ({share}) were filled")
    if data.on_filled:
        lines.append(f"{len(data.on_filled)} trades were opened or closed on a missing candle")
    if data.base_interval != "1m":
        lines.append(f"the base interval is {data.base_interval}, that of the candles there are")
    if data.ambiguous_closes:
        lines.append(f"{data.ambiguous_closes} closes were ambiguous")
    if data.end_of_data_closes:
        lines.append(f"{data.end_of_data_closes} signals were closed because the data ended")
    if data.data_ended_at is not None:
        lines.append(f"the data ended at {iso(data.data_ended_at)}, before the frame did")
    elif not data.complete and data.ended_by is None:
        lines.append("the run did not reach its end")
    if data.error_count and not 0 < data.calls <= data.raised:  # which has been said
        lines.append(f"{data.error_count} errors, the first: {error_text(data.errors[0])}")
    for line in lines:
        console.print(Text("note: ", "yellow") + Text(line), soft_wrap=True, highlight=False)


def choose_frame(
    engine: Engine,
    exchange: ExchangeSchema,
    symbol: str,
    name: str | None,
    start: str | None,
    end: str | None,
    interval: Interval,
) -> FrameSchema:
    """Return the frame to use: the one named, or one of the range given, or that of the data.

    Where the data don't say their range, a frame that the file registers is the next best.
    """
    if name is not None:
        if start is not None or end is not None:
            raise click.UsageError("give --frame, or --from and --to, not both")
        return engine.frames.get(name)
    if start is None and end is None and not _has_range(exchange, symbol):
        registered = [f for f in engine.frames.list() if not f.name.startswith("data ")]
        if len(registered) == 1:
            return registered[0]
        if registered:
            there = ", ".join(frame.name for frame in registered)
            raise click.UsageError(f"which frame? give --frame ({there}) or --from and --to")
    begin, until = choose_range(engine, exchange, symbol, start, end)
    title = f"data {symbol}"
    add_frame(frame_name=title, interval=interval, start_date=begin, end_date=until)
    return engine.frames.get(title)


def range_line(symbol: str, frame: FrameSchema) -> str:
    """Say which range of time a command uses."""
    span = f"{iso(to_ms(frame.start_date))} to {iso(to_ms(frame.end_date))}"
    named = "" if frame.name.startswith("data ") else f" (frame {frame.name!r})"
    return f"{symbol}: {span}{named}"


def _has_range(exchange: ExchangeSchema, symbol: str) -> bool:
    return exchange.data_range is not None and exchange.data_range(symbol) is not None

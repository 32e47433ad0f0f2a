"""`backtest-kit walk`: compare the strategies of a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import click
import cloudpickle
import msgspec
from rich.text import Text

from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_walker
from backtest_kit._engine.register_account import add_account
from backtest_kit._engine.task import close_exchange
from backtest_kit._reports.benchmarks import benchmark_lines
from backtest_kit._reports.run_folder import REPORT
from backtest_kit._reports.walk_accounts import account_lines
from backtest_kit._reports.walker import (
    conclusion,
    overfitting_text,
    test_lines,
    warming_lines,
)
from backtest_kit._reports.windows import cross_validation_lines, forward_lines
from backtest_kit._statistics.ranking import WalkerData
from backtest_kit._values.schemas import (
    ACCOUNT_METRICS,
    BENCHMARKS,
    METRICS,
    AccountMetric,
    Benchmark,
    ExchangeSchema,
    FrameSchema,
    Metric,
    WalkerSchema,
)
from backtest_kit._values.time import Interval
from backtest_kit._values.windows import Windows
from backtest_kit._walker.walk import Walk
from backtest_kit._walker.walker import prepare_walk
from backtest_kit.cli.account_run import (
    ACCOUNT_OPTIONS,
    Money,
    account_options,
    chosen_account,
    sized,
)
from backtest_kit.cli.backtest import choose_frame, range_line
from backtest_kit.cli.choose import (
    WINDOW_OPTIONS,
    choose_exchange,
    choose_settings,
    choose_windows,
    given_options,
)
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
    window_options,
)
from backtest_kit.cli.pages import can_make_pages, keep_a_walk, page_lines
from backtest_kit.cli.strategy_file import load
from backtest_kit.cli.terminal import WIDE, only_json, wide_console
from backtest_kit.cli.walk_display import display, interrupts
from backtest_kit.cli.walk_tables import (
    abbreviations,
    money_table,
    ranking_table,
    windows_table,
)
from backtest_kit.exchanges._layout import Layout


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--symbol", "symbols", multiple=True, required=True, help="Repeat it to run over several."
)
@data_option
@calendar_option
@reading_options
@exchange_option
@click.option("--walker", "walker_name", help="A walker that the file registers.")
@strategies_option
@click.option(
    "--metric",
    type=click.Choice((*METRICS, *ACCOUNT_METRICS)),
    help="Default: sharpe_ratio. Those of an account need --balance.",
)
@click.option(
    "--benchmark",
    type=click.Choice([str(name) for name in BENCHMARKS]),
    help="What strategies are tested against: no profit (default), holding, random entries.",
)
@frame_options
@window_options
@click.option("--workers", type=click.IntRange(min=1), help="Run in this many processes.")
@click.option(
    "--store",
    default="./state/walks",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of stored results, from which a walk resumes.",
)
@click.option("--again", is_flag=True, help="Run every strategy, even if its result is stored.")
@settings_option()
@account_options("Let each strategy play with this much money, all symbols on one account.")
@output_option("runs")
@traceback_option
@html_option
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, and no tables.")
def walk(
    file: Path,
    symbols: tuple[str, ...],
    source: Path | None,
    calendar: str | None,
    given: Layout,
    exchange_name: str | None,
    walker_name: str | None,
    strategy_names: tuple[str, ...],
    metric: Metric | AccountMetric | None,
    benchmark: str | None,
    frame_name: str | None,
    start: str | None,
    end: str | None,
    interval: Interval,
    train: str | None,
    test: str | None,
    embargo: str,
    anchored: bool,
    groups: int | None,
    test_groups: int,
    purge: str,
    fresh: bool,
    min_metric: float | None,
    workers: int | None,
    store: Path,
    again: bool,
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
    """Compare the strategies that FILE registers, and judge whether the best is better than luck.

    Each strategy is backtested from a clean state. Without --walker, all strategies of the file (or
    those of --strategy) are compared by --metric. Ctrl-C ends the walk and keeps the results so
    far: the same command continues from there, unless the strategies' code, the candles or the
    settings have changed.

    With --balance each strategy begins with this much money; all symbols share it.

    \b
        backtest-kit walk my_strategies.py --symbol BTCUSDT --data BTCUSDT-1m-2023.parquet
        backtest-kit walk my_strategies.py --symbol A --symbol B --data candles/ --workers 2
        backtest-kit walk my_strategies.py --symbol BTCUSDT --data BTCUSDT-1m-2023.parquet \\
            --balance 10000 --metric account_calmar
    """
    with Engine() as engine:
        module = load(file, tracebacks=tracebacks)
        if workers is not None:
            cloudpickle.register_pickle_by_value(module)  # workers can't import it by its name
        engine.set_config(**choose_settings(settings))
        symbols = tuple(dict.fromkeys(symbols))
        schema = _registered(engine, walker_name)
        if schema is None:
            exchange = choose_exchange(engine, exchange_name, source, calendar, given)
            frame = choose_frame(engine, exchange, symbols[0], frame_name, start, end, interval)
            windows = choose_windows(
                *(train, test, groups, test_groups, purge, embargo),
                anchored=anchored,
                fresh=fresh,
                min_metric=min_metric,
            )
            named: dict[str, Benchmark] = {str(each): each for each in BENCHMARKS}
            tested = named[benchmark or str(BENCHMARKS[0])]
            money = Money(balance, currency, leverage, sizing)
            what = strategy_names, metric, windows, tested
            schema = _add_walker(engine, exchange, frame, *what, money)
        elif any(
            (
                *(source, calendar, exchange_name, strategy_names, metric, frame_name),
                *(start, end, benchmark),
                *given_options((*WINDOW_OPTIONS, *ACCOUNT_OPTIONS)),
            )
        ):
            raise click.UsageError(
                f"walker {schema.name!r} says what to compare over what: leave out --data, "
                "--exchange, --strategy, --metric, --benchmark, --frame, --from, --to, --balance, "
                "and what says in which windows (--train, --groups and the like)"
            )
        executor: Literal["processes"] | None = "processes" if workers else None
        if not as_json:
            click.echo(range_line(", ".join(symbols), engine.frames.get(schema.frame_name)))
        run = prepare_walk(symbols, schema.name, executor, store, rerun=again, workers=workers)
        started_at = engine.clock.wall_ms()
        interrupted = _run(run, schema, engine.exchanges.get(schema.exchange_name), quiet=as_json)
        if run.already_known:
            click.echo(
                f"backtest-kit: {run.already_known} of {len(schema.strategies)} strategies were "
                f"known from {store}, and not run again (--again would)",
                err=True,
            )
        data = run.data()
        without_page = can_make_pages() if html else ""
        pages = html and not without_page
        root = output / "runs"
        folder = keep_a_walk(data, run.results, engine.config, root, started_at, html=pages)
        _print(data, folder, as_json=as_json)
        for page in [] if as_json else [*page_lines([folder]), *filter(None, [without_page])]:
            click.echo(page)
        return _exit_code(data, interrupted=interrupted)


def _registered(engine: Engine, name: str | None) -> WalkerSchema | None:
    """Return the walker that the file registers, if any; raises if it is not clear which."""
    known = engine.walkers.list()
    if name is not None:
        return engine.walkers.get(name)
    if len(known) > 1:
        there = ", ".join(walker.name for walker in known)
        raise click.UsageError(f"which walker? give --walker ({there})")
    return known[0] if known else None


def _add_walker(
    engine: Engine,
    exchange: ExchangeSchema,
    frame: FrameSchema,
    strategy_names: Sequence[str],
    metric: Metric | AccountMetric | None,
    windows: Windows | None,
    benchmark: Benchmark,
    money: Money,
) -> WalkerSchema:
    """Register a walker over the chosen strategies, by default all of the file, and return it."""
    names = strategy_names or [strategy.name for strategy in engine.strategies.list()]
    account = chosen_account(engine, money)
    if account is not None:
        add_account(account, replace=True)
        for name in dict.fromkeys(names):
            engine.strategies.add(sized(engine.strategies.get(name), money), replace=True)
    elif metric in ACCOUNT_METRICS:
        raise click.UsageError(
            f"--metric {metric} is of an account; give --balance, such as --balance 10000"
        )
    add_walker(
        walker_name="walk",
        exchange_name=exchange.name,
        frame_name=frame.name,
        strategies=[*dict.fromkeys(names)],
        metric=metric or "sharpe_ratio",
        windows=windows,
        benchmark=benchmark,
        account_name=None if account is None else account.name,
    )
    return engine.walkers.get("walk")


def _run(run: Walk, schema: WalkerSchema, exchange: ExchangeSchema, *, quiet: bool) -> bool:
    """Run a walk, and return whether it was interrupted."""
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        run.stop()

    async def work() -> None:
        try:
            with interrupts(stop), display(schema, quiet=quiet) as show:
                async with aclosing(run.contracts()) as contracts:
                    async for contract in contracts:
                        show(contract)
        finally:
            await close_exchange(exchange)

    with only_json(quiet):
        asyncio.run(work())
    return interrupted


def _print(data: WalkerData, folder: Path, *, as_json: bool) -> None:
    """Print the results, as JSON or as tables, and where they are kept."""
    if as_json:
        sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
        return
    console = wide_console()
    wide = console.width >= WIDE
    console.print(ranking_table(data, wide=wide))
    if data.account is not None:
        console.print(money_table(data))
    if data.walk_forward is not None:
        console.print(windows_table(data.walk_forward, wide=wide))
        for line in forward_lines(data.walk_forward):
            console.print(Text(line))
    if data.cross_validation is not None:
        for line in cross_validation_lines(data.cross_validation):
            console.print(Text(line))
    worth = test_lines(data)
    if data.overfitting is not None:
        worth.append(overfitting_text(data))
    notes = [*benchmark_lines(data), *account_lines(data), *warming_lines(data), *worth]
    for line in [abbreviations(data, wide=wide), *notes]:
        console.print(Text(line))
    console.print(Text(conclusion(data), style="bold"))
    console.print(f"report: {folder / REPORT}", soft_wrap=True, highlight=False)


def _exit_code(data: WalkerData, *, interrupted: bool) -> int:
    """Return the exit code of a walk; say so if it was interrupted."""
    if interrupted:
        click.echo(
            f"backtest-kit: interrupted; {data.strategies_tested} of {data.total_strategies} "
            "strategies are in the report",
            err=True,
        )
        return INTERRUPTED
    return FAILED if all(row.error is not None for row in data.ranking) else 0

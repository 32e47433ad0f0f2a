"""`backtest-kit live`: run the strategies of a file minute by minute."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from backtest_kit._data.base import run_config
from backtest_kit._engine.engine import Engine
from backtest_kit._live.clocks import VirtualClock
from backtest_kit._live.stored import forget, stored_runs
from backtest_kit._state.files import FileAdapter
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, iso
from backtest_kit.cli.account_run import Money, account_options, add_chosen_account
from backtest_kit.cli.background_output import background_output
from backtest_kit.cli.choose import add_cached, choose_exchange, choose_range, choose_settings
from backtest_kit.cli.health_server import parse_address
from backtest_kit.cli.live_session import Job, run_session
from backtest_kit.cli.options import (
    calendar_option,
    exchange_option,
    output_option,
    reading_options,
    settings_option,
    strategies_option,
    traceback_option,
)
from backtest_kit.cli.strategy_file import load
from backtest_kit.exchanges._layout import Layout

#: What ccxt calls a key, and the end of the variable that it is read from.
_KEYS = {"apiKey": "API_KEY", "secret": "SECRET", "password": "PASSWORD", "uid": "UID"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", "symbols", multiple=True, required=True, help="Repeat for several.")
@exchange_option
@strategies_option
@click.option(
    "--state",
    "state_dir",
    type=click.Path(path_type=Path),
    help="Folder of what must survive a restart.  [default: ./state]",
)
@click.option("--paper", is_flag=True, help="Use no exchange keys; the state is kept apart.")
@click.option(
    "--replay",
    "source",
    type=click.Path(path_type=Path),
    help="Run over recorded candles (a catalog, Parquet, CSV); the state is kept apart.",
)
@account_options("Trade on paper with this much money: all runs on one account, kept in the state.")
@calendar_option
@reading_options
@click.option(
    "--catalog",
    help="Ask the exchange only for what this catalog lacks, such as for warming up.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Write what the exchange answers into the catalog, to --replay it.",
)
@click.option("--speed", default="1000x", show_default=True, help="Of a replay; or: max.")
@click.option("--from", "start", help="Begin the replay here (ISO 8601; without a zone: UTC).")
@click.option("--to", "end", help="End the replay here, included.")
@settings_option("step_delay_ms=1000")
@output_option("reports")
@traceback_option
@click.option("--json", "as_json", is_flag=True, help="Print each transition as a line of JSON.")
@click.option(
    "--health",
    "health_address",
    metavar="HOST:PORT",
    help="Serve metrics for Prometheus at /metrics, and at /healthz whether all is well (extra "
    "health).",
)
def live(
    file: Path,
    symbols: tuple[str, ...],
    exchange_name: str | None,
    strategy_names: tuple[str, ...],
    state_dir: Path | None,
    paper: bool,
    source: Path | None,
    balance: float | None,
    currency: str,
    leverage: float,
    sizing: str | None,
    calendar: str | None,
    given: Layout,
    catalog: str | None,
    record: bool,
    speed: str,
    start: str | None,
    end: str | None,
    settings: tuple[str, ...],
    output: Path,
    tracebacks: bool,
    as_json: bool,
    health_address: str | None,
) -> int:
    """Run the strategies that FILE registers, every minute, until it is stopped.

    What is open, waiting and done is kept in the state folder: kill it at any moment, start it
    again, and it goes on where it was. Ctrl-C (or SIGTERM) takes no new signals, drops waiting ones
    and waits until open positions have closed; a second one stops at once, and the positions
    are followed when it is started again.

    Keys for an exchange of ccxt are read from variables such as BINANCE_API_KEY and BINANCE_SECRET.
    No order is ever placed: that is for the strategy's own callbacks.

    \b
        backtest-kit live my_strategy.py --symbol BTC/USDT --symbol ETH/USDT --exchange binance
        backtest-kit live my_strategy.py --symbol BTC/USDT --exchange binance --paper
        backtest-kit live my_strategy.py --symbol BTC/USDT --exchange binance --balance 10000
        backtest-kit live my_strategy.py --symbol BTC/USDT --exchange binance --catalog data
        backtest-kit live my_strategy.py --symbol BTCUSDT --replay BTCUSDT-1m-2023.parquet
    """
    if source is None and (start is not None or end is not None):
        raise click.UsageError("--from and --to are for --replay")
    if source is not None and catalog is not None:
        raise click.UsageError("--catalog is for an exchange; --replay reads a catalog by itself")
    if record and catalog is None:
        raise click.UsageError("--record needs --catalog, where it writes")
    factor = _speed(speed)
    address = None if health_address is None else parse_address(health_address)
    # what nobody reads, of this command or of the file's own prints, must hold up no step
    with background_output(), Engine() as engine:
        rehearsal = paper or source is not None
        engine.set_config(paper=rehearsal)
        load(file, tracebacks=tracebacks)
        engine.set_config(**choose_settings(settings))
        state = state_dir or Path(engine.config.state_dir)
        if rehearsal:
            # never in the state of real runs, wherever the file keeps that
            state /= "paper" if source is None else "replay"
            engine.adapter = FileAdapter(state)
        engine.set_config(state_dir=str(state), paper=rehearsal)
        secrets = {} if paper else _keys(exchange_name)
        exchange = choose_exchange(
            engine, exchange_name, source, calendar, given, option="--replay", **secrets
        )
        if catalog is not None:
            exchange = add_cached(engine, exchange, catalog, record=record)
        strategies = [engine.strategies.get(name) for name in dict.fromkeys(strategy_names)]
        account = add_chosen_account(engine, Money(balance, currency, leverage, sizing))
        names = [s.name for s in strategies or engine.strategies.list()]
        jobs = []
        for symbol in dict.fromkeys(symbols):
            clock = None if source is None else _clock(engine, exchange, symbol, start, end, factor)
            if clock is not None:
                base = run_config(engine.config, exchange, symbol).base_interval
                keys = {(exchange.name, name, symbol) for name in names}
                _begin_anew(state, keys, clock, INTERVALS[base])
            jobs += [Job(symbol, name, clock, account) for name in names]
        if account is not None:  # in the order of strategies, as in a backtest
            jobs.sort(key=lambda job: names.index(job.strategy_name))
        return run_session(engine, exchange, jobs, output, as_json=as_json, address=address)


def _keys(name: str | None) -> dict[str, str]:
    """Return the keys for an exchange of ccxt that the environment holds."""
    prefix = re.sub(r"\W", "_", name or "").upper()
    found = {key: os.environ.get(f"{prefix}_{end}", "") for key, end in _KEYS.items()}
    return {key: value for key, value in found.items() if value}


def _clock(
    engine: Engine,
    exchange: ExchangeSchema,
    symbol: str,
    start: str | None,
    end: str | None,
    speed: float | None,
) -> VirtualClock:
    begin, until = choose_range(engine, exchange, symbol, start, end)
    try:
        return VirtualClock(begin, until, speed=speed)
    except ValueError as error:
        raise click.UsageError(f"--from and --to: {error}") from None


def _begin_anew(
    folder: Path, keys: set[tuple[str, str, str]], clock: VirtualClock, base: int
) -> None:
    """Forget replays that had come to their end; one that was stopped on the way goes on."""
    adapter = FileAdapter(folder)
    for run in stored_runs(adapter):
        key = (run.key.exchange_name, run.key.strategy_name, run.key.symbol)
        if key not in keys or run.at is None:
            continue
        if clock.end - base < run.at <= clock.end:
            forget(adapter, run)
        elif not clock.start - base <= run.at < clock.end:
            raise click.UsageError(
                f"the replay of {run.key.strategy_name} on {run.key.symbol} in {folder} stands at "
                f"{iso(run.at)}, outside of this one's range: delete the folder, or give --state"
            )
        else:
            click.echo(
                f"backtest-kit: {run.key.strategy_name} on {run.key.symbol} goes on from "
                f"{iso(run.at)} (in {folder})",
                err=True,
            )


def _speed(text: str) -> float | None:
    """Return how many times faster than the real clock; `None` for as fast as it can."""
    if text == "max":
        return None
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise click.UsageError(f"--speed {text!r} must be a number such as 1000x, or max")
    return factor

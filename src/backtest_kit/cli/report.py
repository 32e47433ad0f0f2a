"""`backtest-kit report`: show a result that was written earlier."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markdown import Markdown

from backtest_kit._errors import BacktestKitError
from backtest_kit._reports.backtest import BacktestData, backtest_report


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the checked JSON itself.")
def report(file: Path, as_json: bool) -> None:
    """Show the result of a backtest from the JSON file that it wrote.

    Markdown in a pipe, formatted on a terminal.

    \b
        backtest-kit report dump/backtest/BTCUSDT-crossover-synthetic-january.json
    """
    if not file.is_file():
        raise click.UsageError(f"{file} is not a file")
    try:
        data = msgspec.json.decode(file.read_bytes(), type=BacktestData)
    except msgspec.MsgspecError as error:
        raise BacktestKitError(f"{file} is not a backtest's JSON file: {error}") from None
    if as_json:
        sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
    elif sys.stdout.isatty():
        Console().print(Markdown(backtest_report(data)))
    else:
        sys.stdout.write(backtest_report(data))

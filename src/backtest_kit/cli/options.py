"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from backtest_kit._values.time import INTERVALS

F = TypeVar("F", bound=Callable[..., Any])

data_option = click.option(
    "--data",
    "source",
    type=click.Path(path_type=Path),
    help="A Parquet, CSV or Binance Vision file (or a folder of them).",
)
calendar_option = click.option(
    "--calendar",
    help="When the market of the file is closed: weekdays, data, or a name such as XNYS (extra "
    "calendars).",
)
exchange_option = click.option(
    "--exchange", "exchange_name", help="A registered exchange, or one that ccxt knows."
)
strategies_option = click.option(
    "--strategy", "strategy_names", multiple=True, help="Default: all in the file."
)
from_option = click.option("--from", "start", help="Begin here (ISO 8601; without a zone: UTC).")
to_option = click.option("--to", "end", help="End here, included.")
html_option = click.option(
    "--html/--no-html",
    default=True,
    show_default=True,
    envvar="BACKTEST_KIT_HTML",
    show_envvar=True,
    help="Write an HTML page too (extra report).",
)


def frame_options(function: F) -> F:
    """Add `--frame`, or what makes a frame: `--from`, `--to` and `--interval`."""
    interval = click.option(
        "--interval",
        default="1m",
        show_default=True,
        type=click.Choice([*INTERVALS]),
        help="Step of a frame given by --from and --to, or by the data; never shorter than the "
        "base interval, that of the candles there are.",
    )
    frame = click.option("--frame", "frame_name", help="A frame that the file registers.")
    return frame(from_option(to_option(interval(function))))


def settings_option(example: str = "") -> Callable[[F], F]:
    """Return `--set`, with an example in its help."""
    text = f"A setting, such as {example}." if example else "A setting."
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=text)


def output_option(what: str) -> Callable[[F], F]:
    """Return `--output`, the folder of `what`."""
    return click.option(
        "--output",
        default="./dump",
        show_default=True,
        type=click.Path(path_type=Path),
        help=f"Folder of the {what}.",
    )

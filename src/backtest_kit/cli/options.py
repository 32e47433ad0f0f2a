"""Options that several commands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from backtest_kit._values.errors import ConfigError
from backtest_kit._values.time import INTERVALS
from backtest_kit.exchanges._layout import AmbiguousTime, Layout, layout

F = TypeVar("F", bound=Callable[..., Any])

data_option = click.option(
    "--data",
    "source",
    type=click.Path(path_type=Path),
    help="A Parquet, Feather or CSV file, a folder of them, or a catalog (see data download).",
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

traceback_option = click.option(
    "--traceback", "tracebacks", is_flag=True, help="Show the whole traceback of each error."
)


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a file can't; the command gets them as one `given`."""

    @functools.wraps(function)
    def collected(
        *arguments: Any,
        columns: str | None,
        timezone: str | None,
        date_format: str | None,
        ambiguous_time: AmbiguousTime,
        **more: Any,
    ) -> Any:
        given = _layout(columns, timezone, date_format, ambiguous_time)
        return function(*arguments, given=given, **more)

    for option in (
        click.option(
            "--ambiguous-time",
            default="raise",
            type=click.Choice(get_args(AmbiguousTime)),
            help="Which of two, where the clocks of --timezone go back.",
        ),
        click.option(
            "--date-format", help="Of dates in the file: dmy, mdy, ymd or such as '%d.%m.%y %H:%M'."
        ),
        click.option("--timezone", help="Of the file's times without a zone.  [default: UTC]"),
        click.option(
            "--columns",
            metavar="OURS=THEIRS,...",
            help="Names of the file's columns, such as timestamp=Day+Hour,open=o.",
        ),
    ):
        collected = option(collected)
    return collected


def _layout(
    columns: str | None, timezone: str | None, date_format: str | None, way: AmbiguousTime
) -> Layout:
    pairs = [pair.partition("=") for pair in (columns or "").split(",") if pair.strip()]
    for ours, sign, _ in pairs:
        if not sign:
            raise click.UsageError(f"--columns {ours!r} must be OURS=THEIRS, such as open=o")
    try:
        given = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
        return layout(given, timezone, date_format, way)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


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
    frame = click.option(
        "--frame",
        "frame_name",
        help="A frame that FILE registers, instead of the whole range of the data.",
    )
    return frame(from_option(to_option(interval(function))))


def window_options(function: F) -> F:
    """Add what says in which windows the best is chosen, and in which it is judged."""
    options = (
        click.option(
            "--train", metavar="LENGTH", help="Walk forward: length of train windows (90d, 12h)."
        ),
        click.option("--test", metavar="LENGTH", help="Length of test windows."),
        click.option(
            "--embargo",
            metavar="LENGTH",
            default="1d",
            show_default=True,
            help="Gap between train and test.",
        ),
        click.option("--anchored", is_flag=True, help="All train windows start with the first."),
        click.option(
            "--groups",
            type=click.IntRange(min=2),
            help="Cross-validate: cut the frame into groups, and test every choice of some.",
        ),
        click.option(
            "--test-groups",
            type=click.IntRange(min=1),
            default=2,
            show_default=True,
            help="How many groups are tested at a time.",
        ),
        click.option(
            "--purge",
            metavar="LENGTH",
            default="0m",
            show_default=True,
            help="Left out on both sides of groups that are tested.",
        ),
        click.option(
            "--fresh", is_flag=True, help="Also run each window for itself, from clean state."
        ),
        click.option(
            "--min-metric",
            type=float,
            help="Trade a test window if the metric in its train window was at least this.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


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

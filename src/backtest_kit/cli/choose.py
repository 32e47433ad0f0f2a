"""What a command line names: an exchange or a file, a range of time, settings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict, Unpack

import click
import msgspec
from click.core import ParameterSource

from backtest_kit import exchanges
from backtest_kit._data.base import run_config
from backtest_kit._engine.engine import Engine
from backtest_kit._engine.register import add_exchange
from backtest_kit._values.config import Settings, parse_settings
from backtest_kit._values.errors import BacktestKitError
from backtest_kit._values.schemas import ExchangeSchema
from backtest_kit._values.time import INTERVALS, to_datetime
from backtest_kit._values.windows import Windows
from backtest_kit.exchanges._catalog import is_catalog
from backtest_kit.exchanges._layout import Layout
from backtest_kit.exchanges._parts import reader_of
from backtest_kit.exchanges._recorded import Recording


def choose_exchange(
    engine: Engine,
    name: str | None,
    source: Path | None,
    calendar: str | None = None,
    given: Layout = Layout(),  # noqa: B008 - it is frozen
    *,
    option: str = "--data",
    **keys: str,
) -> ExchangeSchema:
    """Return the exchange to use: a file's, a catalog's, a registered one, or one ccxt knows.

    `name` is that of the venue in a catalog. `option` is what named the file `source`, `calendar`
    is the file's, and it is read as `given` says; `keys` are for an exchange of ccxt.
    """
    if calendar is not None and source is None:
        raise click.UsageError(f"--calendar is for {option} FILE; an exchange has its own")
    if given and source is None:
        raise click.UsageError(f"--columns, --timezone and the like are for {option} FILE")
    if source is not None:
        if not source.exists():
            raise click.UsageError(f"{option} {source} does not exist")
        if is_catalog(source):
            if given:
                raise click.UsageError(f"{option} {source} is a catalog, which is read as it is")
            add_exchange(exchanges.CatalogExchange(source, name, calendar=calendar))
            return engine.exchanges.list()[-1]
        reader = reader_of(source)
        add_exchange(
            reader(
                source,
                exchange_name=name or "data",
                calendar=calendar,
                columns=dict(given.columns),
                timezone=given.timezone,
                date_format=given.date_format,
                ambiguous_time=given.ambiguous_time,
            )
        )
        return engine.exchanges.get(name or "data")
    registered = engine.exchanges.list()
    if name is None:
        if len(registered) == 1:
            return registered[0]
        there = ", ".join(e.name for e in registered) or "none registered"
        raise click.UsageError(f"which candles? give {option} FILE or --exchange NAME ({there})")
    if name not in {exchange.name for exchange in registered}:
        add_exchange(exchanges.CcxtExchange(name, **keys))
    return engine.exchanges.get(name)


def add_cached(
    engine: Engine, exchange: ExchangeSchema, catalog: str, *, record: bool
) -> ExchangeSchema:
    """Put a catalog in front of a registered exchange, and return what is registered now."""
    cached = exchanges.CachedExchange(exchange, catalog, record=record)
    functions = {"get_candles": cached.get_candles, "close": cached.close}
    add_exchange(msgspec.structs.replace(exchange, **functions), replace=True)
    return engine.exchanges.get(exchange.name)


def source_notes(exchange: ExchangeSchema, symbol: str) -> tuple[str, ...]:
    """Return what the reader of a file assumed; nothing for exchanges that are no files."""
    owner = getattr(exchange.get_candles, "__self__", None)
    return owner.notes(symbol) if isinstance(owner, Recording) else ()


def choose_range(
    engine: Engine, exchange: ExchangeSchema, symbol: str, start: str | None, end: str | None
) -> tuple[datetime, datetime]:
    """Return where to begin and end: as given, else as the data do."""
    known = None
    if exchange.data_range is not None and (start is None or end is None):
        known = exchange.data_range(symbol)
    if known is None and (start is None or end is None):
        raise click.UsageError(
            f"exchange {exchange.name!r} does not say which range it has: give --from and --to"
        )
    # by default the first step is the first that has an average price
    config = run_config(engine.config, exchange, symbol)
    warm_up = config.avg_price_candles_count * INTERVALS[config.base_interval]
    first = known and known[0] + warm_up
    return (
        moment("--from", start) if start else to_datetime(first or 0),
        moment("--to", end) if end else to_datetime(known[1] if known else 0),
    )


#: The options of windows, as `window_options` names them.
WINDOW_OPTIONS = (
    *("train", "test", "groups", "test_groups", "purge"),
    *("embargo", "anchored", "fresh", "min_metric"),
)


def given_options(names: Sequence[str]) -> list[str]:
    """Return which of these options the command line gives, rather than their defaults."""
    context = click.get_current_context()
    default = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if context.get_parameter_source(name) not in (*default, None)
    ]


class WindowOptions(TypedDict):
    """What windows of either kind take; see `Windows`."""

    anchored: bool
    fresh: bool
    min_metric: float | None


def choose_windows(
    train: str | None,
    test: str | None,
    groups: int | None,
    test_groups: int,
    purge: str,
    embargo: str,
    **options: Unpack[WindowOptions],
) -> Windows | None:
    """Return the windows in which a walk chooses and judges, `None` where none are asked for.

    Raises:
        RegistrationError: they don't go together.
    """
    if train is None and test is None and groups is None:
        if given := given_options(WINDOW_OPTIONS):
            raise click.UsageError(f"{', '.join(given)}: only with --train and --test, or --groups")
        return None
    if groups is None and (train is None or test is None):
        raise click.UsageError("windows take both --train and --test, such as 90d and 30d")
    return Windows(
        train=None if train is None else _length("--train", train),
        test=None if test is None else _length("--test", test),
        combinatorial=None if groups is None else (groups, test_groups),
        purge=_length("--purge", purge),
        embargo=_length("--embargo", embargo),
        **options,
    )


def choose_settings(pairs: tuple[str, ...]) -> Settings:
    """Return settings given as KEY=VALUE."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set {pair!r} must be KEY=VALUE")
        given[key.strip()] = value.strip()
    try:
        return parse_settings(given)
    except BacktestKitError as error:
        raise click.UsageError(f"--set {error}") from None


def _length(option: str, text: str) -> timedelta:
    units = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    if text[-1:] not in units or not text[:-1].isdecimal():
        raise click.UsageError(f"{option} {text!r} is no length of time, such as 90d, 12h or 30m")
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def moment(option: str, text: str) -> datetime:
    """Return the date or time that an option gives; without a zone, it is in UTC."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{option} {text!r} is no ISO 8601 date or time") from None
    return given if given.tzinfo is not None else given.replace(tzinfo=UTC)

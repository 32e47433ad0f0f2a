"""The settings: one table of names, defaults, bounds and meanings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypedDict, cast

import msgspec
from msgspec import Meta

from backtest_kit._values.errors import ConfigError, did_you_mean
from backtest_kit._values.time import INTERVALS, MINUTE, Interval

ENVIRONMENT_PREFIX: Final = "CC_"

Percent = Annotated[float, Meta(ge=0, lt=100)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an engine. A run keeps those it began with."""

    base_interval: Annotated[
        Literal["auto", Interval],
        Meta(
            description="The candle by which everything steps; auto: 1m where the exchange has it, "
            "else the finest that it has."
        ),
    ] = "auto"
    schedule_await_minutes: Annotated[
        int, Meta(ge=1, description="Minutes a scheduled signal waits for its entry price.")
    ] = 120
    avg_price_candles_count: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Closed base candles in the average price; 0: 5 of 1m, 1 of a longer base.",
        ),
    ] = 0
    min_take_profit_distance_percent: Annotated[
        Percent, Meta(description="Least distance of the take-profit, percent; 0: no check.")
    ] = 0.5
    min_stop_loss_distance_percent: Annotated[
        Percent, Meta(description="Least distance of the stop-loss, percent; 0: no check.")
    ] = 0.5
    max_stop_loss_distance_percent: Annotated[
        Percent, Meta(description="Greatest distance of the stop-loss, percent; 0: no check.")
    ] = 20.0
    max_signal_lifetime_minutes: Annotated[
        int,
        Meta(
            ge=0,
            description="Greatest `minute_estimated_time` of a signal; 0: no limit, and a "
            "backtest's data end with its frame.",
        ),
    ] = 1440
    require_stop_loss: Annotated[
        bool, Meta(description="A signal without a stop-loss is invalid.")
    ] = True
    allow_wider_stop: Annotated[
        bool, Meta(description="A stop may be moved away from the market while a position lives.")
    ] = False
    max_entries: Annotated[
        int, Meta(ge=0, le=100, description="Most further entries of one position.")
    ] = 8
    percent_slippage: Annotated[
        Percent, Meta(description="Slippage that worsens each price, percent.")
    ] = 0.1
    percent_fee: Annotated[Percent, Meta(description="Fee per side, percent.")] = 0.1
    fill_price: Annotated[
        Literal["market", "average"],
        Meta(description="What fills: the last close, or the average price that also decides."),
    ] = "market"
    ask_at: Annotated[
        Literal["close", "elapsed"],
        Meta(
            description="A strategy is asked when a candle of its interval closes, or when its "
            "interval has elapsed since the last call."
        ),
    ] = "close"
    exit_trigger: Annotated[
        Literal["auto", "vwap", "wick"],
        Meta(
            description="What touches a level: the average price, or the candle's low and high; "
            "auto: vwap with a base of 1m, wick with a longer one."
        ),
    ] = "auto"
    ambiguous_candle: Annotated[
        Literal["stop_loss_first", "take_profit_first"],
        Meta(description="What a candle that reaches both levels is taken for (wick)."),
    ] = "stop_loss_first"
    suspicious_candle: Annotated[
        Literal["hold", "accept"],
        Meta(
            description="A base candle with a price 20 times off both closes before it: hold lets "
            "nothing happen at its step."
        ),
    ] = "hold"
    gap_policy: Annotated[
        Literal["fill", "raise"],
        Meta(description="A missing candle is filled flat and counted, or is an error."),
    ] = "fill"
    get_candles_retry_count: Annotated[
        int, Meta(ge=0, le=100, description="Retries after a failed `get_candles`.")
    ] = 3
    get_candles_retry_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            description="Milliseconds before the first retry; each later pause is twice as long, "
            "up to a minute, and all vary by a fifth.",
        ),
    ] = 5000
    get_candles_timeout_ms: Annotated[
        int, Meta(ge=1, description="Milliseconds after which one `get_candles` call has failed.")
    ] = 60_000
    max_candles_per_request: Annotated[
        int, Meta(ge=1, description="Candles asked for in one `get_candles` call.")
    ] = 1000
    candles_per_chunk: Annotated[
        int,
        Meta(ge=1000, description="Candles of one series that a run loads at a time."),
    ] = 131_072
    step_delay_ms: Annotated[
        int,
        Meta(ge=0, lt=60_000, description="Milliseconds after the full minute of a live step."),
    ] = 500
    feed_wait_ms: Annotated[
        int, Meta(ge=0, description="Milliseconds that a live step waits for a late candle.")
    ] = 30_000
    callback_timeout_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds that one call of a live run's callback may take."),
    ] = 30.0
    state_dir: Annotated[str, Meta(min_length=1, description="Folder of the live state.")] = (
        "./state"
    )
    paper: Annotated[
        bool, Meta(description="A rehearsal: callbacks that place orders must not, see `Context`.")
    ] = False


class Settings(TypedDict, total=False):
    """Some of the settings, as `set_config` takes them: the fields of `Config`, for type checkers.

    A test holds both together.
    """

    base_interval: Literal["auto", Interval]
    schedule_await_minutes: int
    avg_price_candles_count: int
    min_take_profit_distance_percent: float
    min_stop_loss_distance_percent: float
    max_stop_loss_distance_percent: float
    max_signal_lifetime_minutes: int
    require_stop_loss: bool
    allow_wider_stop: bool
    max_entries: int
    percent_slippage: float
    percent_fee: float
    fill_price: Literal["market", "average"]
    ask_at: Literal["close", "elapsed"]
    exit_trigger: Literal["auto", "vwap", "wick"]
    ambiguous_candle: Literal["stop_loss_first", "take_profit_first"]
    suspicious_candle: Literal["hold", "accept"]
    gap_policy: Literal["fill", "raise"]
    get_candles_retry_count: int
    get_candles_retry_delay_ms: int
    get_candles_timeout_ms: int
    max_candles_per_request: int
    candles_per_chunk: int
    step_delay_ms: int
    feed_wait_ms: int
    callback_timeout_seconds: float
    state_dir: str
    paper: bool


def resolved(config: Config, base: str) -> Config:
    """Return the settings of a run on candles of `base`, with nothing left to be found out."""
    minutes = INTERVALS[base] == MINUTE
    trigger: Literal["vwap", "wick"] = "vwap" if minutes else "wick"
    return msgspec.structs.replace(
        config,
        base_interval=base,
        avg_price_candles_count=config.avg_price_candles_count or (5 if minutes else 1),
        exit_trigger=trigger if config.exit_trigger == "auto" else config.exit_trigger,
    )


def configure(current: Config, changes: Mapping[str, object]) -> Config:
    """Return `current` with `changes` made, all of them or none.

    Raises:
        ConfigError: unknown keys, values of the wrong type or out of range; all of them at once.
    """
    found, problems = _read(changes, strict=True)
    config = msgspec.structs.replace(current, **found)
    lowest, highest = config.min_stop_loss_distance_percent, config.max_stop_loss_distance_percent
    if highest and lowest > highest:
        problems.append(
            f"min_stop_loss_distance_percent={lowest} is above "
            f"max_stop_loss_distance_percent={highest}: no stop-loss could satisfy both"
        )
    _raise_all(problems)
    return config


def from_environment(environment: Mapping[str, str] = os.environ) -> Config:
    """Return the defaults as changed by variables such as `CC_SCHEDULE_AWAIT_MINUTES`.

    Raises:
        ConfigError: values can't be read; the message names each variable.
    """
    problems: list[str] = []
    changes: dict[str, Any] = {}
    for key in Config.__struct_fields__:
        name = ENVIRONMENT_PREFIX + key.upper()
        if name in environment:
            try:
                changes[key] = _convert(key, environment[name], strict=False)
            except ConfigError as error:
                problems.append(f"environment variable {name}: {error}")
    _raise_all(problems)
    return configure(Config(), changes)


def parse_settings(pairs: Mapping[str, str]) -> Settings:
    """Return settings given as text (a command line's) with their own types.

    Raises:
        ConfigError: unknown keys, or values that can't be read; all of them at once.
    """
    found, problems = _read(pairs, strict=False)
    _raise_all(problems)
    return cast("Settings", found)


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError("; ".join(problems))


def _read(values: Mapping[str, object], *, strict: bool) -> tuple[dict[str, Any], list[str]]:
    """Return values with the types of their settings, and what is wrong with the others."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in values.items():
        try:
            found[key] = _convert(key, value, strict=strict)
        except ConfigError as error:
            problems.append(str(error))
    return found, problems


def _convert(key: str, value: object, *, strict: bool) -> object:
    """Return a value with the type of its setting; text is read unless `strict`."""
    if key not in Config.__struct_fields__:
        raise ConfigError(f"unknown setting {key!r}{did_you_mean(key, Config.__struct_fields__)}")
    if isinstance(value, float) and value != value:
        raise ConfigError(f"{key}={value!r} is not a number")
    try:
        return getattr(msgspec.convert({key: value}, Config, strict=strict), key)
    except msgspec.ValidationError as error:
        text = str(error).partition(" - at `$.")[0]
        raise ConfigError(f"{key}={value!r}: {text[0].lower()}{text[1:]}") from None

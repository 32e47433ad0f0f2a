"""What a run stands on: the base interval of its market, and the settings that depend on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from backtest_kit._data.calendar import check_calendar, open_step
from backtest_kit._rules.asking import Stride, askable, stride
from backtest_kit._values.config import Config, resolved
from backtest_kit._values.errors import ConfigError, DataError, RegistrationError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._values.time import INTERVALS, interval_name, iso

_MINUTE = "1m"


def base_interval(exchange: ExchangeSchema, symbol: str, config: Config) -> str:
    """Return the interval of the candles by which runs on a symbol step.

    Raises:
        ConfigError: the one that is set is not among those of the exchange, or none of those is
            known here.
    """
    try:
        offered = exchange.intervals(symbol) if callable(exchange.intervals) else exchange.intervals
    except DataError:
        offered = None  # the first request for candles reports it, as an error of the run
    known = [name for name in INTERVALS if offered is None or name in offered]
    if not known:
        raise ConfigError(
            f"exchange {exchange.name!r} has no candles of {symbol} on an interval that is known "
            f"here (it has: {' '.join(offered or ())}; known: {' '.join(INTERVALS)})"
        )
    wanted = config.base_interval
    if wanted == "auto":
        return _MINUTE if offered is None else known[0]
    if wanted not in known:
        raise ConfigError(
            f"base_interval={wanted!r}: exchange {exchange.name!r} has no such candles of {symbol} "
            f"(it has: {' '.join(known)})"
        )
    return wanted


def run_config(config: Config, exchange: ExchangeSchema, symbol: str) -> Config:
    """Return the settings of a run on a symbol, with nothing left to be found out.

    Raises:
        ConfigError: as `base_interval`.
        BacktestKitError: the exchange's calendar is unknown, or needs what is not installed.
    """
    check_calendar(exchange.calendar)
    return resolved(config, base_interval(exchange, symbol, config))


def step_at(exchange: ExchangeSchema, config: Config) -> Callable[[int], int]:
    """Return a function for the first step of a run at or after an instant (ms)."""
    return partial(open_step, exchange.calendar, step=INTERVALS[config.base_interval])


def check_interval(strategy: StrategySchema, config: Config) -> None:
    """Raise a `ConfigError` where a strategy can't be asked on the base of a run."""
    base = config.base_interval
    if INTERVALS[strategy.interval] % INTERVALS[base]:
        raise ConfigError(
            f"strategy {strategy.name!r} has interval={strategy.interval!r}, and the base interval "
            f"is {base}: it must be that, or a longer one that is made of whole candles of {base}"
        )


def timeline_of(frame: FrameSchema, config: Config) -> range:
    """Return the instants of a frame on the base of a run, milliseconds UTC.

    Where the frame steps by less than the base, by the base; the first is the frame's start, or the
    base candle's end after it.

    Raises:
        RegistrationError: the frame's step is not made of whole base candles, or no candle of the
            base ends in the frame.
    """
    whole, base = frame.timeline, INTERVALS[config.base_interval]
    step, name = max(whole.step, base), config.base_interval
    if step % base:
        raise RegistrationError(
            f"frame {frame.name!r} steps by {interval_name(step)}, which is not made of whole "
            f"candles of the base interval, {name}"
        )
    timeline = range(-(-whole.start // base) * base, whole.stop, step)
    if not timeline:
        raise RegistrationError(
            f"frame {frame.name!r}: no candle of the base interval, {name}, ends from "
            f"{iso(whole.start)} to {iso(whole.stop - 1)}"
        )
    return timeline


def stride_of(
    strategy: StrategySchema, frame: FrameSchema, timeline: range, config: Config
) -> Stride:
    """Return at which instants of a frame a strategy is asked.

    Raises:
        ConfigError: at none, or its interval is not made of whole candles of the base.
    """
    check_interval(strategy, config)
    asks = askable(timeline, INTERVALS[config.base_interval], config)
    found = stride(timeline, INTERVALS[strategy.interval], config.ask_at == "close", asks)
    if found is None:
        raise ConfigError(
            f"strategy {strategy.name!r} is never asked: no candle of its interval "
            f"{strategy.interval} closes at an instant of frame {frame.name!r} "
            f"({iso(timeline[0])} to {iso(timeline[-1])}, every {interval_name(timeline.step)}); "
            "begin the frame at a close, make it longer or finer, or set ask_at='elapsed'"
        )
    return found

"""Under which keys results of trials are stored: fingerprints of all that figures depend on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from backtest_kit._engine.account import markets_of
from backtest_kit._engine.engine import Engine
from backtest_kit._values.account_schemas import SizingSchema
from backtest_kit._values.errors import FingerprintError
from backtest_kit._values.schemas import ExchangeSchema, StrategySchema
from backtest_kit._walker.data_identity import data_identity
from backtest_kit._walker.fingerprint import examine, fingerprint, library_fingerprint
from backtest_kit._walker.store import TrialKey
from backtest_kit._walker.trial import TrialSetup


async def trial_keys(
    setup: TrialSetup, strategies: Sequence[StrategySchema]
) -> list[TrialKey | None]:
    """Return the key of each strategy's trial.

    `None` for a strategy that has no fingerprint, and for all of them if the candles have none.
    """
    engine, exchange = setup.engine, setup.exchange
    try:
        data = await market_fingerprint(setup)
    except FingerprintError as error:
        engine.logger.warning("no trial is kept or resumed: exchange %r: %s", exchange.name, error)
        return [None] * len(strategies)
    except Exception:  # noqa: BLE001 - each trial will raise it again, and report it
        return [None] * len(strategies)
    hours = await data_identity(setup)
    return [_key_or_none(setup, strategy, data, hours) for strategy in strategies]


def _key_or_none(
    setup: TrialSetup, strategy: StrategySchema, data: str, hours: bytes
) -> TrialKey | None:
    engine = setup.engine
    risks = [[*(setup.risks or engine.risks).get(name).validations] for name in strategy.risk_names]
    asked = (strategy.get_signal, strategy.get_signals, strategy.make, strategy.manage)
    code = (*asked, risks)
    options: tuple[object, ...] = (strategy.interval, strategy.warmup, strategy.risk_names)
    options += (strategy.manage_interval,)
    named = (strategy.sizing_name,) if strategy.sizing_name is not None else ()
    options += terms_of_account(setup, [(setup.sizings or engine.sizings).get(n) for n in named])
    try:
        variant, unseen = examine(settings_fingerprint(engine), options, code)
    except FingerprintError as error:
        engine.logger.warning(
            "strategy %r is not kept, and runs each time: %s", strategy.name, error
        )
        return None
    key = trial_key(setup, strategy.name, variant, data, hours)
    return msgspec.structs.replace(key, unseen=unseen)


def terms_of_account(setup: TrialSetup, sizings: Sequence[SizingSchema]) -> tuple[object, ...]:
    """Return what of account and sizings the money of a trial hangs on; nothing without one.

    What they are called does not count.
    """
    if setup.account is None:
        return ()
    unnamed = {"account_name": "", "sizing_name": "", "note": "", "callbacks": None}
    return tuple(msgspec.structs.asdict(schema) | unnamed for schema in (setup.account, *sizings))


def terms_of_all(setup: TrialSetup) -> tuple[object, ...]:
    """Return what strategies that are not known yet may hang on: all that they may name."""
    engine = setup.engine
    risks = {risk.name: [*risk.validations] for risk in (setup.risks or engine.risks).list()}
    sizings = (setup.sizings or engine.sizings).list()
    named = [sizing.name for sizing in sizings] if setup.account is not None else []
    return risks, named, *terms_of_account(setup, sizings)


def trial_key(
    setup: TrialSetup, strategy_name: str, variant: str, data: str, hours: bytes = b""
) -> TrialKey:
    """Return the key of a trial from the fingerprints of the variant and of the candles.

    `hours` is the identity of the candles in the frame (`data_identity`).
    """
    line = setup.frame.timeline
    # user code can ask for these names, so that figures may depend on them
    names = (strategy_name, setup.exchange.name, setup.frame.name, setup.symbols)
    calendar = setup.exchange.calendar
    times = (line.start, line.stop, line.step, [(w.since, w.until) for w in setup.windows])
    whole = fingerprint(library_fingerprint(), variant, names, times, data, calendar)
    return TrialKey(whole, variant, setup.symbols, line[0], line[-1], hours)


def settings_fingerprint(engine: Engine) -> str:
    """Return the fingerprint of an engine's settings."""
    return fingerprint(msgspec.structs.asdict(engine.config))


async def market_fingerprint(setup: TrialSetup) -> str:
    """Return the fingerprint of the candles, and with an account of what the markets allow.

    Raises:
        FingerprintError, BacktestKitError, OSError: as `data_fingerprint` and `markets_of`.
    """
    data = await data_fingerprint(setup.exchange)
    if setup.account is None:
        return data
    return fingerprint(data, await markets_of(setup.exchange, setup.symbols))


async def data_fingerprint(exchange: ExchangeSchema) -> str:
    """Return the fingerprint of an exchange's candles, and of the code that returns them.

    Raises:
        FingerprintError: the exchange can't tell whether its candles are the same.
        BacktestKitError, OSError: the candles can't be had.
    """
    owner = getattr(exchange.get_candles, "__self__", None)
    content_digest = getattr(owner, "content_digest", None)
    if content_digest is None:
        raise FingerprintError(
            "it can't tell whether its candles are the same; import them into a file, or give it a "
            "method content_digest()"
        )
    formats = [
        fingerprint(function)
        for function in (exchange.format_price, exchange.format_quantity)
        if getattr(function, "__self__", None) is not owner
    ]
    plain = {name: v for name, v in vars(owner).items() if isinstance(v, bool | int | float | str)}
    return fingerprint(await asyncio.to_thread(content_digest), type(owner), plain, formats)

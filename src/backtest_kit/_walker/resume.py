"""Trials that are run once: under a fingerprint of all that their figures depend on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from backtest_kit._engine.engine import Engine
from backtest_kit._statistics.trial import Trial
from backtest_kit._values.content import digest, digest_library
from backtest_kit._values.errors import BacktestKitError, FingerprintError
from backtest_kit._values.schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._walker.store import TrialKey, WalkStore
from backtest_kit._walker.walk import Trials


class Kept:
    """Trials of which a store keeps those that are finished; what it knows is not run again.

    `make` returns where the others are run. A strategy that has no fingerprint, and all where the
    candles have none, are run as ever, and not kept. `again`: what is known is run again, too.
    """

    def __init__(
        self,
        engine: Engine,
        strategies: Sequence[StrategySchema],
        symbols: Sequence[str],
        exchange: ExchangeSchema,
        frame: FrameSchema,
        store: WalkStore,
        make: Callable[[Sequence[StrategySchema]], Trials],
        *,
        again: bool = False,
    ) -> None:
        self._engine = engine
        self._strategies = strategies
        self._rest = (symbols, exchange, frame)
        self._store = store
        self._make = make
        self._again = again
        #: Trials of this walk that the store does not count: failed ones, and without a key.
        self._uncounted = 0
        self._keys: list[TrialKey | None] = []
        self._places: list[int] = []
        self._trials: Trials | None = None
        self._found: dict[int, Trial] = {}

    @property
    def known(self) -> int:
        """See `Trials`."""
        return len(self._found)

    async def open(self) -> None:
        """See `Trials`.

        Raises:
            StateError: the store can't be read.
        """
        symbols, exchange, frame = self._rest
        self._keys = await keys(self._engine, self._strategies, symbols, exchange, frame)
        wanted = [] if self._again else [key for key in self._keys if key is not None]
        found = self._store.find(wanted)
        for i, key in enumerate(self._keys):
            if key is not None and key.fingerprint in found:
                self._found[i] = found[key.fingerprint]
        if self._found:
            self._engine.logger.info(
                "%d of %d strategies are known from %s, and not run again",
                len(self._found),
                len(self._strategies),
                self._store.path,
            )
        left = [s for i, s in enumerate(self._strategies) if i not in self._found]
        self._places = [i for i in range(len(self._strategies)) if i not in self._found]
        self._trials = self._make(left)
        await self._trials.open()

    async def trial(self, index: int) -> Trial:
        """See `Trials`; it is durable before it is returned.

        Raises:
            StateError: it can't be stored.
        """
        if index in self._found:
            return self._found[index]
        assert self._trials is not None
        self._uncounted += 1
        trial = await self._trials.trial(self._places.index(index))
        key = self._keys[index]
        if key is not None:
            await asyncio.to_thread(self._store.put, key, trial)
            self._uncounted -= 1
        return trial

    async def close(self) -> None:
        """See `Trials`."""
        if self._trials is not None:
            await self._trials.close()

    def tried(self) -> int:
        """Return how many variants were ever tried on these symbols and about this time."""
        symbols, _, frame = self._rest
        stored = self._store.tried(symbols, frame.timeline[0], frame.timeline[-1])
        return stored + self._uncounted


async def keys(
    engine: Engine,
    strategies: Sequence[StrategySchema],
    symbols: Sequence[str],
    exchange: ExchangeSchema,
    frame: FrameSchema,
) -> list[TrialKey | None]:
    """Return the key of each strategy's trial, `None` where it can't be told what it depends on."""
    try:
        data = await digest_data(exchange)
    except FingerprintError as error:
        engine.logger.warning("no trial is kept or resumed: exchange %r: %s", exchange.name, error)
        return [None] * len(strategies)
    except (BacktestKitError, OSError):  # each trial will meet this, and say it
        return [None] * len(strategies)
    found: list[TrialKey | None] = []
    for strategy in strategies:
        risks = [engine.risks.get(name).validations for name in strategy.risk_names]
        ways = (strategy.get_signal, strategy.get_signals, strategy.make)
        asked = (*ways, [[*checks] for checks in risks])
        plain = (strategy.interval, strategy.warmup, strategy.risk_names)
        try:
            variant = digest(settings(engine), plain, asked)
        except FingerprintError as error:
            engine.logger.warning(
                "strategy %r is not kept, and runs each time: %s", strategy.name, error
            )
            found.append(None)
        else:
            found.append(key_of(variant, strategy.name, symbols, exchange, frame, data))
    return found


def settings(engine: Engine) -> str:
    """Return the digest of an engine's settings."""
    return digest(msgspec.structs.asdict(engine.config))


def key_of(
    variant: str,
    name: str,
    symbols: Sequence[str],
    exchange: ExchangeSchema,
    frame: FrameSchema,
    data: str,
) -> TrialKey:
    """Return the key of a variant's trial on candles of a digest."""
    line = frame.timeline
    # names can be asked for, so that figures may depend on them
    names = (name, exchange.name, frame.name, tuple(symbols))
    fingerprint = digest(digest_library(), variant, names, (line.start, line.stop, line.step), data)
    return TrialKey(fingerprint, variant, tuple(symbols), line[0], line[-1])


async def digest_data(exchange: ExchangeSchema) -> str:
    """Return the digest of an exchange's candles, and of the code that hands them out.

    Raises:
        FingerprintError: the exchange can't tell what it answers with.
        BacktestKitError, OSError: the candles can't be had.
    """
    owner = getattr(exchange.get_candles, "__self__", None)
    whole = getattr(owner, "content_digest", None)
    if whole is None:
        raise FingerprintError(
            "it can't tell whether its candles are the same; import them into a file, or give it a "
            "method content_digest()"
        )
    formats = [
        digest(function)
        for function in (exchange.format_price, exchange.format_quantity)
        if getattr(function, "__self__", None) is not owner
    ]
    plain = {name: v for name, v in vars(owner).items() if isinstance(v, bool | int | float | str)}
    return digest(await asyncio.to_thread(whole), type(owner), plain, formats)

"""Trials that are run once: under a fingerprint of all that their figures depend on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from backtest_kit._digest import digest, digest_library
from backtest_kit._engine import Engine
from backtest_kit._errors import BacktestKitError, DataRangeError, FingerprintError
from backtest_kit._schemas import ExchangeSchema, FrameSchema, StrategySchema
from backtest_kit._time import MINUTE
from backtest_kit._trades import Trial
from backtest_kit._walk import Trials
from backtest_kit._walk_store import TrialKey, WalkStore

#: Candles of which the digest is taken at a time.
_PIECE: Final = 50_000


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
        trial = await self._trials.trial(self._places.index(index))
        key = self._keys[index]
        if key is not None:
            await asyncio.to_thread(self._store.put, key, trial)
        return trial

    async def close(self) -> None:
        """See `Trials`."""
        if self._trials is not None:
            await self._trials.close()

    def tried(self) -> int:
        """Return how many variants were ever tried on these symbols and about this time."""
        symbols, _, frame = self._rest
        return self._store.tried(symbols, frame.timeline[0], frame.timeline[-1])


async def keys(
    engine: Engine,
    strategies: Sequence[StrategySchema],
    symbols: Sequence[str],
    exchange: ExchangeSchema,
    frame: FrameSchema,
) -> list[TrialKey | None]:
    """Return the key of each strategy's trial, `None` where it can't be told what it depends on."""
    try:
        data = await digest_data(engine, symbols, exchange, frame)
    except FingerprintError as error:
        engine.logger.warning("no trial is kept or resumed: exchange %r: %s", exchange.name, error)
        return [None] * len(strategies)
    except (BacktestKitError, OSError):  # each trial will meet this, and say it
        return [None] * len(strategies)
    return [key_of(engine, strategy, symbols, frame, data) for strategy in strategies]


def key_of(
    engine: Engine,
    strategy: StrategySchema,
    symbols: Sequence[str],
    frame: FrameSchema,
    data: str,
) -> TrialKey | None:
    """Return the key of a trial on candles of a digest, `None` where the code has none."""
    line = frame.timeline
    risks = [engine.risks.get(name).validations for name in strategy.risk_names]
    asked = (strategy.get_signal, strategy.get_signals, [[*checks] for checks in risks])
    try:
        variant = digest(
            digest(msgspec.structs.asdict(engine.config)),
            (strategy.interval, strategy.warmup, strategy.risk_names),
            asked,
        )
    except FingerprintError as error:
        engine.logger.warning(
            "strategy %r is not kept, and runs each time: %s", strategy.name, error
        )
        return None
    frames = (line.start, line.stop, line.step)
    name = strategy.name  # it can be asked for, so that figures may depend on it
    fingerprint = digest(digest_library(), variant, name, tuple(symbols), frames, data)
    return TrialKey(fingerprint, variant, tuple(symbols), line[0], line[-1])


async def digest_data(
    engine: Engine, symbols: Sequence[str], exchange: ExchangeSchema, frame: FrameSchema
) -> str:
    """Return the digest of an exchange's candles.

    Of recorded ones, all there are. Of others, the 1m candles of the symbols from the frame's start
    to the end of the longest life, and the code that asks for them.

    Raises:
        BacktestKitError, OSError: the candles can't be had, or the code has no digest.
    """
    whole = getattr(getattr(exchange.get_candles, "__self__", None), "content_digest", None)
    if whole is not None:
        return str(await asyncio.to_thread(whole))
    found = hashlib.blake2b(digest(exchange.get_candles).encode(), digest_size=16)
    line = frame.timeline
    end = line[-1] + engine.config.max_signal_lifetime_minutes * MINUTE
    for symbol in symbols:
        for since in range(line[0], end, _PIECE * MINUTE):
            until = min(since + _PIECE * MINUTE, end)
            try:
                segment = await engine.store.load(
                    exchange, symbol, "1m", since, until, engine.config
                )
            except DataRangeError:  # the data begin later, or have ended
                continue
            begin = max(since // MINUTE - segment.first_index, 0)
            stop = max(until // MINUTE - segment.first_index, 0)
            found.update(f"{symbol} {max(since, segment.first)}".encode())
            for column in segment.columns:
                found.update(column[begin:stop].tobytes())
    return found.hexdigest()

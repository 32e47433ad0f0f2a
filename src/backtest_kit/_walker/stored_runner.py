"""Trials that are run only once: their results are stored, and found again by fingerprint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from backtest_kit._statistics.trial_result import OtherTrial, TrialResult
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._walker.runner import TrialRunner
from backtest_kit._walker.store import TrialKey, WalkStore
from backtest_kit._walker.trial import TrialSetup
from backtest_kit._walker.trial_keys import trial_keys
from backtest_kit._walker.unseen import warn_of_unseen


class StoredRunner:
    """Returns stored results, and stores those of the trials that another runner runs.

    `make_runner` returns the runner of the trials that are not stored yet. A strategy without a
    fingerprint is run each time and never stored; so are all of them if the candles have none.
    `rerun`: ignore stored results and run every strategy.
    """

    def __init__(
        self,
        setup: TrialSetup,
        strategies: Sequence[StrategySchema],
        store: WalkStore,
        make_runner: Callable[[Sequence[StrategySchema]], TrialRunner],
        *,
        rerun: bool = False,
    ) -> None:
        self._setup = setup
        self._strategies = strategies
        self._store = store
        self._make_runner = make_runner
        self._rerun = rerun
        #: Trials of this walk that the store does not count: failed ones, and those without a key.
        self._not_counted = 0
        self._keys: list[TrialKey | None] = []
        #: Trials whose results were returned.
        self._told: set[int] = set()
        #: What the strategies read that fingerprints don't cover.
        self.unseen: tuple[str, ...] = ()
        self._stored: dict[int, TrialResult] = {}
        self._runner: TrialRunner | None = None
        #: The runner's index of each trial that is not stored.
        self._runner_index: dict[int, int] = {}

    @property
    def already_known(self) -> int:
        """How many results were in the store when the runner was opened."""
        return len(self._stored)

    async def open(self) -> None:
        """Look up all trials, and open a runner for those that are not stored.

        Raises:
            StateError: the store can't be read.
        """
        self._keys = await trial_keys(self._setup, self._strategies)
        keys = [key for key in self._keys if key is not None]
        self.unseen = tuple(dict.fromkeys(what for key in keys for what in key.unseen))
        remedy = "run them again (--again), or take another store"
        warn_of_unseen(self._setup.engine.logger, self.unseen, remedy)
        wanted = [] if self._rerun else [key for key in self._keys if key is not None]
        found = await asyncio.to_thread(self._store.find, wanted)
        self._stored = {
            index: found[key.fingerprint]
            for index, key in enumerate(self._keys)
            if key is not None and key.fingerprint in found
        }
        if self._stored:
            self._setup.engine.logger.info(
                "%d of %d strategies are known from %s, and not run again",
                len(self._stored),
                len(self._strategies),
                self._store.path,
            )
        left = [index for index in range(len(self._strategies)) if index not in self._stored]
        self._runner_index = {index: place for place, index in enumerate(left)}
        self._runner = self._make_runner([self._strategies[index] for index in left])
        await self._runner.open()

    async def run(self, index: int) -> TrialResult:
        """Return a stored result, or run the trial and store its result before returning it.

        Raises:
            StateError: the result can't be stored.
        """
        if index not in self._stored:
            result = await self._run(index)
        else:
            result = self._stored[index]
        self._told.add(index)
        return result

    async def _run(self, index: int) -> TrialResult:
        assert self._runner is not None
        self._not_counted += 1
        try:
            result = await self._runner.run(self._runner_index[index])
            key = self._keys[index]
            if key is not None:
                await asyncio.to_thread(self._store.put, key, result)
                self._not_counted -= 1
        except asyncio.CancelledError:  # nothing came of it, or what did is in the store
            self._not_counted -= 1
            raise
        return result

    async def close(self) -> None:
        """Close the runner of the trials that were not stored."""
        if self._runner is not None:
            await self._runner.close()

    def variants_tried(self) -> int:
        """Return how many variants were ever tried on these candles over an overlapping period."""
        line = self._setup.frame.timeline
        hours = next((key.hours for key in self._keys if key is not None), b"")
        stored = self._store.variants_tried(self._setup.symbols, line[0], line[-1], hours)
        return stored + self._not_counted

    def others_tried(self) -> Sequence[OtherTrial]:
        """Return the trades of what else was tried on these candles, as far as they are stored."""
        line = self._setup.frame.timeline
        keys = [key for key in self._keys if key is not None]
        hours = next((key.hours for key in keys), b"")
        told = [self._keys[index] for index in self._told]
        own = {key.variant for key in told if key is not None}
        return self._store.trades_of_others(line[0], line[-1], hours, own)

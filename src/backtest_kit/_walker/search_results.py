"""The results of strategies that a search tries: from memory, from a store, or from a run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from backtest_kit._statistics.figures import metric as metric_of
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.errors import StateError, StrategyFailedError
from backtest_kit._values.schemas import ACCOUNT_METRICS, AccountMetric, Metric, StrategySchema
from backtest_kit._walker.fingerprint import fingerprint
from backtest_kit._walker.pool_runner import ExecutorLostError
from backtest_kit._walker.runner import GrowingRunner
from backtest_kit._walker.store import TrialKey, WalkStore
from backtest_kit._walker.trial import PARTS, TrialSetup, end_of_part
from backtest_kit._walker.trial_keys import settings_fingerprint, trial_key


class SearchResults:
    """Results by the names of strategies, so that no parameters are run twice.

    A `store` keeps whole results. `code` and `data` are the fingerprints of the factory and of the
    candles; without them nothing is stored.
    """

    def __init__(self, setup: TrialSetup, store: WalkStore | None, runner: GrowingRunner) -> None:
        self._setup = setup
        self._store = store
        self._runner = runner
        self._results: dict[str, TrialResult] = {}
        #: Of strategies that failed: neither run nor told of again.
        self._failures: dict[str, Exception] = {}
        self.code: str | None = None
        self.data = ""
        #: What candles the trials are over (`data_identity`), for the ledger.
        self.hours = b""

    async def run(
        self, strategies: Sequence[StrategySchema], parts: int
    ) -> list[TrialResult | Exception]:
        """Return the result or the error of each strategy over the first parts of the frame.

        Whole results are kept.

        Raises:
            StateError: the store can't be read or written.
            WorkerError: the executor takes no more work.
        """
        distinct = {schema.name: schema for schema in strategies}
        keys = {name: self._key(schema) for name, schema in distinct.items()}
        found: dict[str, TrialResult | Exception] = {**self._failures}
        # what an account came to by then does not show in what it came to at the end
        if parts == PARTS or self._setup.account is None:
            await self._find({n: key for n, key in keys.items() if key and n not in self._results})
            found |= self._results
        left = [schema for name, schema in distinct.items() if name not in found]
        for schema, index in zip(left, self._runner.add(left, parts), strict=True):
            name = schema.name
            try:
                found[name] = result = await self._runner.run(index)
            except (StateError, ExecutorLostError):
                raise
            except Exception as error:  # noqa: BLE001 - a strategy that fails is skipped
                found[name] = error
                if parts == PARTS and isinstance(error, StrategyFailedError):
                    self._failures[name] = error
            else:
                if parts == PARTS:
                    await self._put(keys[name], result)
                    self._results[name] = result
        return [found[schema.name] for schema in strategies]

    def count_as_tried(self, schema: StrategySchema) -> None:
        """Count a strategy in the ledger whose trial was ended early."""
        key = self._key(schema)
        if key is not None and self._store is not None:
            self._store.put(key, None)

    def variant(self, strategy_name: str) -> str:
        """Return as what variant a strategy of the search is in the ledger."""
        # of the factory as it was at the beginning, whatever its code has noted since
        return fingerprint(settings_fingerprint(self._setup.engine), self.code, strategy_name)

    def _key(self, schema: StrategySchema) -> TrialKey | None:
        if self._store is None or self.code is None:
            return None
        variant = self.variant(schema.name)
        return trial_key(self._setup, schema.name, variant, self.data, self.hours)

    async def _find(self, keys: Mapping[str, TrialKey]) -> None:
        """Look for results in the store."""
        if self._store is not None and keys:
            stored = await asyncio.to_thread(self._store.find, [*keys.values()])
            for name, key in keys.items():
                if key.fingerprint in stored:
                    self._results[name] = stored[key.fingerprint]

    async def _put(self, key: TrialKey | None, result: TrialResult) -> None:
        if key is not None and self._store is not None:
            await asyncio.to_thread(self._store.put, key, result)


def metric_by_part(
    setup: TrialSetup, result: TrialResult, metric: Metric | AccountMetric, parts: int
) -> dict[int, float | None]:
    """Return the metric after each of the first parts of the frame, by the trades until then.

    That of an account is known after all `parts` alone. `None` where it is not defined.
    """
    if metric in ACCOUNT_METRICS:
        return {parts: result.metric(metric)} if parts < PARTS else {}
    line, trades = setup.frame.timeline, result.trades
    found = {}
    for part in range(1, min(parts, PARTS - 1) + 1):
        end = end_of_part(line, part)
        n = int(np.searchsorted(trades.closed_at, end, side="right"))
        columns = trades.r[:n], trades.opened_at[:n], trades.closed_at[:n]
        found[part] = metric_of(summarize(*columns, (line[0], end)), metric)
    return found

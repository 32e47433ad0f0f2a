"""A search with Optuna: one trial after another, each chosen from the results so far."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtest_kit._engine.engine import describe
from backtest_kit._engine.record import RunRecord
from backtest_kit._engine.walk_events import WalkerProgressEvent
from backtest_kit._statistics.figures import metric as metric_of
from backtest_kit._statistics.figures import summarize
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.errors import (
    BacktestKitError,
    RegistrationError,
    StateError,
    StrategyFailedError,
)
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import StrategySchema
from backtest_kit._walker.data_identity import data_identity
from backtest_kit._walker.fingerprint import fingerprint, library_fingerprint
from backtest_kit._walker.grid import make_strategy
from backtest_kit._walker.store import TrialKey, WalkStore
from backtest_kit._walker.trial import AfterClose, TrialSetup, joined_trades, run_trial
from backtest_kit._walker.trial_keys import data_fingerprint, settings_fingerprint, trial_key

if TYPE_CHECKING:
    import optuna

#: After each of so many equal parts of the frame but the last, a pruner may end a trial.
PRUNING_STEPS: Final = 10
#: The attribute of an Optuna trial that failed, with the reason.
_FAILURE: Final = "why"


class _Pruned(Exception):  # noqa: N818 - an outcome
    pass


class Study:
    """An Optuna study over the parameters of a strategy: `begin`, then `run`, then its results.

    `store` keeps the study and the results of trials; without one, both end with the process.
    """

    def __init__(
        self,
        setup: TrialSetup,
        factory: Callable[..., Any],
        metrics: tuple[str, ...],
        name: str,
        store: WalkStore | None,
    ) -> None:
        self._setup = setup
        self._engine = setup.engine
        self._factory = factory
        self._metrics = metrics
        self._name = name
        self._store = store
        self._data = ""
        #: What candles the trials are over (`data_identity`), for the ledger.
        self.hours = b""
        self._code: str | None = None
        #: Results by the name of the strategy, so that no parameters are run twice.
        self._results: dict[str, TrialResult] = {}
        #: Failures by the name of the strategy: neither run nor told of again.
        self._failures: dict[str, StrategyFailedError] = {}
        self._told: set[str] = set()

    def begin(
        self,
        parameters: Mapping[str, Any],
        seed: int,
        sampler: Any,
        pruner: optuna.pruners.BasePruner | None,
        storage: Any,
    ) -> None:
        """Create the Optuna study, or load it from its storage.

        Raises:
            RegistrationError: a parameter or the pruner is wrong.
            BacktestKitError: Optuna is not installed.
            StateError: the store can't be read or written.
        """
        self._optuna = optuna = _optuna()
        self._space = {name: _distribution(optuna, name, v) for name, v in parameters.items()}
        if not self._space:
            raise RegistrationError("search: parameters is empty; name at least one")
        if pruner is not None and len(self._metrics) > 1:
            raise RegistrationError("search: a pruner takes a single metric")
        self._prunes = pruner is not None
        self._seed = seed
        self._sampler = sampler
        folder = None if self._store is None or storage is not None else self._store.path.parent
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                storage = f"sqlite:///{(folder / 'optuna.db').absolute()}"
            self.study = optuna.create_study(
                storage=storage,
                study_name=self._name,
                directions=["maximize"] * len(self._metrics),
                pruner=pruner or optuna.pruners.NopPruner(),
                sampler=self._sampler_for(0),
                load_if_exists=True,
            )
        except Exception as error:
            if folder is None:
                raise
            raise StateError(
                f"the study in {folder / 'optuna.db'} can't be used: {describe(error)}; make the "
                "folder writable, choose another one, or move the file away to start over"
            ) from error
        self._is_stored = storage is not None
        self._done = self._total = 0
        self._over = False

    async def run(self, trials: int) -> None:
        """Run trials until there are `trials` in all, those of earlier processes included.

        Raises:
            RegistrationError: the stored study is of something else, or has no fingerprint.
            StateError: the store can't be read or written.
        """
        try:
            self._data = await data_fingerprint(self._setup.exchange)
            if self._store is not None:
                self.hours = await data_identity(self._setup)
            risks = {
                risk.name: [*risk.validations]
                for risk in (self._setup.risks or self._engine.risks).list()
            }
            self._code = fingerprint(self._factory, risks)
            whole = self._fingerprint()
        except (BacktestKitError, OSError) as error:
            if self._is_stored:
                raise RegistrationError(
                    f"search {self._name!r} can't be stored, since it could not be told later "
                    f"whether its code and candles are the same: {error}"
                ) from error
        else:
            self._check_same(whole)
        self._done = await asyncio.to_thread(self._count_done)
        if self._done < trials:
            self._total = trials
            self._loop = asyncio.get_running_loop()
            # Optuna is not async: in a thread it asks for trials, which run in this loop
            try:
                await asyncio.to_thread(self._optimize, trials - self._done)
            finally:
                self._over = True
        await self._engine.bus.drain()

    async def finished(self) -> list[TrialResult]:
        """Return the results of Optuna's complete trials, in order.

        Without a store, trials of an earlier process are run again to get their figures.
        """
        state = self._optuna.trial.TrialState
        complete = self.study.get_trials(deepcopy=False, states=(state.COMPLETE,))
        results = []
        for optuna_trial in complete:
            schema = self.schema(optuna_trial.params)
            assert schema is not None
            results.append(await self._result_of(schema))
        return results

    def counts(self) -> tuple[int, int, int]:
        """Return how many trials were pruned, how many failed, and how many variants there were."""
        state = self._optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        return (
            sum(trial.state == state.PRUNED for trial in trials),
            sum(_FAILURE in trial.user_attrs for trial in trials),
            len({str(sorted(trial.params.items())) for trial in trials if trial.params}),
        )

    def parameters(self, optuna_trial: Any) -> dict[str, Any]:
        """Return the parameters of an Optuna trial, in the order in which they were given."""
        return {name: optuna_trial.params[name] for name in self._space}

    def schema(self, chosen: Mapping[str, Any]) -> StrategySchema | None:
        """Return the strategy with these parameters; `None` if the factory leaves them out."""
        return make_strategy(self._factory, {name: chosen[name] for name in self._space})

    def _fingerprint(self) -> str:
        """Return the fingerprint of all that the values of this study depend on."""
        frame, exchange = self._setup.frame, self._setup.exchange
        line = frame.timeline
        return fingerprint(
            library_fingerprint(),
            (settings_fingerprint(self._engine), self._code, exchange.name, frame.name),
            (self._setup.symbols, (line.start, line.stop, line.step), self._data, self._metrics),
            {name: repr(distribution) for name, distribution in self._space.items()},
            self._seed,
        )

    def _check_same(self, whole: str) -> None:
        """Refuse to go on with a study that was begun with something else."""
        known = self.study.user_attrs.get("fingerprint")
        if known is not None and known != whole:
            raise RegistrationError(
                f"search {self._name!r} was begun with other code, candles, parameters, metrics, "
                "settings or another seed, or its code has changed a global variable since (then "
                "start a new process); give it another study_name"
            )
        if known is None:
            self.study.set_user_attr("fingerprint", whole)

    def _count_done(self) -> int:
        """Mark trials that a killed process left running as failed; return how many are done."""
        state = self._optuna.trial.TrialState
        for left in self.study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            self.study.tell(left.number, state=state.FAIL)
        return sum(
            trial.state in (state.COMPLETE, state.PRUNED) or _FAILURE in trial.user_attrs
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _sampler_for(self, number: int) -> Any:
        """Return the sampler for a trial; it depends on the trial's number and on nothing else."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._sampler is None:
            return self._optuna.samplers.TPESampler(seed=seed)
        if isinstance(self._sampler, self._optuna.samplers.BaseSampler):
            return self._sampler
        return self._sampler(seed)

    def _optimize(self, trials: int) -> None:
        self.study.sampler = self._sampler_for(self._done)
        # Optuna would tell of each failed trial twice, and not why
        logger = logging.getLogger("optuna.study._optimize")
        logger.addFilter(_tells_of_no_failure)
        try:
            self.study.optimize(self._objective, n_trials=trials, callbacks=[self._after_trial])
        finally:
            logger.removeFilter(_tells_of_no_failure)

    def _objective(self, optuna_trial: Any) -> tuple[float, ...] | None:
        """Run the trial that Optuna asks for, and return the values of the metrics."""
        if self._over:
            raise CancelledError
        schema = self.schema({n: _suggest(optuna_trial, n, of) for n, of in self._space.items()})
        try:
            if schema is None:
                raise RegistrationError("the factory leaves these parameters out")
            work = self._result_of(schema, optuna_trial if self._prunes else None)
            result = asyncio.run_coroutine_threadsafe(work, self._loop).result()
            values = self._values(result)
            if values is None:
                raise BacktestKitError(f"{' or '.join(self._metrics)} is no finite number")
        except _Pruned:
            raise self._optuna.TrialPruned from None
        except (StateError, CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - a strategy that fails is skipped
            if isinstance(error, StrategyFailedError) and schema is not None:
                self._failures[schema.name] = error
            optuna_trial.set_user_attr(_FAILURE, describe(error))
            return None  # to Optuna, a trial that failed
        return values

    def _values(self, result: TrialResult) -> tuple[float, ...] | None:
        if result.statistics is None:
            return None
        values = [metric_of(result.statistics, name) for name in self._metrics]
        found = tuple(value for value in values if value is not None)
        return found if len(found) == len(values) else None

    def _after_trial(self, study: Any, optuna_trial: Any) -> None:
        """Report a trial, and make the sampler of the next one."""
        self._done += 1
        self.study.sampler = self._sampler_for(self._done)
        self._loop.call_soon_threadsafe(self._report, optuna_trial)

    def _report(self, optuna_trial: Any) -> None:
        """Report a failure as an error event, and the progress to its listeners."""
        bus = self._engine.bus
        why, chosen = optuna_trial.user_attrs.get(_FAILURE), str(optuna_trial.params)
        if why is not None and chosen not in self._told:
            self._told.add(chosen)
            why = why.removeprefix(f"{StrategyFailedError.__name__}: ")
            error = StrategyFailedError(f"search {self._name!r}, {optuna_trial.params}: {why}")
            self._engine.report(ErrorEvent(where="search", error=error))
        if bus.wanted("walker_progress"):
            event = WalkerProgressEvent(
                walker_name=self._name,
                symbols=self._setup.symbols,
                exchange_name=self._setup.exchange.name,
                frame_name=self._setup.frame.name,
                total_strategies=self._total,
                processed_strategies=optuna_trial.number + 1,
                progress=min(1.0, (optuna_trial.number + 1) / self._total),
            )
            bus.emit(event, "walker_progress")

    async def _result_of(self, schema: StrategySchema, optuna_trial: Any = None) -> TrialResult:
        """Return the result of a strategy: from memory, from the store, or from a run.

        With an `optuna_trial`, run it in any case, and report to Optuna, which may prune it.
        """
        if schema.name in self._results:
            return self._results[schema.name]
        if schema.name in self._failures:
            raise self._failures[schema.name]
        key = self._key(schema)
        result = None
        if key is not None and self._store is not None and optuna_trial is None:
            result = self._store.find([key]).get(key.fingerprint)
        try:
            if result is None:
                result = await run_trial(self._setup, schema, self._pruning(optuna_trial))
        except _Pruned:
            await self._put(key, None)
            raise
        await self._put(key, result)
        self._results[schema.name] = result
        return result

    def _key(self, schema: StrategySchema) -> TrialKey | None:
        if self._store is None or self._code is None:
            return None
        # of the factory as it was at the beginning, whatever its code has noted since
        variant = fingerprint(settings_fingerprint(self._engine), self._code, schema.name)
        return trial_key(self._setup, schema.name, variant, self._data, self.hours)

    async def _put(self, key: TrialKey | None, result: TrialResult | None) -> None:
        if key is not None and self._store is not None:
            await asyncio.to_thread(self._store.put, key, result)

    def _pruning(self, optuna_trial: Any) -> AfterClose | None:
        """Return what reports the metric so far to an Optuna trial, and raises if it is pruned."""
        if optuna_trial is None:
            return None
        line, metric = self._setup.frame.timeline, self._metrics[0]
        length = line[-1] - line[0]
        ends = [
            (step, line[0] + length * step // PRUNING_STEPS) for step in range(1, PRUNING_STEPS)
        ]

        def report(records: Sequence[RunRecord]) -> None:
            while ends and min(record.until for record in records) >= ends[0][1]:
                step, end = ends.pop(0)
                r, opened, closed, *_ = joined_trades(records)
                n = int(np.searchsorted(closed, end, side="right"))
                value = metric_of(summarize(r[:n], opened[:n], closed[:n], (line[0], end)), metric)
                if value is not None:
                    optuna_trial.report(value, step)
                    if optuna_trial.should_prune():
                        raise _Pruned

        return report


def _tells_of_no_failure(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise BacktestKitError("search needs Optuna: pip install 'backtest-kit[optuna]'") from None
    return optuna


def _suggest(optuna_trial: Any, name: str, of: Any) -> Any:
    """Return the value that Optuna chooses for a parameter."""
    kind = type(of).__name__
    if kind == "CategoricalDistribution":
        return optuna_trial.suggest_categorical(name, of.choices)
    integer = kind == "IntDistribution"
    suggest = optuna_trial.suggest_int if integer else optuna_trial.suggest_float
    return suggest(name, of.low, of.high, step=of.step, log=of.log)


def _distribution(optuna: Any, name: str, given: Any) -> Any:
    """Return the Optuna distribution of a parameter."""
    of = optuna.distributions
    if isinstance(given, of.BaseDistribution):
        return given
    if isinstance(given, range) and len(given) and given.step > 0:
        return of.IntDistribution(given.start, given[-1], step=given.step)
    if isinstance(given, str) or not isinstance(given, Iterable) or not (values := [*given]):
        raise RegistrationError(
            f"search: {name}={given!r} must be a range, a list of values, or a distribution of "
            "Optuna's"
        )
    simple = all(value is None or isinstance(value, bool | int | float | str) for value in values)
    if simple and len(set(values)) == len(values):
        return of.CategoricalDistribution(values)
    raise RegistrationError(f"search: {name} must list numbers, strings or booleans, each once")

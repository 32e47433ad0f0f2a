"""A search with Optuna: batches of trials, each chosen from the results before it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from backtest_kit._engine.engine import describe
from backtest_kit._engine.walk_events import WalkerProgressEvent
from backtest_kit._statistics.trial_result import TrialResult
from backtest_kit._values.errors import (
    BacktestKitError,
    RegistrationError,
    StateError,
    StrategyFailedError,
)
from backtest_kit._values.events import ErrorEvent
from backtest_kit._values.schemas import AccountMetric, Metric, StrategySchema
from backtest_kit._walker.candidate import Candidate
from backtest_kit._walker.data_identity import data_identity
from backtest_kit._walker.fingerprint import examine, fingerprint, library_fingerprint
from backtest_kit._walker.grid import make_strategy
from backtest_kit._walker.runner import GrowingRunner
from backtest_kit._walker.search_results import SearchResults, metric_by_part
from backtest_kit._walker.search_space import Constraints, distributions, optuna_module
from backtest_kit._walker.store import WalkStore
from backtest_kit._walker.trial import PARTS, TrialSetup
from backtest_kit._walker.trial_keys import (
    market_fingerprint,
    settings_fingerprint,
    terms_of_all,
)
from backtest_kit._walker.unseen import warn_of_unseen

if TYPE_CHECKING:
    import optuna

#: With a pruner, trials run over so many parts of the frame, each time from its beginning.
ROUNDS: Final = (1, 3, PARTS)
#: Attributes of an Optuna trial: why it failed; the place of its batch's first trial, the batch's
#: size, and its place in it; up to which part a pruner has judged it.
_FAILURE, _BATCH, _JUDGED = "why", "batch", "judged"


class Study:
    """An Optuna study over the parameters of a strategy: `begin`, then `run`, then its results.

    `store` keeps the study and the results of trials; without one, both end with the process.
    """

    def __init__(
        self,
        setup: TrialSetup,
        factory: Callable[..., Any],
        metrics: tuple[Metric | AccountMetric, ...],
        constraints: Constraints,
        name: str,
        store: WalkStore | None,
        runner: GrowingRunner,
    ) -> None:
        self._setup = setup
        self._engine = setup.engine
        self._factory = factory
        self._metrics = metrics
        self._constraints = constraints
        self._name = name
        self._store = store
        self._results = SearchResults(setup, store, runner)
        self._told: set[str] = set()
        #: What a killed process left of its last batch.
        self._left: list[Candidate] = []
        self._exhausted = False
        #: What the code reads that the fingerprint does not cover, where something is kept.
        self.unseen: tuple[str, ...] = ()
        self._done = self._total = 0

    def begin(
        self,
        parameters: Mapping[str, Any],
        batch: int,
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
        self._optuna = optuna = optuna_module()
        self._space = distributions(parameters)
        if pruner is not None and len(self._metrics) > 1:
            raise RegistrationError("search: a pruner takes a single metric")
        self._prunes = pruner is not None
        self._batch = batch
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

    async def run(self, trials: int) -> None:
        """Run trials until there are `trials` in all, those of earlier processes included.

        Raises:
            RegistrationError: the stored study is of something else, or has no fingerprint.
            StateError: the store can't be read or written.
        """
        try:
            self._results.data = await market_fingerprint(self._setup)
            if self._store is not None:
                self._results.hours = await data_identity(self._setup)
            terms = terms_of_all(self._setup)
            self._results.code, unseen = examine(self._factory, *terms)
            whole = self._fingerprint()
        except Exception as error:
            if self._is_stored:
                raise RegistrationError(
                    f"search {self._name!r} can't be stored, since it could not be told later "
                    f"whether its code and candles are the same: {error}"
                ) from error
        else:
            self._check_same(whole)
            if self._is_stored:
                self.unseen = unseen
                warn_of_unseen(self._engine.logger, unseen, "take another store")
        await asyncio.to_thread(self._resume)
        self._total = trials
        while self._done < trials and not self._exhausted:
            batch = self._left or await asyncio.to_thread(self._ask, trials - self._done)
            self._left = []
            await self._follow(batch)
            await asyncio.to_thread(self._tell_outcomes, batch)
            self._done += len(batch)
            for candidate in batch:
                self._report(candidate.trial)
        await self._engine.bus.drain()

    @property
    def hours(self) -> bytes:
        """What candles the trials are over (`data_identity`)."""
        return self._results.hours

    def variants(self, strategy_names: Iterable[str]) -> frozenset[str]:
        """Return as what variants some strategies of the search are in the ledger."""
        return frozenset(map(self._results.variant, strategy_names))

    async def finished(self) -> tuple[list[TrialResult], list[TrialResult]]:
        """Return the results of Optuna's complete trials, those that break a constraint apart.

        In order. Without a store, trials of an earlier process are run again to get their figures.
        """
        complete = self._complete()
        made = (self.schema(trial.params) for trial in complete)
        results = await self._results.run([schema for schema in made if schema], PARTS)
        found: tuple[list[TrialResult], list[TrialResult]] = [], []
        for trial, result in zip(complete, results, strict=True):
            if isinstance(result, TrialResult):
                found[not _keeps_constraints(trial)].append(result)
        return found

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many trials were pruned, failed, broke a constraint; how many variants."""
        state = self._optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        return (
            sum(trial.state == state.PRUNED for trial in trials),
            sum(_FAILURE in trial.user_attrs for trial in trials),
            sum(not _keeps_constraints(trial) for trial in self._complete()),
            len({str(sorted(trial.params.items())) for trial in trials if trial.params}),
        )

    def _complete(self) -> Sequence[Any]:
        complete = (self._optuna.trial.TrialState.COMPLETE,)
        return self.study.get_trials(deepcopy=False, states=complete)  # type: ignore[no-any-return]

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
            (settings_fingerprint(self._engine), self._results.code, exchange.name, frame.name),
            (
                self._setup.symbols,
                (line.start, line.stop, line.step),
                self._results.data,
                self._metrics,
            ),
            {name: repr(distribution) for name, distribution in self._space.items()},
            (self._seed, self._batch, self._constraints),
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

    def _resume(self) -> None:
        """Find out how many trials are done, and what a killed process has left.

        A batch that Optuna was asked for whole goes on; trials of another are marked as failed, and
        asked for again.
        """
        state = self._optuna.trial.TrialState
        trials = self.study.get_trials(deepcopy=False)
        finished = [t for t in trials if _is_finished(t, state)]
        running = [t for t in trials if t.state == state.RUNNING]
        asked = Counter(tuple(t.user_attrs.get(_BATCH, ())[:2]) for t in (*finished, *running))
        for trial in running:
            first, size, place = trial.user_attrs.get(_BATCH, (0, 0, 0))
            if size and asked[first, size] == size:
                sampler = self.study.sampler = self._sampler_for(first + place)
                again = self._optuna.trial.Trial(self.study, trial._trial_id)  # noqa: SLF001 - there is no other way
                self._left.append(
                    Candidate(
                        again,
                        sampler,
                        self.schema(trial.params),
                        trial.user_attrs.get(_JUDGED, 0),
                        frozenset(trial.intermediate_values),
                    )
                )
            else:
                self.study.tell(trial.number, state=state.FAIL)
        self._done = len(finished)

    def _sampler_for(self, number: int) -> Any:
        """Return the sampler for a trial; it depends on the trial's number and on nothing else."""
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._sampler is None:
            return self._optuna.samplers.TPESampler(seed=seed)
        if isinstance(self._sampler, self._optuna.samplers.BaseSampler):
            return self._sampler
        return self._sampler(seed)

    def _ask(self, most: int) -> list[Candidate]:
        """Ask Optuna for the next batch, knowing the results of those before it."""
        first, size = self._done, min(self._batch, most)
        batch = []
        for place in range(size):
            sampler = self.study.sampler = self._sampler_for(first + place)
            trial = self.study.ask(self._space)
            trial.set_user_attr(_BATCH, (first, size, place))
            batch.append(Candidate(trial, sampler, self.schema(trial.params)))
        return batch

    async def _follow(self, batch: Sequence[Candidate]) -> None:
        """Run the trials of a batch, those that a pruner ends only in part."""
        for candidate in batch:
            if candidate.schema is None:
                error = RegistrationError("the factory leaves these parameters out")
                candidate.why = describe(error)
        for parts in ROUNDS if self._prunes else (PARTS,):
            live = [candidate for candidate in batch if candidate.lives]
            results = await self._results.run(
                [c.schema for c in live if c.schema is not None], parts
            )
            for candidate, result in zip(live, results, strict=True):
                if isinstance(result, Exception):
                    candidate.why = describe(result) if parts == PARTS else None
                    continue
                candidate.result = result
                if self._prunes:
                    candidate.seen = metric_by_part(self._setup, result, self._metrics[0], parts)
            if self._prunes:
                await asyncio.to_thread(self._prune, live, parts)

    def _prune(self, live: Sequence[Candidate], parts: int) -> None:
        """Report the metric after each of the first parts, and end what the pruner gives up.

        All report a part before the pruner judges any by it, so that their order does not matter.
        """
        for part in range(1, min(parts, PARTS - 1) + 1):
            judged = [c for c in live if c.lives and c.judged < part]
            known = [(c, value) for c in judged if (value := c.seen.get(part)) is not None]
            for candidate, value in known:
                if part not in candidate.reported:
                    candidate.trial.report(value, part)
            for candidate, _ in known:
                if candidate.trial.should_prune():
                    candidate.pruned = True
                    self._tell(candidate, state=self._optuna.trial.TrialState.PRUNED)
        for candidate in live:
            if candidate.lives:
                candidate.judged = parts
                candidate.trial.set_user_attr(_JUDGED, parts)

    def _tell_outcomes(self, batch: Sequence[Candidate]) -> None:
        """Tell Optuna what has become of the trials of a batch, in their order."""
        state = self._optuna.trial.TrialState
        for candidate in batch:
            values = None
            if candidate.lives:
                assert candidate.result is not None
                values = self._values(candidate.result)
                if values is None:
                    error = BacktestKitError(f"{' or '.join(self._metrics)} is no finite number")
                    candidate.why = describe(error)
            if candidate.pruned:
                assert candidate.schema is not None
                self._results.count_as_tried(candidate.schema)
            elif values is None:
                candidate.trial.set_user_attr(_FAILURE, candidate.why)
                self._tell(candidate, state=state.FAIL)
            else:
                assert candidate.result is not None
                for name, excess in self._constraints.excess(candidate.result).items():
                    candidate.trial.set_constraint(name, excess)
                self._tell(candidate, values=values)

    def _tell(self, candidate: Candidate, **outcome: Any) -> None:
        self.study.sampler = candidate.sampler
        try:
            self.study.tell(candidate.trial, **outcome)
        except RuntimeError as error:  # so a sampler says that it has nothing left to try
            if "Study.stop" not in str(error):
                raise
            self._exhausted = True

    def _values(self, result: TrialResult) -> tuple[float, ...] | None:
        if result.statistics is None:
            return None
        values = [result.metric(name) for name in self._metrics]
        found = tuple(value for value in values if value is not None)
        return found if len(found) == len(values) else None

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


def _is_finished(trial: Any, state: Any) -> bool:
    """Say whether a trial is done; one that failed without a reason was broken off."""
    return trial.state in (state.COMPLETE, state.PRUNED) or _FAILURE in trial.user_attrs


def _keeps_constraints(trial: Any) -> bool:
    return all(excess <= 0 for excess in trial.constraints.values())
